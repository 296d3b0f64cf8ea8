"""Equivariance error: does the map move as the image does? With what interpolation alone would cost beside it."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .base import Measure, undefined


def equivariance_error(
    moved: Float[Tensor, "n c h w"], carried: Float[Tensor, "n c h w"], valid: Bool[Tensor, "n h w"] | None = None
) -> Float[Tensor, ""]:
    """``E ‖φ(gx) - ρ(g)φ(x)‖ / ‖ρ(g)φ(x)‖`` over the valid region, in [0, ∞): 0 where the map moves along.

    Args:
        moved: φ(gx).
        carried: ρ(g)φ(x), the map of the image in place, moved as the image is.
        valid: where the two can be compared; None: everywhere.

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> equivariance_error(x.roll(1, 3), x.roll(1, 3)).item()
    0.0
    """
    return EquivarianceError.errors(moved, carried, valid).nanmean()


class EquivarianceError(Measure):
    """``equivariance_error``, and ``equivariance_floor``: the same of a net that does nothing but average the pixels to
    the layer's resolution. It is 0 where g moves that grid onto itself; else an error below it says nothing.

    Images whose map is 0 everywhere in the valid region are left out.
    """

    higher_is_better = False

    @staticmethod
    def errors(moved: Tensor, carried: Tensor, valid: Tensor | None) -> Float[Tensor, " n"]:
        """Of each image; nan where the map is 0."""
        if valid is not None:
            moved, carried = moved * valid[:, None], carried * valid[:, None]
        relative: Tensor = (moved - carried).flatten(1).norm(dim=1) / carried.flatten(1).norm(dim=1)
        return relative

    def of_images(self, *inputs: Any) -> Float[Tensor, "n k"]:
        """Error and floor, each 0 with a weight of 0 where it is not defined."""
        moved, carried, valid, pixels_moved, pixels_carried = inputs
        numbers = torch.stack([self.errors(moved, carried, valid), self.errors(pixels_moved, pixels_carried, valid)], 1)
        defined = numbers.isfinite()
        return undefined(torch.cat([torch.where(defined, numbers, 0), defined.to(numbers.dtype)], 1), moved, carried)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """By name."""
        return {
            "equivariance_error": means[..., 0] / means[..., 2],
            "equivariance_floor": means[..., 1] / means[..., 3],
        }
