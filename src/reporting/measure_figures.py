"""Figures of what was measured, one a family: curves by amount and by layer, in small panels."""

from collections.abc import Callable, Iterable, Sequence

import plotly.graph_objects as go

from ..stats.intervals import t_interval
from ..transforms import SHIFTS, TABLE, Transform
from .comparison import Variant
from .plots import LINES, Curve, Panel, multiples

OUTPUT, ROLLS = "output", ("all_rolls", "sampled_rolls")
#: what equivariance is shown for: title → protocol, amount
MOTIONS = {
    "roll 1 px": ("roll", 1),
    "crop 1 px": ("crop", 1),
    "rotate, disc 15°": ("rotate/disc", 15),
    "rotate, quarter 90°": ("rotate/quarter", 90),
}
#: motions whose beginning is looked at → by how much
VELOCITIES = {"down": "by a pixel", "right": "by a pixel", "rotate": "by a degree", "scale": "by a per cent"}
PIXELS = "pixels"

#: ends of the measures' names of a net and of its untrained twin → what they are called
TWINS = {"": "", "_untrained": ", untrained"}


def transform_curves(found: Sequence[Variant]) -> go.Figure:
    """Output distance by amount, a panel a transform: trained, untrained, and what interpolation alone costs."""

    def panel(one: Transform) -> Panel:
        protocol, title = one.protocol, one.protocol  # of shifts
        if one.name != "shift":
            protocol, title = f"{one.name}/{one.protocol}", f"{one.name}, {one.protocol}"
        return Panel(
            title + f" ({one.unit})" * bool(one.unit),
            lambda variant: {suffix: variant.curve(OUTPUT, protocol, f"output_distance{suffix}") for suffix in LINES},
        )

    return multiples(found, [panel(one) for one in TABLE], "output distance", shared=False)


def flip_curves(found: Sequence[Variant]) -> go.Figure:
    """How often a shift changes the answer, by its size."""

    def flips(variant: Variant, protocol: str, suffix: str) -> Curve:
        same = variant.curve(OUTPUT, protocol, f"consistency{suffix}")
        return [(amount, 1 - value, 1 - high, 1 - low) for amount, value, low, high in same]

    def panel(protocol: str) -> Panel:
        return Panel(f"{protocol} (px)", lambda variant: {one: flips(variant, protocol, one) for one in TWINS})

    return multiples(found, [panel(protocol) for protocol in SHIFTS], "share of answers that change")


def position_curves(found: Sequence[Variant]) -> go.Figure:
    """How much of a shift the answer to "where?" misses, by its size; untrained nets, off by several shifts, are not
    shown: the floor is an answer that stays.
    """

    def panel(protocol: str) -> Panel:
        name = "position_equivariance_error"
        return Panel(f"{protocol} (px)", lambda variant: {"": variant.curve(OUTPUT, protocol, name)})

    return multiples(found, [panel(protocol) for protocol in SHIFTS], "position equivariance error")


def layer_curves(found: Sequence[Variant], amount: float = 1) -> go.Figure:
    """Invariance error of every layer for shifts of one size, for each protocol."""
    order = layers(found, "invariance_error")
    panels = [
        Panel(f"{protocol} {amount:g} px", _by_layer(order, "invariance_error", protocol, amount))
        for protocol in SHIFTS
    ]
    return multiples(found, panels, "invariance error", order)


def equivariance_curves(found: Sequence[Variant]) -> go.Figure:
    """Equivariance error of every layer, and its floor, for small shifts and for rotations."""
    order = layers(found, "equivariance_error")
    names = {"": "equivariance_error", "_untrained": "equivariance_error_untrained", "_floor": "equivariance_floor"}

    def panel(title: str, protocol: str, amount: float) -> Panel:
        return Panel(
            title,
            lambda variant: {suffix: across(variant, order, name, protocol, amount) for suffix, name in names.items()},
        )

    panels = [panel(title, *motion) for title, motion in MOTIONS.items()]
    return multiples(found, panels, "equivariance error", order)


