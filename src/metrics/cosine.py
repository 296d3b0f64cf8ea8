"""Cosine: does a layer's output keep its direction? Beside what two images' outputs have in common anyway."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .base import LayerOutputs, PairMeasure, Population, TransformedOutputs


def cosine(still: Float[Tensor, "n ..."], moved: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """``⟨φ(x), φ(gx)⟩ / (‖φ(x)‖ ‖φ(gx)‖)`` of each image, in [-1, 1]; 0 for an output of zeros.

    >>> cosine(torch.tensor([[3.0, 4], [0, 2]]), torch.tensor([[3.0, 0], [0, 5]])).tolist()
    [0.6000000238418579, 1.0]
    """
    before = LayerOutputs(still)
    return Cosine.of_pair(before, TransformedOutputs(before, moved))


class Cosine(PairMeasure):
    """``cosine``, and ``cosine_random``: the mean cosine of two different images, over all pairs.

    After a ReLU no number is negative, and any two outputs have a cosine well above 0: a layer is invariant by as much
    as ``cosine`` lies above ``cosine_random``. The mean over the others needs no pairs: it is the product with the sum
    of all directions.
    """

    on = "layers"
    relative = True
    higher_is_better = True

    @staticmethod
    def of_pair(still: LayerOutputs, moved: TransformedOutputs) -> Float[Tensor, " n"]:
        """By the law of cosines, from the three lengths, which other measures need too."""
        lengths = still.length * moved.length
        product = (still.length.square() + moved.length.square() - moved.apart.sum(1)) / 2
        return torch.where(lengths == 0, 0, product / lengths)

    def of_images(
        self, still: LayerOutputs, moved: TransformedOutputs, labels: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n k"]:
        """The cosine with itself moved, and with the others."""
        return torch.stack([self.of_pair(still, moved), still.cosine], 1)

    def over_all(self, statistics: Float[Tensor, "n k"], others: Population) -> Float[Tensor, "n k"]:
        """Their mean is that of all pairs."""
        same, random = statistics.unbind(1)
        return torch.stack([same, random + others.cosine - random.mean()], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Both."""
        return {"cosine": means[..., 0], "cosine_random": means[..., 1]}


MEASURE = Cosine
