"""``measures.csv`` and the files beside it: written, merged with what they held, and read."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.families import ALWAYS, family_of
from ..metrics.quantities import is_of_a_metric
from ..metrics.rows import COLUMNS, Estimate, Heatmap, Note, PerImage, Pictures, Result, Row
from . import files

#: end of the measures' names of an untrained twin
UNTRAINED = "_untrained"
#: sums of squares of such numbers are finite
LARGEST = 1e100
#: file of arrays beside a table → the dimensions of each of them, where these are the same for all
SIDES = {files.GRIDS: 2, files.PER_IMAGE: 2}
#: end of the key of the distances of pictures
DISTANCE = "/distance"


def write_measures(path: Path, results: Iterable[Result], families: Collection[str] | None = None) -> list[Row]:
    """Write the table of a run, one row per number, with heatmaps, notes and values per image beside it; give its rows.
    Of ``families``, those that were measured, as ``measure.what`` names them, and of what is always measured, the rows
    are replaced; those of other families stay. None: the whole table is replaced.
    """
    results = list(results)
    rows = [result for result in results if isinstance(result, Row)]
    grids = {f"{result.measure}/{result.layer}": result.values for result in results if isinstance(result, Heatmap)}
    notes = {result.measure: result.words for result in results if isinstance(result, Note)}
    per_image = {
        per_image_name(result.layer, result.protocol, result.amount, result.measure): result.values
        for result in results
        if isinstance(result, PerImage)
    }
    pictures = {
        f"{result.measure}/{result.layer}{ending}": array
        for result in results
        if isinstance(result, Pictures)
        for ending, array in (("", result.values), (DISTANCE, result.distance))
    }
    lines: Iterable[Sequence[Any]] = [row.values() for row in rows]
    if families is not None:
        replaced = {*families, ALWAYS}
        lines = _merged(files.read_rows(path), rows, replaced)
        grids = _others(read_beside(path, files.GRIDS), replaced) | grids
        notes = _others(read_notes(path), replaced) | notes
        per_image = read_beside(path, files.PER_IMAGE) | per_image
        pictures = _others(read_beside(path, files.PICTURES), replaced) | pictures
    files.write_table(path, COLUMNS, lines)
    for name in (files.GRIDS, files.NOTES, files.PER_IMAGE, files.PICTURES):
        files.beside(path, name).unlink(missing_ok=True)
    for name, arrays in ((files.GRIDS, grids), (files.PER_IMAGE, per_image), (files.PICTURES, pictures)):
        if arrays:
            files.write_arrays(files.beside(path, name), arrays)
    if notes:
        files.write_json(files.beside(path, files.NOTES), notes)
    return rows


def read_results(path: Path) -> list[Row]:
    """The rows of a table; none where it is missing; ``UserError`` if it is damaged."""
    lines = files.read_rows(path, COLUMNS)
    with files.reading(path):
        return [_row(line) for line in lines]


def read_beside(path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays beside a table, in its ``GRIDS``, ``PER_IMAGE`` or ``PICTURES``; none where there is no such file."""
    return files.read_arrays(files.beside(path, name), SIDES.get(name))


def read_notes(path: Path) -> dict[str, str]:
    """The notes beside a table: family → a line on how it was measured; of the untrained twin, with its suffix."""
    notes: dict[str, str] = files.read_json(kept := files.beside(path, files.NOTES), {})
    with files.reading(kept):
        if wrong := [name for name, words in notes.items() if not isinstance(words, str)]:
            raise TypeError(f"{wrong[0]} is no text")
    return notes


def per_image_name(layer: str, protocol: str, amount: float, measure: str) -> str:
    """The key of a number in ``per_image.npz``: ``output,crop,1,output_distance``."""
    return f"{layer},{protocol},{amount:g},{measure}"


def _others(values: Mapping[str, Any], replaced: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if family_of(name) not in replaced}


def _merged(lines: list[dict[str, str]], rows: list[Row], replaced: Collection[str]) -> Iterator[Sequence[Any]]:
    """The lines of a table in their order, those of replaced families by new rows; new families come last.

    A table that is written again with the same numbers is the same byte for byte.
    """
    new: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        new.setdefault((family_of_row(row), row.measure.endswith(UNTRAINED)), []).append(row)
    for line in lines:
        old = _row(line)
        if family_of_row(old) in replaced:
            group = new.pop((family_of_row(old), old.measure.endswith(UNTRAINED)), [])
            yield from (row.values() for row in group)
        else:
            yield [line[column] for column in COLUMNS]
    yield from (row.values() for group in new.values() for row in group)


