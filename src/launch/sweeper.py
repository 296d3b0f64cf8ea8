"""The sweeper: a grid of settings, times the variants of a study, with the settings of its preset."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from ..common.errors import UserError
from .options import PLUGINS


@dataclass
class StudySweeperOptions:
    """The options of ``hydra/sweeper=study``."""

    _target_: str = f"{PLUGINS}.StudySweeper"
    params: dict[str, Any] | None = None  # the grid: key → value or list of values; the command line replaces them


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudySweeperOptions)


#: jobs of one sweep: each is checked before the first starts, which takes minutes for so many
MOST_JOBS = 10_000


class StudySweeper(Sweeper):
    """Runs every variant of ``study.variants`` with every point of the grid (``hydra.sweeper.params`` and the command
    line); ``preset`` chooses settings of ``study.presets``, which take the place of the grid's.
    """

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = params

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Called by Hydra before ``sweep``."""
        self.config: Any = config
        self.loader = hydra_context.config_loader
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch all jobs; called by Hydra with the command line's overrides. An error of a job is raised here."""
        parser = OverridesParser.create(config_loader=self.loader)
        overrides = parser.parse_overrides([*grid_settings(self.config), *arguments])
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returned = self.launcher.launch(jobs_of(overrides, self.config.study.variants), initial_job_idx=0)
        return [[job.return_value for job in returned]]


def grid_settings(master: Any) -> list[str]:
    """The settings and axes that a sweep's file gives, ``key=value``: those of the preset replace others."""
    settings = dict(master.hydra.sweeper.get("params") or {})
    preset = dict(master.study.presets.get(master.preset, {}))
    if master.seeds == "auto":
        preset.pop("seed", None)  # each look has its own
    settings |= preset
    return [f"{key}={'null' if value is None else value}" for key, value in settings.items()]


def jobs_of(overrides: Iterable[Override], variants: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The overrides of every job: each variant's, with those of each point of the grid; of a key that is given twice
    the last counts. A setting of a variant that has several values, ``seed=range(5)``, is an axis of its own.

    Raises:
        UserError: a variant and the grid set the same key, an axis has no end, or there are too many jobs.
    """
    axes = {override.get_key_element(): _values(override) for override in overrides}
    if math.prod(len(values) for values in axes.values()) > MOST_JOBS:
        sizes = " × ".join(
            f"{key} ({f'over {MOST_JOBS:,}' if len(values) > MOST_JOBS else len(values)})"
            for key, values in axes.items()
            if len(values) > 1
        )
        raise UserError(
            f"a sweep of more than {MOST_JOBS:,} jobs: {sizes}; sweep over fewer values, or in several sweeps"
        )
    grid = [[f"{key}={value}" for key, value in zip(axes, point, strict=True)] for point in product(*axes.values())]
    for name, settings in variants.items():
        for setting in settings:
            if (key := setting.partition("=")[0]) in axes:
                raise UserError(f"{key}: variant {name} of the study sets it, {setting}; sweep over other keys")
    if not variants:
        return grid
    return [[*settings, *point] for variant in variants.values() for settings in _points(variant) for point in grid]


def _points(variant: Iterable[str]) -> list[list[str]]:
    """The settings of a variant, for each value of those that have several."""
    overrides = OverridesParser.create().parse_overrides(list(variant))
    axes = [
        [f"{override.get_key_element()}={value}" for value in _values(override)]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in overrides
    ]
    return [list(point) for point in product(*axes)]


def _values(override: Override) -> list[str]:
    """The values of an axis, or the one value of a setting, as a command has them."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: list the values, as in {override.get_key_element()}=1,2,4")
    values = list(islice(override.sweep_string_iterator(), MOST_JOBS + 1))
    if not values:
        raise UserError(f"{override.input_line}: has no values; list them, as in {override.get_key_element()}=1,2,4")
    return values
