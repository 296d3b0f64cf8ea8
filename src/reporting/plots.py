"""Plotly figures of a comparison, for notebooks and for the page: shared theme, small multiples, trade-off, training.

Figures of measures are in ``measure_figures`` and ``heatmaps``. A figure without data is empty (``figure.data``).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..results.measures import number
from .columns import MEASURED
from .variant import Variant

# Okabe & Ito's palette, safe for colour-blind readers; there are more marks than colours, so that the ninth variant
# does not look like the first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#B8A800")
MARKS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down", "hourglass")
#: mark of a variant → the pattern of its bars, so that no variant is told by its colour alone
PATTERNS = dict(zip(MARKS, ("", "/", ".", "x", "-", "+", "\\", "|", ""), strict=True))
GRID = "rgba(128,128,128,0.25)"
#: suffix of a measure's name → how its line is drawn
LINES: dict[str, dict[str, Any]] = {
    "": {"line": {"width": 2}, "marker": {"size": 8}},
    "_untrained": {"line": {"width": 2, "dash": "dot"}, "marker": {"size": 4}, "opacity": 0.6},
    "_floor": {"line": {"width": 1, "dash": "dash"}, "marker": {"size": 3}, "opacity": 0.8},
}
#: panels side by side; in pixels: smallest width of a panel, its height with its axis, space below it and above all
COLUMNS, WIDTH, HEIGHT, BELOW, ABOVE = 4, 215, 260, 60, 68
#: panels of a figure that are shown at once; more are chosen from by their parts
PANELS = 12

#: points (x, value, low, high)
Curve = Sequence[tuple[Any, float, float, float]]


@dataclass(frozen=True)
class Panel:
    """A small plot among others; its curves are variant → suffix of a measure's name (of ``LINES``) → curve. The page
    shows the panels of one ``part`` at a time where a figure has many.
    """

    title: str
    curves: Callable[[Variant], Mapping[str, Curve]]
    part: str = ""


def styles(count: int) -> list[tuple[str, str]]:
    """(colour, mark) of each variant, the same in every figure."""
    return list(islice(zip(cycle(COLOURS), cycle(MARKS), strict=False), count))


def small_multiples(
    variants: Sequence[Variant], panels: Sequence[Panel], y: str, order: Sequence[str] = (), bars: bool = False,
    shared: bool = True, columns: int = COLUMNS, below: int = BELOW,
) -> go.Figure:  # fmt: skip
    """Small multiples: the same variants in every panel; panels without a point are left out.

    Args:
        y: title of the y axis.
        order: of the categories on the x axis, if it is categorical.
        bars: draw bars instead of lines.
        shared: one scale for the y axes of all panels; else each has its own.
        columns, below: number of panels side by side; space below a panel in pixels.
    """
    by_panel = {panel: [panel.curves(variant) for variant in variants] for panel in panels}
    by_panel = {panel: curves for panel, curves in by_panel.items() if any(any(each.values()) for each in curves)}
    figure, cells = subplots([panel.title for panel in by_panel], columns, shared, below)
    in_legend: set[str] = set()
    for cell, curves_of_variants in zip(cells, by_panel.values(), strict=True):
        for variant, style, curves in zip(variants, styles(len(variants)), curves_of_variants, strict=True):
            for suffix, curve in curves.items():
                if curve:
                    trace = (_bars if bars else _line)(curve, style, suffix)
                    trace.update(name=variant.name, legendgroup=variant.name, showlegend=variant.name not in in_legend)
                    trace.meta = suffix.strip("_") or None
                    figure.add_trace(trace, **cell)
                    in_legend.add(variant.name)
        if order:
            figure.update_xaxes(type="category", categoryorder="array", categoryarray=list(order), **cell)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title=y, col=1)
    figure.update_layout(bargap=0.2 if len(variants) > 1 else 0.7)
    if len(by_panel) > PANELS:
        parts: dict[str, list[str]] = {}
        for i, panel in enumerate(by_panel):
            parts.setdefault(panel.part, []).append(f"x{i + 1 if i else ''}")
        figure.layout.meta |= {"parts": parts} if len(parts) > 1 else {}
    return apply_theme(figure)


def subplots(
    titles: Sequence[str], columns: int = COLUMNS, shared: bool = True, below: int = BELOW, gap: float = 0.06
) -> tuple[go.Figure, list[dict[str, int]]]:
    """An empty figure of titled panels, and the row and column of each; between two lie ``below`` pixels and, without a
    shared y axis, ``gap`` of the width.
    """
    columns = max(min(columns, len(titles)), 1)
    rows = max(-(-len(titles) // columns), 1)
    panel_height = HEIGHT - BELOW + (60 if rows == 1 and columns < COLUMNS else 0)
    height = rows * (panel_height + below)
    figure = make_subplots(
        rows, columns, subplot_titles=list(titles), shared_yaxes="all" if shared else False,
        horizontal_spacing=min(0.04 if shared else gap, 1 / columns), vertical_spacing=below / height,
    )  # fmt: skip
    figure.update_layout(height=height + ABOVE, meta={"width": max(columns * WIDTH, 560)})
    figure.update_annotations(font_size=14)
    return figure, [{"row": i // columns + 1, "col": i % columns + 1} for i in range(len(titles))]


def _line(curve: Curve, style: tuple[str, str], suffix: str) -> go.Scatter:
    (colour, mark), line = style, LINES[suffix]
    x, y, error = _points(curve)
    return go.Scatter(
        x=x, y=y, mode="lines+markers", opacity=line.get("opacity", 1), error_y=None if suffix else error,
        line={"color": colour, **line["line"]}, marker={"symbol": mark, **line["marker"]},
        hovertemplate=f"%{{x}}: %{{y:.3f}}{suffix.replace('_', ' ')}",
    )  # fmt: skip


def _bars(curve: Curve, style: tuple[str, str], suffix: str) -> go.Bar:
    (colour, mark), (x, y, error) = style, _points(curve)
    return go.Bar(
        x=x, y=y, error_y=error | {"color": "#808080"},
        marker={"color": colour, "pattern": {"shape": PATTERNS[mark], "solidity": 0.2, "fgcolor": "#fff"}},
        opacity=LINES[suffix].get("opacity", 1), hovertemplate=f"%{{x}}: %{{y:.3f}}{suffix.replace('_', ' ')}",
    )  # fmt: skip


def _points(curve: Curve) -> tuple[list[Any], list[float], dict[str, Any]]:
    """The x and y of a curve, and its error bars."""
    x, y, low, high = (list(column) for column in zip(*curve, strict=True))
    above, below = ([abs(end - value) for end, value in zip(ends, y, strict=True)] for ends in (high, low))
    return x, y, {"type": "data", "array": above, "arrayminus": below, "width": 2, "thickness": 1}


def trade_off(variants: list[Variant]) -> go.Figure:
    """Test score against output distance for a 1-px crop, if measured, and against cost; empty for one variant."""
    if len(variants) < 2:
        return go.Figure()
    titles = {
        "crop_1px_output_distance": "output distance (1-px crop)",
        "multiply_adds": "multiply-adds (MACs) per image",
    }
    titles = {column: title for column, title in titles.items() if any(variant.has(column) for variant in variants)}
    figure = make_subplots(1, len(titles), shared_yaxes=True, horizontal_spacing=0.06)
    for variant, (colour, mark) in zip(variants, styles(len(variants)), strict=True):
        accuracy, above, below = _with_bounds(variant, variant.score)
        for panel, column in enumerate(titles, start=1):
            x, right, left = _with_bounds(variant, column)
            figure.add_scatter(
                x=[x], y=[accuracy], mode="markers", name=variant.name, legendgroup=variant.name,
                showlegend=panel == 1, marker={"color": colour, "symbol": mark, "size": 12},
                error_x={"type": "data", "array": [right], "arrayminus": [left], "width": 3},
                error_y={"type": "data", "array": [above], "arrayminus": [below], "width": 3},
                row=1, col=panel,
            )  # fmt: skip
    for panel, (column, title) in enumerate(titles.items(), start=1):
        figure.update_xaxes(title=title, row=1, col=panel)
        values = [variant.mean(column) for variant in variants if variant.has(column)]
        if column == "multiply_adds" and max(values) < 1.01 * min(values):  # else ticks would differ in the sixth digit
            figure.update_xaxes(range=[0.9 * min(values), 1.1 * max(values)], row=1, col=panel)
    figure.update_yaxes(title=_scores(variants, "test "), row=1, col=1)
    return apply_theme(figure)


def training_curves(variants: list[Variant]) -> go.Figure:
    """Loss and score by epoch, a line per seed: validation solid, training dotted; gaps where a value is not finite."""
    figure = make_subplots(1, 2, horizontal_spacing=0.1, subplot_titles=["loss", _scores(variants)])
    for variant, (colour, mark) in zip(variants, styles(len(variants)), strict=True):
        for i, run in enumerate(variant.runs):
            for panel, name in ((1, "loss"), (2, MEASURED[variant.score][-1])):
                for part, dash in (("val", "solid"), ("train", "dot")):
                    values = [number(row.get(f"{part}/{name}", "")) for row in run.history]
                    figure.add_scatter(
                        x=[int(row["epoch"]) for row in run.history],
                        y=[value if math.isfinite(value) else None for value in values],  # None: a gap
                        mode="lines+markers", name=variant.name, legendgroup=variant.name, meta=f"{part}, run {i + 1}",
                        showlegend=i == 0 and panel == 1 and part == "val", opacity=1 if part == "val" else 0.6,
                        line={"color": colour, "dash": dash}, marker={"symbol": mark, "size": 6},
                        row=1, col=panel,
                    )  # fmt: skip
    epochs = max(len(run.history) for variant in variants for run in variant.runs)
    figure.update_xaxes(title="epoch", dtick=max(1, epochs // 10))
    return apply_theme(figure)


def _scores(variants: list[Variant], prefix: str = "") -> str:
    """The name of the score that the variants were trained for."""
    names = {"test_accuracy": f"{prefix}accuracy", "test_r2": "R² of the position"}
    return ", or ".join(names[score] for score in dict.fromkeys(variant.score for variant in variants))


def _with_bounds(variant: Variant, column: str) -> tuple[float, float, float]:
    """(mean, upper bar, lower bar): 95%, over images for one seed, over seeds for several."""
    mean, low, high = variant.interval(column)
    return (mean, 0, 0) if math.isnan(low) else (mean, high - mean, mean - low)


def apply_theme(figure: go.Figure) -> go.Figure:
    """The theme of all figures, for light and dark pages; the legend is above all panels and their titles."""
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend]
    head = ABOVE + 30 * -(-sum(7 * len(name) + 50 for name in names) // 1000) - 10  # 30 pixels a line of 1000
    height = (figure.layout.height or 380) - ABOVE + head
    figure.update_layout(
        height=height, margin={"l": 40, "r": 10, "t": head, "b": 10}, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", font={"color": "#808080", "size": 13}, hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "rgba(128,128,128,0.4)", "activecolor": "#808080"},
        legend={"orientation": "h", "y": 1 + 28 / (height - head - 60), "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID, automargin=True)
    return figure
