"""Configs of a sweep's jobs: Hydra composes one of each choice of files; of the others only the values are set."""

import copy
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from ..config import Study


def job_configs(loader: Any, master: DictConfig, batch: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The configs of jobs, equal to those of Hydra's ``load_sweep_config`` but for ``hydra.job.override_dirname``, and
    without the study, which is the sweep's.

    Composing takes most of its time for merging files, which the jobs of a sweep share: they are composed once for all
    jobs that choose the same files, and the other overrides are set in a copy.

    Args:
        loader: Hydra's loader of configs.
        master: the config of the sweep, as Hydra composed it.
        batch: the overrides of each job.

    Raises:
        HydraException: as Hydra raises it for a job with such an override.
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
