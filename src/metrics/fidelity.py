"""Fidelity: is the predicted class correct before and after a transform? Consistency without the wrong predictions."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..stats.bootstrap import wilson_interval
from .base import Labels, PairMeasure, Statistics
from .layer_outputs import LayerOutputs, TransformedOutputs
from .quantities import Quantity

QUANTITIES = (
    Quantity("fidelity", low=0, high=1, better="higher", formula="P[argmax f(x) = argmax f(gx) = y], y the label",
        null="at most the accuracy"),
    Quantity("stays_right", low=0, high=1, better="higher", formula="P[argmax f(gx) = y | argmax f(x) = y]",
        null="1 / classes: the prediction for gx is independent of x"),
)  # fmt: skip


def fidelity(
    reference: Float[Tensor, "n classes"], transformed: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, ""]:
    """``P[argmax f(x) = argmax f(gx) = y]``, in [0, 1]: both predictions correct; at most the accuracy.

    >>> x, gx = torch.eye(4), torch.eye(4)[[0, 1, 3, 3]]
    >>> fidelity(x, gx, torch.tensor([0, 1, 2, 0])).item()
    0.5
    """
    return ((reference.argmax(1) == labels) & (transformed.argmax(1) == labels)).float().mean()


class Fidelity(PairMeasure):
    """``fidelity``; ``stays_right``, P[gx correct | x correct]; and ``accuracy``, of the transformed images alone.

    A more accurate net agrees with itself more often; ``stays_right`` removes that effect.
    """

    on = "output"
    of_classes = True
    needs_labels = True
    higher_is_better = True

    def of_images(self, reference: LayerOutputs, transformed: TransformedOutputs, labels: Labels | None) -> Statistics:
        """Correct for both, for x, for gx."""
        assert labels is not None, "fidelity needs labels"
        before, after = reference.outputs.argmax(1) == labels, transformed.outputs.argmax(1) == labels
        return torch.stack([before & after, before, after], 1).float()

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """``fidelity``, ``stays_right`` (nan if no x is correct) and ``accuracy``, shares in [0, 1]."""
        both, before, after = means.unbind(-1)
        return {"fidelity": both, "stays_right": both / before, "accuracy": after}

    def interval(self, name: str, value: float, resampled: Tensor, means: Tensor, n: int) -> tuple[float, float]:
        """Wilson's, as of any share; ``stays_right`` is a share of the images that are correct before the transform."""
        return wilson_interval(value, n * means[1].item() if name == "stays_right" else n)


MEASURE = Fidelity
