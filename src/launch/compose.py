"""Hydra composes the configs of a command's jobs, and runs them. Its private parts are used in this file alone."""

import copy
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..common.cli_errors import one_line
from ..common.errors import UserError, did_you_mean
from ..common.naming import PACKAGE
from ..config import COMMAND_KEYS, NON_IDENTITY_KEYS, Command, Config, Study, from_omegaconf, omegaconf_errors, study_of
from ..config.convert import plain_name
from . import file_errors
from .options import PLUGINS
from .sweeper import grid_settings, jobs_of
from .user_files import ROOT, choices, quoted, search_path

#: tells Hydra where the group ``sweeps`` is
SEARCHPATH = search_path()
SUBDIR = "hydra.sweep.subdir"
#: Hydra's, which choose other files than those of a run, or go with --cfg alone
UNUSED_FLAGS = ("config_name", "config_path", "config_dir", "package", "resolve", "experimental_rerun")


def job_folder(overrides: Sequence[str], named: Collection[str] = ()) -> str:
    """The name of a job's folder in its sweep: its overrides, in the order of their texts.

    Args:
        overrides: of the job, as Hydra has them.
        named: keys of ``NON_IDENTITY_KEYS`` that are in the name all the same, as the jobs differ in them.

    >>> job_folder(["seed=0", "model.pool=max", "data.root=/scratch"])
    'model.pool=max,seed=0'
    """
    excluded = {"sweeps", *COMMAND_KEYS, *NON_IDENTITY_KEYS}.difference(named)
    keys = {word: key_of(word) for word in overrides}
    words = sorted(word for word, key in keys.items() if key not in excluded and not key.startswith("study."))
    return plain_name(",".join(words))


def key_of(override: str) -> str:
    """The key, or the group, that an override is of.

    >>> key_of("+model.pool=max"), key_of("data=shapes")
    ('model.pool', 'data')
    """
    return re.split("[=@]", override.lstrip("+~"), maxsplit=1)[0]


ConfigStore.instance().store(name="schema", node=Command)
OmegaConf.register_new_resolver(
    "job_folder", lambda overrides, *named: job_folder(list(overrides), named) or "default", replace=True
)


@dataclass(frozen=True)
class Composed:
    """The configs of a command line, as Hydra will compose them."""

    master: DictConfig  # of the sweep, or of the single run
    jobs: list[DictConfig]
    multirun: bool  # whether it is a sweep
    overrides: list[str]  # of the command line
    study: Study = field(default_factory=Study)  # the claims that the sweep puts to the test; empty where it has none
    named: list[str] = field(default_factory=list)  # keys of ``NON_IDENTITY_KEYS`` that the jobs of a sweep differ in
    arguments: list[str] = field(default_factory=list)  # overrides that Hydra needs for these names of folders


