"""Effects: estimated differences with their uncertainty over seeds, or over seeds and test images."""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

#: images that differ, added where images are right or wrong
PSEUDO_IMAGES = 4


@runtime_checkable
class Effect(Protocol):
    """An estimated difference a − b, positive where a is larger.

    The interval and the p-values say the same: at level 1 − α, the interval lies above a bound where
    ``2 * p_above(bound)`` is less than α, and below it where ``2 * p_below(bound)`` is.
    """

    @property
    def value(self) -> float:
        """The estimated effect, without its interval."""
        ...

    @property
    def n(self) -> int:
        """Number of pairs (seeds); of the smaller side where runs are not paired."""
        ...

    def interval(self, level: float) -> tuple[float, float]:
        """Low, high: two-sided, with equal error in both tails; one of a higher level contains that of a lower one."""
        ...

    def p_above(self, bound: float) -> float:
        """One-sided p-value of the null hypothesis that the true difference is at most ``bound``."""
        ...

    def p_below(self, bound: float) -> float:
        """One-sided p-value of the null hypothesis that the true difference is at least ``bound``."""
        ...


@dataclass(frozen=True)
class MeanEffect:
    """A mean difference over seeds, or over seeds and test images; without an interval where its error is not known.

    Attributes:
        value: the mean.
        standard_error: of the mean, ≥ 0, of seeds and images together; nan where it is not known.
        freedom: degrees of freedom of the error of the seeds.
        n: number of pairs.
        spread: standard deviation of the difference in one pair; nan where it is not known.
        image_error: the part of the standard error that is due to the test images, which more seeds do not reduce.
        image_freedom: its degrees of freedom.
    """

    value: float
    standard_error: float
    freedom: float
    n: int
    spread: float
    image_error: float = 0.0
    image_freedom: float = math.inf

    @property
    def seed_error(self) -> float:
        """The part of the standard error that more seeds reduce."""
        return math.sqrt(max(self.standard_error**2 - self.image_error**2, 0.0))

    def interval(self, level: float) -> tuple[float, float]:
        """Low, high; of no width where all differences are equal, nan where the standard error is not known.

        Where images have a part in the error, the squares of the half-widths for seeds and for images add up, so that
        the interval covers at least at its level (Banerjee 1960).

        Raises:
            ValueError: the level is not between 0 and 1.
        """
        half = self._half_width(tail_of(level))
        return self.value - half, self.value + half

    def p_above(self, bound: float) -> float:
        """See ``Effect``; nan where the standard error is not known."""
        return self._p_value(self.value - bound)

    def p_below(self, bound: float) -> float:
        """See ``Effect``; nan where the standard error is not known."""
        return self._p_value(bound - self.value)

    def with_pairs(self, n: int) -> "MeanEffect":
        """The effect expected of n ≥ 2 pairs, if its value and its spread are the true ones."""
        error = math.hypot(self.spread / math.sqrt(n), self.image_error)
        return replace(self, standard_error=error, freedom=self.freedom * (n - 1) / (self.n - 1), n=n)

    def _half_width(self, tail: float) -> float:
        """Of the interval with this error in each tail, < 0.5."""
        of_seeds = stdtrit(self.freedom, tail) * self.seed_error
        return math.hypot(of_seeds, stdtrit(self.image_freedom, tail) * self.image_error)

    def _p_value(self, distance: float) -> float:
        """The error in the tail at which the interval just reaches a bound at this distance below the value."""
        if math.isnan(self.standard_error):
            return math.nan
        if distance < 0:
            return 1 - self._p_value(-distance)
        if self.standard_error == 0:
            return float(distance == 0)
        if self.image_error == 0:
            return float(stdtr(self.freedom, -distance / self.standard_error))
        least = 1e-15
        if self._half_width(least) < distance:
            return least
        return float(brentq(lambda tail: self._half_width(tail) - distance, least, 0.5, xtol=least))


def paired_effect(differences: Float[np.ndarray, " seeds"]) -> MeanEffect:
    """The mean of the differences of pairs, which share a seed (Student).

    A single pair, or a nan or infinite difference, gives an effect without an interval.

    Raises:
        ValueError: there are no differences.

    >>> [round(end, 2) for end in paired_effect(np.array([1.0, 2.0, 3.0])).interval(0.95)]
    [-0.48, 4.48]
    """
    n, value, spread = _summary(differences)
    return MeanEffect(value, spread / math.sqrt(n), n - 1, n, spread)


