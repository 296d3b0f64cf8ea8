"""Differences between variants, and their ranking: paired over seeds, or over images where there is one seed."""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Shaped

from .intervals import UNBOUNDED, bonferroni_level, interval_at_level, paired_difference, t_interval

Range = tuple[float, float]
#: value, low, high
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Sample:
    """The values of one variant, one per seed.

    Attributes:
        by_seed: seed → value.
        over_images: of a single run, value and 95% interval over its images; None for several runs.
        per_image: of a single run, (images, k), the statistics of each image (see ``intervals.value_and_influences``).
        image_sets: identifiers of the images behind ``per_image``; two samples that share one are paired by image.
    """

    by_seed: Mapping[int, float]
    over_images: Interval | None = None
    per_image: Shaped[np.ndarray, "n k"] | None = None
    image_sets: frozenset[Hashable] = field(default=frozenset())

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.by_seed.values())

    def interval(self, level: float = 0.95, within: Range = UNBOUNDED) -> Interval:
        """Mean, low, high: over images for a single run, Student's t over seeds for several; nan where unknown."""
        if self.over_images is not None:
            return interval_at_level(*self.over_images, level, within)
        return t_interval(list(self.by_seed.values()), level, within)

    def shares_images_with(self, other: "Sample") -> bool:
        """Whether both hold statistics of the same images, so that they can be paired by image."""
        if self.per_image is None or other.per_image is None or self.image_sets.isdisjoint(other.image_sets):
            return False
        return self.per_image.shape == other.per_image.shape


@dataclass(frozen=True)
class Difference:
    """A variant's value minus the baseline's.

    Attributes:
        value: mean over the common seeds; without any, the difference of the means.
        low, high: Student's t over common seeds; of single runs, over their images; nan without either.
        pairs: number of common seeds.
        images: number of images that the interval is over; 0 where it is over seeds, or there is none.
    """

    value: float
    low: float
    high: float
    pairs: int
    images: int = 0


def difference(variant: Sample, baseline: Sample, level: float = 0.95, within: Range = UNBOUNDED) -> Difference:
    """Paired difference: by seed where two or more are common, else by image where both saw the same images. The
    interval is cut off where no difference can lie, as values are ``within`` a range.
    """
    ours, theirs = variant.by_seed, baseline.by_seed
    paired = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    limits = within[0] - within[1], within[1] - within[0]
    if len(paired) > 1:
        return Difference(*t_interval(paired, level, limits), len(paired))
    if variant.shares_images_with(baseline):
        assert variant.per_image is not None and baseline.per_image is not None
        interval = paired_difference(variant.per_image, baseline.per_image, level, limits)
        return Difference(*interval, len(paired), len(variant.per_image))
    return Difference(paired[0] if paired else variant.mean - baseline.mean, math.nan, math.nan, len(paired))


@dataclass(frozen=True)
class Ranking:
    """Samples in order of their means, and which of them cannot be distinguished from the best.

    All intervals are Bonferroni-corrected for the selection: that of the best holds whichever sample had been the best,
    and those of the differences hold for all pairs at once, so that among equal variants a difference is claimed in 5%
    of comparisons at most.

    Attributes:
        order: indices of the samples, the best first.
        interval: of the best: value, low, high.
        behind: for each of the others, in order, how far it lies behind the best (≥ 0).
        tied: indices of the others that cannot be distinguished from the best.
    """

    order: list[int]
    interval: Interval
    behind: list[Difference]
    tied: list[int]


def rank(samples: Sequence[Sample], smallest: bool, within: Range = UNBOUNDED) -> Ranking:
    """Rank at least two samples, whose values are ``within`` a range, the smallest or the largest mean first."""
    order = sorted(range(len(samples)), key=lambda i: samples[i].mean, reverse=not smallest)
    best, *others = (samples[i] for i in order)
    level = bonferroni_level(math.comb(len(samples), 2))
    pairs = [(other, best) if smallest else (best, other) for other in others]
    behind = [difference(worse, better, level, within) for worse, better in pairs]
    rest = zip(order[1:], others, behind, strict=True)
    tied = [i for i, other, gap in rest if not _distinguishable(best, other, gap, level, within)]
    return Ranking(order, best.interval(bonferroni_level(len(samples)), within), behind, tied)


def _distinguishable(best: Sample, other: Sample, behind: Difference, level: float, within: Range) -> bool:
    """Whether a difference is larger than chance explains; unpaired samples are judged by both their intervals."""
    if not math.isnan(behind.low):
        return behind.low > 0
    intervals = (sample.interval(level, within) for sample in (other, best))
    # the longer half, as the other half may be cut off at the end of the range
    halves = [max(value - low, high - value) for value, low, high in intervals]
    return bool(behind.value > math.hypot(*halves))
