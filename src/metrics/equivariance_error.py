"""Equivariance error: does a map move as the image does? With what interpolation alone costs as a floor."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .base import Measure
from .layer_outputs import nan_where_not_finite
from .quantities import Quantity

QUANTITIES = (
    Quantity("equivariance_error", low=0, better="lower",
        formula="E ‖φ(gx) - ρ(g)φ(x)‖ / ‖ρ(g)φ(x)‖ over the valid region",
        null="equivariance_floor: an error below it says nothing"),
    Quantity("equivariance_floor", low=0, better="lower",
        formula="equivariance_error of the pixels averaged to the layer's resolution",
        null="0 where g maps the layer's grid onto itself"),
)  # fmt: skip


def equivariance_error(
    transformed: Float[Tensor, "n c h w"],
    expected: Float[Tensor, "n c h w"],
    valid: Bool[Tensor, "n h w"] | None = None,
) -> Float[Tensor, ""]:
    """``E ‖φ(gx) - ρ(g)φ(x)‖ / ‖ρ(g)φ(x)‖`` over the valid region, in [0, ∞): 0 if the map moves as the image does.
    φ(gx) is ``transformed``; ρ(g)φ(x) is ``expected``: the original image's map, moved as the image is.

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> equivariance_error(x.roll(1, 3), x.roll(1, 3)).item()
    0.0
    """
    return EquivarianceError.errors(transformed, expected, valid).nanmean()


class EquivarianceError(Measure):
    """``equivariance_error``, and ``equivariance_floor``: the same for a net that only averages pixels to the layer's
    resolution. The floor is 0 where g maps that grid onto itself; an error below the floor says nothing.

    Images whose map is 0 in the whole valid region are left out.
    """

    higher_is_better = False

    @staticmethod
    def errors(transformed: Tensor, expected: Tensor, valid: Tensor | None) -> Float[Tensor, " n"]:
        """The relative error of each image; nan if its expected map is 0."""
        if valid is not None:
            transformed, expected = transformed * valid[:, None], expected * valid[:, None]
        relative: Tensor = (transformed - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
        return relative

    def of_images(self, *inputs: Any) -> Float[Tensor, "n k"]:
        """Error and floor, then a weight of each: 0, with a number of 0, where it is not defined."""
        transformed, expected, valid, pixels, expected_pixels = inputs
        errors = self.errors(transformed, expected, valid), self.errors(pixels, expected_pixels, valid)
        numbers = torch.stack(errors, 1)
        defined = numbers.isfinite()
        statistics = torch.cat([torch.where(defined, numbers, 0), defined.to(numbers.dtype)], 1)
        return nan_where_not_finite(statistics, transformed, expected)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Both numbers, over the images where they are defined."""
        error, floor, images, floor_images = means.unbind(-1)
        return {"equivariance_error": error / images, "equivariance_floor": floor / floor_images}
