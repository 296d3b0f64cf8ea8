"""Figures of what has a number for each place of a plane: maps of rolls, receptive fields, likeness of layers."""

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from .comparison import Variant
from .maps import ROLL_MAP, centred
from .measure_figures import TWINS, in_order
from .plots import dressed, spread

Plane = Float[np.ndarray, "rows columns"]
#: numbers on a side of a picture, at most
FINEST = 96
FIELD, AGAINST = "effective_field", "cka_against"
#: nets that are pictured, a row each: more than that nobody looks at
MOST = 12
#: variant, end of its measures' names, what to call it
Net = tuple[Variant, str, str]


def roll_maps(found: Sequence[Variant]) -> go.Figure:
    """Invariance error of every layer for every roll, no roll in the middle; one colour scale a layer."""
    return _errors(found, ROLL_MAP, centred)


def crop_maps(found: Sequence[Variant]) -> go.Figure:
    """The same for every shift by at most so many pixels over what lies beyond the image."""
    return _errors(found, "crop_map")


def _errors(found: Sequence[Variant], measure: str, view: Callable[[Plane], Plane] = np.asarray) -> go.Figure:
    ends: dict[str, tuple[float, float]] = {}
    for net in nets(found):
        for layer in _gridded([net[0]], measure + net[1]):
            plane = net[0].grid(layer, measure + net[1])
            assert plane is not None
            ends[layer] = 0, max(ends.get(layer, (0, 0))[1], float(plane.max()))
    return _pictures(
        found, measure, lambda _, layer: f"{layer}: 0 to {ends[layer][1]:.2g}", view, lambda _, layer: ends[layer]
    )


def sensitivity(found: Sequence[Variant]) -> go.Figure:
    """Cosine of every layer's output with that for the shifted image; from what two images' have in common, to 1."""

    def ends(net: Net, layer: str) -> tuple[float, float]:
        shifts = net[0].grid(layer, f"crop_cosine{net[1]}")
        point = None if shifts is None else net[0].point(layer, "all_crops", shifts.size, f"cosine_random{net[1]}")
        return (point[0] if point else 0), 1

    return _pictures(found, "crop_cosine", lambda net, layer: f"{layer}: {ends(net, layer)[0]:.2f} to 1", ends=ends)


def fields(found: Sequence[Variant]) -> go.Figure:
    """Effective receptive fields, each on its own scale; their size, and the largest that arithmetic allows."""

    def title(net: Net, layer: str) -> str:
        variant, suffix, _ = net
        size, most = variant.point(layer, "test", 0, f"{FIELD}{suffix}"), theoretical(variant, layer)
        return layer + (f": {size[0]:.1f}" if size else "") + (f" of {most:g}" if most else "") + " px" * bool(size)

    return _pictures(found, FIELD, title)


def similarity(found: Sequence[Variant]) -> go.Figure:
    """CKA between all layers of a net, a matrix a net."""
    return _similarities(found, "cka", within=True)


def similarity_against(found: Sequence[Variant]) -> go.Figure:
    """CKA between all layers of a net, down, and all of another, across."""
    return _similarities(found, AGAINST, within=False)


