"""Rank correlations between numbers of the same few variants, tested together by permuting the variants."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

#: fewer variants cannot show a correlation: of 4, the smallest p-value of a single pair is 2/24
LEAST_VARIANTS = 5
#: up to so many variants all permutations are enumerated, above it ``DRAWS`` are drawn
MOST_ENUMERATED, DRAWS = 7, 10_000


@dataclass(frozen=True)
class Correlation:
    """A candidate against an outcome, over variants.

    Attributes:
        outcome, candidate: names.
        rho: Spearman's rank correlation, in [-1, 1].
        p: probability that the largest |rho| of all pairs is as large by chance, if no candidate goes with an outcome.
    """

    outcome: str
    candidate: str
    rho: float
    p: float


def rank_correlations(
    outcomes: Mapping[str, Sequence[float]], candidates: Mapping[str, Sequence[float]]
) -> list[Correlation]:
    """Every candidate against every outcome, the largest |rho| first; each has a value for each of the same variants.

    p-values are by permutation of the variants, the same for all pairs at once, and corrected for the number of pairs
    by the distribution of the largest |rho| (Westfall & Young 1993, maxT): if no candidate goes with an outcome, any
    pair has p ≤ 0.05 with a probability of 5% at most, for any distribution. Columns that are constant or hold a nan
    are left out; fewer than ``LEAST_VARIANTS`` variants give none.
    """
    ranked_outcomes, ranked_candidates = _standardized_ranks(outcomes), _standardized_ranks(candidates)
    if not ranked_outcomes or not ranked_candidates:
        return []
    y, x = np.stack([*ranked_outcomes.values()]), np.stack([*ranked_candidates.values()])
    if y.shape[1] < LEAST_VARIANTS:
        return []
    rho = y @ x.T
    largest = np.abs(y[:, _orders(y.shape[1])] @ x.T).max((0, 2))
    pairs = [
        Correlation(outcome, candidate, float(rho[i, j]), float((largest >= abs(rho[i, j]) - 1e-9).mean()))
        for i, outcome in enumerate(ranked_outcomes)
        for j, candidate in enumerate(ranked_candidates)
    ]
    return sorted(pairs, key=lambda pair: -abs(pair.rho))


def _standardized_ranks(columns: Mapping[str, Sequence[float]]) -> dict[str, Float[np.ndarray, " n"]]:
    """Ranks of mean 0 and length 1, of the columns that vary."""
    ranks = {name: rankdata(values) for name, values in columns.items() if not any(map(math.isnan, values))}
    centred = {name: values - values.mean() for name, values in ranks.items()}
    return {name: values / np.linalg.norm(values) for name, values in centred.items() if values.any()}


@cache
def _orders(n: int) -> Int[np.ndarray, "orders n"]:
    """All orders of n variants, or a fixed sample of them that contains the given order."""
    if n <= MOST_ENUMERATED:
        return np.array([*permutations(range(n))])
    drawn = np.tile(np.arange(n), (DRAWS, 1))
    np.random.default_rng(0).permuted(drawn[1:], axis=1, out=drawn[1:])
    return drawn
