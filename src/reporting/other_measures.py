"""Figures of all measures that no other figure shows, so that a new metric appears on the page by itself."""

from collections.abc import Collection, Sequence

import plotly.graph_objects as go

from .columns import MEASURED
from .measure_figures import OUTPUT, curves_by_layer, merge_layers
from .plots import LINES, Curve, Panel, small_multiples
from .variant import Key, Variant

#: protocol (with its transform), measure without the suffixes of ``LINES``
Group = tuple[str, str]
#: room for a title of two lines above a panel, in pixels
BELOW = 84


def other_by_amount(variants: Sequence[Variant], drawn: Collection[Key]) -> go.Figure:
    """Measures of the output over several amounts, a panel per protocol and measure; without those already drawn."""

    def panel(protocol: str, name: str) -> Panel:
        def curves(variant: Variant) -> dict[str, Curve]:
            return {suffix: variant.curve(OUTPUT, protocol, name + suffix) for suffix in LINES}

        return Panel(f"{protocol}<br>{name}", curves, protocol)

    groups = other_groups(variants, drawn)
    panels = [panel(*group) for group, layers in groups.items() if _is_curve(layers, _amounts(variants, group, layers))]
    return small_multiples(variants, panels, "", shared=False, below=BELOW).update_annotations(font_size=12)


def other_by_layer(variants: Sequence[Variant], drawn: Collection[Key]) -> go.Figure:
    """All others as bars by layer, a panel per protocol, measure and amount (of several, the least and the largest)."""
    groups = other_groups(variants, drawn)
    order = merge_layers(groups.values())
    panels = []
    for (protocol, name), layers in groups.items():
        amounts = _amounts(variants, (protocol, name), layers)
        if not _is_curve(layers, amounts):
            for amount in dict.fromkeys([amounts[0], amounts[-1]]):
                title = f"{protocol} {amount:g}" if amount else protocol
                curves = curves_by_layer(order, name, protocol, amount, LINES)
                panels.append(Panel(f"{title}<br>{name}", curves, protocol))
    figure = small_multiples(variants, panels, "", order, bars=True, shared=False, below=BELOW)
    return figure.update_annotations(font_size=12)


def _is_curve(layers: Sequence[str], amounts: Sequence[float]) -> bool:
    return list(layers) == [OUTPUT] and len(amounts) > 1


def _amounts(variants: Sequence[Variant], group: Group, layers: Sequence[str]) -> list[float]:
    protocol, name = group
    return sorted({a for variant in variants for layer in layers for a in variant.amounts(layer, protocol, name)})


def other_groups(variants: Sequence[Variant], drawn: Collection[Key]) -> dict[Group, list[str]]:
    """Protocol and measure of all values that neither a figure nor the comparison shows → their layers."""
    keys = [list(dict.fromkeys(key for run in variant.runs for key in run.measures)) for variant in variants]
    names = {measure for each in keys for *_, measure in each}

    def group(key: Key) -> Group:
        _, protocol, _, measure = key
        base = measure
        for suffix in LINES:
            base = base.removesuffix(suffix)
        return protocol, base if base in names else measure

    shown = {group(key) for key in [*drawn, *MEASURED.values()]}
    layers: dict[Group, list[list[str]]] = {}
    for i, each in enumerate(keys):
        for key in each:
            if group(key) not in shown:
                layers.setdefault(group(key), [[] for _ in keys])[i].append(key[0])
    return {entry: merge_layers(list(dict.fromkeys(net)) for net in nets) for entry, nets in layers.items()}
