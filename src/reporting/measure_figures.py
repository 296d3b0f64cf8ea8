"""Figures of measures, one per metric group: curves over amounts and over layers, as small multiples."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import plotly.graph_objects as go

from ..stats.intervals import t_interval
from ..transforms import SHIFTS, TABLE, Transform
from .plots import LINES, Curve, Panel, small_multiples
from .variant import Variant

OUTPUT, ROLLS = "output", ("all_rolls", "sampled_rolls")
#: transforms in the equivariance figure: title → protocol, amount
EQUIVARIANCE_TRANSFORMS = {
    "roll 1 px": ("roll", 1),
    "crop 1 px": ("crop", 1),
    "rotate, disc 15°": ("rotate/disc", 15),
    "rotate, quarter 90°": ("rotate/quarter", 90),
}
#: infinitesimal transforms of the Lie derivative → their unit
LIE_UNITS = {"down": "per pixel", "right": "per pixel", "rotate": "per degree", "scale": "per 1%"}
PIXELS = "pixels"
#: suffix of a measure's name → what it says of the net
SUFFIXES = {"": "", "_untrained": ", untrained"}


def transform_curves(variants: Sequence[Variant]) -> go.Figure:
    """Output distance by amount, a panel per transform: trained, untrained, and the effect of interpolation alone."""

    def panel(transform: Transform) -> Panel:
        protocol = title = transform.protocol  # of shifts
        if transform.name != "shift":
            protocol, title = f"{transform.name}/{protocol}", f"{transform.name}, {protocol}"
        title += f" ({transform.unit})" * bool(transform.unit)
        return Panel(title, lambda v: {end: v.curve(OUTPUT, protocol, f"output_distance{end}") for end in LINES})

    return small_multiples(variants, [panel(transform) for transform in TABLE], "output distance", shared=False)


def flip_curves(variants: Sequence[Variant]) -> go.Figure:
    """Share of predictions that a shift changes, by its size: 1 - consistency."""

    def flips(variant: Variant, protocol: str, suffix: str) -> Curve:
        consistency = variant.curve(OUTPUT, protocol, f"consistency{suffix}")
        return [(amount, 1 - value, 1 - high, 1 - low) for amount, value, low, high in consistency]

    def panel(protocol: str) -> Panel:
        return Panel(f"{protocol} (px)", lambda variant: {end: flips(variant, protocol, end) for end in SUFFIXES})

    return small_multiples(variants, [panel(protocol) for protocol in SHIFTS], "share of predictions that change")


def position_curves(variants: Sequence[Variant]) -> go.Figure:
    """Position equivariance error by size of the shift. Untrained nets are off by several shifts and not shown: the
    baseline is a constant prediction, 1.
    """

    def panel(protocol: str) -> Panel:
        name = "position_equivariance_error"
        return Panel(f"{protocol} (px)", lambda variant: {"": variant.curve(OUTPUT, protocol, name)})

    return small_multiples(variants, [panel(protocol) for protocol in SHIFTS], "position equivariance error")


def layer_curves(variants: Sequence[Variant], amount: float = 1) -> go.Figure:
    """Invariance error of every layer for shifts of one size, a panel per protocol."""
    order = layers_with(variants, "invariance_error")
    curves = {protocol: curves_by_layer(order, "invariance_error", protocol, amount) for protocol in SHIFTS}
    panels = [Panel(f"{protocol} {amount:g} px", by_variant) for protocol, by_variant in curves.items()]
    return small_multiples(variants, panels, "invariance error", order)


def equivariance_curves(variants: Sequence[Variant]) -> go.Figure:
    """Equivariance error of every layer, and its interpolation baseline, for small shifts and for rotations."""
    order = layers_with(variants, "equivariance_error")
    names = {"": "equivariance_error", "_untrained": "equivariance_error_untrained", "_floor": "equivariance_floor"}
    curves = {title: curves_by_layer(order, names, *where) for title, where in EQUIVARIANCE_TRANSFORMS.items()}
    panels = [Panel(title, by_variant) for title, by_variant in curves.items()]
    return small_multiples(variants, panels, "equivariance error", order)


def lie_derivatives(variants: Sequence[Variant]) -> go.Figure:
    """Local equivariance error (Lie derivative) of the output, a panel per infinitesimal transform."""

    def panel(transform: str, suffix: str) -> Panel:
        def curves(variant: Variant) -> dict[str, Curve]:
            point = variant.point(OUTPUT, f"velocity/{transform}", 0, f"lee_relative{suffix}")
            return {suffix: [(LIE_UNITS[transform], *point)] if point else []}

        return Panel(f"{transform}{SUFFIXES[suffix]}", curves)

    panels = [panel(transform, suffix) for suffix in SUFFIXES for transform in LIE_UNITS]
    return small_multiples(variants, panels, "local equivariance error", bars=True, shared=False)


def aliasing_curves(variants: Sequence[Variant]) -> go.Figure:
    """Aliasing fraction of every layer that subsamples."""
    order = layers_with(variants, "aliasing_fraction")
    curves = curves_by_layer(order, "aliasing_fraction", "subsampling")
    return small_multiples(variants, [Panel("", curves)], "aliasing fraction", order)


def null_space_curves(variants: Sequence[Variant]) -> go.Figure:
    """What linear layers throw away as they downsample, and what they throw away of white noise."""
    order = layers_with(variants, "null_space_energy")
    names = {"": "null_space_energy", "_untrained": "null_space_energy_untrained", "_floor": "null_space_energy_null"}
    return small_multiples(variants, [Panel("", curves_by_layer(order, names))], "share of the variance", order)


def worst_case_bars(variants: Sequence[Variant]) -> go.Figure:
    """Accuracy on untransformed images, mean over all rolls, and worst case over them, all on the same images, whose
    number is below the bars. Runs from before ``accuracy_in_place`` was measured have no bar for the first.
    """

    def panel(title: str, measure: str) -> Panel:
        amounts = {(p, a) for variant in variants for p in ROLLS for a in variant.amounts(OUTPUT, p, measure)}

        def curves(variant: Variant) -> dict[str, Curve]:
            points = {at: variant.point(OUTPUT, *at, measure) for at in sorted(amounts)}
            return {"": [(_scope(variant, *at, measure), *point) for at, point in points.items() if point]}

        return Panel(title, curves)

    if not layers_with(variants, "worst_case"):
        return go.Figure()
    titles = {"no roll": "accuracy_in_place", "mean over rolls": "accuracy", "worst case over rolls": "worst_case"}
    return small_multiples(variants, [panel(*entry) for entry in titles.items()], "accuracy", bars=True)


def _scope(variant: Variant, protocol: str, amount: float, measure: str) -> str:
    """What a value over rolls was computed from: all 1024 rolls, 53 images."""
    n = max(run.counts.get((OUTPUT, protocol, amount, measure), 0) for run in variant.runs)
    rolls = {"all_rolls": f"all {amount:g} rolls,<br>", "sampled_rolls": f"{amount:g} random rolls,<br>"}
    return f"{rolls.get(protocol, '')}{n} images"


def probe_curves(variants: Sequence[Variant]) -> go.Figure:
    """Linear probes of class and position on every layer; pixels and shuffled targets as reference lines."""
    order = [layer for layer in layers_with(variants, "probe_accuracy", "probe_r2") if layer != PIXELS]
    titles = {"probe_accuracy": "class: accuracy", "probe_r2": "position: R²"}
    shown = [name for name in titles if layers_with(variants, name)]
    panels = [Panel(titles[name], curves_by_layer(order, name)) for name in shown]
    figure = small_multiples(variants, panels, "", order, shared=False)
    for column, name in enumerate(shown, start=1):
        pixels = [(variant, by_layer(variant, [PIXELS], name)) for variant in variants]
        _add_reference_lines(figure, column, "pixels", "dash", order, pixels)
        shuffled = [(variant, by_layer(variant, order, f"{name}_shuffled")) for variant in variants]
        _add_reference_lines(figure, column, "shuffled targets", "dot", order, shuffled)
    return figure


def _add_reference_lines(
    figure: go.Figure, column: int, label: str, dash: str, order: list[str], curves: list[tuple[Variant, Curve]]
) -> None:
    """A grey line across a panel for each distinct value."""
    values = {value: variant.name for variant, curve in curves for _, value, _, _ in curve}
    for i, (value, variant_name) in enumerate(values.items()):
        figure.add_scatter(
            x=order, y=[value] * len(order), mode="lines", name=label, legendgroup=label,
            line={"color": "#808080", "width": 1.5, "dash": dash}, showlegend=column == 1 and not i,
            hovertemplate="%{y:.3f} (%{text})", text=[variant_name] * len(order), row=1, col=column,
        )  # fmt: skip


def channel_curves(variants: Sequence[Variant]) -> go.Figure:
    """Effective rank, class selectivity above chance, and share of dead channels of every layer."""
    order = layers_with(variants, "effective_rank", "class_selectivity", "dead_share")

    def above_chance(variant: Variant, suffix: str) -> Curve:
        return [
            (layer, value - chance[0], low - chance[0], high - chance[0])
            for layer, value, low, high in by_layer(variant, order, f"class_selectivity{suffix}")
            if (chance := variant.point(layer, "test", 0, f"class_selectivity_null{suffix}"))
        ]

    panels = [
        Panel("effective rank", curves_by_layer(order, "effective_rank")),
        Panel("selectivity above chance", lambda variant: {end: above_chance(variant, end) for end in SUFFIXES}),
        Panel("dead channels", curves_by_layer(order, "dead_share")),
    ]
    return small_multiples(variants, panels, "", order, shared=False)


def unit_invariance(variants: Sequence[Variant]) -> go.Figure:
    """Goodfellow's invariance score of the units of every layer, a panel per size of shift."""
    order = layers_with(variants, "goodfellow")
    pairs = [(variant, layer) for variant in variants for layer in order]
    amounts = sorted({amount for variant, layer in pairs for amount in variant.amounts(layer, "crop", "goodfellow")})
    panels = [Panel(f"crop {amount:g} px", curves_by_layer(order, "goodfellow", "crop", amount)) for amount in amounts]
    return small_multiples(variants, panels, "invariance score", order)


