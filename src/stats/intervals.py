"""Confidence intervals of numbers that are compared, over seeds and over images, at any level and within a range."""

import math
import statistics
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import ndtri, stdtrit

#: the least and the largest possible value of a number that can be any
UNBOUNDED = (-math.inf, math.inf)


def t_interval(
    values: Sequence[float], level: float = 0.95, within: tuple[float, float] = UNBOUNDED
) -> tuple[float, float, float]:
    """Mean, low, high: Student's interval of the mean, clipped to the possible values; nan for a single value.

    >>> [round(bound, 2) for bound in t_interval([1, 2, 3])]
    [2.0, -0.48, 4.48]
    >>> [round(bound, 2) for bound in t_interval([1, 2, 3], within=(0, math.inf))]
    [2.0, 0, 4.48]
    """
    mean = statistics.fmean(values)
    if len(values) < 2 or math.isnan(mean):
        return mean, math.nan, math.nan
    half = t_quantile(len(values) - 1, level) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, max(mean - half, within[0]), min(mean + half, within[1])


@cache
def t_quantile(freedom: int, level: float) -> float:
    """The two-sided quantile of Student's t: it is exceeded in absolute value with probability ``1 - level``."""
    return float(stdtrit(freedom, (1 + level) / 2))


def interval_at_level(
    value: float, low: float, high: float, level: float, within: tuple[float, float]
) -> tuple[float, float, float]:
    """Value, low, high: a 95% interval over many images scaled to another level, clipped to the possible values."""
    scale = float(ndtri((1 + level) / 2) / ndtri(0.975))
    return value, max(value - scale * (value - low), within[0]), min(value + scale * (high - value), within[1])


def value_and_influences(per_image: Shaped[np.ndarray, "n k"]) -> tuple[float, Float[np.ndarray, " n"]]:
    """A number, and the influence of each image on it: of mean 0, with the number's standard error (delta method). The
    number is the mean (k = 1) or the ratio of the means (k = 2) of the statistics of each image.
    """
    numerator, *denominators = per_image.astype(np.float64).T
    if not denominators:
        return float(numerator.mean()), numerator - numerator.mean()
    (denominator,) = denominators
    ratio = numerator.mean() / denominator.mean()
    return float(ratio), (numerator - ratio * denominator) / denominator.mean()


def paired_difference(
    first: Shaped[np.ndarray, "n k"], second: Shaped[np.ndarray, "n k"], level: float = 0.95,
    within: tuple[float, float] = UNBOUNDED,
) -> tuple[float, float, float]:  # fmt: skip
    """Difference, low, high of two nets' numbers on the same images: what an image does to both cancels.

    The interval is over draws of images, for these two nets; nets of other seeds may differ by more or less. Statistics
    are as for ``value_and_influences``; ``within`` are the possible values of the difference.
    """
    (value, influences), (other_value, other_influences) = value_and_influences(first), value_and_influences(second)
    error = float((influences - other_influences).std(ddof=1))
    difference, half = value - other_value, t_quantile(len(first) - 1, level) * error / math.sqrt(len(first))
    return difference, max(difference - half, within[0]), min(difference + half, within[1])


def bonferroni_level(count: int, level: float = 0.95) -> float:
    """The level at which ``count`` intervals all hold with probability ``level`` (Bonferroni), and so also the one of
    the best value.

    >>> bonferroni_level(1), round(bonferroni_level(20), 4)
    (0.95, 0.9975)
    """
    return 1 - (1 - level) / count if count > 1 else level
