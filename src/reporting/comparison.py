"""The comparison of a set of runs: one row a variant, mean ± 95% over seeds; and its differences from a baseline."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..config import NON_IDENTITY_KEYS, written
from ..errors import UserError
from ..metrics.quantities import difference_range, range_of
from ..results.outcomes import COLLAPSED, DIVERGED, RULES
from ..results.runs import PICTURES, FinishedRun, per_image_name
from ..stats.intervals import bonferroni_level, interval_at_level, paired_difference, t_interval
from .terminal import millions

if TYPE_CHECKING:
    import numpy as np

#: keys of the table's numbers → where they stand in a run's measures
MEASURED = {
    "test_accuracy": ("output", "test", 0, "accuracy"),
    "dissimilar_accuracy": ("output", "dissimilar", 0, "accuracy"),
    "test_r2": ("output", "test", 0, "r2"),
    "crop_1px_output_distance": ("output", "crop", 1, "output_distance"),
    "crop_1px_output_distance_untrained": ("output", "crop", 1, "output_distance_untrained"),
    "roll_1px_output_distance": ("output", "roll", 1, "output_distance"),
    "roll_1px_output_distance_untrained": ("output", "roll", 1, "output_distance_untrained"),
    "crop_1px_consistency": ("output", "crop", 1, "consistency"),
    "crop_1px_consistency_corrected": ("output", "crop", 1, "consistency_corrected"),
}
FACTS = ("parameters", "multiply_adds", "seconds")
#: differences between the score on training images and on the test set, by true labels and by those trained with
GAPS = ("gap", "gap_trained_labels")
#: how a training can fail; of how many runs it did
FAILURES = tuple(RULES)
#: what the terminal and the page show of it, where some variant has it → heading
SHOWN = {
    "variant": "variant",
    "seeds": "seeds",
    "diverged": "di-\nverged",
    "collapsed": "col-\nlapsed",
    "test_accuracy": "accuracy",
    "dissimilar_accuracy": "dis-\nsimilar",
    "test_r2": "R²",
    "gap": "gap",
    "gap_trained_labels": "gap,\nnoisy",
    "crop_1px_output_distance": "moved\n(crop)",
    "roll_1px_output_distance": "moved\n(roll)",
    "crop_1px_consistency": "same\nanswer",
    "parameters": "para-\nmeters",
    "multiply_adds": "mult-adds",
    "seconds": "seconds",
}
LEGEND = {
    "diverged": f"diverged: {RULES['diverged']}; all means are over the other runs",
    "collapsed": f"collapsed: {RULES['collapsed']}; its numbers are in the means, where it has them",
    "test_accuracy": "accuracy: on the test set",
    "dissimilar_accuracy": "dissimilar: on test images whose places tell the wrong class",
    "test_r2": "R²: of the object's position on the test set, 0 = always answering the middle",
    "gap": "gap: training minus test, both by true labels",
    "gap_trained_labels": "gap, noisy: with the labels trained with, some of them wrong, for the training images",
    "crop_1px_output_distance": "moved: output distance, how far a shift by 1 px moves the answer, 1 = as far as to "
    "another image's",
    "crop_1px_consistency": "same answer: consistency, the share of answers that a 1-px crop leaves the same",
}
NAN = float("nan")


#: runs that differ in one of these were asked different things: the numbers of one say nothing against another's
PROBLEM = ("data.name", "data.task", "data.canvas", "data.root", PICTURES)


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but their seed. Numbers are of those that did not diverge, their ``measured``."""

    name: str
    settings: dict[str, Any]
    runs: list[FinishedRun]

    @cached_property
    def measured(self) -> list[FinishedRun]:
        """Its runs that did not diverge; where all did, all of them, and their scores are nan."""
        return [run for run in self.runs if run.outcome != DIVERGED] or self.runs

    def failed(self, outcome: str) -> int:
        """How many of its runs diverged, or collapsed."""
        return sum(run.outcome == outcome for run in self.runs)

    def values(self, key: str) -> list[float]:
        """A number of the comparison, run by run."""
        return [value for _, value in self._numbers(key)]

    def _numbers(self, key: str) -> list[tuple[FinishedRun, float]]:
        """The measured runs and their numbers; without collapsed runs that have none, unless no run has one."""
        if key in FACTS:
            return [(run, float(run.facts[key])) for run in self.measured]
        score = MEASURED[self.score][-1] if key in GAPS else ""
        found = [(run, _gap(run, score, key) if score else run.estimate(*MEASURED[key])[0]) for run in self.measured]
        return [one for one in found if _counts(*one)] or found

    @property
    def score(self) -> str:
        """The key of what it was trained for: accuracy, or R² where only the position was asked for."""
        return "test_r2" if self.has("test_r2") and not self.has("test_accuracy") else "test_accuracy"

    def has(self, key: str) -> bool:
        """Whether its runs have this number."""
        return not any(math.isnan(value) for value in self.values(key))

    def mean(self, key: str) -> float:
        """Over seeds."""
        return statistics.fmean(self.values(key))

    def sd(self, key: str) -> float:
        """Over seeds; nan for one."""
        values = self.values(key)
        return statistics.stdev(values) if len(values) > 1 and self.has(key) else NAN

    @property
    def seeds(self) -> list[int]:
        """Of its measured runs."""
        return [run.settings["seed"] for run in self.measured]

    def by_seed(self, key: str) -> dict[int, float]:
        """Seed → the number of its run."""
        return {run.settings["seed"]: value for run, value in self._numbers(key)}

    def interval(self, key: str, level: float = 0.95) -> tuple[float, float, float]:
        """Mean, low, high: 95% over seeds, or over images where there is one seed; nan where neither is known."""
        within = range_of(MEASURED[key][-1] if key in MEASURED else key)
        if len(self.measured) == 1 and key in MEASURED:
            return interval_at_level(*self.measured[0].estimate(*MEASURED[key]), level, within)
        return t_interval(self.values(key), level, within)

    def point(self, layer: str, protocol: str, amount: float, measure: str) -> tuple[float, float, float] | None:
        """Mean over seeds, low, high; None where no run has it.

        The bounds are those of the bootstrap over images for one seed, and 95% over seeds (t) for several.
        """
        key = (layer, protocol, amount, measure)
        having = [run for run in self.runs if key in run.measures]
        if not having:
            return None
        found = [run.measures[key] for run in having if _counts(run, run.measures[key][0])] or [having[0].measures[key]]
        return found[0] if len(found) == 1 else t_interval([value for value, _, _ in found], within=range_of(measure))

    def amounts(self, layer: str, protocol: str, measure: str) -> list[float]:
        """Those that a number was measured by, in order."""
        keys = (key for run in self.runs for key in run.measures)
        return sorted({key[2] for key in keys if key[3] == measure and key[:2] == (layer, protocol)})

    def curve(self, layer: str, protocol: str, measure: str) -> list[tuple[float, float, float, float]]:
        """(amount, mean over seeds, low, high) by amount."""
        amounts = self.amounts(layer, protocol, measure)
        return [(x, *point) for x in amounts if (point := self.point(layer, protocol, x, measure))]

    def layers(self, measure: str) -> list[str]:
        """Those that have this measure, in the net's order."""
        return list(dict.fromkeys(key[0] for run in self.runs for key in run.measures if key[3] == measure))

    def grid(self, layer: str, measure: str) -> "np.ndarray | None":
        """A grid of the first of its seeds that has it."""
        return next((run.grids[name] for run in self.measured if (name := f"{measure}/{layer}") in run.grids), None)