def layers_with(variants: Sequence[Variant], *measures: str) -> list[str]:
    """All layers that have one of the measures, in an order that suits every net."""
    return merge_layers([name for measure in measures for name in variant.layers(measure)] for variant in variants)


def merge_layers(nets: Iterable[Sequence[str]]) -> list[str]:
    """Merge the layers of several nets into an order that suits all: by block, then by layer.

    >>> merge_layers([["stage1.pool", "stage2.pool"], ["stage1.conv", "stage2.conv", "stage3.conv"]])
    ['stage1.conv', 'stage1.pool', 'stage2.conv', 'stage2.pool', 'stage3.conv']
    """
    merged: list[str] = []
    blocks: list[str] = []
    for layers in nets:
        for order, names in ((merged, layers), (blocks, [layer.split(".")[0] for layer in layers])):
            position = 0
            for name in names:
                if name not in order:
                    order.insert(position, name)  # after its predecessor
                position = order.index(name) + 1
    return sorted(merged, key=lambda layer: blocks.index(layer.split(".")[0]))


def curves_by_layer(
    order: Sequence[str], measure: str | Mapping[str, str], protocol: str = "test", amount: float = 0,
    suffixes: Iterable[str] = tuple(SUFFIXES),
) -> Callable[[Variant], dict[str, Curve]]:  # fmt: skip
    """Variant → suffix → a measure by layer: the measure of that name with the suffix, or the one given for it."""
    names = {suffix: measure + suffix for suffix in suffixes} if isinstance(measure, str) else measure
    return lambda variant: {end: by_layer(variant, order, name, protocol, amount) for end, name in names.items()}


