"""A command's jobs: composed and checked before the first starts, put where the same command finds them again."""

import json
import re
import shlex
from collections.abc import Collection
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
from src.config import CIRCUMSTANCES, ROOT, Config, fitting_name, from_hydra, one_message, plain_name
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

#: where runs go, and where they are found again whatever they are called
OUTPUTS = Path("outputs")
SINGLE = "single"
#: a key of Hydra's: what does not name a job's folder
EXCLUDED = "hydra.job.config.override_dirname.exclude_keys"
#: bytes that file systems give the name of a folder
LONGEST_NAME = 255
#: characters of a name that a user may give, which W&B takes as it is
LONGEST = 100
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
        store: where runs that are finished already are looked for; null: nowhere.
    """

    folder: Path
    jobs: dict[Path, Config]
    multirun: bool
    arguments: list[str]
    store: Path | None = None


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
        named = _named(loader, master, args.overrides) if multirun else []
        told = [f"{EXCLUDED}=[{','.join({'sweeps', *CIRCUMSTANCES}.difference(named))}]"] if named else []
        if told:
            overrides += told
            master = loader.load_configuration("config", overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
        if multirun:
            composed = _jobs(loader, master, list(master.hydra.overrides.task))
        else:
            composed = [master]
            for override in parsed:
                if override.is_sweep_override():
                    raise Refusal(f"{override.input_line}: a list of values is a sweep; add -m")
    configs = [from_hydra(one) for one in composed]
    name = _name_of(configs) or sweep_name(args.overrides, named)
    if multirun:
        given = _given(args.overrides, "hydra.sweep.dir", master)
        if given and configs[0].name:
            raise Refusal(
                f"name={configs[0].name} and hydra.sweep.dir={given}: each names the folder; give one of them"
            )
        folder = given or OUTPUTS / name
        names = [plain_name(one.hydra.job.override_dirname) or "default" for one in composed]
        jobs = _placed(folder, names, configs)
        extra = [SEARCHPATH, f"hydra.sweep.dir={quoted(folder)}", *told]
        if names == ["default"]:
            extra.append("hydra.sweep.subdir=default")
        store: Path | None = OUTPUTS if OUTPUTS.resolve() in folder.resolve().parents else folder
    else:
        given = _given(args.overrides, "hydra.run.dir", master)
        run = given or OUTPUTS / SINGLE / name
        folder, jobs, extra = run.parent, {run: configs[0]}, []
        store = None if given else OUTPUTS
    if multirun:
        launcher.check(master, composed)
    _check(jobs)
    return Plan(folder, jobs, multirun, extra, store)


def sweep_name(overrides: list[str], named: Collection[str] = ()) -> str:
    """A folder's name from what was asked: the same command finds the same folder again.

    Args:
        overrides: of the command line.
        named: circumstances that are in it all the same, as the jobs differ in them.

    >>> sweep_name(["model.pool=max,avg", "data.root=/scratch", "sweeps=pooling"])
    'model.pool=max,avg,pooling'
    """
    words = [one.removeprefix("sweeps=") for one in overrides if _names_a_folder(one, named)]
    return fitting_name(plain_name(",".join(words)).replace(" ", "") or "default")


def _names_a_folder(override: str, named: Collection[str]) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return not key.startswith("hydra") and (key not in CIRCUMSTANCES or key in named)


def _name_of(configs: list[Config]) -> str:
    """The name that the user gave; empty where there is none.

    Raises:
        Refusal: it is not one name for all jobs, or no plain name of a folder.
    """
    names = {one.name for one in configs}
    if len(names) > 1:
        raise Refusal(f"name={','.join(sorted(names))}: one name for the whole sweep, as it is that of its folder")
    (name,) = names
    if name and (not re.fullmatch(r"[\w.,=+-]+", name) or name[0] in ".-" or name == SINGLE or len(name) > LONGEST):
        raise Refusal(
            f"name={name}: must be the name of a folder in {OUTPUTS}/: letters, digits and _ . , = + -, the first no "
            f". or -, at most {LONGEST}, and not {SINGLE}"
        )
    return name


def _placed(folder: Path, names: list[str], configs: list[Config]) -> dict[Path, Config]:
    """The jobs by their folders.

    Raises:
        Refusal: a name is too long, or two jobs that differ have the same.
    """
    jobs: dict[Path, Config] = {}
    for name, cfg in zip(names, configs, strict=True):
        if len(name.encode()) > LONGEST_NAME:
            raise Refusal(
                f"{name[:60]}…: a job's folder would have a name of over {LONGEST_NAME} bytes; put what all jobs "
                "share into a file in sweeps/"
            )
        if jobs.setdefault(folder / name, cfg) != cfg:
            raise Refusal(f"{name}: two jobs that differ would have this one folder; sweep over keys that name it")
    return jobs


def start(made: Plan, command: list[str]) -> None:
    """Leave the list of jobs in the sweep's folder, so that the comparison knows which are still missing; those that an
    earlier command began there stay on it.
    """
    files.remove_parts(made.folder, deep=False)  # the runs' own are theirs
    kept = made.folder / files.SWEEP
    before: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"jobs": [], "command": ""}
    jobs, line = [run.name for run in made.jobs], "python -m src.train " + shlex.join(command)
    others = [one for one in before["jobs"] if one not in jobs and (made.folder / one / files.CONFIG).exists()]
    earlier = [one for one in before["command"].splitlines() if one != line] if others else []
    tree = {
        "command": "\n".join([*earlier, line]),
        "question": next(iter(made.jobs.values())).question,
        "jobs": [*others, *jobs],
    }
    files.write_json(kept, tree)


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


def _named(loader: Any, master: Any, overrides: list[str]) -> list[str]:
    """The circumstances that a sweep's jobs differ in: these name their folders, or they would share one."""
    if any(one.lstrip("+").startswith(f"{EXCLUDED}=") for one in overrides):
        return []
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*_params(master), *overrides])
    return [one.key_or_group for one in parsed if one.is_sweep_override() and one.key_or_group in CIRCUMSTANCES]


def _params(master: Any) -> list[str]:
    return [f"{key}={value}" for key, value in (master.hydra.sweeper.get("params") or {}).items()]


def _jobs(loader: Any, master: Any, overrides: list[str]) -> list[Any]:
    """The jobs' configs, as Hydra's own sweeper makes them: ``hydra.sweeper.params``, then the command line."""
    parser = OverridesParser.create(config_loader=loader)
    (batch,) = BasicSweeper.split_arguments(parser.parse_overrides([*_params(master), *overrides]), None)
    return [loader.load_sweep_config(master, list(one)) for one in batch]


def _given(overrides: list[str], key: str, master: Any) -> Path | None:
    """A folder the user chose, as Hydra resolves it."""
    if not any(one.lstrip("+").startswith(f"{key}=") for one in overrides):
        return None
    value: Any = master
    for part in key.split("."):
        value = value[part]
    return Path(value)