def _counts(run: FinishedRun, value: float) -> bool:
    """Whether a mean over seeds takes this number in. A net that always says the same does not move, and has no
    distance to compare with: such a nan of a collapsed run is left out, as the run is counted as collapsed. Any other
    makes the mean nan.
    """
    return not (math.isnan(value) and run.outcome == COLLAPSED)


def _gap(run: FinishedRun, score: str, key: str) -> float:
    """A score on training images minus that on test images. Under label noise those of ``train`` are by the labels
    trained with; a run from before ``train_clean`` was measured has no gap by true labels then.
    """
    noisy = run.settings.get("data.label_noise", 0) > 0
    if key != "gap" and not noisy:
        return NAN
    part = "train_clean" if key == "gap" and noisy else "train"
    return run.estimate("output", part, 0, score)[0] - run.estimate("output", "test", 0, score)[0]


def axes(runs: list[FinishedRun]) -> list[str]:
    """The settings in which the runs differ, the seed and their circumstances aside.

    What the architecture alone decides (an MLP has no pool) is named by the architecture. Runs on several folders of
    pictures differ in ``data.root`` where that tells them apart, else in the pictures' checksum.
    """

    def differ(key: str, among: list[FinishedRun]) -> bool:
        return len({str(run.settings[key]) for run in among}) > 1

    keys = [key for key in runs[0].settings if key != "seed" and key not in NON_IDENTITY_KEYS]
    keys[-1:] = _pictures_axis(runs) if keys[-1] == PICTURES else keys[-1:]
    kinds = {run.settings["model.name"] for run in runs}
    of_kind = [[run for run in runs if run.settings["model.name"] == kind] for kind in kinds]
    return [
        key
        for key in keys
        if differ(key, runs)
        and (key == "model.name" or not key.startswith("model.") or any(differ(key, group) for group in of_kind))
    ]


