"""Heatmaps: sensitivity to every shift, receptive fields, similarity (CKA) of layers."""

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from .maps import ROLL_MAP, centred
from .measure_figures import SUFFIXES, merge_layers
from .plots import apply_theme, subplots
from .variant import Variant

Plane = Float[np.ndarray, "rows columns"]
#: largest number of cells along a side of a heatmap
MOST_CELLS = 96
RECEPTIVE_FIELD = "effective_field"
#: largest number of nets with heatmaps, a row each
MOST_NETS = 12
#: variant, suffix of its measures' names, title
Net = tuple[Variant, str, str]


def roll_maps(variants: Sequence[Variant]) -> go.Figure:
    """Invariance error of every layer for every roll, no roll in the middle; one colour scale per layer."""
    return _error_maps(variants, ROLL_MAP, centred)


def crop_maps(variants: Sequence[Variant]) -> go.Figure:
    """The same for every true shift (crop) up to the largest one measured."""
    return _error_maps(variants, "crop_map")


def _error_maps(variants: Sequence[Variant], measure: str, arrange: Callable[[Plane], Plane] = np.asarray) -> go.Figure:
    limits: dict[str, tuple[float, float]] = {}
    for net in shown_nets(variants):
        for layer in _layers_with_heatmap([net[0]], measure + net[1]):
            plane = net[0].grid(layer, measure + net[1])
            assert plane is not None
            limits[layer] = 0, max(limits.get(layer, (0, 0))[1], float(plane.max()))

    def title(_: Net, layer: str) -> str:
        return f"{layer}: 0 to {limits[layer][1]:.2g}"

    return _heatmaps(variants, measure, title, arrange, lambda _, layer: limits[layer])


def sensitivity_maps(variants: Sequence[Variant]) -> go.Figure:
    """Cosine between every layer's outputs for an image and its shifted copy; from that of two random images to 1."""

    def limits(net: Net, layer: str) -> tuple[float, float]:
        shifts = net[0].grid(layer, f"crop_cosine{net[1]}")
        point = None if shifts is None else net[0].point(layer, "all_crops", shifts.size, f"cosine_random{net[1]}")
        return (point[0] if point else 0), 1

    def title(net: Net, layer: str) -> str:
        return f"{layer}: {limits(net, layer)[0]:.2f} to 1"

    return _heatmaps(variants, "crop_cosine", title, limits=limits)


def receptive_fields(variants: Sequence[Variant]) -> go.Figure:
    """Effective receptive fields, each on its own scale, with their size and the theoretical one."""

    def title(net: Net, layer: str) -> str:
        variant, suffix, _ = net
        size, theoretical = variant.point(layer, "test", 0, RECEPTIVE_FIELD + suffix), theoretical_field(variant, layer)
        of = f" of {theoretical:g}" if theoretical else ""
        return f"{layer}: {size[0]:.1f}{of} px" if size else layer + of

    return _heatmaps(variants, RECEPTIVE_FIELD, title)


def layer_similarity(variants: Sequence[Variant]) -> go.Figure:
    """CKA between all layers of a net, a matrix per net."""
    return _similarities(variants, "cka", within=True)


def layer_similarity_between(variants: Sequence[Variant]) -> go.Figure:
    """CKA between all layers of a net, down, and all of another, across."""
    return _similarities(variants, "cka_against", within=False)


def _similarities(variants: Sequence[Variant], measure: str, within: bool) -> go.Figure:
    shown = [net for net in shown_nets(variants) if net[0].layers(f"{measure}{net[1]}")]
    layers = [_compared_layers(variant, f"{measure}{suffix}", within) for variant, suffix, _ in shown]
    alike = all(down == layers[0][0] for down, _ in layers)  # then their names stand once in a row of panels
    names = [name for _, _, name in shown]
    figure, cells = subplots(names, shared=False, gap=0.03) if alike else subplots(names, 2, shared=False, gap=0.2)
    for cell, (variant, suffix, _), (down, across) in zip(cells, shown, layers, strict=True):
        matrix = [[_cka(variant, row, column, f"{measure}{suffix}", within) for column in across] for row in down]
        figure.add_heatmap(
            z=matrix, x=across, y=down, zmin=0, zmax=1, colorscale="Viridis", showscale=False, texttemplate="%{z:.2f}",
            hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>", **cell,
        )  # fmt: skip
        figure.update_yaxes(showticklabels=cell["col"] == 1 or not alike, **cell)
    figure.update_yaxes(autorange="reversed")
    return apply_theme(figure)


