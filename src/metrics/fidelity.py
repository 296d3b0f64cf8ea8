"""Fidelity: is the answer right, and does it stay right? Consistency without what wrong answers add to it."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .base import LayerOutputs, PairMeasure, TransformedOutputs, wilson


def fidelity(
    still: Float[Tensor, "n classes"], moved: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, ""]:
    """``P[argmax f(x) = argmax f(gx) = y]``, in [0, 1]: both answers right; at most the accuracy.

    >>> x, gx = torch.eye(4), torch.eye(4)[[0, 1, 3, 3]]
    >>> fidelity(x, gx, torch.tensor([0, 1, 2, 0])).item()
    0.5
    """
    return ((still.argmax(1) == labels) & (moved.argmax(1) == labels)).float().mean()


class Fidelity(PairMeasure):
    """``fidelity``; ``stays_right``, P[gx right | x right]; and the accuracy on the transformed images alone.

    A net that is right more often agrees with itself more often: ``stays_right`` takes that out.
    """

    on = "output"
    of_classes = True
    needs_labels = True
    higher_is_better = True

    def of_images(
        self, still: LayerOutputs, moved: TransformedOutputs, labels: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n k"]:
        """Right on both, right on x, right on gx."""
        assert labels is not None, "fidelity needs labels"
        right, stays = still.outputs.argmax(1) == labels, moved.outputs.argmax(1) == labels
        return torch.stack([right & stays, right, stays], 1).float()

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Three shares."""
        both, right, stays = means.unbind(-1)
        return {"fidelity": both, "stays_right": both / right, "accuracy": stays}

    def ends(self, name: str, found: dict[str, Tensor], drawn: Tensor, means: Tensor, n: int) -> tuple[float, float]:
        """Wilson's, as of any share: ``stays_right`` is one of the images that are right in place."""
        return wilson(found[name].item(), n * means[1].item() if name == "stays_right" else n)


MEASURE = Fidelity
