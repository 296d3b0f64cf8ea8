"""A variant: runs that differ in nothing but their seed, and its values over seeds."""

import math
import statistics
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..config import format_override
from ..metrics.quantities import range_of
from ..results.measures import per_image_name
from ..results.outcomes import COLLAPSED, DIVERGED
from ..results.runs import FinishedRun
from ..stats.intervals import t_interval
from ..stats.ranking import Interval, Sample
from .columns import FACTS, GAPS, MEASURED, column_range

#: settings of the data that leave the test images as they are
TRAINING_DATA_ONLY = ("data.label_noise", "data.augment")
#: what decides which images a run is measured on, beside its data's split
IMAGE_CHOICE = ("measure.seed", "measure.images", "measure.max_shift")
#: layer, protocol (with its transform), amount, measure
Key = tuple[str, str, float, str]


@dataclass(frozen=True)
class Variant:
    """Runs of one config but for the seed. Values are over the runs that did not diverge (``measured``).

    Attributes:
        name: its settings, as people read them: ``pool=max, depth=3``.
        settings: those in which it differs from other variants.
        runs: all of them.
        drawn: keys of the measures that figures have asked ``point`` for; the page shows the others in a section of
            their own.
    """

    name: str
    settings: dict[str, Any]
    runs: list[FinishedRun]
    drawn: set[Key] = field(default_factory=set, compare=False, repr=False)

    @cached_property
    def measured(self) -> list[FinishedRun]:
        """The runs that did not diverge; all of them where all did, and then scores are nan."""
        return [run for run in self.runs if run.outcome != DIVERGED] or self.runs

    def failed(self, outcome: str) -> int:
        """How many of its runs ended as ``diverged`` or ``collapsed``."""
        return sum(run.outcome == outcome for run in self.runs)

    def values(self, column: str) -> list[float]:
        """A column's value for each run."""
        return [value for _, value in self._values_of_runs(column)]

    def _values_of_runs(self, column: str) -> list[tuple[FinishedRun, float]]:
        """Measured runs and their values; without collapsed runs that have none, unless no run has one."""
        if column in FACTS:
            return [(run, float(run.facts.get(column, math.nan))) for run in self.measured]
        if column in GAPS:
            values = [(run, _gap(run, MEASURED[self.score][-1], column)) for run in self.measured]
        else:
            values = [(run, run.estimate(*MEASURED[column])[0]) for run in self.measured]
        return [(run, value) for run, value in values if _is_averaged(run, value)] or values

    @property
    def score(self) -> str:
        """The column of the training objective: accuracy, or R² for nets trained on the position alone."""
        return "test_r2" if self.has("test_r2") and not self.has("test_accuracy") else "test_accuracy"

    def has(self, column: str) -> bool:
        """Whether its runs have a value in this column."""
        return not any(math.isnan(value) for value in self.values(column))

    def mean(self, column: str) -> float:
        """The mean over seeds of a column's values."""
        return statistics.fmean(self.values(column))

    def sd(self, column: str) -> float:
        """Standard deviation over seeds; nan for one seed."""
        values = self.values(column)
        return statistics.stdev(values) if len(values) > 1 and self.has(column) else math.nan

    @property
    def seeds(self) -> list[int]:
        """The seeds of its measured runs."""
        return [run.settings["seed"] for run in self.measured]

    def by_seed(self, column: str) -> dict[int, float]:
        """Seed → value."""
        return {run.settings.get("seed", 0): value for run, value in self._values_of_runs(column)}

    def sample(self, column: str) -> Sample:
        """The values for statistics, with those of single images where it is one run that kept them."""
        if len(self.measured) > 1 or column not in MEASURED:
            return Sample(self.by_seed(column))
        (run,) = self.measured
        per_image = run.per_image.get(per_image_name(*MEASURED[column]))
        return Sample(self.by_seed(column), run.estimate(*MEASURED[column]), per_image, _image_sets(run))

    def interval(self, column: str, level: float = 0.95) -> Interval:
        """Mean, low, high: over images for one seed, over seeds for several; nan where unknown."""
        return self.sample(column).interval(level, column_range(column))

    def point(self, layer: str, protocol: str, amount: float, measure: str) -> Interval | None:
        """Mean, low, high of a measure: over images for one seed, over seeds for several; None where no run has it."""
        key = (layer, protocol, amount, measure)
        runs = [run for run in self.runs if key in run.measures]
        if not runs:
            return None
        self.drawn.add(key)
        estimates = [run.measures[key] for run in runs if _is_averaged(run, run.measures[key][0])]
        estimates = estimates or [runs[0].measures[key]]
        if len(estimates) == 1:
            return estimates[0]
        return t_interval([value for value, _, _ in estimates], within=range_of(measure))

    def amounts(self, layer: str, protocol: str, measure: str) -> list[float]:
        """The amounts for which a measure has a value, in order."""
        return self._amounts.get((layer, protocol, measure), [])

    @cached_property
    def _amounts(self) -> dict[tuple[str, str, str], list[float]]:
        found: dict[tuple[str, str, str], set[float]] = {}
        for layer, protocol, amount, measure in (key for run in self.runs for key in run.measures):
            found.setdefault((layer, protocol, measure), set()).add(amount)
        return {key: sorted(amounts) for key, amounts in found.items()}

    def curve(self, layer: str, protocol: str, measure: str) -> list[tuple[float, float, float, float]]:
        """(amount, mean over seeds, low, high) by amount."""
        amounts = self.amounts(layer, protocol, measure)
        return [(x, *point) for x in amounts if (point := self.point(layer, protocol, x, measure))]

    def layers(self, measure: str) -> list[str]:
        """The layers that have this measure, in the net's order."""
        return list(dict.fromkeys(key[0] for run in self.runs for key in run.measures if key[3] == measure))

    def grid(self, layer: str, measure: str) -> np.ndarray | None:
        """A heatmap, from the first seed that has it."""
        name = f"{measure}/{layer}"
        return next((run.grids[name] for run in self.measured if name in run.grids), None)


def _is_averaged(run: FinishedRun, value: float) -> bool:
    """Whether a mean over seeds includes this value. A net with constant output has no distance between images: such a
    nan of a collapsed run is left out, as the run is counted as collapsed. Any other nan makes the mean nan.
    """
    return not (math.isnan(value) and run.outcome == COLLAPSED)


def _gap(run: FinishedRun, score: str, column: str) -> float:
    """Training score minus test score. Under label noise, ``train`` is scored by the noisy labels; runs from before
    ``train_clean`` was measured then have no gap by true labels.
    """
    noisy = run.settings.get("data.label_noise", 0) > 0
    if column != "gap" and not noisy:
        return math.nan
    part = "train_clean" if column == "gap" and noisy else "train"
    return run.estimate("output", part, 0, score)[0] - run.estimate("output", "test", 0, score)[0]


def _image_sets(run: FinishedRun) -> frozenset[tuple[str, ...]]:
    """Identifiers of the images a run was measured on: by its split's checksum, and by its data's settings."""
    choice = [format_override(run.settings.get(key)) for key in IMAGE_CHOICE]
    data = [key for key in run.settings if key.startswith("data.") and key not in TRAINING_DATA_ONLY]
    by_settings = ("settings", *(f"{key}={format_override(run.settings[key])}" for key in data), *choice)
    return frozenset({("split", str(run.facts.get("split_checksum")), *choice), by_settings})
