"""Output distance: how far the logits move, on the scale of how far two images' logits lie apart."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from src.measures.base import Estimate, PairMeasure, Still, ratio_of_means


class OutputDistance(PairMeasure):
    """``E‖f(x) - f(gx)‖ / E‖f(x) - f(x')‖``, in [0, ∞): 0 exactly invariant, 1 as far as another image.

    Does not saturate as consistency does, so it is the primary number. x' runs over the other images of x's batch.
    """

    on = "output"

    def __init__(self) -> None:
        self.moved: list[Tensor] = []
        self.between: list[Tensor] = []

    def update(self, still: Still, moved: Float[Tensor, "n d"]) -> None:
        """Add a batch."""
        self.moved.append((still.outputs - moved).norm(dim=1))
        self.between.append(still.distance)

    def compute(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """One number."""
        yield "output_distance", ratio_of_means(torch.cat(self.moved).cpu(), torch.cat(self.between).cpu(), weights)


MEASURE = OutputDistance
