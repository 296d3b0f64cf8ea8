"""Figures as files for a lecture or a paper: SVG, PNG or PDF, drawn by Chrome, and their numbers as CSV."""

import csv
import importlib.util
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..common.errors import UserError
from ..results import files
from .sections import Section
from .terms import key_of

#: of a figure's CSV file: panel; name in the legend; untrained or floor; a point with its 95% interval, or a cell of
#: a map at (x, y) with its value
COLUMNS = ("panel", "series", "kind", "x", "y", "value", "low", "high")
FORMATS = ("svg", "png", "pdf", "csv")
CAPTIONS = "captions.txt"
#: pixels of a figure per centimetre and per point; a PNG has three times as many, about 300 per inch
PER_CM, PER_POINT, DENSITY = 96 / 2.54, 96 / 72, 3


@dataclass(frozen=True)
class FigureFiles:
    """Where figures go and how they look in print.

    Args:
        folder: of the files.
        formats: of ``FORMATS``.
        width: in centimetres; None: as on the page. The height goes along.
        font, font_size: family, or several to choose from as in CSS; size in points.

    Raises:
        UserError: an unknown format, a size that is no length, or no Chrome to draw with.
    """

    folder: Path
    formats: tuple[str, ...]
    width: float | None = None
    font: str = "sans-serif"
    font_size: float = 10

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise UserError(f"format={','.join(self.formats)}: choose of {', '.join(FORMATS)}")
        for key, size, most in (("width", self.width, 200), ("font_size", self.font_size, 200)):
            if size is not None and not 0 < size <= most:
                raise UserError(f"{key}={size:g}: must be above 0 and at most {most}")
        if self.drawn:
            _check_renderer()

    @property
    def drawn(self) -> list[str]:
        """The formats that Chrome draws."""
        return [name for name in self.formats if name != "csv"]


def write_figures(shown: Sequence[tuple[Section, go.Figure]], options: FigureFiles) -> None:
    """Write each figure in every format, named after its title, and all captions into ``captions.txt``."""
    named = {key_of(section.title): (section, figure) for section, figure in shown}
    for name, (_, figure) in named.items():
        if "csv" in options.formats:
            files.write(options.folder / f"{name}.csv", figure_csv(figure))
    captions = [f"{name}: {section.title}. {section.reading}\n" for name, (section, _) in named.items()]
    files.write(options.folder / CAPTIONS, "\n".join(captions))
    if options.drawn:
        _draw({name: figure for name, (_, figure) in named.items()}, options)


def figure_csv(figure: go.Figure) -> str:
    """The numbers of a figure, a line a point or a cell, with the columns ``COLUMNS``."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    panel = cache(partial(_panel, figure.layout))  # plotly takes milliseconds for each of thousands of traces
    for trace in figure.data:
        if trace.type == "image":  # a picture, which has no numbers
            continue
        start = (panel(trace.xaxis or "x", trace.yaxis or "y"), trace.name, trace.meta)
        points = _cells(trace) if trace.type == "heatmap" else _points(trace)
        table.writerows([*start, *map(_short, point)] for point in points)
    return text.getvalue()


def _points(trace: Any) -> Iterator[tuple[Any, ...]]:
    """x, no y, value and ends of the interval, of each point of a line or a bar. Where what is drawn has a scale
    that is no number of its own, ``customdata`` has (axis, value) of the points, and None between them.
    """
    if trace.customdata is not None:
        yield from ((place, None, value, None, None) for place, value in filter(None, trace.customdata))
        return
    flat = getattr(trace, "orientation", None) == "h"
    places, values, bars = (trace.y, trace.x, trace.error_x) if flat else (trace.x, trace.y, trace.error_y)
    above = bars.array
    below = above if bars.arrayminus is None else bars.arrayminus
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        measured = above is not None and value is not None
        yield place, None, value, value - below[i] if measured else None, value + above[i] if measured else None


def _cells(trace: Any) -> Iterator[tuple[Any, ...]]:
    """x, y, value and ends of the interval (``customdata``, if there are some) of each cell of a map; without axes, its
    column and row from 0.
    """
    values = np.asarray(trace.z)
    ends = np.full((*values.shape, 2), None) if trace.customdata is None else np.asarray(trace.customdata)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            yield (j if trace.x is None else trace.x[j]), (i if trace.y is None else trace.y[i]), value, *ends[i, j]


def _short(value: Any) -> Any:
    """A number with at most six digits, which halves the table; anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def _panel(layout: go.Layout, *axes: str) -> str:
    """The title above the panel of two axes, as ``x2`` and ``y2``; of a panel without, what they show."""
    x, y = (layout[f"{name[0]}axis{name[1:]}"] for name in axes)
    left, right = x.domain or (0, 1)
    top = (y.domain or (0, 1))[1]
    for note in layout.annotations:
        if abs(note.x - (left + right) / 2) < 1e-3 and abs(note.y - top) < 1e-3:
            return " ".join(note.text.replace("<br>", " ").split())
    return " by ".join(axis.title.text for axis in (y, x) if axis.title.text)


def _check_renderer() -> None:
    """Refuse formats that nothing here can draw."""
    ways = "pip install 'whatwhere[figures]', or choose format=csv"
    if importlib.util.find_spec("kaleido") is None:
        raise UserError(f"svg, png and pdf are drawn by kaleido, which is not installed: {ways}")
    from choreographer.browsers.chromium import Chromium

    if not Chromium.find_browser(skip_local=False):
        raise UserError("svg, png and pdf are drawn by Chrome or Chromium, and none is installed; or choose format=csv")


def _draw(figures: dict[str, go.Figure], options: FigureFiles) -> None:
    """Draw the figures with one browser, which fetches nothing."""
    import kaleido

    jobs = []
    for name, figure in figures.items():
        natural = (figure.layout.meta or {}).get("width", 560)
        scale = 1 if options.width is None else options.width * PER_CM / natural
        size = {"width": natural, "height": figure.layout.height}
        printed = _for_print(figure, options.font, options.font_size * PER_POINT / scale)
        for kind in options.drawn:
            look = {"format": kind, **size, "scale": scale * (DENSITY if kind == "png" else 1)}
            jobs.append({"fig": printed, "path": options.folder / f"{name}.{kind}", "opts": look})
    try:
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})
    except Exception as error:  # a browser that is there may still not start: its sandbox, a library, memory
        raise UserError(
            f"svg, png and pdf are drawn by Chrome or Chromium, which failed ({type(error).__name__}): the tables and "
            f"captions are in {options.folder}; or choose format=csv"
        ) from error


def _for_print(figure: go.Figure, family: str, size: float) -> go.Figure:
    """The figure in dark letters on white, all of one family and, but for titles of panels, one size in pixels."""
    printed = go.Figure(figure)
    printed.update_layout(paper_bgcolor="#fff", font={"family": family, "size": size, "color": "#222"})
    for note in printed.layout.annotations:
        note.font.size = size * (note.font.size or 13) / 13
    return printed