def _pictures_axis(runs: list[FinishedRun]) -> list[str]:
    """What tells runs of several folders of pictures apart: where they lie, if that does, else their checksum."""
    places = {(run.settings["data.root"], run.settings[PICTURES]) for run in runs}
    folders = {pictures for _, pictures in places} - {None}
    if len(folders) < 2:
        return []
    return ["data.root"] if len({root for root, _ in places}) == len(folders) == len(places) else [PICTURES]


class Variants(list[Variant]):
    """Variants that a notebook shows as their table."""

    def _repr_html_(self) -> str:
        columns = shown_columns(self)
        head = Markup("").join(Markup("<th>{}</th>").format(one_line(heading)) for heading in columns.values())
        lines = [Markup("").join(Markup("<td>{}</td>").format(row[key]) for key in columns) for row in shown_rows(self)]
        body = Markup("").join(Markup("<tr>{}</tr>").format(line) for line in lines)
        return str(Markup("<table><tr>{}</tr>{}</table><p>{}</p>").format(head, body, legend(columns)))


def variants(runs: list[FinishedRun]) -> Variants:
    """Group runs by all their settings but the seed, in the order given.

    A run that is there twice, as two sweeps may hold the same one, counts once: else it would pass for two seeds.
    """
    varied = axes(runs)
    groups: dict[tuple[str, ...], dict[int, FinishedRun]] = {}
    for run in runs:
        members = groups.setdefault(tuple(written(run.settings[key]) for key in varied), {})
        members.setdefault(run.settings["seed"], run)
    return Variants(
        Variant(
            ", ".join(f"{short(key)}={value}" for key, value in zip(varied, values, strict=True)) or "the run",
            {key: next(iter(members.values())).settings[key] for key in varied},
            list(members.values()),
        )
        for values, members in groups.items()
    )


def short(axis: str) -> str:
    """What an axis is called where people read: ``pool`` for ``model.pool``."""
    return "model" if axis == "model.name" else axis.removeprefix("model.")


