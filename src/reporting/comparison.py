"""Runs grouped into variants, variants into data sets and tasks; ranked, and subtracted from a baseline."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from ..common.errors import UserError
from ..config import NON_IDENTITY_KEYS, format_override
from ..results.identity import PICTURES
from ..results.runs import FinishedRun
from ..stats.ranking import Difference, Ranking, rank
from ..stats.ranking import difference as sample_difference
from .columns import FACTS, FAILURES, GAPS, HEADINGS, MEASURED, column_range, legend, one_line
from .tables import shown_columns, shown_rows, shown_value
from .variant import Variant

#: settings that define the data set and task: values are only comparable between runs that agree in all of them
TASK_KEYS = ("data.name", "data.task", "data.canvas", "data.root", PICTURES)


def axes(runs: Sequence[FinishedRun]) -> list[str]:
    """The settings in which the runs differ, without the seed and settings that do not change results.

    Settings that follow from the architecture (an MLP has no pool) are left out. Runs on several image folders differ
    in ``data.root`` where that tells them apart, else in the checksum of the images.
    """

    def differ(key: str, group: Sequence[FinishedRun]) -> bool:
        return len({str(run.settings[key]) for run in group}) > 1

    keys = [key for key in runs[0].settings if key != "seed" and key not in NON_IDENTITY_KEYS]
    keys[-1:] = _folder_axis(runs) if keys[-1] == PICTURES else keys[-1:]
    models = {run.settings["model.name"] for run in runs}
    groups = [[run for run in runs if run.settings["model.name"] == model] for model in models]

    def is_axis(key: str) -> bool:
        of_one_model = key.startswith("model.") and key != "model.name"
        return differ(key, runs) and (not of_one_model or any(differ(key, group) for group in groups))

    return [key for key in keys if is_axis(key)]


def _folder_axis(runs: Sequence[FinishedRun]) -> list[str]:
    """What tells runs on several image folders apart: the path where it does, else the checksum."""
    folders = {(run.settings["data.root"], run.settings[PICTURES]) for run in runs}
    checksums = {checksum for _, checksum in folders} - {None}
    if len(checksums) < 2:
        return []
    return ["data.root"] if len({root for root, _ in folders}) == len(checksums) == len(folders) else [PICTURES]


class Variants(list[Variant]):
    """Variants that a notebook shows as their table."""

    def _repr_html_(self) -> str:
        columns = shown_columns(self)
        head = Markup("").join(Markup("<th>{}</th>").format(one_line(heading)) for heading in columns.values())
        lines = [Markup("").join(Markup("<td>{}</td>").format(row[key]) for key in columns) for row in shown_rows(self)]
        body = Markup("").join(Markup("<tr>{}</tr>").format(line) for line in lines)
        return str(Markup("<table><tr>{}</tr>{}</table><p>{}</p>").format(head, body, legend(columns)))


def group_into_variants(runs: Sequence[FinishedRun]) -> Variants:
    """Group runs by all their settings but the seed, in the order given.

    A run that occurs twice, as two sweeps may hold the same one, counts once: it is not a second seed.
    """
    varied = axes(runs)
    groups: dict[tuple[str, ...], dict[int, FinishedRun]] = {}
    for run in runs:
        members = groups.setdefault(tuple(format_override(run.settings[key]) for key in varied), {})
        members.setdefault(run.settings["seed"], run)
    variants = Variants()
    for values, members in groups.items():
        name = ", ".join(f"{short(key)}={value}" for key, value in zip(varied, values, strict=True)) or "the run"
        seeds = list(members.values())
        variants.append(Variant(name, {key: seeds[0].settings[key] for key in varied}, seeds))
    return variants


def short(axis: str) -> str:
    """An axis as people read it.

    >>> short("model.name"), short("model.pool"), short("train.lr")
    ('model', 'pool', 'train.lr')
    """
    return "model" if axis == "model.name" else axis.removeprefix("model.")


def group_by_task(variants: Iterable[Variant]) -> dict[str, list[Variant]]:
    """Variants by data set and task, as ``data.task=where``: only those of one group are ranked with each other. One
    group with an empty name where these are the same for all.
    """
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        task = (f"{key}={format_override(value)}" for key, value in variant.settings.items() if key in TASK_KEYS)
        groups.setdefault(", ".join(task), []).append(variant)
    return groups


def ranking(variants: Sequence[Variant], column: str, smallest: bool) -> Ranking:
    """Rank at least two variants, all of which have a value in the column; indices are those of ``variants``."""
    return rank([variant.sample(column) for variant in variants], smallest, column_range(column))


def difference(variant: Variant, baseline: Variant, column: str, level: float = 0.95) -> Difference:
    """How far a variant's value lies above the baseline's: paired by seed, or by image for one run each."""
    return sample_difference(variant.sample(column), baseline.sample(column), level, column_range(column))


def select_baseline(variants: Sequence[Variant], name: str | None) -> Variant:
    """The variant of that name; without a name the first.

    Raises:
        UserError: there is no such variant.
    """
    names = {variant.name: variant for variant in variants}
    if name is not None and name not in names:
        raise UserError(f"baseline={name}: no such variant; choose one of {'; '.join(names)}")
    return variants[0] if name is None else names[name]


def baselines(variants: Iterable[Variant], selected: Variant) -> list[tuple[Variant, list[Variant]]]:
    """For each data set and task its baseline, the selected variant or the first, and its variants."""
    groups = group_by_task(variants).values()
    return [(selected if selected in group else group[0], group) for group in groups]


def difference_rows(variants: Sequence[Variant], selected: Variant) -> list[dict[str, Any]]:
    """``differences.csv``: a row for each column of each variant but the baseline of its data set and task."""
    return [
        {"variant": variant.name, "baseline": baseline.name, "measure": column, "difference": apart.value,
         "low": apart.low, "high": apart.high, "pairs": apart.pairs}
        for baseline, group in baselines(variants, selected)
        for variant in group if variant is not baseline
        for column in (*MEASURED, *GAPS, *FACTS) if variant.has(column) and baseline.has(column)
        for apart in [difference(variant, baseline, column)]
    ]  # fmt: skip


def shown_differences(variants: Sequence[Variant], baseline: Variant) -> list[dict[str, str]]:
    """The differences for people, a row for each other variant of the baseline's data set and task."""
    rows = []
    for variant in next(group for group in group_by_task(variants).values() if baseline in group):
        if variant is not baseline:
            row = {"variant": variant.name, "seeds": str(len({*variant.seeds} & {*baseline.seeds}))}
            row |= dict.fromkeys(FAILURES, "")
            for column in HEADINGS:
                if column not in row:
                    apart = difference(variant, baseline, column)
                    values = apart.value, apart.low, apart.high
                    row[column] = "–" if math.isnan(apart.value) else shown_value(column, *values, "+")
            rows.append(row)
    return rows
