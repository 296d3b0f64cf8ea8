"""Factorial designs: cell means, and the shares of variance that factors, interactions and seeds explain (η²).

Seeds are blocks: every mean is taken within each seed, and intervals are over seeds, of the distance from the seed's
overall mean. What a seed does to all variants alike is then no uncertainty about a factor.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np
from jaxtyping import Float, Int

from .intervals import t_interval

SEED, REST = "seed", "rest"
#: what explains variance: a factor (i,), an interaction of two (i, j), seeds, or the rest
Source = tuple[int, ...] | str
#: values of each variant (down) with each seed (across)
Values = Float[np.ndarray, "variants seeds"]
#: the level that each variant (down) has of each factor (across), from 0
Levels = Int[np.ndarray, "variants factors"]


@dataclass(frozen=True)
class VarianceShare:
    """How much of the variance one source explains.

    Attributes:
        source: which (see ``Source``).
        share: of the total sum of squares, η²; all shares add up to 1.
        expected: the share that it would have on average if the values were drawn at random.
    """

    source: Source
    share: float
    expected: float


def is_balanced(levels: Levels) -> bool:
    """Whether any two levels of two factors meet, and equally often: a full factorial or a balanced fraction."""
    for first, second in combinations(levels.T.tolist(), 2):
        cells = Counter(zip(first, second, strict=True))
        if len(cells) != (max(first) + 1) * (max(second) + 1) or len(set(cells.values())) != 1:
            return False
    return True


def combinations_of(levels: Levels) -> int:
    """Number of combinations of levels in the full factorial."""
    return prod((levels.max(0) + 1).tolist())


def cell_means(
    values: Values, levels: Levels, factors: Sequence[int]
) -> dict[tuple[int, ...], Float[np.ndarray, " seeds"]]:
    """A level of each of the factors → mean over the variants that have them, for each seed."""
    rows = [tuple(row) for row in levels[:, list(factors)].tolist()]
    return {cell: values[[row == cell for row in rows]].mean(0) for cell in sorted(set(rows))}


def variance_shares(values: Values, levels: Levels) -> list[VarianceShare]:
    """Balanced analysis of variance; empty where all values are equal.

    Sources are the factors, the interactions of two (only where a full factorial leaves degrees of freedom beside
    them), seeds where there are several, and the rest. At random, a source explains on average the share that its
    degrees of freedom are of all.
    """
    if np.ptp(values) == 0:
        return []
    factors, (variants, seeds) = levels.shape[1], values.shape
    deviations, runs = values - values.mean(), values.size

    def squares(*chosen: int) -> float:
        means = [mean.mean() - values.mean() for mean in cell_means(values, levels, chosen).values()]
        return float(runs / len(means) * np.square(means).sum())

    sources: dict[Source, tuple[float, int]] = {
        (i,): (squares(i), int(levels[:, i].max())) for i in range(factors)
    }  # sum of squares, degrees of freedom
    if variants == combinations_of(levels) and (factors > 2 or seeds > 1):
        for i, j in combinations(range(factors), 2):
            (first, freedom), (second, other_freedom) = sources[i,], sources[j,]
            sources[i, j] = squares(i, j) - first - second, freedom * other_freedom
    if seeds > 1:
        sources[SEED] = float(variants * np.square(deviations.mean(0)).sum()), seeds - 1
    total = float(np.square(deviations).sum())
    rest = runs - 1 - sum(freedom for _, freedom in sources.values())
    if rest > 0:
        sources[REST] = total - sum(square for square, _ in sources.values()), rest
    shares = ((source, max(square, 0.0) / total, freedom) for source, (square, freedom) in sources.items())
    return [VarianceShare(source, share, freedom / (runs - 1)) for source, share, freedom in shares]


def block_interval(
    means: Float[np.ndarray, " seeds"], overall: Float[np.ndarray, " seeds"]
) -> tuple[float, float, float]:
    """Mean, low, high: 95% over seeds (Student's t) of the distance of a cell's mean from the seed's overall mean."""
    centre = float(overall.mean())
    value, low, high = t_interval((means - overall).tolist())
    return centre + value, centre + low, centre + high