def compose_jobs(arguments: list[str]) -> Composed | None:
    """Compose every job of a command line exactly as Hydra will; None where it only asks for help; ``UserError`` if a
    key, type or choice is wrong.
    """
    args = _arguments(arguments)
    if args.multirun and (args.cfg or args.info):
        raise UserError("--cfg and --info show one job: leave out -m")
    if args.help or args.hydra_help or args.info or args.cfg or args.shell_completion:
        return None
    if unused := [flag for flag in UNUSED_FLAGS if getattr(args, flag)]:
        raise UserError(f"--{unused[0].replace('_', '-')}: has no effect on a run; leave it out, see --help")
    with _composing() as loader:
        overrides = [*args.overrides, SEARCHPATH]
        master = loader.load_configuration("config", overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
        if not (args.multirun or master.hydra.mode == RunMode.MULTIRUN):
            for override in _parsed(loader, args.overrides):
                if override.is_sweep_override():
                    raise UserError(f"{override.input_line}: a list of values is a sweep; add -m")
            if master.seeds == "auto":
                raise UserError("seeds=auto: is for a sweep; add -m")
            file_errors.refuse_without_name([master])
            return Composed(master, [master], False, args.overrides)
        _refuse_without_target(master)
        study = study_of(master)
        if study.variants and not master.hydra.sweeper._target_.startswith(PLUGINS):
            raise UserError("a study with variants is run by its own sweeper: leave out hydra/sweeper=")
        if master.seeds == "auto":
            _refuse_auto(study, seeds_given=given(args.overrides, "seed"))
        grid = grid_settings(master)
        parsed = _parsed(loader, [*grid, *args.overrides])
        swept = [override.key_or_group for override in parsed if override.is_sweep_override()]
        named = [key for key in swept if key in NON_IDENTITY_KEYS]
        told = []
        if named and not given(args.overrides, SUBDIR):
            told = [f"{SUBDIR}='${{job_folder:${{hydra.overrides.task}},{','.join(named)}}}'"]
            overrides += told
            master = loader.load_configuration("config", overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
        # the jobs as the sweeper makes them: the grid of the file, then the command line
        batch = jobs_of(_parsed(loader, [*grid, *master.hydra.overrides.task]), study.variants)
        jobs = job_configs(loader, master, batch)
        file_errors.refuse_without_name(jobs)
        for number, job in enumerate(jobs):
            with open_dict(job):
                job.hydra.job.num, job.hydra.job.id = number, str(number)
        return Composed(master, jobs, True, args.overrides, study, named, told)


def _refuse_auto(study: Study, seeds_given: bool) -> None:
    """``UserError`` where ``seeds=auto`` has nothing to decide, or seeds are set elsewhere."""
    own = [setting for settings in study.variants.values() for setting in settings if setting.startswith("seed=")]
    if not (study.claims and study.judge):
        raise UserError("seeds=auto: adds seeds until claims are decided, and this sweep states none")
    if seeds_given:
        raise UserError("seeds=auto and seed=…: leave out seed=, as study.looks says how many seeds there are")
    if own:
        raise UserError(f"seeds=auto: variants of this study set their seeds themselves, {own[0]}; add seeds there")


# --- configs of a sweep's jobs --------------------------------------------------------------------------------------


def job_configs(loader: Any, master: DictConfig, batch: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The configs of jobs, equal to those of Hydra's ``load_sweep_config`` but for ``hydra.job.override_dirname``, and
    without the study, which is the sweep's.

    Composing takes most of its time for merging files, which the jobs of a sweep share: they are composed once for all
    jobs that choose the same files, and the other overrides are set in a copy. ``batch`` are the overrides of each job.
    A ``HydraException``, as Hydra raises it, for a job with a wrong one.
    """
    if "override_dirname" in str(OmegaConf.to_container(master.hydra.sweep, resolve=False)):
        return [loader.load_sweep_config(master, list(words)) for words in batch]
    parser = OverridesParser.create(config_loader=loader)
    parsed = {word: parser.parse_override(word) for word in dict.fromkeys(word for words in batch for word in words)}
    values = {word: override for word, override in parsed.items() if _sets_a_value(override, master)}
    composed: dict[tuple[str, ...], DictConfig] = {}
    jobs = []
    for words in batch:
        chosen = tuple(word for word in words if word not in values)
        if chosen not in composed:
            composed[chosen] = loader.load_sweep_config(master, list(chosen))
            composed[chosen].study = Study()
        job = _copy(composed[chosen], words, [values[word] for word in words if word in values])
        jobs.append(loader.load_sweep_config(master, list(words)) if job is None else job)
    return jobs


def _sets_a_value(override: Override, master: DictConfig) -> bool:
    """Whether an override sets a value, and chooses no file: a file is chosen by a key without a dot."""
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or override.is_delete() or override.package is not None:
        return False
    if "." in key:
        return not key.startswith("hydra.")
    return key in master and not OmegaConf.is_config(master[key])


def _copy(composed: DictConfig, words: Sequence[str], overrides: Sequence[Override]) -> DictConfig | None:
    """A copy of a job's config with other values; None where one is refused, which Hydra says best."""
    job = copy.deepcopy(composed)
    try:
        for override in overrides:
            OmegaConf.update(job, override.key_or_group, override.value(), merge=True)
    except (HydraException, OmegaConfBaseException):
        return None
    with read_write(job), open_dict(job):
        job.hydra.overrides.task = list(words)
    return job


def _arguments(words: list[str]) -> Any:
    """A command line, as Hydra reads it; a ``UserError`` where Hydra would answer by its usage."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        flags = [word for word in words if word.startswith("-")]
        first = message.startswith("unrecognized") and flags and words[0] not in flags
        raise UserError(f"{message}; " + (f"write {flags[0]} before all key=value" if first else "see --help"))

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args(words)


def compose_one(overrides: list[str]) -> Config:
    """The config of a single run; ``UserError`` if a key, type, choice or value is wrong."""
    with _composing() as loader:
        config = loader.load_configuration("config", [*overrides, SEARCHPATH], RunMode.RUN)
        file_errors.refuse_without_name([config])
        return from_omegaconf(config)


def given(overrides: Sequence[str], key: str) -> bool:
    """Whether a command line sets a key."""
    return any(key_of(word) == key for word in overrides)


def _parsed(loader: Any, overrides: list[str]) -> list[Override]:
    return OverridesParser.create(config_loader=loader).parse_overrides(overrides)


@contextmanager
def _composing() -> Iterator[Any]:
    """Hydra's loader of configs; its errors become a ``UserError``, also those that Hydra does not foresee."""
    _refuse_two_names()
    try:
        with hydra_errors(), initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    except UserError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, AssertionError, RecursionError) as error:
        raise UserError(f"Hydra cannot compose this command line: {' '.join(str(error).split())[:300]}") from error


def _refuse_without_target(master: DictConfig) -> None:
    """``UserError`` where the launcher or the sweeper is no group of options, as by ``hydra.launcher=local``."""
    for part in ("launcher", "sweeper"):
        if not OmegaConf.is_dict(master.hydra[part]) or "_target_" not in master.hydra[part]:
            raise UserError(f"hydra.{part}={master.hydra[part]}: is chosen by hydra/{part}=NAME")


def _refuse_two_names() -> None:
    """``UserError`` where the checkout and the installed package are both in this process: each would replace the
    other's entries in Hydra's and OmegaConf's registries.
    """
    for other in {"src", "whatwhere"} - {PACKAGE}:
        ours = "IS_WHATWHERE" in vars(sys.modules.get(other, object))  # another application can be called src
        if ours and f"{other}.launch.compose" in sys.modules:
            raise UserError(f"commands of {PACKAGE} and of {other} in one process: import one of the two names alone")


@contextmanager
def hydra_errors() -> Iterator[None]:
    """Hydra's errors as a ``UserError``."""
    try:
        with omegaconf_errors():
            yield
    except HydraException as error:
        raise UserError(_one_line(error)) from error
    except (YAMLError, UnicodeDecodeError, OSError) as error:  # Hydra passes them on as they are
        if (line := file_errors.unreadable(error)) is None:
            raise
        raise UserError(line) from error


def _one_line(error: HydraException) -> str:
    """Hydra's many lines as one that names the key, the value and the valid ones."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        parts = error.missing_cfg_file.split("/")
        depth = 2 if parts[0] == "hydra" else 1  # of the group, as hydra/launcher; a name may be a path
        group, name = "/".join(parts[:depth]), "/".join(parts[depth:])
        names = sorted(choices(group))
        return f"{group}={name}: {did_you_mean(Path(name).stem, names)}choose one of {', '.join(names)}"
    text = str(error)
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        if not equals:
            return f"{error.override}: options are written key=value; see --help"
        right = "" if text.startswith("Lexer") else text.splitlines()[0]
        if value[:1] not in ("'", '"', "[", "{"):
            right += f'{"; " if right else ""}text with such characters is quoted: "{key}={quoted(value)}"'
        return f"{error.override}: {right}"
    return file_errors.in_file(error) or one_line(error)


def run_hydra(arguments: Sequence[str] = ()) -> None:
    """Let Hydra run the jobs of the command line and of some further arguments, unless it refuses one, by
    ``UserError``.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes errors on, instead of ending the process itself
    sys.argv += arguments
    with hydra_errors():
        _job()


@hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
def _job(cfg: DictConfig) -> None:
    """One job, in whatever process a launcher starts it; thin, as launchers pickle it by value."""
    from ..training.run import run

    run(from_omegaconf(cfg), Path(HydraConfig.get().runtime.output_dir))
