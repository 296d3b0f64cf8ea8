"""Main effects, interactions and shares of variance of a sweep that crosses its axes, as figures.

All of them use the seeds that every variant has, so that two means differ in their levels and in nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from ..stats import factorial
from ..stats.factorial import VarianceShare, combinations_of
from .columns import GAPS, HEADINGS, MEASURED, one_line
from .comparison import short
from .plots import COLUMNS, Curve, Panel, apply_theme, small_multiples, subplots
from .variant import Variant

#: columns whose interactions are drawn; the others behave like one of these
INTERACTION_COLUMNS = ("test_accuracy", "dissimilar_accuracy", "test_r2", "crop_1px_output_distance")


@dataclass(frozen=True)
class Factorial:
    """Variants that cross the levels of their axes: any two levels of two axes meet equally often, in the same seeds.

    Attributes:
        axes: name → its levels as shown. Axes that always change together are one.
        levels: (variants, axes), the index of each variant's level.
        variants: in that order.
        seeds: those that all variants have.
    """

    axes: dict[str, list[str]]
    levels: Int[np.ndarray, "variants axes"]
    variants: Sequence[Variant]
    seeds: list[int]

    @property
    def is_full(self) -> bool:
        """Whether every combination of levels occurs; else a balanced fraction of them does."""
        return len(self.variants) == combinations_of(self.levels)

    @property
    def columns(self) -> list[str]:
        """The columns without costs in which every variant has a value for all seeds."""
        return [column for column in HEADINGS if column in (*MEASURED, *GAPS) and self.has(column)]

    @property
    def description(self) -> str:
        """Its axes, seeds, and what is left out."""
        crossed = " × ".join(f"{axis} ({len(levels)})" for axis, levels in self.axes.items())
        count, combinations_count = len(self.variants), combinations_of(self.levels)
        fraction = f", {count} of {combinations_count} combinations: main effects are confounded with interactions"
        seeds = f", {len(self.seeds)} seeds each" if len(self.seeds) > 1 else ", one seed each: no intervals"
        left_out = sum(len(variant.runs) for variant in self.variants) - count * len(self.seeds)
        without = f"; left out, as not every variant has their seed: {left_out} runs" if left_out else ""
        return f"{crossed}{'' if self.is_full else fraction}{seeds}{without}"

    def has(self, column: str) -> bool:
        """Whether every variant has a value in this column for all seeds."""
        return all(v.has(column) and {*self.seeds} <= v.by_seed(column).keys() for v in self.variants)

    def values(self, column: str) -> Float[np.ndarray, "variants seeds"]:
        """A column's values."""
        return np.array([[variant.by_seed(column)[seed] for seed in self.seeds] for variant in self.variants])

    def means(self, column: str, *axes: str) -> dict[tuple[str, ...], Float[np.ndarray, " seeds"]]:
        """A level of each of the axes → the column's mean over all other axes, for each seed."""
        indices = [list(self.axes).index(axis) for axis in axes]
        means = factorial.cell_means(self.values(column), self.levels, indices)
        return {tuple(self.axes[axis][i] for axis, i in zip(axes, cell, strict=True)): m for cell, m in means.items()}

    def variance_shares(self, column: str) -> dict[str, VarianceShare]:
        """Name of the source, ``pool``, ``pool × stride``, ``seed`` or ``rest`` → its share of the variance."""
        names = list(self.axes)

        def name(share: VarianceShare) -> str:
            source = share.source
            return source if isinstance(source, str) else " × ".join(names[axis] for axis in source)

        return {name(share): share for share in factorial.variance_shares(self.values(column), self.levels)}


def factorial_of(variants: Sequence[Variant]) -> Factorial | None:
    """The factorial that the variants make; None where they don't, differ in one axis alone, or share no seed."""
    grouped: dict[tuple[int, ...], dict[str, list[Any]]] = {}
    for axis in variants[0].settings:
        values = [variant.settings[axis] for variant in variants]
        if len({str(value) for value in values}) > 1:
            grouped.setdefault(_indices([str(value) for value in values]), {})[axis] = values
    if len(grouped) < 2:
        return None
    axes: dict[str, list[str]] = {}
    columns = []
    for together in grouped.values():
        rows = list(zip(*together.values(), strict=True))
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for row in rows for value in row)
        names = list(dict.fromkeys(" & ".join(map(str, row)) for row in (sorted(rows) if numeric else rows)))
        axes[" & ".join(map(short, together))] = names
        columns.append([names.index(" & ".join(map(str, row))) for row in rows])
    seeds = [seed for seed in variants[0].seeds if all(seed in variant.seeds for variant in variants)]
    levels = np.array(columns).T
    return Factorial(axes, levels, variants, sorted(seeds)) if seeds and factorial.is_balanced(levels) else None


