"""Finished runs that are used instead of being done again: found by what they are, wherever they lie and whatever they
are called, so that a sweep can grow by seeds, by axes and by epochs.
"""

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

from ..config import Config, flatten, to_dict
from ..errors import UserError
from ..models.optimisers import EXTENSIBLE
from ..reporting.terminal import console
from ..results import files
from ..results.locks import folder_lock, lock_holder
from ..results.runs import FORMAT, contents, differing, finished, read_config, record
from ..training.run import log_finished

#: what a finished run is; ``run.json`` comes last, as it says that all else is there
PARTS = (
    files.IDENTITY, files.HISTORY, files.SHAPES, files.MEASURES, files.GRIDS, files.PER_IMAGE, files.NOTES,
    files.INSIDE,
)  # fmt: skip
EPOCHS = "train.epochs"


@dataclass(frozen=True)
class Known:
    """A finished run: where it lies, its config, and the checksums of its pictures."""

    folder: Path
    cfg: Config
    contents: dict[str, str]


def reuse(jobs: Mapping[Path, Config], store: Path) -> None:
    """Give each job that is not finished what is finished of it: the whole run, or the epochs before its own.

    A run is used only if all that belongs to it is equal: its settings, the pictures it read, and the ``FORMAT`` of its
    numbers. It is copied (as hard links, where these can be had: files are never changed, but replaced), so that either
    folder can be removed.

    Args:
        jobs: folder → config.
        store: below it runs are looked for.
    """
    left = {folder: cfg for folder, cfg in jobs.items() if not finished(folder, cfg) and not lock_holder(folder)}
    known = list(_known(store)) if left else []
    for folder, cfg in left.items():
        same = [one for one in known if one.contents == contents(cfg)]
        apart = {one.folder: differing(flatten(one.cfg), flatten(cfg)) for one in same}
        whole = next((one for one in same if not apart[one.folder]), None)
        shorter = [one for one in same if apart[one.folder] == [EPOCHS] and one.cfg.train.epochs < cfg.train.epochs]
        if whole:
            _use(whole, folder, cfg)
        elif shorter and not (folder / files.CHECKPOINTS).exists():
            _go_on(max(shorter, key=lambda one: one.cfg.train.epochs), folder, cfg)


def _known(store: Path) -> Iterator[Known]:
    """The finished runs below a folder that say what they are; those of another format, or not readable, aside."""
    for path in sorted(store.glob(f"**/{files.RUN}")):
        kept = path.with_name(files.IDENTITY)
        if kept.exists():
            told = json.loads(kept.read_text())
            if told["format"] == FORMAT:
                try:
                    yield Known(path.parent, read_config(path.parent), told["contents"])
                except UserError:  # a key that has been renamed since: it is no run of now
                    continue


def _use(known: Known, folder: Path, cfg: Config) -> None:
    """Put a finished run into another folder."""
    with folder_lock(folder):
        _copy(known.folder, folder, PARTS)
        # where it happened is its own; what it is called, and whether W&B has it, is the new sweep's
        mine = replace(known.cfg, wandb=cfg.wandb, question=cfg.question, name=cfg.name)
        files.write(folder / files.CONFIG, yaml.safe_dump(to_dict(mine), sort_keys=False))
        (folder / files.FAILED).unlink(missing_ok=True)
        log_finished(mine, folder, json.loads((known.folder / files.RUN).read_text()))
        _copy(known.folder, folder, (files.RUN,), trees=())
    console.print(f"  found finished in {known.folder}, used: {folder.name}", soft_wrap=True, markup=False)


def _go_on(known: Known, folder: Path, cfg: Config) -> None:
    """Let a run begin where a shorter one ended, if its schedule does not look at how long it is."""
    before, schedule = known.cfg.train.epochs, str(cfg.train.schedule)
    if schedule not in EXTENSIBLE:
        console.print(
            f"  {folder.name} starts from the beginning: train.schedule={schedule} is laid out over all epochs, so "
            f"that it cannot go on from the {before} of {known.folder}; train.schedule={' or '.join(EXTENSIBLE)} could",
            soft_wrap=True,
            markup=False,
        )
        return
    with folder_lock(folder):
        record(folder, cfg)
        _copy(known.folder, folder, (files.HISTORY,))
        for path in (folder / files.CHECKPOINTS).iterdir():
            tree = torch.load(path, map_location="cpu", weights_only=True)
            packed = io.BytesIO()
            torch.save(tree | {"config": to_dict(cfg)}, packed)
            files.write(path, packed.getbuffer())
    console.print(f"  {folder.name} goes on from the {before} epochs in {known.folder}", soft_wrap=True, markup=False)


def _copy(
    source: Path, target: Path, names: tuple[str, ...], trees: tuple[str, ...] = (files.MAPS, files.CHECKPOINTS)
) -> None:
    """Files, and folders of files, in place of those that are there."""
    for tree in trees:
        shutil.rmtree(target / tree, ignore_errors=True)
        names += tuple(f"{tree}/{path.name}" for path in (source / tree).glob("[!.]*"))
    for name in names:
        (target / name).unlink(missing_ok=True)
        if (source / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / name, target / name)
            except OSError:  # another disk, or one without links
                shutil.copy2(source / name, target / name)