def speeds(found: Sequence[Variant]) -> go.Figure:
    """How fast the answer changes when the image begins to move."""

    def panel(way: str, suffix: str) -> Panel:
        def curves(variant: Variant) -> dict[str, Curve]:
            point = variant.point(OUTPUT, f"velocity/{way}", 0, f"lee_relative{suffix}")
            return {suffix: [(VELOCITIES[way], *point)] if point else []}

        return Panel(f"{way}{TWINS[suffix]}", curves)

    panels = [panel(way, suffix) for suffix in TWINS for way in VELOCITIES]
    return multiples(found, panels, "local equivariance error", bars=True, shared=False)


def aliasing(found: Sequence[Variant]) -> go.Figure:
    """Aliasing fraction of every layer that subsamples."""
    order = layers(found, "aliasing_fraction")
    curves = _by_layer(order, "aliasing_fraction", "subsampling")
    return multiples(found, [Panel("", curves)], "aliasing fraction", order)


def worst_case(found: Sequence[Variant]) -> go.Figure:
    """Accuracy in place, over all rolls, and in the worst case of them, all of the same images; with how many rolls and
    images that means. Runs from before ``accuracy_in_place`` was measured have no bar in place.
    """

    def panel(title: str, protocols: Iterable[str], measure: str) -> Panel:
        spots = {(one, a) for variant in found for one in protocols for a in variant.amounts(OUTPUT, one, measure)}

        def curves(variant: Variant) -> dict[str, Curve]:
            points = {spot: variant.point(OUTPUT, *spot, measure) for spot in spots}
            return {"": [(_scope(variant, *spot, measure), *point) for spot, point in sorted(points.items()) if point]}

        return Panel(title, curves)

    if not layers(found, "worst_case"):
        return go.Figure()
    panels = [
        panel("accuracy in place", ROLLS, "accuracy_in_place"),
        panel("accuracy over rolls", ROLLS, "accuracy"),
        panel("right for every roll", ROLLS, "worst_case"),
    ]
    return multiples(found, panels, "accuracy", bars=True)


def _scope(variant: Variant, protocol: str, amount: float, measure: str) -> str:
    """All 1024 rolls, 53 images: what a number of all rolls comes from."""
    n = max(run.counts.get((OUTPUT, protocol, amount, measure), 0) for run in variant.runs)
    rolls = {"all_rolls": f"all {amount:g} rolls,<br>", "sampled_rolls": f"{amount:g} drawn,<br>"}
    return f"{rolls.get(protocol, '')}{n} images"


def probes(found: Sequence[Variant]) -> go.Figure:
    """What and where a linear probe reads from every layer; the pixels and shuffled answers as lines of reference."""
    order = [layer for layer in layers(found, "probe_accuracy", "probe_r2") if layer != PIXELS]
    titles = {"probe_accuracy": "what: accuracy", "probe_r2": "where: R² of the position"}
    shown = [name for name in titles if layers(found, name)]
    panels = [Panel(titles[name], _by_layer(order, name)) for name in shown]
    figure = multiples(found, panels, "", order, shared=False)
    for column, name in enumerate(shown, start=1):
        _refer(figure, column, "pixels", "dash", order, [(one, across(one, [PIXELS], name)) for one in found])
        shuffled = [(one, across(one, order, f"{name}_shuffled")) for one in found]
        _refer(figure, column, "shuffled answers", "dot", order, shuffled)
    return figure


def _refer(
    figure: go.Figure, column: int, word: str, dash: str, order: list[str], curves: list[tuple[Variant, Curve]]
) -> None:
    """A grey line across a panel for each distinct value."""
    values = {value: variant.name for variant, curve in curves for _, value, _, _ in curve}
    for i, (value, of) in enumerate(values.items()):
        figure.add_scatter(
            x=order, y=[value] * len(order), mode="lines", name=word, legendgroup=word, text=[of] * len(order),
            line={"color": "#808080", "width": 1.5, "dash": dash}, showlegend=column == 1 and not i,
            hovertemplate="%{y:.3f} (%{text})", row=1, col=column,
        )  # fmt: skip


