"""The verdicts of a study, for the terminal and for the page."""

import math
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

from jinja2 import Environment, FileSystemLoader
from rich.table import Table
from rich.text import Text

from ..claims.judge import ClaimVerdict, ContrastVerdict
from ..claims.record import StudyVerdict
from ..stats.decisions import Verdict
from .cautions import listed
from .terminal import console, print_table, print_text

#: verdict → its mark, so that none is told by colour alone, and its colour in a terminal
MARKS = {
    Verdict.HOLDS: ("✓", "green"),
    Verdict.REFUTED: ("✗", "red"),
    Verdict.EQUIVALENT: ("=", "blue"),
    Verdict.UNDECIDED: ("?", "yellow"),
    Verdict.INADMISSIBLE: ("!", "magenta"),
}
#: of the plot of differences: its width, the height of a row, and how many margins it reaches to either side
WIDTH, ROW, REACH = 240, 34, 8
#: of its picture: characters a line of a claim, of a contrast's name, and of its number or its difference
LINE, NAME, SMALL = 115, 34, 50


def mark(verdict: Verdict) -> str:
    """The sign that stands before a verdict."""
    return MARKS[verdict][0]


def show_verdicts(study: StudyVerdict) -> None:
    """Print every claim with its verdict, and a line for each of its contrasts."""
    for claim in study.claims:
        sign, colour = MARKS[claim.verdict]
        console.print(Text.assemble("\n", (f"{sign} {claim.verdict.upper()}", f"bold {colour}"), f"  {claim.text}"))
        for reason in claim.reasons:
            print_text(reason)
        table = Table(box=None, pad_edge=True, padding=(0, 1), show_header=False)
        for contrast in claim.contrasts:
            sign, colour = MARKS[contrast.verdict]
            words = f"{contrast.name}\n{contrast.number}; expected {expected(contrast)}"
            table.add_row(Text(sign, style=colour), Text(words), Text(f"{difference(contrast)}\n{basis(contrast)}"))
        print_table(table)
    for line in remarks(study):
        print_text(line, 0, "dim")


def expected(contrast: ContrastVerdict) -> str:
    """What the claim says of ``a`` and ``b``, with the margin: ``a > b, by .01 to matter``."""
    return f"{' '.join(contrast.expect)}, margin {short(contrast.margin)}"


def difference(contrast: ContrastVerdict) -> str:
    """``-.026 [-.035, -.018]``; empty where there is none."""
    if math.isnan(contrast.value):
        return contrast.reason or "not measured"
    return f"{_signed(contrast.value)} [{_signed(contrast.low)}, {_signed(contrast.high)}]"


def basis(contrast: ContrastVerdict) -> str:
    """What the difference rests on: seeds, images, what could have been seen."""
    of_pairs = f" pair{'s' * (contrast.pairs != 1)} of seeds" * (contrast.seeds_each > 1)
    parts = [f"n = {contrast.pairs}{of_pairs}" + f" × {contrast.images:,} images" * bool(contrast.images)]
    if not math.isnan(contrast.detectable):
        parts.append(f"detectable {short(contrast.detectable)}")
    if contrast.calibration:
        parts.append(f"thresholds by {contrast.calibration} runs")
    # not more where another contrast makes a claim inadmissible
    if contrast.needed and contrast.needed > contrast.pairs * contrast.seeds_each:
        parts.append(f"{contrast.needed:,} seeds would decide")
    return "; ".join(parts)


def remarks(study: StudyVerdict) -> Iterator[str]:
    """What a reader of the verdicts must know: missing and failed runs, later edits, what is not tested."""
    if study.missing:
        yield f"{len(study.missing)} of {study.jobs} runs are missing."
    if study.failed:
        yield f"{len(study.failed)} of {study.finished} runs failed to train."
    if study.finished_before:
        yield f"The claims were stated when {study.finished_before} of {study.jobs} runs had finished."
    for edit in study.edits:
        finished = "" if edit["finished"] is None else f" when {edit['finished']} runs had finished"
        yield f"The claims or the rule were changed after they were stated ({edit['date']}{finished})."
    for late in study.added:
        plural = "variants were" if len(late["variants"]) > 1 else "variant was"
        yield (
            f"{len(late['variants'])} {plural} added when {late['finished']} runs had finished ({late['date']}): "
            f"{listed(late['variants'])}."
        )
    if study.untested:
        yield f"Not tested: {study.untested}"


