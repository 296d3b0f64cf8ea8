"""Class selectivity: how much more a channel responds to one class than to the others."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from .base import Images, Labels, LayerMeasure, Statistics
from .quantities import Quantity
from .rows import Estimate

QUANTITIES = (
    Quantity("class_selectivity", low=0, high=1,
        formula="mean over channels of (μ_max - μ_other) / (μ_max + μ_other), μ the classes' mean activations",
        null="class_selectivity_null: the mean over 100 shuffles of the labels", source="Morcos et al. 2018"),
)  # fmt: skip
#: of the labels, for the null
SHUFFLES = 100


def class_selectivity(pooled: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " c"]:
    """``(μ_max - μ_other) / (μ_max + μ_other)`` of each channel, in [0, 1]: μ_max the largest class
    mean, μ_other the mean of the other class means (Morcos et al. 2018). nan for a channel that is always 0.

    ``pooled`` are activations averaged over positions, not negative; the labels have two classes or more.

    >>> x = torch.tensor([[3.0, 1, 0], [3, 1, 0], [1, 1, 0]])
    >>> class_selectivity(x, torch.tensor([0, 0, 1])).tolist()
    [0.5, 0.0, nan]
    """
    _, index, counts = labels.unique(return_inverse=True, return_counts=True)
    means = pooled.new_zeros(len(counts), pooled.shape[1]).index_add_(0, index, pooled) / counts[:, None]
    best = means.amax(0)
    other = (means.sum(0) - best) / (len(counts) - 1)
    selectivity: Tensor = (best - other) / (best + other)
    return selectivity


class Selectivity(LayerMeasure):
    """``class_selectivity``, the mean over channels of their activations after a ReLU, averaged over positions; and
    ``class_selectivity_null``: the same with shuffled labels, which is far from 0 for few images a class.

    Dead channels are left out (``dead_share`` counts them). The largest of several noisy means exceeds the largest true
    mean, so the estimate is biased upwards, most where classes are alike: there it is the null. No estimate of a
    largest mean is unbiased, and it has no interval, as a 95% interval would cover 0% to 92% (1,000 images, ten
    classes), depending on the distance between the class means.
    """

    needs_labels = True

    def of_images(self, outputs: Float[Tensor, "n c *hw"], labels: Labels | None, images: Images | None) -> Statistics:
        """The label, then the mean positive activation of every channel."""
        assert labels is not None, "selectivity needs labels"
        pooled = outputs.relu().reshape(*outputs.shape[:2], -1).mean(2)
        return torch.cat([labels[:, None].to(pooled), pooled], 1)

    def _numbers(self) -> tuple[Float[Tensor, ""], Float[Tensor, " shuffles"]]:
        """The selectivity, and its values for shuffled labels."""
        statistics = dim_zero_cat(self.batches).cpu()
        pooled, labels = statistics[:, 1:].double(), statistics[:, 0].long()
        generator = torch.Generator().manual_seed(0)
        orders = (torch.randperm(len(labels), generator=generator) for _ in range(SHUFFLES))
        null = [class_selectivity(pooled, labels[order]).nanmean() for order in orders]
        return class_selectivity(pooled, labels).nanmean(), torch.stack(null)

    def compute(self) -> dict[str, Tensor]:
        """Name → number, for all images so far."""
        value, null = self._numbers()
        return {"class_selectivity": value, "class_selectivity_null": null.mean()}

    def estimates(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """(name, estimate) for all images so far; the null's interval is the middle 95% of the shuffles."""
        (value, null), n = self._numbers(), weights.shape[1]
        low, high = null.quantile(torch.tensor([0.025, 0.975], dtype=null.dtype)).tolist()
        yield "class_selectivity", Estimate(value.item(), float("nan"), float("nan"), n)
        yield "class_selectivity_null", Estimate(null.mean().item(), low, high, n)


LAYER_MEASURE = Selectivity
