"""A command's jobs: composed and checked before the first starts, put where the same command finds them again."""

import math
import os
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..claims.check import check_study
from ..claims.judge import ALPHA
from ..claims.record import state
from ..common.errors import UserError, did_you_mean
from ..common.memory import refuse_too_large
from ..common.naming import command, natural_order
from ..config import NON_IDENTITY_KEYS, QUICK, Config, Study, fitting_name, from_omegaconf, plain_name
from ..config.schema import Trainer
from ..data.batches import learned_sizes
from ..data.example_images import probe_images
from ..data.options import image_shape
from ..data.splits import split
from ..evaluation.adapter import OUTPUT
from ..evaluation.families import FAMILIES, check_family
from ..metrics.quantities import quantities
from ..models import network
from ..models.tasks import Task
from ..reporting.wandb_logger import mode_of
from ..results import files
from ..results.identity import is_finished, read_config
from ..summary import ModelSummary, summarize
from ..training.devices import check_trainer
from ..transforms import check_max_shift
from . import launchers
from .compose import SEARCHPATH, SUBDIR, compose_jobs, given, key_of
from .user_files import choices, quoted

#: the folder of all runs; finished ones are searched for below it
OUTPUTS = Path("outputs")
SINGLE = "single"
#: characters of a user's name for a sweep, as W&B limits it
LONGEST = 100
WANDB_MODES = ("online", "offline", "disabled", "shared", "run", "dryrun")


@dataclass(frozen=True)
class Plan:
    """The jobs of a command line, and where they go."""

    folder: Path  # of the sweep; for a single run, the parent of its folder
    jobs: dict[Path, Config]  # run's folder → its config
    multirun: bool  # whether it is a sweep
    arguments: list[str]  # overrides that Hydra needs beside those of the command line
    store: Path | None = None  # folder in which finished runs are searched for; None: nowhere
    study: Study = field(default_factory=Study)  # the claims that it puts to the test; an empty one where it has none
    preset: str = QUICK  # of the study
    looks: list[int] = field(default_factory=list)  # numbers of seeds, with seeds=auto; empty: those of the grid
    alpha: float = ALPHA  # error probability of the verdict on each claim


def plan(arguments: list[str]) -> Plan | None:
    """Compose every job of a command line exactly as Hydra will, and check each; None where it only asks for help. A
    ``UserError``, before anything is written, if a key, type, choice or value is wrong, a map would vanish, a data set
    is missing, or a folder holds another run.
    """
    composed = compose_jobs(arguments)
    if composed is None:
        return None
    overrides = composed.overrides
    configs = [from_omegaconf(config) for config in composed.jobs]
    name = _name_of(configs) or sweep_name(overrides, composed.named)
    if composed.multirun:
        chosen = Path(composed.master.hydra.sweep.dir) if given(overrides, "hydra.sweep.dir") else None
        if chosen and configs[0].name:
            raise UserError(
                f"name={configs[0].name} and hydra.sweep.dir={chosen}: each names the folder; give one of them"
            )
        folder = chosen or OUTPUTS / name
        jobs = _placed(folder, [str(job.hydra.sweep.subdir) for job in composed.jobs], configs)
        extra = [SEARCHPATH, f"hydra.sweep.dir={quoted(folder)}", *composed.arguments]
        store: Path | None = OUTPUTS if OUTPUTS.resolve() in folder.resolve().parents else folder
        launchers.check(composed.master, composed.jobs)
    else:
        chosen = Path(composed.master.hydra.run.dir) if given(overrides, "hydra.run.dir") else None
        run = chosen or OUTPUTS / SINGLE / name
        folder, jobs, extra = run.parent, {run: configs[0]}, []
        store = None if chosen else OUTPUTS
    on_cluster = composed.multirun and str(composed.master.hydra.launcher._target_).endswith("SlurmLauncher")
    for run in [folder, *jobs] if composed.multirun else jobs:  # a single run's folder is the one that was named
        files.refuse_unwritable("hydra.sweep.dir" if composed.multirun else "hydra.run.dir", run)
    _refuse_other_kind(folder, jobs, composed.multirun)
    _check(jobs, here=not on_cluster)
    if composed.study.judge:
        check_study(composed.study, jobs)
    looks = composed.study.looks if composed.master.seeds == "auto" else []
    return Plan(folder, jobs, composed.multirun, extra, store, composed.study, str(composed.master.preset), looks)


