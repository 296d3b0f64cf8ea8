"""Output distance: how far the logits move, relative to the distance between the logits of two images."""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Labels, PairMeasure, Statistics
from .layer_outputs import LayerOutputs, Population, TransformedOutputs, ratio_or_nan
from .quantities import Quantity

QUANTITIES = (
    Quantity("output_distance", low=0, better="lower",
        formula="E‖f(x) - f(gx)‖ / E‖f(x) - f(x')‖, f the logits, x' all other images",
        null="1: as far as another image"),
)  # fmt: skip


def output_distance(reference: Float[Tensor, "n d"], transformed: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """``E‖f(x) - f(gx)‖ / E‖f(x) - f(x')‖``, in [0, ∞): 0 is invariant, 1 is as far as another image.

    >>> x = torch.tensor([[0.0, 0], [3, 4]])
    >>> output_distance(x, x + torch.tensor([2.5, 0])).item()
    0.5
    """
    means = torch.stack([(reference - transformed).norm(dim=1), LayerOutputs(reference).distance], 1).double().mean(0)
    return (means[0] / means[1]).to(reference.dtype)


class OutputDistance(PairMeasure):
    """``output_distance``; x' are all other images of all batches.

    It does not saturate as consistency does, so it is the primary number.
    """

    on = "output"
    needs_population = True
    keeps_outputs = True
    higher_is_better = False

    def of_images(self, reference: LayerOutputs, transformed: TransformedOutputs, labels: Labels | None) -> Statistics:
        """The distance to the original image's output, and to those of the others."""
        return torch.stack([transformed.squared_difference.sum(1).sqrt(), reference.distance], 1)

    def over_all(self, statistics: Float[Tensor, "n k"], population: Population) -> Float[Tensor, "n k"]:
        """With the distances between all images, computed again."""
        return torch.stack([statistics[:, 0], LayerOutputs(population.outputs, population).distance.double()], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Mean distance to the own original's output over that to other images' outputs; nan for 0/0."""
        return {"output_distance": ratio_or_nan(means[..., 0], means[..., 1])}


MEASURE = OutputDistance
