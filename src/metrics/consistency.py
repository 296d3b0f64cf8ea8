"""Consistency: does the answer stay the same? With the share of it that chance alone would give taken out."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from .base import LayerOutputs, PairMeasure, TransformedOutputs, wilson


def consistency(still: Float[Tensor, "n classes"], moved: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """``P[argmax f(x) = argmax f(gx)]``, in [0, 1] (Zhang 2019).

    >>> consistency(torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[2.0, 0], [0, 2]])).item()
    0.5
    """
    return (still.argmax(1) == moved.argmax(1)).float().mean()


def chance_corrected(agreement: Float[Tensor, "..."], shares: Float[Tensor, "... classes"]) -> Float[Tensor, "..."]:
    """``(c - Σp²) / (1 - Σp²)``, at most 1: agreement beyond that of two independent answers with class shares p.

    nan where every answer is the same class: such a net agrees with itself and says nothing.

    >>> chance_corrected(torch.tensor(0.5), torch.tensor([0.5, 0.5])).item()
    0.0
    """
    chance = shares.square().sum(-1)
    return torch.where(chance < 1, (agreement - chance) / (1 - chance), torch.nan)


def agreement_ends(
    name: str, agreement: Float[Tensor, ""], shares: Float[Tensor, " classes"], n: int
) -> tuple[float, float]:
    """Wilson's interval of a consistency; corrected for chance, if the name says so, at both ends: how often chance
    agrees is known far better than how often the net does.
    """
    low, high = wilson(agreement.item(), n)
    if name == "consistency":
        return low, high
    both = chance_corrected(torch.tensor([low, high], dtype=shares.dtype), shares.cpu().expand(2, -1))
    return both[0].item(), both[1].item()


class Consistency(PairMeasure):
    """``consistency``, and the same corrected for chance (``consistency_corrected``).

    It saturates, rises with accuracy, and is 1 for a constant classifier: read it beside ``output_distance``. The
    corrected one takes p over both answers of all images.
    """

    on = "output"
    of_classes = True
    higher_is_better = True

    def of_images(
        self, still: LayerOutputs, moved: TransformedOutputs, labels: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n k"]:
        """Whether both answers are the same; then the share of each class in the two."""
        answers = torch.stack([still.outputs.argmax(1), moved.outputs.argmax(1)], 1)
        same = answers[:, :1] == answers[:, 1:]
        return torch.cat([same.float(), F.one_hot(answers, moved.outputs.shape[1]).float().mean(1)], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The raw and the corrected number."""
        same, shares = means[..., 0], means[..., 1:]
        return {"consistency": same, "consistency_corrected": chance_corrected(same, shares)}

    def ends(self, name: str, found: dict[str, Tensor], drawn: Tensor, means: Tensor, n: int) -> tuple[float, float]:
        """Wilson's, as of any share."""
        return agreement_ends(name, found["consistency"], means[1:], n)


MEASURE = Consistency