def hierarchy(found: Sequence[Variant]) -> go.Figure:
    """How layers differ from each other: effective rank, class selectivity beyond chance, share of dead channels."""
    order = layers(found, "effective_rank", "class_selectivity", "dead_share")

    def beyond(variant: Variant, suffix: str) -> Curve:
        return [
            (layer, value - null[0], low - null[0], high - null[0])
            for layer, value, low, high in across(variant, order, f"class_selectivity{suffix}")
            if (null := variant.point(layer, "test", 0, f"class_selectivity_null{suffix}"))
        ]

    panels = [
        Panel("effective rank", _by_layer(order, "effective_rank")),
        Panel("selectivity minus null", lambda variant: {one: beyond(variant, one) for one in TWINS}),
        Panel("dead share", _by_layer(order, "dead_share")),
    ]
    return multiples(found, panels, "", order, shared=False)


def units(found: Sequence[Variant]) -> go.Figure:
    """Goodfellow's invariance of single units of every layer, for small and larger shifts."""
    order = layers(found, "goodfellow")
    amounts = sorted({a for variant in found for layer in order for a in variant.amounts(layer, "crop", "goodfellow")})
    panels = [Panel(f"crop {amount:g} px", _by_layer(order, "goodfellow", "crop", amount)) for amount in amounts]
    return multiples(found, panels, "Goodfellow's score", order)


def layers(found: Sequence[Variant], *measures: str) -> list[str]:
    """All layers that have one of the measures."""
    return in_order([name for measure in measures for name in variant.layers(measure)] for variant in found)


def in_order(nets: Iterable[Sequence[str]]) -> list[str]:
    """The layers of several nets in an order that suits all: blocks first, then layers in them.

    >>> in_order([["stage1.pool", "stage2.pool"], ["stage1.conv", "stage2.conv", "stage3.conv"]])
    ['stage1.conv', 'stage1.pool', 'stage2.conv', 'stage2.pool', 'stage3.conv']
    """
    merged: list[str] = []
    heads: list[str] = []
    for names in nets:
        for order, words in ((merged, names), (heads, [name.split(".")[0] for name in names])):
            place = 0
            for word in words:
                if word not in order:
                    order.insert(place, word)  # behind the one that it follows
                place = order.index(word) + 1
    return sorted(merged, key=lambda name: heads.index(name.split(".")[0]))


def _by_layer(
    order: Sequence[str], measure: str, protocol: str = "test", amount: float = 0
) -> Callable[[Variant], dict[str, Curve]]:
    """A measure of every layer, trained and untrained."""
    return lambda variant: {suffix: across(variant, order, measure + suffix, protocol, amount) for suffix in TWINS}


def across(variant: Variant, order: Sequence[str], measure: str, protocol: str = "test", amount: float = 0) -> Curve:
    """A measure by layer, where they have it."""
    points = {layer: variant.point(layer, protocol, amount, measure) for layer in order}
    return [(layer, *point) for layer, point in points.items() if point]


def over_training(found: Sequence[Variant]) -> go.Figure:
    """What was followed while the nets trained, by epoch; 0 is the untrained net. Over several seeds, the mean."""

    def panel(title: str, layer: str, measure: str) -> Panel:
        name = "invariance/crop/1px/" + measure if layer == OUTPUT else f"invariance/crop/1px/{layer}/{measure}"

        def curves(variant: Variant) -> dict[str, Curve]:
            before = variant.point(layer, "crop", 1, f"{measure}_untrained")
            looks: dict[int, list[float]] = {}
            for run in variant.measured:
                for row in run.history:
                    if row.get(name):
                        looks.setdefault(int(row["epoch"]), []).append(float(row[name]))
            later = [(epoch, *t_interval(one)) for epoch, one in sorted(looks.items())]
            return {"": [(0, *before), *later] if before and later else later}

        return Panel(title, curves)

    order = layers(found, "invariance_error")
    panels = [panel("answer: output distance", OUTPUT, "output_distance")]
    panels += [panel(f"{layer}: invariance error", layer, "invariance_error") for layer in order]
    return multiples(found, panels, "moved by a 1-px crop", shared=False)
