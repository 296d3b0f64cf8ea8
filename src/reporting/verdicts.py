"""The verdicts of a study, for the terminal and for the page."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from rich.table import Table
from rich.text import Text

from ..claims.judge import ClaimVerdict, ContrastVerdict
from ..claims.record import StudyVerdict
from ..stats.decisions import Verdict
from .terminal import console

#: verdict → its mark, so that none is told by colour alone, and its colour in a terminal
MARKS = {
    Verdict.HOLDS: ("✓", "green"),
    Verdict.REFUTED: ("✗", "red"),
    Verdict.EQUIVALENT: ("=", "blue"),
    Verdict.UNDECIDED: ("?", "yellow"),
    Verdict.INADMISSIBLE: ("!", "magenta"),
}
#: width of a row's plot, in its own units
PLOT = 240
#: of the picture of a study: width of its plot, height of a row, and how many margins it reaches to either side
FOREST, ROW, REACH = 300, 34, 8


def show_verdicts(study: StudyVerdict) -> None:
    """Print every claim with its verdict, and a line for each of its contrasts."""
    for claim in study.claims:
        mark, colour = MARKS[claim.verdict]
        console.print(Text.assemble("\n", (f"{mark} {claim.verdict.upper()}", f"bold {colour}"), f"  {claim.text}"))
        for reason in claim.reasons:
            console.print(f"  {reason}", markup=False)
        table = Table(box=None, pad_edge=True, padding=(0, 1), show_header=False)
        for contrast in claim.contrasts:
            mark, colour = MARKS[contrast.verdict]
            words = f"{contrast.name}\n{contrast.number}; expected {expected(contrast)}"
            table.add_row(Text(mark, style=colour), Text(words), Text(f"{difference(contrast)}\n{basis(contrast)}"))
        console.print(table)
    for line in remarks(study):
        console.print(line, markup=False, style="dim")


def expected(contrast: ContrastVerdict) -> str:
    """What the claim says of ``a`` and ``b``, with the margin: ``a > b, by .01 to matter``."""
    return f"{' '.join(contrast.expect)}, margin {_short(contrast.margin)}"


def difference(contrast: ContrastVerdict) -> str:
    """``-.026 [-.035, -.018]``; empty where there is none."""
    if math.isnan(contrast.value):
        return contrast.reason or "not measured"
    return f"{_signed(contrast.value)} [{_signed(contrast.low)}, {_signed(contrast.high)}]"


def basis(contrast: ContrastVerdict) -> str:
    """What the difference rests on: seeds, images, what could have been seen."""
    parts = [f"n = {contrast.pairs}" + f" × {contrast.images:,} images" * bool(contrast.images)]
    if not math.isnan(contrast.detectable):
        parts.append(f"detectable {_short(contrast.detectable)}")
    if contrast.needed:
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
    if study.untested:
        yield f"Not tested: {study.untested}"


def page_of(study: StudyVerdict) -> dict[str, Any]:
    """The verdicts as the page's template takes them."""
    return {
        "claims": [_claim(claim) for claim in study.claims],
        "remarks": list(remarks(study)),
        "stated": study.stated[:10],
        "hash": study.hash,
        "plot": PLOT,
    }


def _claim(claim: ClaimVerdict) -> dict[str, Any]:
    return {
        "text": claim.text, "verdict": str(claim.verdict), "mark": MARKS[claim.verdict][0], "reasons": claim.reasons,
        "need": claim.need, "contrasts": [_row(contrast) for contrast in claim.contrasts],
    }  # fmt: skip


def _row(contrast: ContrastVerdict) -> dict[str, Any]:
    return {
        "name": contrast.name, "number": contrast.number, "expected": expected(contrast),
        "verdict": str(contrast.verdict), "mark": MARKS[contrast.verdict][0], "a": _short(contrast.a),
        "b": _short(contrast.b), "floor": _short(contrast.floor), "difference": difference(contrast),
        "basis": basis(contrast), "plot": _plot(contrast),
    }  # fmt: skip


def _plot(contrast: ContrastVerdict) -> dict[str, float] | None:
    """Places on a row of ``PLOT`` units: zero, the margin's band, the interval; None where there is none."""
    if math.isnan(contrast.low):
        return None
    widest = max(abs(contrast.low), abs(contrast.high), 1.4 * contrast.margin) * 1.05 or 1.0

    def place(value: float) -> float:
        return round(PLOT / 2 * (1 + value / widest), 1)

    return {
        "zero": place(0), "left": place(-contrast.margin), "right": place(contrast.margin),
        "low": place(contrast.low), "high": place(contrast.high), "value": place(contrast.value),
    }  # fmt: skip


def _short(number: float) -> str:
    """Three digits; empty for nan.

    >>> _short(0.01234), _short(1234.5), _short(float("nan"))
    ('0.0123', '1,234', '')
    """
    if math.isnan(number):
        return ""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _signed(number: float) -> str:
    """As ``_short``, with its sign.

    >>> _signed(0.5), _signed(-0.25)
    ('+0.5', '-0.25')
    """
    return f"{'+' if number > 0 else ''}{_short(number)}"


def forest(study: dict[str, Any]) -> str:
    """An SVG picture of all contrasts of a study: difference and interval, each in units of its own margin.

    Args:
        study: the tree of its ``verdict.json``.
    """
    rows = [(claim, contrast) for claim in study["claims"] for contrast in claim["contrasts"]]
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("forest.svg.j2").render(
        question=study["question"], rows=[_picture(claim, contrast) for claim, contrast in rows], width=FOREST, row=ROW
    )


def _picture(claim: dict[str, Any], contrast: dict[str, Any]) -> dict[str, Any]:
    """One row of ``forest``: names, verdict, and places; an interval that leaves the picture is cut, with an arrow."""
    texts = {"name": contrast["name"], "number": contrast["number"], "verdict": contrast["verdict"],
             "mark": MARKS[contrast["verdict"]][0], "claim": claim["text"]}  # fmt: skip
    if contrast["low"] is None:
        return texts | {"places": None}
    unit = contrast["margin"] or max(abs(contrast["low"]), abs(contrast["high"])) or 1.0
    ends = {key: contrast[key] / unit for key in ("low", "value", "high")}
    places = {key: round(FOREST / 2 * (1 + max(min(end, REACH), -REACH) / REACH), 1) for key, end in ends.items()}
    band = FOREST / 2 / REACH * bool(contrast["margin"])
    return texts | {
        "places": places, "left": FOREST / 2 - band, "right": FOREST / 2 + band, "zero": FOREST / 2,
        "cut_low": ends["low"] < -REACH, "cut_high": ends["high"] > REACH,
        "text": f"{contrast['value']:+.3g} [{contrast['low']:+.3g}, {contrast['high']:+.3g}]",
    }  # fmt: skip


def summary_line(claims: Sequence[ClaimVerdict]) -> str:
    """``2 hold, 1 undecided``, for a line of many studies."""
    counts = {verdict: sum(claim.verdict is verdict for claim in claims) for verdict in Verdict}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