def sweep_name(overrides: list[str], named: Collection[str] = ()) -> str:
    """The name of a sweep's folder, by the command: the same command finds the same folder again. Of
    ``NON_IDENTITY_KEYS``, those in ``named`` are in the name all the same, as the jobs differ in them.

    >>> sweep_name(["model.pool=max,avg", "data.root=/scratch", "sweeps=pooling"])
    'model.pool=max,avg,pooling'
    """
    keys = [(word, key_of(word)) for word in overrides]
    keys = [(word, key) for word, key in keys if not key.startswith(("hydra", "study.", "seeds"))]
    words = [word.removeprefix("sweeps=") for word, key in keys if key not in NON_IDENTITY_KEYS or key in named]
    return fitting_name(plain_name(",".join(words)).replace(" ", "") or "default")


def _name_of(configs: list[Config]) -> str:
    """The name that the user gave, one for all jobs and a plain name of a folder; empty where there is none."""
    names = {config.name for config in configs}
    if len(names) > 1:
        raise UserError(f"name={','.join(sorted(names))}: one name for the whole sweep, as it is that of its folder")
    (name,) = names
    if name and (not re.fullmatch(r"[\w.,=+-]+", name) or name[0] in ".-" or name == SINGLE or len(name) > LONGEST):
        raise UserError(
            f"name={name}: must be the name of a folder in {OUTPUTS}/: letters, digits and _ . , = + -, the first no "
            f". or -, at most {LONGEST}, and not {SINGLE}"
        )
    return name


def _placed(folder: Path, names: list[str], configs: list[Config]) -> dict[Path, Config]:
    """Folder → config of each job; ``UserError`` where a name is too long, or two jobs that differ have the same."""
    jobs: dict[Path, Config] = {}
    for name, cfg in zip(names, configs, strict=True):
        if not name or name == ".." or Path(name).name != name:
            raise UserError(f"{SUBDIR}={name}: must be the name of one folder, which goes into that of the sweep")
        if len(name.encode()) > files.LONGEST_NAME:
            raise UserError(
                f"{name[:60]}…: a job's folder would have a name of over {files.LONGEST_NAME} bytes; put what all jobs "
                "share into a file in sweeps/"
            )
        if jobs.setdefault(folder / name, cfg) != cfg:
            raise UserError(f"{name}: two jobs that differ would have this one folder; sweep over keys that name it")
    return jobs


def _refuse_other_kind(folder: Path, jobs: Collection[Path], multirun: bool) -> None:
    """``UserError`` where a run would go into the folder of a sweep, or a sweep into that of a run: each is compared,
    continued and found again by all that lies below it.
    """
    if multirun and (folder / files.CONFIG).exists():
        raise UserError(f"hydra.sweep.dir={folder}: is the folder of a run; choose another for the sweep")
    for run in jobs:
        if (run / files.SWEEP).exists():
            key = "hydra.sweep.subdir" if multirun else "hydra.run.dir"
            raise UserError(f"{key}={run}: is the folder of a sweep; choose another for the run, as {run / 'mine'}")


def start(made: Plan, arguments: list[str]) -> None:
    """Write the list of jobs to the sweep's folder, for the comparison to know which are missing; jobs of an earlier
    command that have started stay on it. And what its study claims.
    """
    files.remove_parts(made.folder, deep=False)  # not those of running jobs
    kept = made.folder / files.SWEEP
    before: dict[str, Any] = {"jobs": [], "command": ""} | files.read_sweep(made.folder)
    jobs, line = [run.name for run in made.jobs], f"{command('train')} {shlex.join(arguments)}"
    others = [name for name in before["jobs"] if name not in jobs and (made.folder / name / files.CONFIG).exists()]
    earlier = [old for old in before["command"].splitlines() if old != line] if others else []
    tree: dict[str, Any] = {
        "command": "\n".join([*earlier, line]),
        "question": next(iter(made.jobs.values())).question,
        "jobs": [*others, *jobs],
    }
    if made.study.claims and made.study.judge:
        finished = sum((made.folder / name / files.RUN).exists() for name in tree["jobs"])
        with files.reading(kept):
            tree["study"] = state(before.get("study", {}), made.study, made.preset, tree["jobs"], finished, made.alpha)
    files.write_json(kept, tree)


def has_seeds_from(folder: Path, seed: int) -> bool:
    """Whether a run with this seed or a larger one has started in a sweep's folder."""
    runs = (folder / name for name in files.read_sweep(folder).get("jobs", ()))
    return any(read_config(run).seed >= seed for run in runs if (run / files.CONFIG).exists())