def page_of(study: StudyVerdict) -> dict[str, Any]:
    """The verdicts as the templates of the page and of the picture take them."""
    return {
        "question": study.question, "claims": [_claim(claim) for claim in study.claims],
        "remarks": list(remarks(study)), "stated": study.stated[:10], "hash": study.hash, "width": WIDTH, "row": ROW,
        "reach": REACH,
    }  # fmt: skip


def forest(study: StudyVerdict) -> str:
    """An SVG picture of a study: below each claim its contrasts, difference and interval in units of its own margin."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    content = page_of(study)
    claims = [_laid_out(claim) for claim in content["claims"]]
    return environment.get_template("forest.svg.j2").render(content | {"claims": claims})


def _laid_out(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim with its texts in lines that fit the picture, as SVG does not break any, and the height of each row."""
    rows = [
        row
        | {
            "name": wrap(row["name"], NAME, break_on_hyphens=False),
            "number": wrap(f"{row['number']}; expected {row['expected'].split(',')[0]}", SMALL, break_on_hyphens=False),
            "difference": wrap(row["difference"], SMALL, break_on_hyphens=False),
        }
        for row in claim["contrasts"]
    ]
    for row in rows:
        row["height"] = max(
            ROW, 15 * len(row["name"]) + 13 * len(row["number"]) + 6, 15 + 13 * len(row["difference"]) + 6
        )
    text = wrap(f"{claim['mark']} {claim['verdict']}: {claim['text']}", LINE)
    return claim | {"lines": text, "contrasts": rows}


def _claim(claim: ClaimVerdict) -> dict[str, Any]:
    return {
        "text": claim.text, "verdict": str(claim.verdict), "mark": mark(claim.verdict), "reasons": claim.reasons,
        "need": claim.need, "contrasts": [_row(contrast) for contrast in claim.contrasts],
    }  # fmt: skip


def _row(contrast: ContrastVerdict) -> dict[str, Any]:
    return {
        "name": contrast.name, "number": contrast.number, "expected": expected(contrast),
        "verdict": str(contrast.verdict), "mark": mark(contrast.verdict), "a": short(contrast.a),
        "b": short(contrast.b), "floor": short(contrast.floor), "difference": difference(contrast),
        "basis": basis(contrast), "plot": _plot(contrast),
    }  # fmt: skip


def _plot(contrast: ContrastVerdict) -> dict[str, Any] | None:
    """Places on a row of ``WIDTH``: the margin's band, the difference and its interval, in units of the margin; None
    where there is none. An interval that leaves the row is cut there, and ``cut_low`` or ``cut_high`` says so.
    """
    if math.isnan(contrast.low):
        return None
    unit = contrast.margin or max(abs(contrast.low), abs(contrast.high)) or 1.0

    def place(value: float) -> float:
        return round(WIDTH / 2 * (1 + max(min(value / unit, REACH), -REACH) / REACH), 1)

    return {
        "left": place(-contrast.margin), "right": place(contrast.margin), "low": place(contrast.low),
        "value": place(contrast.value), "high": place(contrast.high), "cut_low": contrast.low < -REACH * unit,
        "cut_high": contrast.high > REACH * unit, "inside": abs(contrast.value) <= REACH * unit,
    }  # fmt: skip


def short(number: float) -> str:
    """Three digits; empty for nan.

    >>> short(0.01234), short(1234.5), short(float("nan"))
    ('0.0123', '1,234', '')
    """
    if math.isnan(number):
        return ""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _signed(number: float) -> str:
    """As ``short``, with its sign.

    >>> _signed(0.5), _signed(-0.25)
    ('+0.5', '-0.25')
    """
    return f"{'+' if number > 0 else ''}{short(number)}"
