"""Position error under shifts: does the predicted position move as far as the object does?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .base import Measure, Statistics
from .quantities import Quantity

QUANTITIES = (
    Quantity("position_equivariance_error", low=0, better="lower",
        formula="E‖f(gx) - f(x) - g‖ / E‖g‖, f the predicted position, g the shift",
        null="1: the predicted position does not move"),
)  # fmt: skip


def position_equivariance_error(
    reference: Float[Tensor, "n 2"], transformed: Float[Tensor, "n 2"], shift: Float[Tensor, "n 2"]
) -> Float[Tensor, ""]:
    """``E‖f(gx) - f(x) - g‖ / E‖g‖``, in [0, ∞): 0 if the predicted position moves along, 1 if it stays.

    Predicted positions (x, y) for images and for the same images shifted; the shift (right, down) in the same units.

    >>> x, g = torch.tensor([[0.2, 0.5], [0.5, 0.4]]), torch.tensor([[0.1, 0.0], [0.0, -0.1]])
    >>> [round(position_equivariance_error(x, x + gain * g, g).item(), 4) for gain in (1, 0.5, 0)]
    [0.0, 0.5, 1.0]
    """
    means = PositionEquivariance.of_images(reference, transformed, shift).mean(0)
    return means[0] / means[1]


class PositionEquivariance(Measure):
    """``position_equivariance_error``, for images whose object ``stays_inside``.

    A constant prediction scores exactly 1; so does one that sees the object but not its position.
    """

    higher_is_better = False

    @staticmethod
    def of_images(reference: Tensor, transformed: Tensor, shift: Tensor) -> Statistics:
        """For each image: from the prediction to where it should have moved; the length of the shift."""
        return torch.stack([(transformed - reference - shift).norm(dim=1), shift.norm(dim=1)], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Mean distance from where the prediction should have moved, over the mean length of the shift."""
        return {"position_equivariance_error": means[..., 0] / means[..., 1]}


def stays_inside(positions: Float[Tensor, "n 2"], shift: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
    """Whether the centre, at (x, y) in units of the image's side, is in the image once shifted."""
    shifted = positions + shift
    return ((shifted >= 0) & (shifted <= 1)).all(1)
