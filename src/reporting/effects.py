"""Main effects and interactions over the axes of a sweep, where it crosses them; and how much each explains.

A seed is a block: a mean is taken in every seed by itself, and its interval is over seeds, of its distance from the
seed's mean over all variants: what a seed does to all of them alike is no doubt about what an axis does. What is shown
comes from the seeds that every variant has, so that means differ in the level they stand for and in nothing else.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..stats.intervals import t_interval
from .comparison import GAPS, MEASURED, SHOWN, Variant, one_line, short
from .plots import COLUMNS, Curve, Panel, dressed, multiples, spread

#: numbers whose interactions are drawn; the others go much the same way as one of these
CROSSED = ("test_accuracy", "dissimilar_accuracy", "test_r2", "crop_1px_output_distance")
SEED, REST = "seed", "rest"


@dataclass(frozen=True)
class Factorial:
    """Variants that cross the levels of their axes: any two levels of two axes meet equally often, in the same seeds.

    Attributes:
        axes: name → its levels, as they are shown. Axes that always change together are one.
        codes: (variants, axes), which level each has.
        variants: in that order.
        seeds: those that all of them have.
    """

    axes: dict[str, list[str]]
    codes: np.ndarray
    variants: Sequence[Variant]
    seeds: list[int]

    @property
    def full(self) -> bool:
        """Whether every combination of levels is there, or a balanced fraction of them."""
        return len(self.variants) == prod(map(len, self.axes.values()))

    @property
    def keys(self) -> list[str]:
        """The numbers that every variant has, for all seeds, costs aside."""
        keys = [key for key in SHOWN if key in (*MEASURED, *GAPS)]
        having = [key for key in keys if all(one.has(key) for one in self.variants)]
        return [key for key in having if all({*self.seeds} <= one.by_seed(key).keys() for one in self.variants)]

    @property
    def words(self) -> str:
        """What it is made of, and what that means for reading it."""
        crossed = " × ".join(f"{axis} ({len(levels)})" for axis, levels in self.axes.items())
        cells, whole = len(self.variants), prod(map(len, self.axes.values()))
        some = "" if self.full else f", {cells} of {whole} combinations: an axis may stand for what others do together"
        seeds = f", {len(self.seeds)} seeds each" if len(self.seeds) > 1 else ", one seed each: no intervals"
        left_out = sum(len(one.runs) for one in self.variants) - cells * len(self.seeds)
        lacking = f"; left out, as their seed is not there for all: {left_out} runs" if left_out else ""
        return f"{crossed}{some}{seeds}{lacking}"

    def values(self, key: str) -> np.ndarray:
        """A number of the comparison, (variants, seeds)."""
        return np.array([[one.by_seed(key)[seed] for seed in self.seeds] for one in self.variants])

    def means(self, key: str, *axes: str) -> dict[tuple[str, ...], np.ndarray]:
        """A level of each of the axes → the number's mean over all other axes, (seeds,)."""
        values, columns = self.values(key), [list(self.axes).index(axis) for axis in axes]
        levels = [tuple(row) for row in self.codes[:, columns].tolist()]
        return {
            tuple(self.axes[axis][i] for axis, i in zip(axes, level, strict=True)): values[
                [one == level for one in levels]
            ].mean(0)
            for level in sorted(set(levels))
        }


def factorial(found: Sequence[Variant]) -> Factorial | None:
    """What the variants cross; None where they don't, or differ in one axis alone, or share no seed."""
    columns: dict[tuple[int, ...], dict[str, list[Any]]] = {}
    for axis in found[0].settings:
        values = [one.settings[axis] for one in found]
        if len({str(value) for value in values}) > 1:
            columns.setdefault(_codes([str(value) for value in values]), {})[axis] = values
    if len(columns) < 2:
        return None
    axes: dict[str, list[str]] = {}
    codes = []
    for together in columns.values():
        rows = list(zip(*together.values(), strict=True))
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for row in rows for value in row)
        levels = list(dict.fromkeys(" & ".join(map(str, row)) for row in (sorted(rows) if numbers else rows)))
        axes[" & ".join(map(short, together))] = levels
        codes.append([levels.index(" & ".join(map(str, row))) for row in rows])
    seeds = [seed for seed in found[0].seeds if all(seed in one.seeds for one in found)]
    balanced = all(
        len(met := Counter(zip(one, other, strict=True))) == (max(one) + 1) * (max(other) + 1)
        and len(set(met.values())) == 1
        for one, other in combinations(codes, 2)
    )
    return Factorial(axes, np.array(codes).T, found, sorted(seeds)) if seeds and balanced else None


def _codes(values: Sequence[str]) -> tuple[int, ...]:
    """A number for each value, in the order in which they come: the same for two axes that change together."""
    order = list(dict.fromkeys(values))
    return tuple(order.index(value) for value in values)


