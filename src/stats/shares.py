"""Differences of two shares of runs, such as those that collapse: exact for any number of runs."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, xlog1py, xlogy

from .effects import tail_of

#: a number for every outcome: so many hits of the first side (down), and of the other (across)
Outcomes = Float[np.ndarray, "hits other_hits"]

#: differences of shares at which p-values are computed once, for every outcome
BOUNDS = np.arange(-50, 51) / 50
#: values of the unknown share over which the largest p-value is sought
NUISANCE_POINTS = 101
#: statistics that differ by less are equal but for rounding
TIE = 1e-7


@dataclass(frozen=True)
class ShareEffect:
    """The difference of two shares of independent runs: hits / runs − other_hits / other_runs.

    Its interval is exact: it inverts two one-sided unconditional tests by the score statistic, so that each end errs
    with a probability of (1 − level) / 2 at most, whatever the shares are (Chan & Zhang 1999). Runs of the two sides
    may have seeds in common: that is no help, and where it makes them alike, the interval is wider than it need be.

    Raises:
        ValueError: a side has no runs, or more hits than runs.
    """

    hits: int
    runs: int
    other_hits: int
    other_runs: int

    def __post_init__(self) -> None:
        for hits, runs in ((self.hits, self.runs), (self.other_hits, self.other_runs)):
            if runs < 1 or not 0 <= hits <= runs:
                raise ValueError(f"{hits} hits of {runs} runs are no share: it takes a run, and no more hits than runs")

    @property
    def value(self) -> float:
        """The difference of the observed shares."""
        return self.hits / self.runs - self.other_hits / self.other_runs

    @property
    def n(self) -> int:
        """Number of runs of the smaller side."""
        return min(self.runs, self.other_runs)

    def interval(self, level: float) -> tuple[float, float]:
        """Low, high, in [−1, 1].

        Raises:
            ValueError: the level is not between 0 and 1.
        """
        tail = tail_of(level)
        return _lower_end(self, tail), -_lower_end(self.mirrored(), tail)

    def p_above(self, bound: float) -> float:
        """See ``effects.Effect``."""
        return float(p_values_above(bound, self.runs, self.other_runs)[self.hits, self.other_hits])

    def p_below(self, bound: float) -> float:
        """See ``effects.Effect``."""
        return self.mirrored().p_above(-bound)

    def mirrored(self) -> "ShareEffect":
        """The same runs with the sides swapped."""
        return ShareEffect(self.other_hits, self.other_runs, self.hits, self.runs)


def p_values_above(bound: float, runs: int, other_runs: int) -> Outcomes:
    """For every outcome, the one-sided p-value of the null hypothesis that the difference of shares is ≤ ``bound``.

    It is the largest of the p-values at the differences up to the bound, so that it rises with the bound.
    """
    at_bound = p_values_at(bound, runs, other_runs)
    below = int(np.searchsorted(BOUNDS, bound)) - 1
    return at_bound if below < 0 else np.maximum(_p_values_at_bounds(runs, other_runs)[below], at_bound)


def p_values_below(bound: float, runs: int, other_runs: int) -> Outcomes:
    """As ``p_values_above``, of the null hypothesis that the difference of shares is ≥ ``bound``."""
    return p_values_above(-bound, other_runs, runs).T


@lru_cache(maxsize=256)
def p_values_at(difference: float, runs: int, other_runs: int) -> Outcomes:
    """For every outcome, the probability of an outcome with as large a score statistic, if the shares differ so much:
    the largest over the unknown share of the other side.

    Those below 5% are ``p_values_above`` this difference, with hardly an exception, and are computed in a hundredth of
    the time.
    """
    if not -1 <= difference < 1:
        return np.full((runs + 1, other_runs + 1), float(difference >= 1))
    statistic = _score(difference, runs, other_runs).ravel()
    order = np.argsort(-statistic, kind="stable")
    other_share = np.linspace(max(0.0, -difference), min(1.0, 1 - difference), NUISANCE_POINTS)
    share = np.clip(other_share + difference, 0, 1)
    outcomes = _chances(share, runs)[:, :, None] * _chances(other_share, other_runs)[:, None, :]
    tails = outcomes.reshape(NUISANCE_POINTS, -1)[:, order].cumsum(1).max(0)
    last_tie = np.searchsorted(-statistic[order], -statistic[order] + TIE, side="right") - 1
    p_values: Float[np.ndarray, " outcomes"] = np.empty(statistic.size)
    p_values[order] = np.minimum(tails[last_tie], 1.0)
    return p_values.reshape(runs + 1, other_runs + 1)


def chances(share: float, runs: int) -> Float[np.ndarray, " hits"]:
    """The probability of each number of hits in so many runs (binomial)."""
    return np.asarray(_chances(np.array([share]), runs)[0])


def least_runs(level: float = 0.95) -> int:
    """The least number of runs a side with which the interval of a difference of shares can exclude zero.

    >>> least_runs(0.95), least_runs(0.99)
    (3, 4)
    """
    runs = 1
    while 2 * p_values_above(0.0, runs, runs)[runs, 0] > 1 - level:
        runs += 1
    return runs


@lru_cache(maxsize=1024)
def _lower_end(effect: ShareEffect, tail: float) -> float:
    """The least difference with a p-value above the tail, from above; at most the value."""
    p_values = _p_values_at_bounds(effect.runs, effect.other_runs)[:, effect.hits, effect.other_hits]
    above = int(np.argmax(p_values > tail))
    if above == 0:
        return -1.0
    low, high = BOUNDS[above - 1 : above + 1].tolist()
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if effect.p_above(middle) > tail else (middle, high)
    return float(min(high, effect.value))


@lru_cache(maxsize=32)
def _p_values_at_bounds(runs: int, other_runs: int) -> Float[np.ndarray, "bounds hits other_hits"]:
    """``p_values_above`` each of ``BOUNDS``."""
    at_bounds = np.stack([p_values_at(bound, runs, other_runs) for bound in BOUNDS.tolist()])
    return np.maximum.accumulate(at_bounds)


def _score(difference: float, runs: int, other_runs: int) -> Outcomes:
    """The score statistic of every outcome: by how many standard errors the shares differ more than ``difference``.

    The standard error is that of the most likely shares with that difference (Farrington & Manning 1990, who solve the
    cubic equation for them).
    """
    observed, other = np.arange(runs + 1)[:, None] / runs, np.arange(other_runs + 1)[None, :] / other_runs
    ratio = other_runs / runs
    a = 1 + ratio
    b = -(1 + ratio + observed + ratio * other + difference * (ratio + 2))
    c = difference**2 + difference * (2 * observed + ratio + 1) + observed + ratio * other
    d = -observed * difference * (1 + difference)
    v = (b / (3 * a)) ** 3 - b * c / (6 * a**2) + d / (2 * a)
    u = np.where(v < 0, -1, 1) * np.sqrt(np.maximum((b / (3 * a)) ** 2 - c / (3 * a), 0))
    cosine = np.divide(v, u**3, out=np.zeros_like(v), where=np.abs(u) > 1e-5)
    likely = 2 * u * np.cos((math.pi + np.arccos(np.clip(cosine, -1, 1))) / 3) - b / (3 * a)
    likely = np.clip(likely, max(0.0, difference), min(1.0, 1 + difference))
    likely_other = np.clip(likely - difference, 0, 1)
    variance = likely * (1 - likely) / runs + likely_other * (1 - likely_other) / other_runs
    return np.asarray((observed - other - difference) / np.sqrt(np.maximum(variance, 1e-12)))


def _chances(shares: Float[np.ndarray, " shares"], runs: int) -> Float[np.ndarray, "shares hits"]:
    hits = np.arange(runs + 1)
    ways = gammaln(runs + 1) - gammaln(hits + 1) - gammaln(runs - hits + 1)
    return np.asarray(np.exp(ways + xlogy(hits, shares[:, None]) + xlog1py(runs - hits, -shares[:, None])))