def unpaired_effect(first: Float[np.ndarray, " runs"], second: Float[np.ndarray, " other_runs"]) -> MeanEffect:
    """The difference of the means of runs that share no seeds (Welch 1947), whose variances may differ.

    A single run on a side, or a nan or infinite number, gives an effect without an interval.

    Raises:
        ValueError: a side has no runs.
    """
    (n, mean, deviation), (other_n, other_mean, other_deviation) = _summary(first), _summary(second)
    square, other_square = deviation**2 / n, other_deviation**2 / other_n
    total, freedom = square + other_square, n + other_n - 2.0
    if total > 0:  # Satterthwaite
        freedom = total**2 / (square**2 / (n - 1) + other_square**2 / (other_n - 1))
    return MeanEffect(
        mean - other_mean, math.sqrt(total), freedom, min(n, other_n), math.hypot(deviation, other_deviation)
    )


def crossed_effect(differences: Float[np.ndarray, "seeds images"]) -> MeanEffect:
    """The mean difference over seeds and over test images, both drawn at random and crossed.

    Every net is tested on the same images, so that a seed shifts a row and an image a column (Jordan 2023, Bouthillier
    2021). In the two-way random-effects model y = μ + seed + image + rest, the variance of the mean over S seeds and N
    images is estimated without bias by (MS_seed + MS_image − MS_rest) / (S N), where MS are the mean squares of the
    analysis of variance. A variance component is not negative, so that the estimate is never below MS_seed / (S N),
    which is all there is without variance of images, nor below MS_image / (S N), which is all there is without variance
    of seeds. MS_seed / (S N) is the part of the seeds, with S − 1 degrees of freedom, the excess that of the images.

    Satterthwaite's approximation would miss too often with few seeds (7.5% with 3 and 5.9% with 5, at 95%): where
    MS_seed is small by chance, so is the estimate, and its degrees of freedom look like those of the images.

    The number of a net need not be a mean over images: with the influence of each image plus the net's number
    (``intervals.value_and_influences``) as a row, it can be a ratio of means.

    Where an image is right or wrong, few images differ, and by chance none of a sample may: the sum of squares over
    images then gets that of ``PSEUDO_IMAGES`` more which differ, half of them to each side (after Agresti and Min
    2005, who add one; four make the interval of a sample without any as wide as the exact one, 3.7 / N to each side).

    A single seed or image, or a nan, gives an effect without an interval.

    Raises:
        ValueError: there are no seeds or no images.
    """
    seeds, images = differences.shape
    if images == 0:
        raise ValueError("there are no images to compare on")
    _, value, spread = _summary(differences.mean(1))
    if min(seeds, images) < 2 or math.isnan(value):
        return MeanEffect(value, math.nan, seeds - 1, seeds, math.nan)
    rest = differences - differences.mean(1, keepdims=True) - differences.mean(0) + value
    of_seeds = spread**2 / seeds  # a mean square over S N, as the next two
    of_images = float(differences.mean(0).var(ddof=1)) / images
    of_rest = float(np.square(rest).sum()) / ((seeds - 1) * (images - 1)) / (seeds * images)
    excess = max(of_images - of_rest, of_images - of_seeds, 0.0)
    if np.array_equal(differences, np.rint(differences)):
        excess += PSEUDO_IMAGES / images**2
    error = math.sqrt(of_seeds + excess)
    return MeanEffect(value, error, seeds - 1, seeds, spread, math.sqrt(excess), images - 1)


def slope(axis: Float[np.ndarray, " levels"], numbers: Float[np.ndarray, " levels"]) -> float:
    """The least-squares slope of numbers along an axis; nan where a number is.

    With the slope of every seed, ``paired_effect`` tells whether the numbers rise or fall.

    Raises:
        ValueError: the axis has fewer than two different levels.

    >>> round(slope(np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 9.0])), 9)
    2.0
    """
    if np.unique(axis).size < 2:
        raise ValueError("a slope needs two different levels of the axis")
    centred = axis - axis.mean()
    return float(centred @ numbers / (centred @ centred))


def tail_of(level: float) -> float:
    """The error in each tail of a two-sided interval at a level.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"an interval's level is between 0 and 1, not {level}")
    return (1 - level) / 2


def _summary(values: Float[np.ndarray, " n"]) -> tuple[int, float, float]:
    """Number, mean, and standard deviation, which is nan for a single value; both nan unless all are finite."""
    if values.size == 0:
        raise ValueError("there are no values to compare")
    if not np.isfinite(values).all():
        return values.size, math.nan, math.nan
    return values.size, float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else math.nan
