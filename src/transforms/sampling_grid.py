"""Where the outputs of a feature map lie in the image: stride and offset along both axes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

#: (down, right) of the centre, in pixels of an image or steps of a map
Point = tuple[float, float]


@dataclass(frozen=True)
class SamplingGrid:
    """Positions of a map's outputs in its image, (down, right): output i lies at ``offset + i · jump`` pixels."""

    image: tuple[int, int]  # (height, width)
    jump: tuple[float, float]  # effective stride, pixels between neighbouring outputs
    offset: tuple[float, float]  # centre of the first output's receptive field, pixels from the edge; pixel 0 has 0.5

    @classmethod
    def even(cls, image: tuple[int, int], size: tuple[int, int]) -> "SamplingGrid":
        """The grid of a map of this size whose outputs are spread evenly over the image."""
        down, right = image[0] / size[0], image[1] / size[1]
        return cls(image, (down, right), (down / 2, right / 2))

    def center_offset(self, size: tuple[int, int]) -> tuple[float, float]:
        """Centre of a map of this size minus the centre of the image, in pixels (down, right)."""
        down, right = (
            offset + (n - 1) / 2 * jump - side / 2
            for offset, n, jump, side in zip(self.offset, size, self.jump, self.image, strict=True)
        )
        return down, right

    def average(self, images: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c p q"]:
        """The mean of the jump × jump pixels around each output's position, with circular padding."""
        rows, columns = (self._weights(axis, n).to(images) for axis, n in enumerate(size))
        return rows @ images @ columns.mT

    def _weights(self, axis: int, n: int) -> Float[Tensor, "n side"]:
        side, jump = self.image[axis], self.jump[axis]
        low = self.offset[axis] + torch.arange(n, dtype=torch.float64)[:, None] * jump - jump / 2
        pixels = torch.arange(side, dtype=torch.float64)
        wrap = torch.arange(-1, 2, dtype=torch.float64)[:, None, None] * side  # a window may begin outside the image
        overlap = (low + jump).minimum(pixels + wrap + 1) - low.maximum(pixels + wrap)
        weights: Tensor = overlap.clamp(min=0).sum(0) / jump
        return weights


#: pixels between neighbouring outputs of a map: one number for both axes, or (down, right), for maps with the image's
#: centre; or the map's sampling grid
Jump = float | tuple[float, float] | SamplingGrid