def _indices(values: Sequence[str]) -> tuple[int, ...]:
    """A number for each value in order of first occurrence: the same for two axes that change together."""
    order = list(dict.fromkeys(values))
    return tuple(order.index(value) for value in values)


def main_effects(variants: Sequence[Variant]) -> go.Figure:
    """A column's mean by level of each axis, over all other axes."""
    if (design := factorial_of(variants)) is None:
        return go.Figure()

    def panel(column: str, axis: str) -> Panel:
        means, overall = design.means(column, axis), design.values(column).mean(0)
        curve = [(level, *factorial.block_interval(mean, overall)) for (level,), mean in means.items()]
        return Panel(_title(column, axis), lambda _: {"": curve})

    lines = [Variant("mean over the other axes", {}, [])]
    return _figure(design, lines, design.columns, list(design.axes), panel)


def interactions(variants: Sequence[Variant]) -> go.Figure:
    """A column's mean by the levels of every two axes; the axis with fewer levels gives the lines."""
    design = factorial_of(variants)
    if design is None or not design.is_full:  # in a fraction, interactions are confounded
        return go.Figure()
    pairs = [sorted(pair, key=lambda axis: -len(design.axes[axis])) for pair in combinations(design.axes, 2)]
    lines = {f"{axis}={level}": (axis, level) for _, axis in pairs for level in design.axes[axis]}

    def panel(column: str, pair: list[str]) -> Panel:
        (x_axis, line_axis), overall = pair, design.values(column).mean(0)
        means = design.means(column, *pair)

        def curves(line: Variant) -> Mapping[str, Curve]:
            points = [(x, mean) for (x, level), mean in means.items() if (line_axis, level) == lines[line.name]]
            return {"": [(x, *factorial.block_interval(mean, overall)) for x, mean in points]}

        return Panel(_title(column, f"{x_axis} × {line_axis}"), curves)

    columns = [column for column in design.columns if column in INTERACTION_COLUMNS]
    return _figure(design, [Variant(name, {}, []) for name in lines], columns, pairs, panel)


def _figure(
    design: Factorial, lines: Sequence[Variant], columns: Sequence[str], parts: Sequence[Any],
    panel: Callable[[str, Any], Panel],
) -> go.Figure:  # fmt: skip
    """A panel for each column and part, those of one column side by side and on one scale."""
    across = next((n for n in (4, 3) if n % len(parts) == 0 or len(parts) % n == 0), 4)
    panels = [panel(column, part) for column in columns for part in parts]
    figure = small_multiples(lines, panels, "", shared=False, columns=across)
    figure.update_xaxes(type="category")
    figure.update_yaxes(rangemode="normal")
    for i in range(len(panels)):
        first = i - i % len(parts)
        if i > first:
            figure.layout[f"yaxis{i + 1}"].matches = f"y{first + 1}" if first else "y"
    return with_description(figure, design)


def variance_bars(variants: Sequence[Variant]) -> go.Figure:
    """How much of each column's variance every axis, every interaction of two, seeds, and the rest explain."""
    if (design := factorial_of(variants)) is None:
        return go.Figure()
    panels = {one_line(HEADINGS[c]): sources for c in design.columns if (sources := design.variance_shares(c))}
    figure, cells = subplots(list(panels), -(-len(panels) // max(-(-len(panels) // COLUMNS), 1)))
    for i, (cell, sources) in enumerate(zip(cells, panels.values(), strict=True)):
        explained = [share.share for share in sources.values()]
        expected = [None if share.source == factorial.REST else share.expected for share in sources.values()]
        colours = "#0072B2", "rgba(128,128,128,0.5)"
        names = "share of the variance", "expected by chance"
        for name, x, colour in zip(names, (explained, expected), colours, strict=True):
            figure.add_bar(
                y=list(sources), x=x, orientation="h", marker={"color": colour}, name=name,
                legendgroup=name, showlegend=i == 0, hovertemplate="%{y}: %{x:.3f}", **cell,
            )  # fmt: skip
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_layout(bargap=0.3, barmode="group")
    return with_description(apply_theme(figure), design)


def _title(column: str, axis: str) -> str:
    return f"{one_line(HEADINGS[column])}: {axis}"


def with_description(figure: go.Figure, design: Factorial) -> go.Figure:
    """The figure with the design's description below its heading on the page."""
    figure.update_layout(meta={**(figure.layout.meta or {}), "notes": {design.description: "crossed"}})
    return figure
