"""The main numbers of nets that are measured alone, with nets beside them that say what is much and what is little."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..results.runs import FinishedRun
from .columns import HEADINGS, MEASURED, one_line
from .tables import page_rows, shown_value
from .variant import Variant

#: name → measures of a net of ``make demo``; taken from its runs on 2026-11-29, on an AMD EPYC, by code 502be47
REFERENCES = {
    name: Path(__file__).with_name(f"reference_net_{pool}.csv")
    for name, pool in {"average pooling": "avg", "max pooling": "max", "strided convolutions": "none"}.items()
}
#: what they are
ABOUT = "trained for two epochs on Fashion-MNIST, 28×28 pixels, and measured on its test images (make demo, one seed)"


def numbers_of_nets(variants: Sequence[Variant]) -> Mapping[str, Any]:
    """For the template: columns → headings; a row for each net and for the same with random weights, as the page's rows
    are; rows of the reference nets, without the columns that no net has.
    """
    columns = [column for column in MEASURED if column in HEADINGS and any(variant.has(column) for variant in variants)]
    references = [Variant(name, {}, [FinishedRun(path.parent, {}, path)]) for name, path in REFERENCES.items()]
    rows = [row for variant in variants for row in _with_untrained(variant, columns)]
    has_untrained = len(rows) > len(variants)
    return {
        "columns": {"variant": "net"} | {column: one_line(HEADINGS[column]) for column in columns},
        "rows": rows,
        "look": "distances below those of random weights: what training added."
        if has_untrained
        else "distances near 0: an output that a shift does not move.",
        "references": [row for variant in references for row in _with_untrained(variant, columns)],
        "about_references": ABOUT,
    }


def _with_untrained(variant: Variant, columns: Sequence[str]) -> list[dict[str, tuple[str, str]]]:
    rows = page_rows([variant])
    values = {column: f"{column}_untrained" for column in columns}
    measured = {column: name for column, name in values.items() if name in MEASURED and variant.has(name)}
    if measured:
        row = {"variant": (f"{variant.name}, random weights", "")} | dict.fromkeys(columns, ("–", ""))
        for column, name in measured.items():
            value, _, interval = shown_value(name, *variant.interval(name)).partition(" ")
            row[column] = value, interval
        rows.append(row)
    return rows