def by_layer(variant: Variant, order: Sequence[str], measure: str, protocol: str = "test", amount: float = 0) -> Curve:
    """A measure by layer, of the layers that have it."""
    points = {layer: variant.point(layer, protocol, amount, measure) for layer in order}
    return [(layer, *point) for layer, point in points.items() if point]


def over_training(variants: Sequence[Variant]) -> go.Figure:
    """Invariance to a 1-px crop by epoch, mean over seeds; epoch 0 is the untrained net."""

    def panel(title: str, layer: str, measure: str) -> Panel:
        name = "invariance/crop/1px/" + measure if layer == OUTPUT else f"invariance/crop/1px/{layer}/{measure}"

        def curves(variant: Variant) -> dict[str, Curve]:
            untrained = variant.point(layer, "crop", 1, f"{measure}_untrained")
            by_epoch: dict[int, list[float]] = {}
            for run in variant.measured:
                for row in run.history:
                    if row.get(name):
                        by_epoch.setdefault(int(row["epoch"]), []).append(float(row[name]))
            trained = [(epoch, *t_interval(values)) for epoch, values in sorted(by_epoch.items())]
            return {"": [(0, *untrained), *trained] if untrained and trained else trained}

        return Panel(title, curves)

    order = layers_with(variants, "invariance_error")
    panels = [panel("output: output distance", OUTPUT, "output_distance")]
    panels += [panel(f"{layer}: invariance error", layer, "invariance_error") for layer in order]
    return small_multiples(variants, panels, "1-px crop", shared=False)
