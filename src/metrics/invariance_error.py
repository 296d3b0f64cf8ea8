"""Invariance error: how far a layer moves, on the scale of how far two images' outputs lie apart."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .base import LayerOutputs, PairMeasure, Population, TransformedOutputs, relative


def invariance_error(still: Float[Tensor, "n ..."], moved: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
    """``E‖φ(gx) - φ(x)‖² / E‖φ(x) - φ(x')‖²``, in [0, ∞): 0 invariant, about 1 no better than another image.

    >>> x = torch.tensor([[0.0, 1], [0, 3]])
    >>> invariance_error(x, x + torch.tensor([0.0, 1])).item()
    0.25
    """
    before = LayerOutputs(still)
    return InvarianceError.ratio(InvarianceError.both(before, TransformedOutputs(before, moved)).mean(0))


class InvarianceError(PairMeasure):
    """``invariance_error``, a ratio of sums over all channels and positions; x' runs over all
    other images, however they are batched.

    A dead or constant channel adds nothing above or below, so it needs no leaving out.
    """

    on = "layers"
    relative = True
    higher_is_better = False

    @staticmethod
    def both(still: LayerOutputs, moved: TransformedOutputs) -> Float[Tensor, "n 2"]:
        """Of each image: how far it moved, how far the others are."""
        return torch.stack([moved.apart.sum(1), still.squared], 1)

    @staticmethod
    def ratio(means: Float[Tensor, "... 2"]) -> Float[Tensor, "..."]:
        """Above over below."""
        return relative(means[..., 0], means[..., 1])

    def of_images(
        self, still: LayerOutputs, moved: TransformedOutputs, labels: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n k"]:
        """How far each moved, how far the others are."""
        return self.both(still, moved)

    def over_all(self, statistics: Float[Tensor, "n k"], others: Population) -> Float[Tensor, "n k"]:
        """Two images lie apart by twice the variance."""
        moved, apart = statistics.unbind(1)
        return torch.stack([moved, apart * 2 * others.variance.sum() / apart.mean()], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """One number."""
        return {"invariance_error": self.ratio(means)}


MEASURE = InvarianceError
