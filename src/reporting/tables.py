"""The tables of a comparison: rows for CSV files, and the same rounded for people."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..common.naming import si_prefix
from ..config import format_override
from ..results.runs import FinishedRun
from .columns import FACTS, FAILURES, GAPS, HEADINGS, MEASURED
from .variant import Variant

#: name → key of ``run.json``
SHARED_FACTS = {
    "hardware": "hardware", "torch": "torch", "split checksum": "split_checksum",
    "example images checksum": "probe_checksum", "label noise": "realised_label_noise",
}  # fmt: skip


def comparison_rows(variants: Sequence[Variant], unfinished: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """``comparison.csv``: one row per variant, every value with its standard deviation over seeds.

    An unfinished run has a row of its own, with no seeds and the reason under ``missing``; without unfinished runs
    there is no such column. ``diverged`` and ``collapsed`` (numbers of runs) appear where a run did;
    ``gap_trained_labels`` appears with label noise.
    """
    rows = []
    counts = [column for column in FAILURES if any(variant.failed(column) for variant in variants)]
    gaps = [column for column in GAPS if column == "gap" or any(variant.has(column) for variant in variants)]
    for variant in variants:
        row: dict[str, Any] = {"variant": variant.name}
        row |= {key: format_override(value) for key, value in variant.settings.items()}
        row["seeds"] = len(variant.runs)
        row |= {column: variant.failed(column) for column in counts}
        for column in (*MEASURED, *gaps, *FACTS):
            row[column], row[f"{column}_sd"] = variant.mean(column), variant.sd(column)
        rows.append(row)
    return rows + [{"variant": name, "seeds": 0, "missing": reason} for name, reason in (unfinished or {}).items()]


def run_rows(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """``runs.csv``: one row per run, with every setting in which the runs differ, every value under its W&B key
    (``runs.named_values``), and the facts of ``run.json``.
    """
    runs = [run for variant in variants for run in variant.runs]
    keys = [key for key in runs[0].settings if len({format_override(run.settings[key]) for run in runs}) > 1]
    return [
        {"run": str(run.folder), "variant": variant.name, "seed": run.settings["seed"]}
        | {key: format_override(run.settings[key]) for key in keys}
        | {key: format_override(value) if isinstance(value, list) else value for key, value in _flattened(run.facts)}
        | run.numbers
        for variant in variants
        for run in variant.runs
    ]


def _flattened(facts: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", entry) for name, entry in value.items())
        else:
            yield key, value


def run_facts(runs: Iterable[FinishedRun]) -> dict[str, str]:
    """Hardware, versions and data of the runs: name → all values that occur."""
    facts = [run.facts for run in runs]
    return {
        name: ", ".join(sorted({str(each.get(key, "unknown")) for each in facts})) for name, key in SHARED_FACTS.items()
    }


def shown_rows(variants: Sequence[Variant]) -> list[dict[str, str]]:
    """The comparison for people: three decimals, ± 95% where there are several seeds."""
    rows = []
    for variant in variants:
        row = {"variant": variant.name, "seeds": str(len(variant.runs))}
        row |= {column: f"{variant.failed(column)} of {len(variant.runs)}" for column in FAILURES}
        for column in HEADINGS:
            if column not in row:
                single = variant.mean(column), math.nan, math.nan
                values = variant.interval(column) if len(variant.measured) > 1 else single
                row[column] = shown_value(column, *values) if variant.has(column) else "–"
        rows.append(row)
    return rows


def page_rows(variants: Sequence[Variant]) -> list[dict[str, tuple[str, str]]]:
    """The comparison for the page: column → value, and its 95% interval where it has one, also of a single seed."""
    rows = []
    for variant, shown in zip(variants, shown_rows(variants), strict=True):
        row = {column: (text, "") for column, text in shown.items()}
        for column in (*MEASURED, *GAPS):
            if column in row and variant.has(column):
                mean, low, high = variant.interval(column)
                text = shown_value(column, mean, low, high)
                value, _, interval = text.partition(" ")
                row[column] = value, interval
        rows.append(row)
    return rows


def shown_columns(variants: Sequence[Variant]) -> dict[str, str]:
    """The columns with a value in any variant (of failures: a count above 0) → heading."""

    def is_shown(column: str) -> bool:
        if column in FAILURES:
            return any(variant.failed(column) for variant in variants)
        if column == "seeds":
            return any(len(variant.runs) > 1 for variant in variants)
        return column == "variant" or any(variant.has(column) for variant in variants)

    return {column: heading for column, heading in HEADINGS.items() if is_shown(column)}


def shown_value(column: str, mean: float, low: float, high: float, sign: str = "") -> str:
    """A value for people, with its interval where it has one (else nan) and is not a cost; for differences the sign
    ``+`` marks positive values.
    """
    if column in FACTS:
        text = f"{mean:z.0f}" if column == "seconds" else si_prefix(mean)
        return "+" * (sign == "+" and text != "0" and mean > 0) + text
    if math.isnan(low):
        return f"{mean:{sign}z.3f}"
    symmetric = math.isclose(mean - low, high - mean, rel_tol=1e-6, abs_tol=1e-9)  # else cut off at the range's end
    interval = f" ± {(high - low) / 2:.3f}" if symmetric else f" [{low:.3f}, {high:.3f}]"
    return f"{mean:{sign}z.3f}{interval}"


def failures(runs: Iterable[FinishedRun]) -> dict[str, str]:
    """The runs whose training failed → how: ``diverged in epoch 3``, ``collapsed``."""
    return {run.folder.name: run.failure for run in runs if run.failure}