def _compared_layers(variant: Variant, measure: str, within: bool) -> tuple[list[str], list[str]]:
    """The layers down and across; within a net each pair was measured once, the later layer first, and both are all."""
    pairs = [key[:2] for run in variant.measured for key in run.measures if key[3] == measure]
    down, across = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    both = list(dict.fromkeys([*across, *down]))
    return (both, both) if within else (down, across)


def _cka(variant: Variant, row: str, column: str, measure: str, within: bool) -> float | None:
    """CKA of two layers; within a net it is symmetric, measured once, and 1 for a layer with itself."""
    point = variant.point(row, column, 0, measure) or (variant.point(column, row, 0, measure) if within else None)
    return 1.0 if within and row == column else point and point[0]


def shown_nets(variants: Sequence[Variant]) -> list[Net]:
    """The nets that are shown, at most ``MOST_NETS``; of a single net also its untrained copy."""
    if len(variants) == 1:
        name = variants[0].name
        return [(variants[0], suffix, f"{name}{label}") for suffix, label in SUFFIXES.items()]
    return [(variant, "", variant.name) for variant in variants[:MOST_NETS]]


def coarse(plane: Plane) -> Float[np.ndarray, "p q"]:
    """Means of square blocks, so that a side has at most ``MOST_CELLS``."""
    step = -(-max(plane.shape) // MOST_CELLS)
    rows, columns = (side // step for side in plane.shape)
    blocks = plane[: rows * step, : columns * step].reshape(rows, step, columns, step)
    means: Float[np.ndarray, "p q"] = blocks.mean((1, 3))
    return means


def theoretical_field(variant: Variant, layer: str) -> float | None:
    """The receptive field of the model summary, where there is one."""
    rows = [row for row in variant.measured[0].shapes if f"{row['layer']}.".startswith(f"{layer}.")]
    return float(rows[-1]["receptive_field"]) if rows else None


def _layers_with_heatmap(variants: Sequence[Variant], measure: str) -> list[str]:
    """The layers that have a heatmap, in an order that suits every net."""
    keys = [[key.partition("/") for run in variant.measured for key in run.grids] for variant in variants]
    return merge_layers(list(dict.fromkeys(layer for name, _, layer in names if name == measure)) for names in keys)


def _heatmaps(
    variants: Sequence[Variant], measure: str, title: Callable[[Net, str], str],
    arrange: Callable[[Plane], Plane] = np.asarray, limits: Callable[[Net, str], tuple[float, float]] | None = None,
) -> go.Figure:  # fmt: skip
    """Heatmaps of a measure: a row per net, a column per layer. ``arrange`` is applied to each plane first; ``limits``
    are the ends of the colour scale, None: 0 to each heatmap's maximum.
    """
    shown = [net for net in shown_nets(variants) if _layers_with_heatmap([net[0]], measure + net[1])]
    order = merge_layers(_layers_with_heatmap([net[0]], measure + net[1]) for net in shown)
    planes = [(net, layer, net[0].grid(layer, measure + net[1])) for net in shown for layer in order]
    titles = [title(net, layer) if plane is not None else "" for net, layer, plane in planes]
    figure, cells = subplots(titles, columns=len(order), shared=False, below=88)
    for cell, (net, layer, plane) in zip(cells, planes, strict=True):
        if plane is not None:
            z = coarse(arrange(plane))
            y, x = (_pixels(*sides) for sides in zip(plane.shape, z.shape, strict=True))
            low, high = limits(net, layer) if limits else (0, z.max())
            figure.add_heatmap(
                z=z, x=x, y=y, zmin=low, zmax=high, colorscale="Viridis",
                showscale=False, name=net[2], hovertemplate="%{y} px down, %{x} px right: %{z:.3g}", **cell,
            )  # fmt: skip
            figure.update_yaxes(scaleanchor=figure.data[-1].xaxis, **cell)
    names = [
        {"text": f"<b>{name}</b>", "x": 0, "y": next(figure.select_yaxes(row=row, col=1)).domain[1], "xref": "paper",
         "yref": "paper", "xanchor": "left", "yanchor": "bottom", "yshift": 20, "showarrow": False}
        for row, (_, _, name) in enumerate(shown, start=1)
    ]  # fmt: skip
    # all at once: adding them one by one takes quadratic time
    figure.update_layout(annotations=[*figure.layout.annotations, *names])
    figure.update_xaxes(constrain="domain", showgrid=False, zeroline=False)
    figure.update_yaxes(constrain="domain", constraintoward="top", showgrid=False, zeroline=False, autorange="reversed")
    return apply_theme(figure)


def _pixels(side: int, count: int) -> list[float]:
    """Positions of the cells along a side, in pixels from the middle one."""
    step = side // count
    return [i * step + (step - 1) / 2 - side // 2 for i in range(count)]