def family_of_row(row: Row) -> str:
    """The entry of ``measure.what`` that a row comes from; ``ALWAYS`` for what is measured without one."""
    if row.transform not in ("none", "shift"):
        return row.transform
    if not is_of_a_metric(row.measure) and (name := family_of(row.measure)):
        return name
    if row.transform == "none":
        return ALWAYS if row.layer == "output" else "layers"
    kind = row.protocol.rpartition("_")[2]  # of all_rolls, sampled_rolls …
    return kind if kind in ("rolls", "crops", "embed") else "shift"


def families_in(path: Path) -> Counter[str]:
    """How many numbers of each family a table holds."""
    return Counter(map(family_of_row, read_results(path)))


#: largest number of measures in the summary of a run at W&B, and those of 1-px shifts and of layers that are in it
MOST_KEYS = 80
SUMMARY_OF_SHIFTS = ("output_distance", "consistency", "consistency_corrected")
SUMMARY_OF_LAYERS = ("probe_accuracy", "probe_r2", "effective_rank", "dead_share", "class_selectivity",
    "metamer_pixel_distance")  # fmt: skip


def named_values(rows: Iterable[Row]) -> dict[str, float]:
    """Numbers under the keys that W&B gets: ``test/accuracy``, ``invariance/crop/1px/output_distance`` …"""
    values = {}
    for row in rows:
        layer = "" if row.layer == "output" else f"{row.layer}/"
        if row.transform == "none":
            protocol = f"{row.protocol}/{row.amount:g}" if row.amount else row.protocol
            values[f"{protocol}/{layer}{row.measure}"] = row.estimate.value
        elif row.transform == "shift" or row.layer == "output":
            values[f"invariance/{_setting(row)}/{layer}{row.measure}"] = row.estimate.value
    return values


def summary_values(rows: Iterable[Row]) -> dict[str, float]:
    """Those of ``named_values`` that people sort runs by, at most ``MOST_KEYS``; the table ``measures`` has all."""
    ranks = {row: rank for row in rows if (rank := _rank(row)) is not None}
    return dict(islice(named_values(sorted(ranks, key=lambda row: ranks[row])).items(), MOST_KEYS))


def _rank(row: Row) -> int | None:
    """How much people sort by a number, 0 the most; None: not at all."""
    of_output, shift_by_1 = row.layer == "output", row.transform == "shift" and row.amount == 1
    if of_output and row.transform == "none" and not row.amount and not row.measure.endswith("_untrained"):
        return 0  # scores
    is_shift = row.transform == "shift" and row.protocol in ("crop", "roll")
    if of_output and shift_by_1 and is_shift and row.measure.removesuffix("_untrained") in SUMMARY_OF_SHIFTS:
        return 1
    if shift_by_1 and row.protocol == "crop" and row.measure in ("invariance_error", "equivariance_error"):
        return 2  # by layer
    if row.transform == "none" and row.measure in SUMMARY_OF_LAYERS:
        return 3
    return 4 if of_output and not is_shift and row.measure in ("output_distance", "worst_case", "lee") else None


def _setting(row: Row) -> str:
    """``crop/1px``, ``all_rolls``, ``rotate-disc/15`` …: transform and amount."""
    if row.transform == "shift":
        return row.protocol if row.protocol.endswith("rolls") else f"{row.protocol}/{row.amount:g}px"
    return f"{row.transform}-{row.protocol}" + f"/{row.amount:g}" * bool(row.amount)


def _row(line: Mapping[str, str]) -> Row:
    value, low, high = (finite(name, number(line[name])) for name in ("value", "low", "high"))
    estimate = Estimate(value, low, high, int(line["n"]))
    amount = finite("amount", float(line["amount"]))
    where = line["layer"], line["transform"], line["protocol"], amount, line["measure"]
    return Row(*where, estimate)


def finite(name: str, value: float) -> float:
    """The number, or nan; ``ValueError`` where it is larger than any that is measured."""
    if abs(value) > LARGEST:
        raise ValueError(f"{name}={value:g}")
    return value


def number(text: str) -> float:
    """A field of a CSV file; an empty one is nan."""
    return float(text) if text else float("nan")
