"""The numbers of a contrast: one for each seed or pair of seeds, and where they are, for each seed and image."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from jaxtyping import Float, Shaped

from ..config import Contrast, Reading, format_override
from ..results.measures import UNTRAINED, number, per_image_name
from ..results.outcomes import COLLAPSED, TRAINED
from ..results.runs import FinishedRun
from ..results.where import matching
from ..stats.alarms import alarm_step, first_alarm
from ..stats.effects import slope
from ..stats.intervals import value_and_influences
from .seed_pairs import pair_number, pairs_of

#: seed → number; of pairs of runs: the first seed of the pair → number
BySeed = dict[int, float]
#: the values of the settings in which runs of one seed differ
Cell = tuple[str, ...]


@dataclass
class Selection:
    """The runs that a reading selects.

    Attributes:
        where: as the reading says.
        runs: how many there are.
        failed: of these, those whose training failed: folders' names.
        unmeasured: those without the number.
    """

    where: str
    runs: int
    failed: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)


@dataclass
class Numbers:
    """What a contrast is decided by.

    Attributes:
        a, b: seed → the number of each side, less what is subtracted; ``b`` is empty where there is no other side.
        per_image: seed → the difference for each test image, whose mean is the difference; None where a side has no
            values per image.
        selections: the runs of each reading.
    """

    a: BySeed
    b: BySeed
    per_image: dict[int, Float[np.ndarray, " n"]] | None
    selections: list["Selection"] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """Folders' names of runs that were left out, as their training failed."""
        return sorted({name for selection in self.selections for name in selection.failed})

    @property
    def unmeasured(self) -> list[str]:
        """Folders' names of runs that were left out, as they do not have the number."""
        return sorted({name for selection in self.selections for name in selection.unmeasured})

    @property
    def paired(self) -> list[int]:
        """Seeds that both sides have."""
        return sorted(self.a.keys() & self.b.keys()) if self.b else sorted(self.a)


def numbers_of(contrast: Contrast, runs: Sequence[FinishedRun]) -> Numbers:
    """Read both sides of a contrast.

    Raises:
        UserError: a selection matches no run.
    """
    sides = contrast.readings()
    numbers = Numbers({}, {}, None)
    values = {name: _Side(reading, contrast.slope, runs) for name, reading in sides.items()}
    numbers.a = _minus(values["a"].by_seed, values["a_minus"].by_seed if "a_minus" in values else None)
    if "b" in values:
        numbers.b = _minus(values["b"].by_seed, values["b_minus"].by_seed if "b_minus" in values else None)
    numbers.selections = [side.selection for side in values.values()]
    images = {name: side.per_image for name, side in values.items()}
    if all(images.values()):
        signs = {"a": 1.0, "a_minus": -1.0, "b": -1.0, "b_minus": 1.0}
        numbers.per_image = _combined([(signs[name], image) for name, image in images.items() if image])
    return numbers


def _minus(first: BySeed, second: BySeed | None) -> BySeed:
    if second is None:
        return first
    return {seed: value - second[seed] for seed, value in first.items() if seed in second}


def _combined(
    terms: Sequence[tuple[float, dict[int, Float[np.ndarray, " n"]]]],
) -> dict[int, Float[np.ndarray, " n"]] | None:
    """The sum of terms for each seed and image; None where they are of different images."""
    seeds = reduce(set.intersection, (set(image) for _, image in terms))
    if len({len(image[seed]) for _, image in terms for seed in seeds}) != 1:
        return None
    return {seed: np.sum([sign * image[seed] for sign, image in terms], axis=0) for seed in seeds}


class _Side:
    """One reading: the runs it selects, and their numbers, averaged over the runs of a seed.

    With ``axis``, a seed's number is the slope over that setting. A seed counts only if it has every combination of
    settings that others have: the mean over the runs that are left would be that of other variants.
    """

    def __init__(self, reading: Reading, axis: str, runs: Sequence[FinishedRun]) -> None:
        runs = tuned(selected(runs, reading.where), reading.tuned)
        self.selection = Selection(reading.where or "", len(runs))
        points: dict[int, dict[Cell, tuple[float, float]]] = {}
        images: dict[int, list[Float[np.ndarray, " n"]]] = {}
        cells = {run.folder: cell for run, cell in zip(runs, _cells(runs), strict=True)}
        for run, value in self._values(reading, runs):
            seed = int(run.settings["seed"])
            points.setdefault(seed, {})[cells[run.folder]] = float(run.settings[axis]) if axis else 0.0, value
            if not axis and (image := _per_image(run, reading)) is not None:
                images.setdefault(seed, []).append(image)
        points = {seed: by_cell for seed, by_cell in points.items() if by_cell.keys() == {*cells.values()}}
        numbers = {seed: _number([*by_cell.values()], axis) for seed, by_cell in points.items()}
        self.by_seed = {seed: number for seed, number in numbers.items() if not np.isnan(number)}
        complete = bool(points) and all(len(images.get(seed, [])) == len(cell) for seed, cell in points.items())
        same = len({len(image) for seed in points for image in images.get(seed, [])}) == 1
        self.per_image = {seed: np.mean(images[seed], axis=0) for seed in points} if complete and same else {}

    def _values(self, reading: Reading, runs: Sequence[FinishedRun]) -> Iterator[tuple[FinishedRun, float]]:
        """Each run with its number, and of pairs of runs the first; those without one are listed in the selection."""
        # a net that learns wrong labels alone may end at chance: its history says all the same when an alarm fired
        counted = (TRAINED, COLLAPSED) if reading.alarm else (TRAINED,)
        self.selection.failed += [run.folder.name for run in runs if run.outcome not in counted]
        trained = [run for run in runs if run.outcome in counted]
        found: list[tuple[tuple[FinishedRun, ...], float]]
        if reading.pairs:
            pairs, alone = pairs_of(trained)  # a failed run takes the number of the other run of its pair along
            found = [((run,), math.nan) for run in alone] + [(pair, pair_number(*pair, reading)) for pair in pairs]
        else:
            found = [((run,), value_of(run, reading)) for run in trained]
        for members, value in found:
            if np.isnan(value):
                self.selection.unmeasured += [run.folder.name for run in members]
            else:
                yield members[0], value


