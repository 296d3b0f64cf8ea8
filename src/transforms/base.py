"""A transform of images, and its action on the feature maps of an equivariant layer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from ..common.errors import UserError
from .sampling_grid import Jump, Point, SamplingGrid
from .spatial import crop_margin, disc_mask, is_integer, roll, to_float, zero_padded_shift


@dataclass(frozen=True)
class Transform:
    """One transform under one protocol; an entry of ``TABLE``. An image is a map whose outputs are one pixel apart.

    >>> from ..transforms import TRANSFORMS
    >>> quarter, x = TRANSFORMS["rotate/quarter"], torch.tensor([[[[1, 2], [3, 4]]]])
    >>> quarter.maps(x, quarter.draw(1, 90, torch.Generator())).tolist()
    [[[[2, 4], [1, 3]]]]

    Args:
        protocol: its variant, or its boundary mode; one word.
        unit: of the amounts: lengths in px are divided by a map's jump, other amounts are the same on every map.
        amounts: the default ones.
        draw: (number of images, amount > 0, generator on the CPU) → parameters, one row per image, never identity.
        act: (images or maps, parameters in steps of the map) → the same, transformed. Images may be integers if there
            is an ``inverse``, and need no clamping if there is none.
        inverse: parameters → those of the inverse transform. None if pixels change their values and stay in place.
        uses_margin: the pixels that come in are those of the margin around the image; else they are made up.
        disc: compared on the largest disc inside the image; always interpolated, about any point: ``act`` takes that as
            a third argument, in steps (down, right) of the map's centre.
        matrix: for transforms that leave the image's centre in place and need no interpolation: parameters → the
            matrices by which points (down, right) move.
        square: defined for square images and maps only.
    """

    name: str
    protocol: str
    unit: str
    amounts: tuple[float, ...]
    draw: Callable[[int, float, torch.Generator], Tensor]
    act: Callable[..., Tensor]
    inverse: Callable[[Tensor], Tensor] | None = None
    uses_margin: bool = False
    disc: bool = False
    matrix: Callable[[Tensor], Tensor] | None = None
    square: bool = False

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether it is defined for images or maps of this (height, width)."""
        return not self.square or size[0] == size[1]

    def images(
        self, padded: Shaped[Tensor, "n c H W"], parameters: Shaped[Tensor, "n k"], margin: int
    ) -> Shaped[Tensor, "n c h w"]:
        """The transformed images, in 0 … 255 (``subpixel/fourier`` may overshoot).

        Args:
            padded: images with ``margin`` pixels around them.
            parameters: as drawn.
            margin: pixels; "crop" needs as many as it shifts, "disc" one; a shrunk image shows black outside them.

        Raises:
            UserError: a crop by more than the margin, or an image that the transform is not defined for.
        """
        if self.protocol == "crop" and parameters.abs().max() > margin:
            raise UserError(f"shift/crop by {int(parameters.abs().max())} px: there are {margin} px around the images")
        before, after = (0, margin) if self.uses_margin else (margin, 0)
        pixels, parameters = crop_margin(padded, before), parameters.to(padded.device)
        if self.is_spatial:
            return self.reference(self.act(pixels, parameters), after)
        return self.reference(self.act(to_float(pixels), parameters).clamp(0, 255), after)

    def reference(self, padded: Shaped[Tensor, "n c H W"], margin: int) -> Shaped[Tensor, "n c h w"]:
        """The images that the transformed ones are compared with: without their margin, masked if ``disc``."""
        images = crop_margin(padded, margin)
        return images * disc_mask(images) if self.disc else images

    def can_recenter(self, point: Point) -> bool:
        """Whether ``recenter`` is exact: the transform has a ``matrix``, and the shift is whole for all parameters."""
        if self.matrix is None:
            return False
        drawn = torch.cat([self.draw(1, amount, torch.Generator()) for amount in self.amounts])
        center = torch.tensor(point, dtype=torch.float64)
        return bool(is_integer(center - self.matrix(drawn).double() @ center).all())

    def recenter(
        self, images: Shaped[Tensor, "n c h w"], parameters: Shaped[Tensor, "n k"], center: Point
    ) -> tuple[Shaped[Tensor, "n c h w"], Bool[Tensor, "n h w"]]:
        """The transform about another point than the image's centre, made from the transformed images by a roll.

        Args:
            images: transformed about their centre, by a transform that has a ``matrix``.
            parameters: of each image.
            center: (down, right) of the image's centre, in pixels; a point that it ``can_recenter``.

        Returns:
            The images, and which of their pixels were not wrapped around the border.
        """
        assert self.matrix is not None
        matrices, point = self.matrix(parameters.cpu()), torch.tensor(center)
        shifts = (point - matrices @ point).round().long().to(images.device)
        ones = torch.ones_like(images[:, :1], dtype=torch.float32)
        return roll(images, shifts), zero_padded_shift(ones, shifts)[:, 0] > 0

    @property
    def is_spatial(self) -> bool:
        """Whether pixels move, so that maps should be equivariant; else maps should be invariant."""
        return self.inverse is not None

    def maps(
        self, maps: Shaped[Tensor, "n c p q"], parameters: Shaped[Tensor, "n k"], jump: Jump = 1
    ) -> Shaped[Tensor, "n c p q"]:
        """ρ(g): the maps that an equivariant layer gives for the transformed images.

        Args:
            maps: of the untransformed images.
            parameters: as drawn.
            jump: pixels between neighbouring outputs, or the sampling grid. With a grid, transforms on a disc leave the
                image's centre in place; otherwise the map's centre stays.
        """
        if not self.is_spatial:
            return maps
        steps = self._steps(parameters, jump).to(maps.device)
        if not self.disc or not isinstance(jump, SamplingGrid):
            return self.act(maps, steps)
        down, right = jump.center_offset((maps.shape[2], maps.shape[3]))
        return self.act(maps, steps, (-down / jump.jump[0], -right / jump.jump[1]))

    def round_trip(
        self, maps: Shaped[Tensor, "n c p q"], parameters: Shaped[Tensor, "n k"], jump: Jump = 1
    ) -> Shaped[Tensor, "n c p q"]:
        """ρ(g⁻¹)ρ(g): differs from the identity by the errors of two interpolations."""
        transformed = self.maps(maps, parameters, jump)
        return transformed if self.inverse is None else self.maps(transformed, self.inverse(parameters), jump)

    def valid(
        self,
        maps: Shaped[Tensor, "n c p q"],
        parameters: Shaped[Tensor, "n k"],
        jump: Jump = 1,
        round_trip: bool = False,
    ) -> Bool[Tensor, "n p q"]:
        """Outputs of ``maps`` (or ``round_trip``) that take no value from outside the map, or outside the disc.

        May be all False for maps smaller than the shift or than 3 × 3.
        """
        ones = torch.ones_like(maps[:, :1], dtype=torch.float32)
        if self.disc:
            ones = ones * disc_mask(maps, jump)
        covered = (self.round_trip if round_trip else self.maps)(ones, parameters, jump) * ones
        return covered[:, 0] > 1 - 1e-4

    def exact(self, parameters: Shaped[Tensor, "n k"], jump: Jump = 1) -> Bool[Tensor, " n"]:
        """Whether ``maps`` needs no interpolation, for each image."""
        return is_integer(self._steps(parameters, jump)) & (not self.disc) | (not self.is_spatial)

    def _steps(self, parameters: Shaped[Tensor, "n k"], jump: Jump) -> Shaped[Tensor, "n k"]:
        if self.unit != "px":
            return parameters
        jump = jump.jump if isinstance(jump, SamplingGrid) else jump
        return parameters / (torch.tensor(jump, device=parameters.device) if isinstance(jump, tuple) else jump)
