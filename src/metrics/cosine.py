"""Cosine similarity of a layer's outputs before and after a transform, and that of two different images."""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Labels, PairMeasure, Statistics
from .layer_outputs import LayerOutputs, Population, TransformedOutputs
from .quantities import Quantity

QUANTITIES = (
    Quantity("cosine", low=-1, high=1, better="higher", formula="E ⟨φ(x), φ(gx)⟩ / (‖φ(x)‖ ‖φ(gx)‖)",
        null="cosine_random: the mean over all pairs of different images, well above 0 after a ReLU"),
)  # fmt: skip


def cosine(reference: Float[Tensor, "n ..."], transformed: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """``⟨φ(x), φ(gx)⟩ / (‖φ(x)‖ ‖φ(gx)‖)`` of each image, in [-1, 1]; 0 for an output of zeros.

    >>> cosine(torch.tensor([[3.0, 4], [0, 2]]), torch.tensor([[3.0, 0], [0, 5]])).tolist()
    [0.6000000238418579, 1.0]
    """
    original = LayerOutputs(reference)
    return Cosine.of_pair(original, TransformedOutputs(original, transformed))


class Cosine(PairMeasure):
    """``cosine``, and ``cosine_random``: the mean cosine of two different images, over all pairs.

    After a ReLU no activation is negative, and the cosine of any two outputs is well above 0: a layer is as invariant
    as ``cosine`` exceeds ``cosine_random``. The mean over all other images is computed without pairs, as the product
    with the sum of all directions.
    """

    on = "layers"
    needs_population = True
    higher_is_better = True

    @staticmethod
    def of_pair(reference: LayerOutputs, transformed: TransformedOutputs) -> Float[Tensor, " n"]:
        """By the law of cosines, from three norms that other metrics need too."""
        norms = reference.norm * transformed.norm
        difference = transformed.squared_difference.sum(1)
        product = (reference.norm.square() + transformed.norm.square() - difference) / 2
        return torch.where(norms == 0, 0, product / norms)

    def of_images(self, reference: LayerOutputs, transformed: TransformedOutputs, labels: Labels | None) -> Statistics:
        """The cosine with its own transformed image, and with the other images."""
        return torch.stack([self.of_pair(reference, transformed), reference.cosine], 1)

    def over_all(self, statistics: Float[Tensor, "n k"], population: Population) -> Float[Tensor, "n k"]:
        """With the mean cosine of all pairs of images."""
        same, random = statistics.unbind(1)
        return torch.stack([same, random + population.mean_cosine - random.mean()], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """``cosine`` with the own transformed image, ``cosine_random`` with other images; both in [-1, 1]."""
        return {"cosine": means[..., 0], "cosine_random": means[..., 1]}


MEASURE = Cosine
