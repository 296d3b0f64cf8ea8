"""What measures share: the tidy row, intervals by bootstrap over images, and the form of a measure of pairs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

COLUMNS = ("layer", "transform", "protocol", "amount", "measure", "value", "low", "high", "n")


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval over images, and how many images it comes from."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Row:
    """One line of ``measures.csv``. ``layer=output`` is the answer itself."""

    layer: str
    transform: str
    protocol: str
    amount: int
    measure: str
    estimate: Estimate

    def values(self) -> tuple[object, ...]:
        """In the order of ``COLUMNS``."""
        e = self.estimate
        return self.layer, self.transform, self.protocol, self.amount, self.measure, e.value, e.low, e.high, e.n


def resamples(n: int, seed: int = 0, draws: int = 1000) -> Float[Tensor, "draws n"]:
    """Bootstrap weights: how often each of n images is in each of the resampled sets (rows sum to n).

    Drawn once and shared by every number of a table, so a resampled mean is one product ``weights @ values / n``.
    """
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.multinomial(n, np.full(n, 1 / n), size=draws)).double()


def interval(resampled: Float[Tensor, " draws"]) -> tuple[float, float]:
    """The middle 95% of resampled values (percentile bootstrap)."""
    low, high = torch.quantile(resampled, torch.tensor([0.025, 0.975], dtype=resampled.dtype)).tolist()
    return low, high


def ratio_of_means(
    above: Float[Tensor, " n"], below: Float[Tensor, " n"], weights: Float[Tensor, "draws n"]
) -> Estimate:
    """``mean(above) / mean(below)`` over images, both resampled together. 0/0 is nan: nothing to compare with."""
    above, below = above.double(), below.double()
    value = (above.mean() / below.mean()).item()
    return Estimate(value, *interval((weights @ above) / (weights @ below)), len(above))


@dataclass(frozen=True)
class Still:
    """A layer's outputs for a batch of untouched images, with what every pair measure needs of them.

    Attributes:
        outputs: flattened.
        distance: of each image to the batch's other images, mean of the l2 norms.
        squared: the same, mean of the squared norms.
    """

    outputs: Float[Tensor, "n d"]
    distance: Float[Tensor, " n"]
    squared: Float[Tensor, " n"]

    @classmethod
    def of(cls, outputs: Float[Tensor, "n ..."]) -> "Still":
        """From a layer's outputs for a batch of at least two images."""
        flat = outputs.flatten(1)
        centred = flat - flat.mean(0)  # what all share would only cost precision
        apart = torch.cdist(centred, centred, compute_mode="use_mm_for_euclid_dist")
        apart.fill_diagonal_(0)
        others = len(flat) - 1
        return cls(flat, apart.sum(1) / others, apart.square().sum(1) / others)


class PairMeasure:
    """Compares a layer's outputs for images with those for the same images transformed; fed batch by batch.

    A subclass keeps a few numbers an image, so memory does not grow with the size of the maps.
    """

    #: where it is taken: "output" (the logits) or "layers" (every stage, and the features)
    on: ClassVar[str]
    #: whether it makes sense of classes alone
    of_classes: ClassVar[bool] = False

    def update(self, still: Still, moved: Float[Tensor, "n d"]) -> None:
        """Add a batch."""
        raise NotImplementedError

    def compute(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """(measure's name, estimate) of all images so far."""
        raise NotImplementedError
