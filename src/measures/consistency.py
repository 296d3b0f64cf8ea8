"""Consistency: does the answer stay the same? With the share of it that chance alone would give taken out."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from src.measures.base import Estimate, PairMeasure, Still, interval


def chance_corrected(agreement: Float[Tensor, "..."], shares: Float[Tensor, "... classes"]) -> Float[Tensor, "..."]:
    """``(c - Σp²) / (1 - Σp²)``, at most 1: agreement beyond that of two independent answers with class shares p.

    nan where every answer is the same class: such a net agrees with itself and says nothing.

    >>> chance_corrected(torch.tensor(0.5), torch.tensor([0.5, 0.5])).item()
    0.0
    """
    chance = shares.square().sum(-1)
    return torch.where(chance < 1, (agreement - chance) / (1 - chance), torch.nan)


class Consistency(PairMeasure):
    """``P[argmax f(x) = argmax f(gx)]`` in [0, 1] (Zhang 2019), and the same corrected for chance.

    It saturates, rises with accuracy, and is 1 for a constant classifier: read it beside ``output_distance``. The
    corrected one takes p over both answers of all images.
    """

    on = "output"
    of_classes = True

    def __init__(self) -> None:
        self.answers: list[Int64[Tensor, "n 2"]] = []
        self.classes = 0

    def update(self, still: Still, moved: Float[Tensor, "n d"]) -> None:
        """Add a batch."""
        self.answers.append(torch.stack([still.outputs.argmax(1), moved.argmax(1)], 1).cpu())
        self.classes = moved.shape[1]

    def compute(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """The raw and the corrected number."""
        answers = torch.cat(self.answers)
        same = (answers[:, 0] == answers[:, 1]).double()
        shares = F.one_hot(answers, self.classes).double().mean(1)
        n = len(same)
        resampled = weights @ same / n
        yield "consistency", Estimate(same.mean().item(), *interval(resampled), n)
        corrected = chance_corrected(resampled, weights @ shares / n)
        value = chance_corrected(same.mean(), shares.mean(0)).item()
        yield "consistency_corrected", Estimate(value, *interval(corrected), n)


MEASURE = Consistency
