"""The images that activate each channel most, and the patch of each that its strongest unit sees."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..summary import Axis

#: images of each channel
TOP_IMAGES = 4


@dataclass(frozen=True)
class MaxActivating:
    """The images that activate each channel most, with one position in each; the strongest first."""

    values: Float[Tensor, "c k"]  # the channel's largest activation in the image
    images: Int64[Tensor, "c k"]  # index of the image
    positions: Int64[Tensor, "c k"]  # row-major index of that activation in the map; the first of several

    def top(self, k: int = TOP_IMAGES) -> "MaxActivating":
        """The k strongest of each channel (all, if there are fewer); ties in their order."""
        order = self.values.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return MaxActivating(*(values.gather(1, order) for values in (self.values, self.images, self.positions)))

    def join(self, other: "MaxActivating") -> "MaxActivating":
        """Both, this one first; its ``top`` is that of all images."""
        pairs = ((self.values, other.values), (self.images, other.images), (self.positions, other.positions))
        return MaxActivating(*(torch.cat(pair, 1) for pair in pairs))

    def take(self, channels: Int64[Tensor, " m"]) -> "MaxActivating":
        """Those of some channels, on the CPU."""
        return MaxActivating(*(values.cpu()[channels] for values in (self.values, self.images, self.positions)))


def max_activating(outputs: Float[Tensor, "n c *hw"], first: int = 0, k: int = TOP_IMAGES) -> MaxActivating:
    """The k images of a batch that activate each channel most, with one position in each.

    Over batches, ``result.join(max_activating(outputs, first)).top()`` needs the same memory for any number of images.

    ``first`` is the index of the batch's first image. The units of a vector are maps of one position.

    >>> maps = torch.tensor([[[0.0, 2]], [[5, 1]], [[3, 3]]])  # three images, one channel with two positions
    >>> strongest = max_activating(maps, k=2)
    >>> strongest.values.tolist(), strongest.images.tolist(), strongest.positions.tolist()
    ([[5.0, 3.0]], [[1, 2]], [[0, 0]])
    """
    flat = outputs.detach().flatten(2) if outputs.dim() > 2 else outputs.detach()[:, :, None]
    values, positions = flat.max(2)
    images = torch.arange(first, first + len(flat), device=flat.device)[:, None].expand_as(values)
    return MaxActivating(values.T, images.T, positions.T).top(k)


def receptive_field(axis: Axis, position: int) -> tuple[float, float]:
    """The edges of an output's receptive field along an axis, in input pixels; they may lie outside the image.

    >>> receptive_field(Axis(4, receptive_field=10, jump=8, offset=4), 1)
    (7.0, 17.0)
    """
    middle = axis.offset + position * axis.jump
    return middle - axis.receptive_field / 2, middle + axis.receptive_field / 2


def patch_size(axis: Axis, size: int) -> int:
    """Side of a patch along an axis, in pixels: the receptive field, at most the image's size."""
    return max(1, min(math.ceil(axis.receptive_field - 1e-6), size))


def patch(
    image: UInt8[np.ndarray, "c h w"], rows: Axis, columns: Axis, position: tuple[int, int]
) -> UInt8[np.ndarray, "c f g"]:
    """The part of an image in a unit's theoretical receptive field, black outside the image; the whole image along an
    axis where the field is at least as large. ``rows`` and ``columns`` are the layer's axes in the model summary,
    ``position`` is (row, column) of the unit in its map.
    """
    size = image.shape[1:]
    sides = [patch_size(axis, n) for axis, n in zip((rows, columns), size, strict=True)]
    cut = np.zeros((len(image), *sides), np.uint8)
    source, target = [], []
    for axis, index, n, side in zip((rows, columns), position, size, sides, strict=True):
        start = 0 if axis.receptive_field >= n else math.floor(receptive_field(axis, index)[0] + 1e-6)
        low, high = min(max(start, 0), n), max(min(start + side, n), 0)
        source.append(slice(low, high))
        target.append(slice(low - start, max(high, low) - start))
    cut[:, target[0], target[1]] = image[:, source[0], source[1]]
    return cut