def _cells(runs: Sequence[FinishedRun]) -> list[Cell]:
    """For each run, the values of the settings in which runs of one seed differ."""
    by_seed: dict[int, list[FinishedRun]] = {}
    for run in runs:
        by_seed.setdefault(int(run.settings["seed"]), []).append(run)
    keys = [
        key
        for key in (runs[0].settings if runs else ())
        if any(len({format_override(run.settings[key]) for run in group}) > 1 for group in by_seed.values())
    ]
    return [tuple(format_override(run.settings[key]) for key in keys) for run in runs]


def _number(pairs: Sequence[tuple[float, float]], axis: str) -> float:
    places, values = zip(*pairs, strict=True)
    if not axis:
        return float(np.mean(values))
    return slope(np.array(places), np.array(values)) if len({*places}) > 1 else math.nan


def selected(runs: Sequence[FinishedRun], where: str | None) -> list[FinishedRun]:
    """The runs that a reading selects, of those that are finished.

    Raises:
        UserError: none matches.
    """
    if not where:
        return list(runs)
    kept = matching(where, [run.settings for run in runs], partial=True)
    return [run for run, keep in zip(runs, kept, strict=True) if keep]


def tuned(runs: Sequence[FinishedRun], key: str | None) -> Sequence[FinishedRun]:
    """Of runs that differ in a setting, those with the value whose mean validation score over seeds is best.

    The score is the best of each run's training, on images that no contrast is measured on; a run that failed has the
    worst there is.
    """
    if key is None:
        return runs
    by_value: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_value.setdefault(format_override(run.settings[key]), []).append(run)
    return max(by_value.values(), key=lambda group: float(np.mean([_validation_score(run) for run in group])))


def _validation_score(run: FinishedRun) -> float:
    columns = [name for name in ("val/accuracy", "val/r2") if run.history and name in run.history[0]]
    if run.outcome != TRAINED or not columns:
        return -math.inf
    return float(np.nanmax([number(row.get(columns[0]) or "") for row in run.history]))


def value_of(run: FinishedRun, reading: Reading) -> float:
    """The number of a run; nan where it has none."""
    if reading.history:
        return _of_history(history_column(run, reading.history).tolist(), reading)
    if reading.alarm:
        values = history_column(run, reading.alarm)
        if reading.threshold is None or np.isnan(values).all():
            return float("nan")
        return alarm_step(history_column(run, "step"), values, str(reading.direction), reading.threshold)
    if reading.fact:
        value = run.facts.get(reading.fact)
        return float(value) if isinstance(value, int | float) else float("nan")
    return run.estimate(*_key(reading))[0]


def history_column(run: FinishedRun, name: str) -> Float[np.ndarray, " looks"]:
    """A column of ``history.csv``; nan in rows that have no number."""
    return np.array([number(row.get(name) or "") for row in run.history], dtype=float)


def _of_history(column: Sequence[float], reading: Reading) -> float:
    """A number of a column: of its last row, its first, or a statistic of all rows that have one."""
    values = [value for value in column if not np.isnan(value)]
    if not values:
        return float("nan")
    lower = str(reading.history).endswith(("loss", "error"))
    of_look: dict[str, Callable[[Iterable[float]], float]] = {
        "last": lambda _: values[-1],
        "first": lambda _: values[0],
        "best": min if lower else max,
        "min": min,
        "max": max,
        "mean": lambda column: float(np.mean(list(column))),
    }
    return of_look[reading.look or "last"](values)


def _key(reading: Reading) -> tuple[str, str, float, str]:
    """As ``FinishedRun.measures`` has it."""
    protocol = f"{reading.transform}/{reading.protocol}" if reading.transform else str(reading.protocol)
    return str(reading.layer), protocol, float(reading.amount or 0), f"{reading.measure}{UNTRAINED * _twin(reading)}"


def _twin(reading: Reading) -> bool:
    return bool(reading.untrained)


def _per_image(run: FinishedRun, reading: Reading) -> Float[np.ndarray, " n"] | None:
    """A number for each test image whose mean is the run's number; None where a run has none."""
    if reading.source != "measures" or reading.untrained:
        return None
    layer, protocol, amount, measure = _key(reading)
    statistics: Shaped[np.ndarray, "n k"] | None = run.per_image.get(per_image_name(layer, protocol, amount, measure))
    if statistics is None:
        return None
    value, influences = value_and_influences(statistics)
    return value + influences


def share_counts(contrast: Contrast, runs: Sequence[FinishedRun]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(runs that ended as ``contrast.share`` says, or in which the alarm fired; all runs), of ``a`` and of ``b``."""
    sides = contrast.readings()

    def counts(reading: Reading) -> tuple[int, int]:
        chosen = selected(runs, reading.where)
        return sum(_counts_in(run, contrast.share, reading) for run in chosen), len(chosen)

    return counts(sides["a"]), counts(sides["b"])


def _counts_in(run: FinishedRun, share: str, reading: Reading) -> bool:
    if share == "alarm":
        assert reading.threshold is not None
        values = history_column(run, str(reading.alarm))
        return first_alarm(values, str(reading.direction), reading.threshold) is not None
    return run.outcome != TRAINED if share == "failed" else run.outcome == share
