"""Parallel coordinates of a sweep that crosses its axes: a line a variant, from its settings to its outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from .effects import Factorial, factorial_of, with_description
from .plots import apply_theme, styles
from .tables import shown_value
from .variant import Variant

#: outcome → its heading, and whether more of it is better
OUTCOMES = {
    "test_accuracy": ("test accuracy", True),
    "test_r2": ("R² of the position", True),
    "crop_1px_output_distance": ("output distance<br>(1-px crop)", False),
    "multiply_adds": ("multiply-adds", False),
}
#: variants whose names fit into a legend; of more, each line says its name under the mouse
MOST_IN_LEGEND = 20
#: in pixels: from axis to axis; least height of the axes, and of a level with its label; half a letter of a label
ACROSS, LEAST, LEVEL, LETTER = 130, 300, 28, 3.4
#: levels that have a label, and letters of one
MOST_LABELS, LONGEST = 30, 16
#: share of a level's height over which its lines are spread; above them is its label
SPREAD = 0.36
#: points between two axes, as the mouse finds points and not lines
BETWEEN = 8


@dataclass(frozen=True)
class Axis:
    """An upright axis.

    Attributes:
        name, heading: in the table of the figure's numbers, and below the axis.
        values: of each variant.
        heights: of each variant, from 0 to 1.
        spans: from where to where it is drawn: not behind labels.
        labels: (height, text) of its levels or its ends.
        half: half the width over which lines run level, so that none crosses a label; 1 is the way to the next axis.
    """

    name: str
    heading: str
    values: Sequence[Any]
    heights: Float[np.ndarray, " variants"]
    spans: Sequence[tuple[float, float]]
    labels: Sequence[tuple[float, str]]
    half: float = 0


def parallel_coordinates(variants: Sequence[Variant]) -> go.Figure:
    """A line a variant through the levels of its axes and on to its outcomes, whose better end is above."""
    if (design := factorial_of(variants)) is None or not (outcomes := _outcomes(design)):
        return go.Figure()
    axes = [*_settings(design, outcomes[0].heights), *outcomes]
    figure, many = go.Figure(), len(variants) > MOST_IN_LEGEND
    for i, (variant, (colour, mark)) in enumerate(zip(variants, styles(len(variants)), strict=True)):
        x, y, numbers = _line(axes, i)
        sizes = [0 if number is None else 5 if many else 8 for number in numbers]
        found = "".join(f"<br>{_one_line(axis.name)}: {_shown(axis.name, axis.values[i])}" for axis in outcomes)
        figure.add_scatter(
            x=x, y=y, customdata=numbers, mode="lines+markers", name=variant.name, legendgroup=variant.name,
            showlegend=not many, line={"color": colour, "width": 1.2 if many else 2},
            marker={"symbol": mark, "size": sizes, "opacity": 1, "line": {"width": 0}},
            hovertemplate=f"%{{fullData.name}}{found}<extra></extra>",
        )  # fmt: skip
    return with_description(_framed(figure, axes), design)


def _outcomes(design: Factorial) -> list[Axis]:
    """The outcomes that all variants have, each from its worst value, at 0, to its best, at 1."""
    axes = []
    for column, (heading, more_is_better) in OUTCOMES.items():
        if design.has(column):
            values = design.values(column).mean(1)
            worst, best = (values.min(), values.max()) if more_is_better else (values.max(), values.min())
            if worst == best:
                heights, labels = np.full(len(values), 0.5), [(1.0, f"all {_shown(column, best)}")]
            else:
                heights = (values - worst) / (best - worst)
                labels = [(0.0, f"worst {_shown(column, worst)}"), (1.0, f"best {_shown(column, best)}")]
            better = "higher" if more_is_better else "lower"
            axes.append(Axis(column, f"{heading}<br>{better} is better", values.tolist(), heights, [(0, 1)], labels))
    return axes


def _settings(design: Factorial, outcome: Float[np.ndarray, " variants"]) -> list[Axis]:
    """The axes of the design, their levels at equal distances. Lines of a level are spread, in the order in which they
    go on to the next axes and to the first outcome, so that few of them cross.
    """
    centres = (design.levels + 0.5) / [len(levels) for levels in design.axes.values()]
    onwards = np.column_stack([centres, outcome])
    axes = []
    for k, (name, levels) in enumerate(design.axes.items()):
        heights, room = centres[:, k].copy(), SPREAD / len(levels)
        for level in range(len(levels)):
            members = sorted(np.flatnonzero(design.levels[:, k] == level), key=lambda i: (*onwards[i, k + 1 :], i))
            heights[members] += room * ((np.arange(len(members)) + 0.5) / len(members) - 0.5)
        texts = [text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in levels]
        labelled = range(0, len(levels), -(-len(levels) // MOST_LABELS))
        middles = [(j + 0.5) / len(levels) for j in range(len(levels))]
        spans = [(middle - room / 2, middle + room / 2) for middle in middles]
        labels = [(spans[j][1], texts[j]) for j in labelled]
        half = min(0.4, LETTER * max(map(len, texts)) / ACROSS)
        heading, values = name.replace(" & ", " &<br>"), [levels[level] for level in design.levels[:, k]]
        axes.append(Axis(name, heading, values, heights, spans, labels, half))
    return axes


def _line(axes: Sequence[Axis], i: int) -> tuple[list[float], list[float], list[tuple[str, Any] | None]]:
    """The x and y of a variant's line, and (axis, value) of its points on an axis."""
    x: list[float] = []
    numbers: list[tuple[str, Any] | None] = []
    for k, axis in enumerate(axes):
        if k:
            x += np.linspace(k - 1 + axes[k - 1].half, k - axis.half, BETWEEN).tolist()
        numbers += [None] * (len(x) - len(numbers))
        x.append(k)
        numbers.append((axis.name, axis.values[i]))
    bends = [k + side * axis.half for k, axis in enumerate(axes) for side in (-1, 0, 1)]
    y = np.interp(x, bends, [axis.heights[i] for axis in axes for _ in (-1, 0, 1)])
    return np.round(x, 3).tolist(), np.round(y, 4).tolist(), numbers


def _framed(figure: go.Figure, axes: Sequence[Axis]) -> go.Figure:
    """The figure with its axes, their labels and headings."""
    levels = max(len(axis.labels) for axis in axes)
    figure.update_layout(height=max(LEAST, LEVEL * levels) + 180, meta={"width": ACROSS * len(axes), "scrolls": True})
    line = {"type": "line", "layer": "below", "line": {"color": "rgba(128,128,128,0.6)", "width": 1}}
    note = {"showarrow": False, "font": {"size": 11}}
    above, below = {"yanchor": "bottom", "yshift": 2}, {"yanchor": "top", "yshift": -2}
    spans = [
        line | {"x0": k, "x1": k, "y0": low, "y1": high} for k, axis in enumerate(axes) for low, high in axis.spans
    ]
    labels = [note | {"x": k, "y": y, "text": text} | (above if y else below)
              for k, axis in enumerate(axes) for y, text in axis.labels]  # fmt: skip
    figure.update_layout(shapes=spans, annotations=labels)
    apply_theme(figure)
    figure.update_layout(legend_itemsizing="constant")
    figure.update_xaxes(
        tickvals=list(range(len(axes))), ticktext=[axis.heading for axis in axes], range=[-0.5, len(axes) - 0.5],
        tickangle=0, zeroline=False, showgrid=False,
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-0.08, 1.08])
    return figure


def _one_line(column: str) -> str:
    return OUTCOMES[column][0].replace("<br>", " ")


def _shown(column: str, value: float) -> str:
    return shown_value(column, value, nan, nan)
