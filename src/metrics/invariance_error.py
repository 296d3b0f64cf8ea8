"""Invariance error: how far a layer's output moves, relative to the distance between the outputs of two images."""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Labels, PairMeasure, Statistics
from .layer_outputs import LayerOutputs, Population, TransformedOutputs, ratio_or_nan
from .quantities import Quantity

QUANTITIES = (
    Quantity("invariance_error", low=0, better="lower",
        formula="E‖φ(gx) - φ(x)‖² / E‖φ(x) - φ(x')‖², x' all other images", null="about 1: as far as another image"),
)  # fmt: skip


def invariance_error(reference: Float[Tensor, "n ..."], transformed: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
    """``E‖φ(gx) - φ(x)‖² / E‖φ(x) - φ(x')‖²``, in [0, ∞): 0 is invariant, about 1 is as far as another image.

    >>> x = torch.tensor([[0.0, 1], [0, 3]])
    >>> invariance_error(x, x + torch.tensor([0.0, 1])).item()
    0.25
    """
    original = LayerOutputs(reference)
    distances = InvarianceError.of_images(original, TransformedOutputs(original, transformed))
    return ratio_or_nan(*distances.mean(0))


class InvarianceError(PairMeasure):
    """``invariance_error``, a ratio of sums over all channels and positions; x' are all other images of all batches.

    A dead or constant channel adds nothing to either sum, so it need not be left out.
    """

    on = "layers"
    needs_population = True
    higher_is_better = False

    @staticmethod
    def of_images(reference: LayerOutputs, transformed: TransformedOutputs, labels: Labels | None = None) -> Statistics:
        """The squared distance of each image to its own original, and to the other images."""
        return torch.stack([transformed.squared_difference.sum(1), reference.squared_distance], 1)

    def over_all(self, statistics: Float[Tensor, "n k"], population: Population) -> Float[Tensor, "n k"]:
        """With the mean squared distance between all images, which is twice the variance."""
        own, others = statistics.unbind(1)
        return torch.stack([own, others * 2 * population.variance.sum() / others.mean()], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Mean squared distance to the own original over that to other images; nan for 0/0."""
        return {"invariance_error": ratio_or_nan(means[..., 0], means[..., 1])}


MEASURE = InvarianceError
