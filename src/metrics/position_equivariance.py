"""Position error under shifts: does the answer to "where?" move as far as the object does?"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .base import Measure


def position_equivariance_error(
    still: Float[Tensor, "n 2"], moved: Float[Tensor, "n 2"], shift: Float[Tensor, "n 2"]
) -> Float[Tensor, ""]:
    """``E‖f(gx) - f(x) - g‖ / E‖g‖``, in [0, ∞): 0 where the answer moves along, 1 where it stays.

    Args:
        still: answers (x, y) for images.
        moved: for the same images shifted.
        shift: by how much (right, down), in the answers' units.

    >>> x, g = torch.tensor([[0.2, 0.5], [0.5, 0.4]]), torch.tensor([[0.1, 0.0], [0.0, -0.1]])
    >>> [round(position_equivariance_error(x, x + gain * g, g).item(), 4) for gain in (1, 0.5, 0)]
    [0.0, 0.5, 1.0]
    """
    means = PositionEquivariance.lengths(still, moved, shift).mean(0)
    return means[0] / means[1]


class PositionEquivariance(Measure):
    """``position_equivariance_error``, to be fed with the images whose object ``stays_inside``.

    An answer that is always the same scores 1 exactly; so does one that sees the object and not where it is.
    """

    higher_is_better = False

    @staticmethod
    def lengths(still: Tensor, moved: Tensor, shift: Tensor) -> Float[Tensor, "n 2"]:
        """Of each image: how far the answer is from where it should have moved; how far that is."""
        return torch.stack([(moved - still - shift).norm(dim=1), shift.norm(dim=1)], 1)

    def of_images(self, *inputs: Any) -> Float[Tensor, "n k"]:
        """Both lengths."""
        return self.lengths(*inputs)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """One number."""
        return {"position_equivariance_error": means[..., 0] / means[..., 1]}


def stays_inside(positions: Float[Tensor, "n 2"], shift: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
    """Whether the centre, at x, y in units of the side, is within the image once shifted."""
    there = positions + shift
    return ((there >= 0) & (there <= 1)).all(1)