def explained(design: Factorial, key: str) -> dict[str, tuple[float, float]]:
    """A balanced analysis of variance: term → its share of the sum of squares (η²), and what chance alone would give.

    Terms are the axes, every two of them (of a full factorial; for two axes and one seed that is the rest), seeds, and
    the rest. Of numbers drawn at random, a term explains as much as its degrees of freedom are of all, in the mean.
    Nothing where all runs have one number.
    """
    values = design.values(key)
    if np.ptp(values) == 0:
        return {}
    deviations, runs = values - values.mean(), values.size

    def squares(*axes: str) -> float:
        groups = [mean.mean() - values.mean() for mean in design.means(key, *axes).values()]
        return float(runs / len(groups) * np.square(groups).sum())

    terms = {axis: (squares(axis), len(levels) - 1) for axis, levels in design.axes.items()}
    if design.full and (len(design.axes) > 2 or len(design.seeds) > 1):
        for one, other in combinations(design.axes, 2):
            (first, freedom), (second, of_other) = terms[one], terms[other]
            terms[f"{one} × {other}"] = squares(one, other) - first - second, freedom * of_other
    if len(design.seeds) > 1:
        terms[SEED] = float(len(values) * np.square(deviations.mean(0)).sum()), len(design.seeds) - 1
    total = float(np.square(deviations).sum())
    rest = runs - 1 - sum(freedom for _, freedom in terms.values())
    if rest > 0:
        terms[REST] = total - sum(square for square, _ in terms.values()), rest
    return {term: (max(square, 0.0) / total, freedom / (runs - 1)) for term, (square, freedom) in terms.items()}


def main_effects(found: Sequence[Variant]) -> go.Figure:
    """A number's mean by level of each axis, over all others."""
    if (design := factorial(found)) is None:
        return go.Figure()

    def panel(key: str, axis: str) -> Panel:
        means = design.means(key, axis)
        overall = design.values(key).mean(0)
        return Panel(_title(key, axis), lambda _: {"": [(x, *_mean(by, overall)) for (x,), by in means.items()]})

    return _figure(design, [Variant("mean over the other axes", {}, [])], design.keys, list(design.axes), panel)


def interactions(found: Sequence[Variant]) -> go.Figure:
    """A number's mean by the levels of every two axes; the axis with fewer levels gives the lines."""
    design = factorial(found)
    if design is None or not design.full:  # in a fraction, they are mixed with what other axes do
        return go.Figure()
    pairs = [sorted(pair, key=lambda axis: -len(design.axes[axis])) for pair in combinations(design.axes, 2)]
    lines = {f"{axis}={level}": (axis, level) for _, axis in pairs for level in design.axes[axis]}

    def panel(key: str, pair: list[str]) -> Panel:
        means, overall, (across, by) = design.means(key, *pair), design.values(key).mean(0), pair

        def curves(line: Variant) -> dict[str, Curve]:
            axis, level = lines[line.name]
            return {"": [(x, *_mean(one, overall)) for (x, of), one in means.items() if (axis, level) == (by, of)]}

        return Panel(_title(key, f"{across} × {by}"), curves)

    levels = [Variant(name, {}, []) for name in lines]
    return _figure(design, levels, [key for key in design.keys if key in CROSSED], pairs, panel)


def _figure(
    design: Factorial,
    lines: Sequence[Variant],
    keys: Sequence[str],
    parts: Sequence[Any],
    panel: Callable[[str, Any], Panel],
) -> go.Figure:
    """A panel for each number and part, those of a number beside each other and on one scale."""
    columns = next((n for n in (4, 3) if n % len(parts) == 0 or len(parts) % n == 0), 4)
    panels = [panel(key, part) for key in keys for part in parts]
    figure = multiples(lines, panels, "", shared=False, columns=columns)
    figure.update_xaxes(type="category")
    figure.update_yaxes(rangemode="normal")
    for i in range(len(panels)):
        first = i - i % len(parts)
        if i > first:
            figure.layout[f"yaxis{i + 1}"].matches = f"y{first + 1}" if first else "y"
    return _noted(figure, design)


def shares(found: Sequence[Variant]) -> go.Figure:
    """How much of each number's variance every axis explains, every two of them together, seeds, and the rest."""
    if (design := factorial(found)) is None:
        return go.Figure()
    every = {one_line(SHOWN[key]): terms for key in design.keys if (terms := explained(design, key))}
    figure, spots = spread(list(every), -(-len(every) // max(-(-len(every) // COLUMNS), 1)))
    for i, (spot, terms) in enumerate(zip(spots, every.values(), strict=True)):
        for name, which, look in (
            ("share of the variance", 0, {"color": "#0072B2"}),
            ("by chance", 1, {"color": "rgba(128,128,128,0.5)"}),
        ):
            figure.add_bar(
                y=list(terms), x=[None if which and term == REST else both[which] for term, both in terms.items()],
                orientation="h", marker=look, name=name,
                legendgroup=name, showlegend=i == 0, hovertemplate="%{y}: %{x:.3f}", **spot,
            )  # fmt: skip
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_layout(bargap=0.3, barmode="group")
    return _noted(dressed(figure), design)


def _title(key: str, of: str) -> str:
    return f"{one_line(SHOWN[key])}: {of}"


def _mean(of_seeds: np.ndarray, overall: np.ndarray) -> tuple[float, float, float]:
    """Mean, low, high: 95% over seeds of the distance from the seed's mean over all."""
    middle = float(overall.mean())
    value, low, high = t_interval((of_seeds - overall).tolist())
    return middle + value, middle + low, middle + high


def _noted(figure: go.Figure, design: Factorial) -> go.Figure:
    """With what it is made of below its heading on the page."""
    figure.update_layout(meta={**(figure.layout.meta or {}), "notes": {design.words: "crossed"}})
    return figure
