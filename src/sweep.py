"""A command's jobs: composed and checked before the first starts, put where the same command finds them again."""

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from src import files, launcher
from src.config import ROOT, Config, from_hydra, one_message
from src.data.batches import learned_sizes
from src.data.names import image_shape
from src.data.splits import split
from src.errors import Refusal
from src.jobs import quoted
from src.ledger import Ledger, ledger
from src.models import network
from src.models.tasks import Task
from src.runs import finished
from src.views.wandb import mode_of

#: overrides that do not name a folder: they say where a run happens, not what it computes
UNNAMED = ("hydra", "data.root", "wandb.", "trainer.")
SINGLE = "single"
#: bytes that file systems give the name of a folder
LONGEST_NAME = 255
#: tells Hydra where the group ``sweeps`` is
SEARCHPATH = f"hydra.searchpath=['file://{ROOT}']"


@dataclass(frozen=True)
class Plan:
    """What a command line asks for.

    Attributes:
        folder: of the sweep; of the run's parent, for a single run.
        jobs: run's folder → its config.
        multirun: whether it is a sweep.
        arguments: what Hydra has to be told beside the command line of a sweep.
    """

    folder: Path
    jobs: dict[Path, Config]
    multirun: bool
    arguments: list[str]


@one_message()
def plan(arguments: list[str]) -> Plan | None:
    """Compose every job of a command line exactly as Hydra will, and check each; None where it only asks for help.

    Raises:
        Refusal: a key, type, choice or value is wrong, a map would vanish, a data set is missing, or a folder holds
            another run. Nothing has been written then.
    """
    args = get_args_parser().parse_args(arguments)
    if args.multirun and (args.cfg or args.info):
        raise Refusal("--cfg and --info show one job: leave out -m")
    if args.help or args.hydra_help or args.info or args.cfg or args.shell_completion:
        return None
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        overrides = [*args.overrides, SEARCHPATH]
        master = loader.load_configuration("config", overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
        multirun = bool(args.multirun or master.hydra.mode == RunMode.MULTIRUN)
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(args.overrides)
        if multirun:
            composed = _jobs(loader, master, list(master.hydra.overrides.task))
        else:
            composed = [master]
            for override in parsed:
                if override.is_sweep_override():
                    raise Refusal(f"{override.input_line}: a list of values is a sweep; add -m")
    configs = [from_hydra(one) for one in composed]
    name = sweep_name(args.overrides)
    if multirun:
        folder = _given(args.overrides, "hydra.sweep.dir", master) or Path("outputs") / name
        names = [one.hydra.job.override_dirname or "default" for one in composed]
        for one in names:
            if len(one.encode()) > LONGEST_NAME:
                raise Refusal(
                    f"{one[:60]}…: a job's folder would have a name of over {LONGEST_NAME} bytes; put what all jobs "
                    "share into a file in sweeps/"
                )
        jobs = {folder / one: cfg for one, cfg in zip(names, configs, strict=True)}
        extra = [SEARCHPATH, f"hydra.sweep.dir={quoted(folder)}"]
        if names == ["default"]:
            extra.append("hydra.sweep.subdir=default")
    else:
        run = _given(args.overrides, "hydra.run.dir", master) or Path("outputs", SINGLE, name)
        folder, jobs, extra = run.parent, {run: configs[0]}, []
    if multirun:
        launcher.check(master, composed)
    _check(jobs)
    return Plan(folder, jobs, multirun, extra)


def sweep_name(overrides: list[str]) -> str:
    """A folder's name from what was asked: the same command finds the same folder again.

    >>> sweep_name(["model.pool=max,avg", "data.root=/scratch", "sweeps=pooling"])
    'model.pool=max,avg,pooling'
    """
    words = [one.removeprefix("sweeps=") for one in overrides if not one.lstrip("+~").startswith(UNNAMED)]
    name = ",".join(words).replace("/", "_").replace(" ", "") or "default"
    if len(name.encode()) > 150:
        name = f"{name[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def start(made: Plan, command: list[str]) -> None:
    """Leave the list of jobs in the sweep's folder, so that the comparison knows which are still missing."""
    files.remove_parts(made.folder, deep=False)  # the runs' own are theirs
    question = next(iter(made.jobs.values())).question
    tree = {
        "command": "python -m src.train " + shlex.join(command),
        "question": question,
        "jobs": [run.name for run in made.jobs],
    }
    files.write_json(made.folder / files.SWEEP, tree)


def config_ledger(cfg: Config) -> Ledger:
    """The ledger of a config, from its arithmetic alone: nothing is loaded and nothing is run.

    Raises:
        ShapeError: a map would vanish, or a window is larger than its map.
    """
    image, classes = image_shape(cfg.data)
    with torch.device("meta"):
        return ledger(network(cfg.model, image, Task(str(cfg.data.task), classes).outputs), image)


def _check(jobs: dict[Path, Config]) -> None:
    """What the schema cannot know: shapes, data, and what the folders hold already."""
    nets: set[str] = set()  # jobs that differ in their seed alone have one ledger, and it takes a third of a second
    for run, cfg in jobs.items():
        net = repr((cfg.model, cfg.data))
        try:
            if net not in nets:
                config_ledger(cfg)
                nets.add(net)
        except Refusal as refusal:
            where = f"{run.name}: " if len(jobs) > 1 else ""
            raise Refusal(f"{where}{refusal}") from None
        if str(cfg.wandb.mode) == "online":  # else there is nothing to ask, and W&B takes a second to import
            mode_of(cfg)
    for run, cfg in jobs.items():
        if not finished(run, cfg):
            _check_batches(cfg, len(split(cfg.data).train))


def _check_batches(cfg: Config, images: int) -> None:
    """Refuse a batch norm of vectors where each batch is one image."""
    if max(learned_sizes(images, cfg.train.batch_size)) > 1:
        return
    for layer in config_ledger(cfg).layers:
        if "BatchNorm" in layer.kind and layer.rows.size * layer.columns.size == 1:
            raise Refusal(
                f"train.batch_size={cfg.train.batch_size}, {images} training images: every batch is one image, which "
                f"has no variance for the batch norm {layer.name}; take two or more, or model.norm=layer"
            )


def _jobs(loader: Any, master: Any, overrides: list[str]) -> list[Any]:
    """The jobs' configs, as Hydra's own sweeper makes them: ``hydra.sweeper.params``, then the command line."""
    parser = OverridesParser.create(config_loader=loader)
    params = [f"{key}={value}" for key, value in (master.hydra.sweeper.get("params") or {}).items()]
    (batch,) = BasicSweeper.split_arguments(parser.parse_overrides([*params, *overrides]), None)
    return [loader.load_sweep_config(master, list(one)) for one in batch]


def _given(overrides: list[str], key: str, master: Any) -> Path | None:
    """A folder the user chose, as Hydra resolves it."""
    if not any(one.lstrip("+").startswith(f"{key}=") for one in overrides):
        return None
    value: Any = master
    for part in key.split("."):
        value = value[part]
    return Path(value)
