"""A fixed permutation of the pixels, the same for every image and channel: the control that takes locality away."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Permutation:
    """Pixel i of the result is pixel ``order[i]`` of the image, both in row-major order."""

    order: Int64[Tensor, " hw"]

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images with their pixels permuted, channels last in memory."""
        permuted = images.flatten(2)[:, :, self.order.to(images.device)].view(images.shape)
        return permuted.contiguous(memory_format=torch.channels_last)

    @property
    def inverse(self) -> "Permutation":
        """The permutation that undoes this one.

        >>> images = torch.arange(6.0).view(1, 1, 2, 3)
        >>> permutation = draw_permutation(2, 3, seed=1)
        >>> torch.equal(permutation.inverse(permutation(images)), images), torch.equal(permutation(images), images)
        (True, False)
        """
        return Permutation(self.order.argsort())


def draw_permutation(height: int, width: int, seed: int) -> Permutation:
    """A permutation of the pixels, uniform among all."""
    return Permutation(torch.randperm(height * width, generator=torch.Generator().manual_seed(seed)))
