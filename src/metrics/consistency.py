"""Consistency: how often a transform leaves the predicted class the same; raw, and corrected for chance."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..stats.bootstrap import wilson_interval
from .base import Labels, PairMeasure, Statistics
from .layer_outputs import LayerOutputs, TransformedOutputs
from .quantities import Quantity

QUANTITIES = (
    Quantity("consistency", low=0, high=1, better="higher",
        formula="P[argmax f(x) = argmax f(gx)]; over many shifts, P[argmax f(gx) = argmax f(hx)] of all pairs of them",
        null="1 for a constant classifier; rises with accuracy", source="Zhang 2019"),
    Quantity("consistency_corrected", high=1, better="higher",
        formula="(consistency - Σp²) / (1 - Σp²), p the shares of the classes predicted for x and gx",
        null="0: two independent predictions with these shares", source="Cohen 1960, kappa"),
)  # fmt: skip


def consistency(reference: Float[Tensor, "n classes"], transformed: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """``P[argmax f(x) = argmax f(gx)]``, in [0, 1] (Zhang 2019).

    >>> consistency(torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[2.0, 0], [0, 2]])).item()
    0.5
    """
    return (reference.argmax(1) == transformed.argmax(1)).float().mean()


def chance_corrected(agreement: Float[Tensor, "..."], shares: Float[Tensor, "... classes"]) -> Float[Tensor, "..."]:
    """``(c - Σp²) / (1 - Σp²)``, at most 1: agreement beyond that of two independent predictions with class shares p.

    nan if all predictions are one class: such a net agrees with itself and says nothing.

    >>> chance_corrected(torch.tensor(0.5), torch.tensor([0.5, 0.5])).item()
    0.0
    """
    chance = shares.square().sum(-1)
    return torch.where(chance < 1, (agreement - chance) / (1 - chance), torch.nan)


def consistency_interval(
    name: str, agreement: Float[Tensor, ""], shares: Float[Tensor, " classes"], n: int
) -> tuple[float, float]:
    """Wilson's interval of ``consistency``, or both its ends corrected for chance for ``consistency_corrected``: the
    agreement by chance is known far better than the net's.
    """
    low, high = wilson_interval(agreement.item(), n)
    if name == "consistency":
        return low, high
    ends = chance_corrected(torch.tensor([low, high], dtype=shares.dtype), shares.cpu().expand(2, -1))
    return ends[0].item(), ends[1].item()


class Consistency(PairMeasure):
    """``consistency``, and the same corrected for chance (``consistency_corrected``).

    It saturates, rises with accuracy, and is 1 for a constant classifier: read it beside ``output_distance``. The
    corrected number takes p over both predictions of all images.
    """

    on = "output"
    of_classes = True
    higher_is_better = True

    def of_images(self, reference: LayerOutputs, transformed: TransformedOutputs, labels: Labels | None) -> Statistics:
        """Whether both predictions are the same; then the share of each class in the two."""
        predictions = torch.stack([reference.outputs.argmax(1), transformed.outputs.argmax(1)], 1)
        same = predictions[:, :1] == predictions[:, 1:]
        return torch.cat([same.float(), F.one_hot(predictions, transformed.outputs.shape[1]).float().mean(1)], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The raw and the corrected number."""
        same, shares = means[..., 0], means[..., 1:]
        return {"consistency": same, "consistency_corrected": chance_corrected(same, shares)}

    def interval(self, name: str, value: float, resampled: Tensor, means: Tensor, n: int) -> tuple[float, float]:
        """Wilson's, as of any share."""
        return consistency_interval(name, means[0], means[1:], n)


MEASURE = Consistency
