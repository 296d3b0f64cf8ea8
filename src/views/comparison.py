"""The comparison of a set of runs: one row a variant, mean ± sd over seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from src.runs import CIRCUMSTANCES, FinishedRun
from src.views.terminal import millions

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
#: what the terminal and the page show of it, where some variant has it → heading
SHOWN = {
    "variant": "variant",
    "seeds": "seeds",
    "test_accuracy": "accuracy",
    "dissimilar_accuracy": "dis-\nsimilar",
    "test_r2": "R²",
    "gap": "gap",
    "crop_1px_output_distance": "moved\n(crop)",
    "roll_1px_output_distance": "moved\n(roll)",
    "crop_1px_consistency": "same\nanswer",
    "parameters": "para-\nmeters",
    "multiply_adds": "mult-adds",
    "seconds": "seconds",
}
LEGEND = {
    "test_accuracy": "accuracy: on the test set",
    "dissimilar_accuracy": "dissimilar: on test images whose places tell the wrong class",
    "test_r2": "R²: of the object's position on the test set, 0 = always answering the middle",
    "gap": "gap: training minus test",
    "crop_1px_output_distance": "moved: output distance, how far a shift by 1 px moves the answer, 1 = as far as to "
    "another image's",
    "crop_1px_consistency": "same answer: consistency, the share of answers that a 1-px crop leaves the same",
}


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but their seed."""

    name: str
    settings: dict[str, Any]
    runs: list[FinishedRun]

    def values(self, key: str) -> list[float]:
        """A number of the comparison, run by run."""
        if key in FACTS:
            return [float(run.facts[key]) for run in self.runs]
        if key == "gap":
            score = MEASURED[self.score][-1]
            pairs = [[run.estimate("output", part, 0, score)[0] for part in ("train", "test")] for run in self.runs]
            return [train - test for train, test in pairs]
        return [run.estimate(*MEASURED[key])[0] for run in self.runs]

    @property
    def score(self) -> str:
        """The key of what it was trained for: accuracy, or R² where only the position was asked for."""
        return "test_accuracy" if self.has("test_accuracy") else "test_r2"

    def has(self, key: str) -> bool:
        """Whether its runs have this number."""
        return not any(math.isnan(value) for value in self.values(key))

    def mean(self, key: str) -> float:
        """Over seeds."""
        return statistics.fmean(self.values(key))

    def sd(self, key: str) -> float:
        """Over seeds; nan for one."""
        values = self.values(key)
        return statistics.stdev(values) if len(values) > 1 and self.has(key) else float("nan")

    def point(self, layer: str, protocol: str, amount: float, measure: str) -> tuple[float, float, float] | None:
        """Mean over seeds, low, high; None where no run has it.

        The bounds are those of the bootstrap over images for one seed, and the least and largest value over several.
        """
        key = (layer, protocol, amount, measure)
        found = [run.measures[key] for run in self.runs if key in run.measures]
        if not found:
            return None
        values = [value for value, _, _ in found]
        low, high = found[0][1:] if len(found) == 1 else (min(values), max(values))
        return statistics.fmean(values), low, high

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
        """A grid of its first seed."""
        return self.runs[0].grids.get(f"{measure}/{layer}")


def axes(runs: list[FinishedRun]) -> list[str]:
    """The settings in which the runs differ, the seed and where they ran aside.

    What the architecture alone decides (an MLP has no pool) is named by the architecture.
    """

    def differ(key: str, among: list[FinishedRun]) -> bool:
        return len({str(run.settings[key]) for run in among}) > 1

    keys = [key for key in runs[0].settings if key != "seed" and not key.startswith(CIRCUMSTANCES)]
    kinds = {run.settings["model.name"] for run in runs}
    of_kind = [[run for run in runs if run.settings["model.name"] == kind] for kind in kinds]
    return [
        key
        for key in keys
        if differ(key, runs)
        and (key == "model.name" or not key.startswith("model.") or any(differ(key, group) for group in of_kind))
    ]


def variants(runs: list[FinishedRun]) -> list[Variant]:
    """Group runs by all their settings but the seed, in the order given."""
    varied = axes(runs)
    groups: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(str(run.settings[key]) for key in varied), []).append(run)
    short = {key: key.removeprefix("model.") if key != "model.name" else "model" for key in varied}
    return [
        Variant(
            ", ".join(f"{short[key]}={value}" for key, value in zip(varied, values, strict=True)) or "the run",
            {key: members[0].settings[key] for key in varied},
            members,
        )
        for values, members in groups.items()
    ]


def comparison_rows(found: list[Variant], others: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """``comparison.csv``: a row a variant; every number with its sd over seeds.

    What is not finished has a row a run, with no seeds, and why under ``missing``; the column is not there where
    nothing is.
    """
    rows = []
    for variant in found:
        row: dict[str, Any] = {"variant": variant.name, **{k: str(v) for k, v in variant.settings.items()}}
        row["seeds"] = len(variant.runs)
        for key in (*MEASURED, "gap", *FACTS):
            row[key], row[f"{key}_sd"] = variant.mean(key), variant.sd(key)
        rows.append(row)
    return rows + [{"variant": name, "seeds": 0, "missing": why} for name, why in (others or {}).items()]


def shown_rows(found: list[Variant]) -> list[dict[str, str]]:
    """The rows as people read them: three decimals, ± sd where there are several seeds."""
    rows = []
    for variant in found:
        row = {"variant": variant.name, "seeds": str(len(variant.runs))}
        for key in SHOWN:
            if key in ("parameters", "multiply_adds"):
                row[key] = millions(variant.mean(key))
            elif key == "seconds":
                row[key] = f"{variant.mean(key):.0f}"
            elif key not in row:
                sd = variant.sd(key)
                number = f"{variant.mean(key):.3f}" + ("" if math.isnan(sd) else f" ± {sd:.3f}")
                row[key] = number if variant.has(key) else "–"
        rows.append(row)
    return rows


def shown_columns(found: list[Variant]) -> dict[str, str]:
    """The columns of ``SHOWN`` that have a number in any variant → heading."""
    several = any(len(variant.runs) > 1 for variant in found)
    return {
        key: heading
        for key, heading in SHOWN.items()
        if key == "variant" or (several if key == "seeds" else any(variant.has(key) for variant in found))
    }


def legend(columns: Iterable[str]) -> str:
    """What the columns mean."""
    return "; ".join(LEGEND[key] for key in columns if key in LEGEND)