def study_names(chosen: str = "", /) -> list[str]:
    """The named sweeps that state claims, in the order of their questions: some, by names with commas; with ``all``
    those without ``study.separate``; else every one. ``UserError`` where a name is none of theirs.
    """
    texts = {name: path.read_text(encoding="utf-8", errors="replace") for name, path in choices("sweeps").items()}
    names = sorted((name for name, text in texts.items() if "\nstudy:" in text), key=natural_order)
    if chosen in ("", "all"):
        return [name for name in names if not chosen or "\n  separate: true\n" not in texts[name]]
    for name in chosen.split(","):
        if name not in names:
            raise UserError(f"studies={name}: choose some of {', '.join(names)}")
    return chosen.split(",")


def summarize_config(cfg: Config) -> ModelSummary:
    """The model summary of a config, by arithmetic: no data is loaded and no net is run; ``ShapeError`` if a map would
    vanish, or a window is larger than its map.
    """
    image, classes = image_shape(cfg.data)
    try:
        with torch.device("meta"):
            return summarize(network(cfg.model, image, Task(str(cfg.data.task), classes).outputs), image)
    except (RuntimeError, OverflowError) as error:  # PyTorch cannot count so far
        raise UserError(f"model: a net that is too large: {str(error).splitlines()[0]}") from error


def _check(jobs: dict[Path, Config], here: bool) -> None:
    """Check what the schema cannot: files of measures, shapes, data, what the folders hold already; and devices and
    memory, where the jobs run ``here``.
    """
    quantities()
    for name in sorted({name for cfg in jobs.values() for name in cfg.measure.what}.intersection(FAMILIES)):
        check_family(name)
    nets: dict[str, ModelSummary] = {}  # jobs that differ in their seed alone have the same summary, which takes .3 s
    trainers: list[Trainer] = []
    for run, cfg in jobs.items():
        net = repr((cfg.model, cfg.data))
        try:
            if net not in nets:
                nets[net] = summarize_config(cfg)
            if here and cfg.trainer not in trainers:
                check_trainer(cfg.trainer)
                trainers.append(cfg.trainer)
            _check_metamer_layers(cfg, nets[net])
            check_max_shift("measure.max_shift", cfg.measure.max_shift, *image_shape(cfg.data)[0][1:])
        except UserError as error:
            where = f"{run.name}: " if len(jobs) > 1 else ""
            raise UserError(f"{where}{error}") from None
        if cfg.wandb.mode != "disabled" and (mode := os.environ.get("WANDB_MODE") or "offline") not in WANDB_MODES:
            raise UserError(
                f"WANDB_MODE={mode} in the environment: choose one of {', '.join(WANDB_MODES)}, or unset it"
            )
        if str(cfg.wandb.mode) == "online":  # only then, as W&B takes a second to import
            mode_of(cfg)
    for run, cfg in jobs.items():
        if not is_finished(run, cfg):
            splits = split(cfg.data)
            _check_batches(cfg, len(splits.train))
            if here:
                _check_memory(cfg, nets[repr((cfg.model, cfg.data))], len(splits.train))
            if cfg.probe.files:
                probe_images(cfg.probe, splits)


def _check_memory(cfg: Config, net: ModelSummary, images: int) -> None:
    """Raise where training takes more than there is: of each weight a gradient and two moments, and the outputs of
    layers that a backward pass needs, in float32.
    """
    batch = min(images, cfg.train.batch_size // (cfg.trainer.devices * cfg.trainer.num_nodes))
    outputs = sum(math.prod(layer.shape) for layer, costs in zip(net.layers, net.costs(), strict=True) if costs)
    needed = 16 * net.parameters + 4 * batch * outputs
    what = f"a net of {net.parameters:,} parameters, train.batch_size={cfg.train.batch_size}, in training"
    gpus = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    refuse_too_large(what, needed, gpus)


def _check_metamer_layers(cfg: Config, summary: ModelSummary) -> None:
    """Raise where metamers are asked for of a layer that the net does not have."""
    stages = [layer.name.split(".")[0] for layer in summary.layers]
    names = [*dict.fromkeys([*stages, *(layer.name for layer in summary.layers)]), OUTPUT]
    for name in cfg.measure.metamer_layers:
        if name not in names:
            raise UserError(
                f"measure.metamer_layers={name}: no such layer; {did_you_mean(name, names)}choose among "
                f"{', '.join(names)}"
            )


def _check_batches(cfg: Config, images: int) -> None:
    """Raise where a batch norm would get one vector: batches of one image."""
    if max(learned_sizes(images, cfg.train.batch_size)) > 1:
        return
    for layer in summarize_config(cfg).layers:
        if "BatchNorm" in layer.kind and layer.rows.size * layer.columns.size == 1:
            raise UserError(
                f"train.batch_size={cfg.train.batch_size}, {images} training images: every batch is one image, which "
                f"has no variance for the batch norm {layer.name}; take two or more, or model.norm=layer"
            )
