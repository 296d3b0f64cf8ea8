"""Class selectivity: does a channel prefer one class?"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from .base import LayerMeasure
from .rows import Estimate

SHUFFLES = 100


def class_selectivity(pooled: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " c"]:
    """``(μ_max - μ_other) / (μ_max + μ_other)`` of each channel, in [0, 1]: μ_max the largest of the classes' means,
    μ_other the mean of the others' (Morcos et al. 2018). nan for a channel that is 0 everywhere.

    Args:
        pooled: one number an image and channel, not negative.
        labels: of the images, two classes or more.

    >>> x = torch.tensor([[3.0, 1, 0], [3, 1, 0], [1, 1, 0]])
    >>> class_selectivity(x, torch.tensor([0, 0, 1])).tolist()
    [0.5, 0.0, nan]
    """
    _, places, counts = labels.unique(return_inverse=True, return_counts=True)
    means = pooled.new_zeros(len(counts), pooled.shape[1]).index_add_(0, places, pooled) / counts[:, None]
    best = means.amax(0)
    other = (means.sum(0) - best) / (len(counts) - 1)
    found: Tensor = (best - other) / (best + other)
    return found


class Selectivity(LayerMeasure):
    """``class_selectivity``, the mean over channels of what they keep after a ReLU and an average over positions, and
    ``class_selectivity_null``: the same with the labels shuffled, which at few images a class is far from 0.

    Dead channels are left out (``dead_share`` says how many). The largest of several noisy means lies above the largest
    mean, so the measure is biased upwards, by the most where classes are alike: there it is the null. No estimate of
    a largest mean is without bias, and an interval around it would not hold the truth (at 1,000 images of ten classes
    95% intervals held it 0 to 92 times in 100, by how far the classes' means lie apart), so it has none.
    """

    needs_labels = True

    def of_images(
        self,
        outputs: Float[Tensor, "n c *hw"],
        labels: Int64[Tensor, " n"] | None,
        images: Float[Tensor, "n _ _ _"] | None,
    ) -> Float[Tensor, "n k"]:
        """The label, then every channel's mean of what is positive."""
        assert labels is not None, "selectivity needs labels"
        pooled = outputs.relu().reshape(*outputs.shape[:2], -1).mean(2)
        return torch.cat([labels[:, None].to(pooled), pooled], 1)

    def _numbers(self) -> tuple[Float[Tensor, ""], Float[Tensor, " shuffles"]]:
        """The measure, and its values for shuffled labels."""
        pooled, labels = self._parts()
        generator = torch.Generator().manual_seed(0)
        orders = (torch.randperm(len(labels), generator=generator) for _ in range(SHUFFLES))
        null = [class_selectivity(pooled, labels[order]).nanmean() for order in orders]
        return class_selectivity(pooled, labels).nanmean(), torch.stack(null)

    def _parts(self) -> tuple[Float[Tensor, "n c"], Int64[Tensor, " n"]]:
        kept = dim_zero_cat(self.kept).cpu()
        return kept[:, 1:].double(), kept[:, 0].long()

    def compute(self) -> dict[str, Tensor]:
        """Its numbers by name, of all images so far."""
        value, null = self._numbers()
        return {"class_selectivity": value, "class_selectivity_null": null.mean()}

    def estimates(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """(name, estimate) of all images so far: of the null, the middle 95% over shuffles."""
        value, null = self._numbers()
        n = weights.shape[1]
        low, high = null.quantile(torch.tensor([0.025, 0.975], dtype=null.dtype)).tolist()
        yield "class_selectivity", Estimate(value.item(), float("nan"), float("nan"), n)
        yield "class_selectivity_null", Estimate(null.mean().item(), low, high, n)


LAYER_MEASURE = Selectivity
