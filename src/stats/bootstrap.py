"""95% intervals of numbers measured on images: the bootstrap over images, and Wilson's interval of a share."""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtr, ndtri, stdtrit
from torch import Tensor


@cache  # the same weights serve every number of the same images
def bootstrap_weights(n: int, seed: int = 0, draws: int = 1000) -> Float[Tensor, "draws n"]:
    """How often each of n images is in each bootstrap sample; every row sums to n.

    All numbers of a table share them. The means of k per-image values in all samples are ``weights @ values / n``.
    """
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.multinomial(n, np.full(n, 1 / n), size=draws)).double()


def bootstrap_interval(resampled: Float[Tensor, " draws"], n: int) -> tuple[float, float]:
    """95% interval of a number, by the expanded percentile bootstrap (Hesterberg 2015).

    The percentiles lie further out than 2.5 and 97.5, so that the interval of a mean is as wide as Student's: with 8
    images, the plain percentiles cover 88%. Samples in which the number is nan are left out.

    It undercovers with fewer than 8 images, and where one image in ten decides the number (79% at 20 images, 88% at
    60): such a sample does not show how much other images may differ. nan for n < 2 images.
    """
    if n < 2 or resampled.isnan().all():
        return float("nan"), float("nan")
    tail = _lower_percentile(n)
    low, high = torch.nanquantile(resampled, torch.tensor([tail, 1 - tail], dtype=resampled.dtype)).tolist()
    return low, high


@cache
def _lower_percentile(n: int) -> float:
    """The lower percentile that ``bootstrap_interval`` uses for n images, as a share."""
    return float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.975)))


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n images, in [0, 1] (Wilson 1927); nan for n = 0.

    Unlike the bootstrap, it has a width at shares of 0 and 1. For a mean of numbers in [0, 1] it is conservative:
    these vary less than zeros and ones of the same mean.

    >>> [round(end, 3) for end in wilson_interval(1.0, 20)]
    [0.839, 1.0]
    """
    if not n > 0 or math.isnan(share):
        return float("nan"), float("nan")
    z = float(ndtri(0.975))
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    return min(share, max(low, 0.0)), max(share, min(high, 1.0))  # rounding must not move an end past the share