def _similarities(found: Sequence[Variant], measure: str, within: bool) -> go.Figure:
    shown = [net for net in nets(found) if net[0].layers(f"{measure}{net[1]}")]
    figure, spots = spread([name for _, _, name in shown], shared=False)
    for spot, (variant, suffix, _) in zip(spots, shown, strict=True):
        pairs = [key[:2] for run in variant.measured for key in run.measures if key[3] == f"{measure}{suffix}"]
        down, across = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
        if within:  # each pair stands there once, the later layer first
            down = across = list(dict.fromkeys([*across, *down]))
        matrix = [[_alike(variant, one, other, f"{measure}{suffix}", within) for other in across] for one in down]
        figure.add_heatmap(
            z=matrix, x=across, y=down, zmin=0, zmax=1, colorscale="Viridis", showscale=False, texttemplate="%{z:.2f}",
            hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>", **spot,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    return dressed(figure)


def _alike(variant: Variant, one: str, other: str, measure: str, within: bool) -> float | None:
    """Within a net every pair was measured once, and a layer is like itself."""
    point = variant.point(one, other, 0, measure) or (variant.point(other, one, 0, measure) if within else None)
    return 1.0 if within and one == other else point and point[0]


def nets(found: Sequence[Variant]) -> list[Net]:
    """Those that are compared, ``MOST`` of them; of one alone also its untrained twin."""
    if len(found) == 1:
        return [(found[0], suffix, f"{found[0].name}{word}") for suffix, word in TWINS.items()]
    return [(variant, "", variant.name) for variant in found[:MOST]]


def coarse(plane: Plane) -> Float[np.ndarray, "p q"]:
    """Means of squares, so many that a side has at most ``FINEST``."""
    step = -(-max(plane.shape) // FINEST)
    rows, columns = (side // step for side in plane.shape)
    blocks: Float[np.ndarray, "p q"] = (
        plane[: rows * step, : columns * step].reshape(rows, step, columns, step).mean((1, 3))
    )
    return blocks


def theoretical(variant: Variant, layer: str) -> float | None:
    """The receptive field by the ledger, where there is one."""
    inside = [row for row in variant.measured[0].shapes if f"{row['layer']}.".startswith(f"{layer}.")]
    return float(inside[-1]["receptive_field"]) if inside else None


def _gridded(found: Sequence[Variant], measure: str) -> list[str]:
    """The layers that have a grid, in an order that suits every net."""
    keys = [[key.partition("/") for run in variant.measured for key in run.grids] for variant in found]
    return in_order(list(dict.fromkeys(layer for name, _, layer in each if name == measure)) for each in keys)


def _pictures(
    found: Sequence[Variant],
    measure: str,
    title: Callable[[Net, str], str],
    view: Callable[[Plane], Plane] = np.asarray,
    ends: Callable[[Net, str], tuple[float, float]] | None = None,
) -> go.Figure:
    """A row a net, a column a layer.

    Args:
        found: the variants.
        measure: of the grids.
        title: net, layer → what stands above its picture.
        view: what is done to a grid first.
        ends: net, layer → those of its colours; None: 0 and each picture's own largest.
    """
    shown = [net for net in nets(found) if _gridded([net[0]], measure + net[1])]
    order = in_order(_gridded([net[0]], measure + net[1]) for net in shown)
    cells = [(net, layer, net[0].grid(layer, measure + net[1])) for net in shown for layer in order]
    titles = [title(net, layer) if plane is not None else "" for net, layer, plane in cells]
    figure, spots = spread(titles, columns=len(order), shared=False, below=88)
    for spot, (net, layer, plane) in zip(spots, cells, strict=True):
        if plane is not None:
            picture = coarse(view(plane))
            y, x = (_pixels(*sides) for sides in zip(plane.shape, picture.shape, strict=True))
            low, high = ends(net, layer) if ends else (0, picture.max())
            figure.add_heatmap(
                z=picture, x=x, y=y, zmin=low, zmax=high, colorscale="Viridis",
                showscale=False, name=net[2], hovertemplate="%{y} px down, %{x} px right: %{z:.3g}", **spot,
            )  # fmt: skip
            figure.update_yaxes(scaleanchor=figure.data[-1].xaxis, **spot)
    names = [
        {"text": f"<b>{name}</b>", "x": 0, "y": next(figure.select_yaxes(row=row, col=1)).domain[1], "xref": "paper",
         "yref": "paper", "xanchor": "left", "yanchor": "bottom", "yshift": 20, "showarrow": False}
        for row, (_, _, name) in enumerate(shown, start=1)
    ]  # fmt: skip
    figure.update_layout(annotations=[*figure.layout.annotations, *names])  # at once: one by one takes their square
    figure.update_xaxes(constrain="domain", showgrid=False, zeroline=False)
    figure.update_yaxes(constrain="domain", constraintoward="top", showgrid=False, zeroline=False, autorange="reversed")
    return dressed(figure)


def _pixels(side: int, count: int) -> list[float]:
    """Where the numbers along a side lie, in pixels from the middle one."""
    step = side // count
    return [i * step + (step - 1) / 2 - side // 2 for i in range(count)]
