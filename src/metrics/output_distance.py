"""Output distance: how far the logits move, on the scale of how far two images' logits lie apart."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .base import LayerOutputs, PairMeasure, Population, TransformedOutputs, relative


def output_distance(still: Float[Tensor, "n d"], moved: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """``E‖f(x) - f(gx)‖ / E‖f(x) - f(x')‖``, in [0, ∞): 0 exactly invariant, 1 as far as another image.

    >>> x = torch.tensor([[0.0, 0], [3, 4]])
    >>> output_distance(x, x + torch.tensor([2.5, 0])).item()
    0.5
    """
    means = torch.stack([(still - moved).norm(dim=1), LayerOutputs(still).distance], 1).double().mean(0)
    return (means[0] / means[1]).to(still.dtype)


class OutputDistance(PairMeasure):
    """``output_distance``; x' runs over all other images, however they are batched.

    Does not saturate as consistency does, so it is the primary number.
    """

    on = "output"
    relative = True
    keeps_outputs = True
    higher_is_better = False

    def of_images(
        self, still: LayerOutputs, moved: TransformedOutputs, labels: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n k"]:
        """How far each moved, how far the others are."""
        return torch.stack([moved.apart.sum(1).sqrt(), still.distance], 1)

    def over_all(self, statistics: Float[Tensor, "n k"], others: Population) -> Float[Tensor, "n k"]:
        """Distances over all outputs, computed again."""
        return torch.stack([statistics[:, 0], LayerOutputs(others.outputs, others).distance.double()], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """One number."""
        return {"output_distance": relative(means[..., 0], means[..., 1])}


MEASURE = OutputDistance
