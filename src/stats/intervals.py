"""Intervals of numbers that are compared: over seeds, and image by image; at any level, and within a number's range."""

import math
import statistics
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import ndtri, stdtrit

#: what a measure can be, by its name; any number where it has none
SHARES = {
    "accuracy", "aliasing_fraction", "calibration_error", "class_selectivity", "consistency", "constant_channels",
    "constant_share", "dead_share", "duplicate_share", "fidelity", "goodfellow_dead", "probe_accuracy", "stays_right",
    "worst_case",
}  # fmt: skip
LENGTHS = {
    "effective_field", "effective_rank", "equivariance_error", "equivariance_floor", "goodfellow", "invariance_error",
    "lee", "lee_relative", "loss", "nvi", "output_distance", "participation_ratio", "position_equivariance_error",
    "position_error",
}  # fmt: skip
AT_MOST_1 = {"consistency_corrected", "probe_r2", "r2"}
BOTH_WAYS = {"cosine", "cosine_random", "gap", "location_leak"}
ENDS = ("_untrained", "_floor", "_shuffled")


def range_of(measure: str) -> tuple[float, float]:
    """The least and the most that a measure can be.

    >>> range_of("output_distance_untrained"), range_of("accuracy"), range_of("seconds")
    ((0.0, inf), (0.0, 1.0), (-inf, inf))
    """
    plain = measure
    for end in ENDS:
        plain = plain.removesuffix(end)
    for names, low, high in (
        (SHARES, 0.0, 1.0),
        (LENGTHS, 0.0, math.inf),
        (AT_MOST_1, -math.inf, 1.0),
        (BOTH_WAYS, -1.0, 1.0),
    ):
        if {measure, plain} & names:
            return low, high
    return -math.inf, math.inf


def difference_range(measure: str) -> tuple[float, float]:
    """The least and the most that the difference of two of a measure's numbers can be.

    >>> difference_range("accuracy")
    (-1.0, 1.0)
    """
    low, high = range_of(measure)
    return low - high, high - low


def t_interval(
    values: Sequence[float], level: float = 0.95, within: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float, float]:
    """Mean, low, high: Student's t interval of the mean, cut off at the ends of ``within``; nan for a single value.

    >>> [round(bound, 2) for bound in t_interval([1, 2, 3])]
    [2.0, -0.48, 4.48]
    >>> [round(bound, 2) for bound in t_interval([1, 2, 3], within=(0, math.inf))]
    [2.0, 0, 4.48]
    """
    mean = statistics.fmean(values)
    if len(values) < 2 or math.isnan(mean):
        return mean, math.nan, math.nan
    half = quantile(len(values) - 1, level) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, max(mean - half, within[0]), min(mean + half, within[1])


@cache
def quantile(freedom: int, level: float) -> float:
    """The two-sided critical value of Student's t: exceeded, either way, with probability ``1 - level``."""
    return float(stdtrit(freedom, (1 + level) / 2))


def rescale_interval(
    value: float, low: float, high: float, level: float, within: tuple[float, float]
) -> tuple[float, float, float]:
    """A 95% interval over many images (normal) at another level, cut off at the ends of the range ``within``."""
    by = float(ndtri((1 + level) / 2) / ndtri(0.975))
    return value, max(value - by * (value - low), within[0]), min(value + by * (high - value), within[1])


def linearize(statistics_of_images: Shaped[np.ndarray, "n k"]) -> tuple[float, Float[np.ndarray, " n"]]:
    """The value that per-image statistics give, a mean (k = 1) or a ratio of two means (k = 2), and each image's
    influence on it: mean 0, with the standard error of the value (delta method).
    """
    above, *below = statistics_of_images.astype(np.float64).T
    if not below:
        return float(above.mean()), above - above.mean()
    ratio = above.mean() / below[0].mean()
    return float(ratio), (above - ratio * below[0]) / below[0].mean()


def paired_image_interval(
    one: Shaped[np.ndarray, "n k"],
    other: Shaped[np.ndarray, "n k"],
    level: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float, float]:
    """Difference of two nets' values on the same images, low, high: what an image does to both cancels.

    The interval is over draws of images, for these two trained nets; it does not cover other seeds.
    """
    (ours, mine), (theirs, its) = linearize(one), linearize(other)
    half = quantile(len(one) - 1, level) * float((mine - its).std(ddof=1)) / math.sqrt(len(one))
    return ours - theirs, max(ours - theirs - half, within[0]), min(ours - theirs + half, within[1])


def bonferroni_level(several: int, level: float = 0.95) -> float:
    """The level that each of several intervals needs for all to hold at once with probability ``level`` (Bonferroni);
    then any of them may be picked by its value.

    >>> bonferroni_level(1), round(bonferroni_level(20), 4)
    (0.95, 0.9975)
    """
    return 1 - (1 - level) / several if several > 1 else level
