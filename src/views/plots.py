"""The figures of a comparison, as plotly figures: use them in a notebook, or see them on the page."""

import math
from itertools import cycle, islice

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from src.transforms import SHIFTS
from src.views.comparison import MEASURED, Variant

# Okabe & Ito: told apart by every kind of colour vision; lines differ in their marks as well
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#B8A800")
MARKS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down")
GRID = "rgba(128,128,128,0.25)"


def styles(count: int) -> list[tuple[str, str]]:
    """(colour, mark) of each variant, the same in every figure."""
    return list(islice(zip(cycle(COLOURS), cycle(MARKS), strict=False), count))


def trade_off(found: list[Variant]) -> go.Figure:
    """Accuracy against invariance (output distance for a 1-px crop), and against cost."""
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.06)
    for variant, (colour, mark) in zip(found, styles(len(found)), strict=True):
        accuracy, above, below = _with_bounds(variant, variant.score)
        for column, key in ((1, "crop_1px_output_distance"), (2, "multiply_adds")):
            x, right, left = _with_bounds(variant, key)
            figure.add_scatter(
                x=[x], y=[accuracy], mode="markers", name=variant.name, legendgroup=variant.name,
                showlegend=column == 1, marker={"color": colour, "symbol": mark, "size": 12},
                error_x={"type": "data", "array": [right], "arrayminus": [left], "width": 3},
                error_y={"type": "data", "array": [above], "arrayminus": [below], "width": 3},
                row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title="output distance, 1-px crop (left = invariant)", row=1, col=1)
    figure.update_xaxes(title="multiply-adds an image", row=1, col=2)
    figure.update_yaxes(title=_scores(found, "test "), row=1, col=1)
    return _dressed(figure)


def invariance_curves(found: list[Variant]) -> go.Figure:
    """Output distance by the size of the shift, for each protocol; the untrained net dotted."""
    figure = make_subplots(1, len(SHIFTS), shared_yaxes=True, horizontal_spacing=0.06, subplot_titles=list(SHIFTS))
    for column, protocol in enumerate(SHIFTS, start=1):
        for variant, (colour, mark) in zip(found, styles(len(found)), strict=True):
            for suffix, dash in (("", "solid"), ("_untrained", "dot")):
                points = variant.curve("output", protocol, f"output_distance{suffix}")
                figure.add_scatter(
                    x=[p[0] for p in points], y=[p[1] for p in points], mode="lines+markers",
                    error_y={
                        "type": "data", "array": [p[3] - p[1] for p in points],
                        "arrayminus": [p[1] - p[2] for p in points], "width": 2, "thickness": 1,
                    },
                    name=variant.name + (" (untrained)" if suffix else ""), legendgroup=variant.name + suffix,
                    showlegend=column == 1 and not suffix, opacity=0.6 if suffix else 1,
                    line={"color": colour, "dash": dash}, marker={"symbol": mark, "size": 4 if suffix else 8},
                    row=1, col=column,
                )  # fmt: skip
    figure.update_xaxes(title="shift, pixels", dtick=1)
    figure.update_yaxes(title="output distance", rangemode="tozero", row=1, col=1)
    return _dressed(figure)


def layer_curves(found: list[Variant], amount: int = 1) -> go.Figure:
    """Invariance error of every layer for shifts of one size, for each protocol; the untrained net dotted."""
    figure = make_subplots(1, len(SHIFTS), shared_yaxes=True, horizontal_spacing=0.06, subplot_titles=list(SHIFTS))
    for column, protocol in enumerate(SHIFTS, start=1):
        for variant, (colour, mark) in zip(found, styles(len(found)), strict=True):
            layers = list(dict.fromkeys(key[0] for key in variant.runs[0].measures if key[0] != "output"))
            for suffix, dash in (("", "solid"), ("_untrained", "dot")):
                curves = [variant.curve(layer, protocol, f"invariance_error{suffix}") for layer in layers]
                values = [next((p[1] for p in curve if p[0] == amount), None) for curve in curves]
                figure.add_scatter(
                    x=layers, y=values, mode="lines+markers", name=variant.name, legendgroup=variant.name,
                    showlegend=column == 1 and not suffix, opacity=0.6 if suffix else 1,
                    line={"color": colour, "dash": dash}, marker={"symbol": mark, "size": 4 if suffix else 8},
                    row=1, col=column,
                )  # fmt: skip
    figure.update_yaxes(title=f"invariance error, {amount} px", rangemode="tozero", row=1, col=1)
    return _dressed(figure)


def training_curves(found: list[Variant]) -> go.Figure:
    """Loss and score by epoch: validation solid, training dotted; every seed a line."""
    figure = make_subplots(1, 2, horizontal_spacing=0.1, subplot_titles=["loss", _scores(found)])
    for variant, (colour, mark) in zip(found, styles(len(found)), strict=True):
        for i, run in enumerate(variant.runs):
            for column, name in ((1, "loss"), (2, MEASURED[variant.score][-1])):
                for part, dash in (("val", "solid"), ("train", "dot")):
                    figure.add_scatter(
                        x=[int(row["epoch"]) for row in run.history],
                        y=[float(row[f"{part}/{name}"]) for row in run.history],
                        mode="lines+markers", name=variant.name, legendgroup=variant.name,
                        showlegend=i == 0 and column == 1 and part == "val", opacity=1 if part == "val" else 0.6,
                        line={"color": colour, "dash": dash}, marker={"symbol": mark, "size": 6},
                        row=1, col=column,
                    )  # fmt: skip
    epochs = max(len(run.history) for variant in found for run in variant.runs)
    figure.update_xaxes(title="epoch", dtick=max(1, epochs // 10))
    return _dressed(figure)


def _scores(found: list[Variant], prefix: str = "") -> str:
    """The name of what the variants were trained for."""
    words = {"test_accuracy": f"{prefix}accuracy", "test_r2": "R² of the position"}
    return ", or ".join(words[key] for key in dict.fromkeys(variant.score for variant in found))


def _with_bounds(variant: Variant, key: str) -> tuple[float, float, float]:
    """(mean, upper bar, lower bar): the interval over images for one seed, ± sd for several."""
    mean, sd = variant.mean(key), variant.sd(key)
    if math.isnan(sd) and key in MEASURED:
        _, low, high = variant.runs[0].measures[MEASURED[key]]
        return mean, high - mean, mean - low
    return (mean, 0, 0) if math.isnan(sd) else (mean, sd, sd)


def _dressed(figure: go.Figure) -> go.Figure:
    """One look for all, on a light page and on a dark one."""
    figure.update_layout(
        height=380, margin={"l": 60, "r": 10, "t": 40, "b": 50}, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", font={"color": "#808080", "size": 13}, hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "rgba(128,128,128,0.4)", "activecolor": "#808080"},
        legend={"orientation": "h", "y": 1.12, "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID)
    return figure
