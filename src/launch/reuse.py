"""Finished runs are reused instead of being trained again: found by their settings, whatever their folders are called.

So a sweep can grow by seeds, by axes and by epochs.
"""

import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from ..common.errors import UserError
from ..config import NON_IDENTITY_KEYS, Config, flatten, to_dict
from ..models.optimisers import EXTENSIBLE
from ..reporting.terminal import console
from ..results import files, identity
from ..results.locks import folder_lock, lock_holder
from ..training.run import log_finished

#: files of a finished run; ``run.json`` is copied last, as it marks the run as finished
RUN_FILES = (
    files.IDENTITY, files.HISTORY, files.SHAPES, files.MEASURES, files.GRIDS, files.PER_IMAGE, files.NOTES,
    files.INSIDE,
)  # fmt: skip
EPOCHS = "train.epochs"


@dataclass(frozen=True)
class StoredRun:
    """A finished run: its folder, its config, the checksums of its image files, and what its ``run.json`` holds."""

    folder: Path
    cfg: Config
    contents: dict[str, str]
    facts: dict[str, Any]


def reuse(jobs: Mapping[Path, Config], store: Path) -> None:
    """Give each unfinished job an equal run that is finished already, or a shorter one whose training it continues.

    A run is reused only if its settings, the image files it read and the ``FORMAT`` of its numbers are equal. It is
    copied (as hard links where the file system has them; files are replaced, never changed), so that either folder can
    be removed. Runs are searched for below ``store``.
    """
    unfinished = {
        folder: cfg for folder, cfg in jobs.items() if not (identity.is_finished(folder, cfg) or lock_holder(folder))
    }
    runs = list(_stored_runs(store, unfinished.values())) if unfinished else []
    for folder, cfg in unfinished.items():
        same_images = [run for run in runs if run.contents == identity.image_checksums(cfg)]
        differences = [(run, identity.differing_keys(flatten(run.cfg), flatten(cfg))) for run in same_images]
        equal = next((run for run, keys in differences if not keys), None)
        by_epochs = [run for run, keys in differences if keys == [EPOCHS] and cfg.train.steps is None]
        shorter = [run for run in by_epochs if run.cfg.train.epochs < cfg.train.epochs]
        if equal:
            _copy_run(equal, folder, cfg)
        elif shorter and not (folder / files.CHECKPOINTS).exists():
            _continue_run(max(shorter, key=lambda run: run.cfg.train.epochs), folder, cfg)


def _stored_runs(store: Path, jobs: Iterable[Config]) -> Iterator[StoredRun]:
    """Finished runs below a folder that a job may be equal to or continue, without those of another format or with a
    config that is no longer valid.
    """
    wanted = [_identity_settings(to_dict(cfg)) for cfg in jobs]
    for path in sorted(store.glob(f"**/{files.RUN}")):
        if path.with_name(files.IDENTITY).exists():
            try:
                facts, saved = files.read_json(path, {}), files.read_json(path.with_name(files.IDENTITY), {})
                if facts and saved.get("format") == identity.FORMAT and _is_wanted(path.parent, wanted):
                    yield StoredRun(path.parent, identity.read_config(path.parent), saved.get("contents", {}), facts)
            except UserError:  # a key has been renamed since, or a file is damaged
                continue


def _is_wanted(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the settings that a run's file names are a job's; checking the file as a config takes ten times as
    long, and a store may hold hundreds of runs.
    """
    named = _identity_settings(identity.read_tree(folder))
    return any(all(key in job and job[key] == value for key, value in named.items()) for job in jobs)


def _identity_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A plain tree, flat, without the keys that do not tell a run from one it may be equal to or continue."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _identity_settings(value, f"{name}.")
        elif name not in (*NON_IDENTITY_KEYS, EPOCHS):
            flat[name] = value
    return flat


def _copy_run(stored: StoredRun, folder: Path, cfg: Config) -> None:
    """Copy a finished run into the folder of a job."""
    with folder_lock(folder):
        _copy(stored.folder, folder, RUN_FILES)
        # hardware settings are those of the stored run; W&B, question and name are the new sweep's
        own_cfg = replace(stored.cfg, wandb=cfg.wandb, question=cfg.question, name=cfg.name)
        files.write(folder / files.CONFIG, yaml.safe_dump(to_dict(own_cfg), sort_keys=False))
        (folder / files.FAILED).unlink(missing_ok=True)
        log_finished(own_cfg, folder, stored.facts)
        _copy(stored.folder, folder, (files.RUN,), trees=())
    other = " by other code" * identity.is_by_other_code(folder)
    console.print(f"  reused, finished{other} in {stored.folder}: {folder.name}", soft_wrap=True, markup=False)


def _continue_run(stored: StoredRun, folder: Path, cfg: Config) -> None:
    """Continue the training of a shorter run, if the schedule does not depend on the number of epochs."""
    before, schedule = stored.cfg.train.epochs, str(cfg.train.schedule)
    if schedule not in EXTENSIBLE:
        console.print(
            f"  {folder.name} starts from the beginning: train.schedule={schedule} depends on the number of epochs, so "
            f"it cannot continue the {before} epochs of {stored.folder}; train.schedule={' or '.join(EXTENSIBLE)} can",
            soft_wrap=True,
            markup=False,
        )
        return
    with folder_lock(folder):
        identity.write_identity(folder, cfg)
        _copy(stored.folder, folder, (files.HISTORY,))
        for path in (folder / files.CHECKPOINTS).iterdir():
            tree = torch.load(path, map_location="cpu", weights_only=True)
            packed = io.BytesIO()
            torch.save(tree | {"config": to_dict(cfg)}, packed)
            files.write(path, packed.getbuffer())
    console.print(f"  {folder.name} continues the {before} epochs in {stored.folder}", soft_wrap=True, markup=False)


def _copy(
    source: Path, target: Path, names: tuple[str, ...], trees: tuple[str, ...] = (files.MAPS, files.CHECKPOINTS)
) -> None:
    """Copy files and folders of files over those of the target."""
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
