"""Invariance error: how far a layer's maps move, on the scale of how far two images' maps lie apart."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from src.measures.base import Estimate, PairMeasure, Still, ratio_of_means


class InvarianceError(PairMeasure):
    """``E‖φ(gx) - φ(x)‖² / E‖φ(x) - φ(x')‖²``, in [0, ∞): 0 invariant, about 1 no better than another image.

    A ratio of sums over all channels and positions: a dead or constant channel adds nothing above or below, so it
    needs no leaving out. x' runs over the other images of x's batch.
    """

    on = "layers"

    def __init__(self) -> None:
        self.moved: list[Tensor] = []
        self.between: list[Tensor] = []

    def update(self, still: Still, moved: Float[Tensor, "n d"]) -> None:
        """Add a batch."""
        self.moved.append((still.outputs - moved).square().sum(1))
        self.between.append(still.squared)

    def compute(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """One number."""
        yield "invariance_error", ratio_of_means(torch.cat(self.moved).cpu(), torch.cat(self.between).cpu(), weights)


MEASURE = InvarianceError