def comparison_rows(found: list[Variant], others: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """``comparison.csv``: a row a variant; every number with its sd over seeds.

    What is not finished has a row a run, with no seeds, and why under ``missing``; the column is not there where
    nothing is. Nor are ``diverged`` and ``collapsed``, how many runs did, where none did; ``gap_trained_labels``
    is there with label noise.
    """
    rows = []
    counts = [key for key in FAILURES if any(variant.failed(key) for variant in found)]
    gaps = [key for key in GAPS if key == "gap" or any(variant.has(key) for variant in found)]
    for variant in found:
        row: dict[str, Any] = {"variant": variant.name, **{k: written(v) for k, v in variant.settings.items()}}
        row["seeds"] = len(variant.runs)
        row |= {key: variant.failed(key) for key in counts}
        for key in (*MEASURED, *gaps, *FACTS):
            row[key], row[f"{key}_sd"] = variant.mean(key), variant.sd(key)
        rows.append(row)
    return rows + [{"variant": name, "seeds": 0, "missing": why} for name, why in (others or {}).items()]


def run_rows(found: list[Variant]) -> list[dict[str, Any]]:
    """``runs.csv``: a row a run, for a table of one's own: every setting in which the runs differ, every number under
    the name that stays (``runs.summary``), and the facts of ``run.json``.
    """
    runs = [run for variant in found for run in variant.runs]
    keys = [key for key in runs[0].settings if len({written(run.settings[key]) for run in runs}) > 1]
    return [
        {"run": str(run.folder), "variant": variant.name, "seed": run.settings["seed"]}
        | {key: written(run.settings[key]) for key in keys}
        | {key: written(value) if isinstance(value, list) else value for key, value in _flat(run.facts)}
        | run.numbers
        for variant in found
        for run in variant.runs
    ]


def _flat(facts: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{part}", one) for part, one in value.items())
        else:
            yield key, value


def shown_rows(found: list[Variant]) -> list[dict[str, str]]:
    """The rows as people read them: three decimals, ± 95% where there are several seeds."""
    rows = []
    for variant in found:
        row = {"variant": variant.name, "seeds": str(len(variant.runs))}
        row |= {key: f"{variant.failed(key)} of {len(variant.runs)}" for key in FAILURES}
        for key in SHOWN:
            if key not in row:
                seeds = variant.interval(key) if len(variant.measured) > 1 else (variant.mean(key), NAN, NAN)
                row[key] = _shown(key, *seeds) if variant.has(key) else "–"
        rows.append(row)
    return rows


def _shown(key: str, mean: float, low: float, high: float, sign: str = "") -> str:
    """A number as people read it, with half of its interval where it has one and it is not a cost."""
    if key in FACTS:
        words = f"{mean:.0f}" if key == "seconds" else millions(mean)
        return "+" * (sign == "+" and mean > 0) + words
    if math.isnan(low):
        return f"{mean:{sign}z.3f}"
    even = math.isclose(mean - low, high - mean, rel_tol=1e-6, abs_tol=1e-9)  # else cut off where no number can be
    return f"{mean:{sign}z.3f}" + (f" ± {(high - low) / 2:.3f}" if even else f" [{low:.3f}, {high:.3f}]")


@dataclass(frozen=True)
class Difference:
    """How far a variant's number lies above the baseline's.

    Attributes:
        value: mean over the seeds that both have; of their means, where they have none in common.
        low: of its interval: Student's over those seeds; of one run each, over their images; nan without either.
        high: the same.
        pairs: how many seeds both have.
        images: of how many images the interval is, image by image; 0 where it is of seeds, or there is none.
    """

    value: float
    low: float
    high: float
    pairs: int
    images: int = 0


def difference(variant: Variant, baseline: Variant, key: str, level: float = 0.95) -> Difference:
    """Of a number of the comparison, seed by seed: what a seed does to both is no difference. Of one run each, image by
    image, if both were measured on the same.
    """
    ours, theirs = variant.by_seed(key), baseline.by_seed(key)
    pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    within = difference_range(MEASURED[key][-1] if key in MEASURED else key)
    if len(pairs) > 1:
        return Difference(*t_interval(pairs, level, within), len(pairs))
    both = of_the_same_images(variant, baseline, key)
    if both is not None:
        return Difference(*paired_difference(*both, level, within), len(pairs), len(both[0]))
    return Difference(pairs[0] if pairs else variant.mean(key) - baseline.mean(key), NAN, NAN, len(pairs))


#: settings of the data that leave the test images as they are
OF_TRAINING_ALONE = ("data.label_noise", "data.augment")
#: what decides which images a run is measured on, beside its data's split
WHICH_IMAGES = ("measure.seed", "measure.images", "measure.max_shift")


def of_the_same_images(one: Variant, other: Variant, key: str) -> "tuple[np.ndarray, np.ndarray] | None":
    """The statistics of every image behind a number, of two variants of one run each that were measured on the same."""
    if key not in MEASURED or len(one.measured) > 1 or len(other.measured) > 1:
        return None
    ours, theirs = one.measured[0], other.measured[0]
    deciding = [key for key in ours.settings if key.startswith("data.") and key not in OF_TRAINING_ALONE]
    alike = [ours.settings.get(key) == theirs.settings.get(key) for key in deciding]
    same = ours.facts.get("split_checksum") == theirs.facts.get("split_checksum") or all(alike)
    same &= all(ours.settings.get(key) == theirs.settings.get(key) for key in WHICH_IMAGES)
    found = [run.per_image.get(per_image_name(*MEASURED[key])) for run in (ours, theirs)]
    if not same or found[0] is None or found[1] is None or found[0].shape != found[1].shape:
        return None
    return found[0], found[1]


@dataclass(frozen=True)
class Ranking:
    """Variants in the order of a number, and which of them are told apart from the first.

    Every interval allows for the choice: that of the first holds whichever of the variants had been it, and those of
    the differences hold for all pairs at once, so that among equal variants one is called better in 5 of 100
    comparisons, however many they are.

    Attributes:
        order: the best first.
        interval: of the first: value, low, high.
        behind: of each of the others, how far it lies behind the first.
        alike: those of the others that are not told apart from it.
    """

    order: list[Variant]
    interval: tuple[float, float, float]
    behind: list[Difference]
    alike: list[Variant]


def ranking(found: Sequence[Variant], key: str, smallest: bool) -> Ranking:
    """Rank at least two variants, all of which have the number.

    Args:
        found: variants.
        key: of the comparison's numbers.
        smallest: whether the smallest is the best.
    """
    order = sorted(found, key=lambda one: one.mean(key), reverse=not smallest)
    first, *others = order
    level = bonferroni_level(math.comb(len(found), 2))
    behind = [difference(one, first, key, level) if smallest else difference(first, one, key, level) for one in others]
    alike = [one for one, by in zip(others, behind, strict=True) if not _apart(first, one, key, by, level)]
    return Ranking(order, first.interval(key, bonferroni_level(len(found))), behind, alike)


def _apart(first: Variant, other: Variant, key: str, behind: Difference, level: float) -> bool:
    """Whether one is behind the first by more than chance; of runs that kept nothing of single images, or have no seed
    in common, by both intervals.
    """
    if not math.isnan(behind.low):
        return behind.low > 0
    # the longer half, as the other may be cut off where no number can be
    halves = [
        max(value - low, high - value) for value, low, high in (one.interval(key, level) for one in (first, other))
    ]
    return bool(behind.value > math.hypot(*halves))


def choose(found: Sequence[Variant], name: str | None) -> Variant:
    """The baseline of that name; the first variant without one.

    Raises:
        UserError: there is no such variant.
    """
    names = {variant.name: variant for variant in found}
    if name is not None and name not in names:
        raise UserError(f"baseline={name}: no such variant; choose one of {'; '.join(names)}")
    return found[0] if name is None else names[name]


def alike(found: Iterable[Variant]) -> dict[str, list[Variant]]:
    """Variants by what was asked of them, as ``data.task=where``: only those of one data set and task are ranked with
    each other. One group without a name where that is the same for all.
    """
    groups: dict[str, list[Variant]] = {}
    for variant in found:
        asked = (f"{key}={written(value)}" for key, value in variant.settings.items() if key in PROBLEM)
        groups.setdefault(", ".join(asked), []).append(variant)
    return groups


def baselines(found: Iterable[Variant], chosen: Variant) -> list[tuple[Variant, list[Variant]]]:
    """Of each group of ``alike`` variants the one that differences are from, the chosen or the first; and the group."""
    return [(chosen if chosen in group else group[0], group) for group in alike(found).values()]


def difference_rows(found: Sequence[Variant], chosen: Variant) -> list[dict[str, Any]]:
    """``differences.csv``: a row for each variant but the baseline of its kind, and number."""
    return [
        {"variant": variant.name, "baseline": baseline.name, "measure": key, "difference": apart.value,
         "low": apart.low, "high": apart.high, "pairs": apart.pairs}
        for baseline, group in baselines(found, chosen)
        for variant in group if variant is not baseline
        for key in (*MEASURED, *GAPS, *FACTS) if variant.has(key) and baseline.has(key)
        for apart in [difference(variant, baseline, key)]
    ]  # fmt: skip


def shown_differences(found: Sequence[Variant], baseline: Variant) -> list[dict[str, str]]:
    """The differences as people read them, a row for each variant of the baseline's kind but itself."""
    rows = []
    for variant in next(group for group in alike(found).values() if baseline in group):
        if variant is not baseline:
            row = {"variant": variant.name, "seeds": str(len({*variant.seeds} & {*baseline.seeds}))}
            row |= dict.fromkeys(FAILURES, "")
            for key in SHOWN:
                if key not in row:
                    apart = difference(variant, baseline, key)
                    row[key] = "–" if math.isnan(apart.value) else _shown(key, apart.value, apart.low, apart.high, "+")
            rows.append(row)
    return rows


def shown_columns(found: list[Variant]) -> dict[str, str]:
    """The columns of ``SHOWN`` that have a number in any variant, of failures one above 0 → heading."""
    several = any(len(variant.runs) > 1 for variant in found)

    def there(key: str) -> bool:
        if key in FAILURES:
            return any(variant.failed(key) for variant in found)
        return several if key == "seeds" else any(variant.has(key) for variant in found)

    return {key: heading for key, heading in SHOWN.items() if key == "variant" or there(key)}


def failures(runs: Iterable[FinishedRun]) -> dict[str, str]:
    """The runs whose training failed → how: ``diverged in epoch 3``, ``collapsed``."""
    return {run.folder.name: run.failure for run in runs if run.failure}


def legend(columns: Iterable[str]) -> str:
    """What the columns mean."""
    return "; ".join(LEGEND[key] for key in columns if key in LEGEND)


def one_line(heading: str) -> str:
    """A heading of ``SHOWN`` on one line."""
    return heading.replace("-\n", "").replace("\n", " ")
