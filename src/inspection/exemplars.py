"""Which images excite a channel the most, and the patch of them that its strongest unit sees."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..summary import Axis

#: images kept of each channel
BEST = 4


@dataclass(frozen=True)
class Exemplars:
    """Of each channel, the images that excite it most, one place in each; the strongest first.

    Attributes:
        values: the channel's largest number in the image.
        images: number of the image.
        places: where in the map, counted row by row; the first of several.
    """

    values: Float[Tensor, "c k"]
    images: Int64[Tensor, "c k"]
    places: Int64[Tensor, "c k"]

    def best(self, k: int = BEST) -> "Exemplars":
        """The k strongest (all, if there are fewer); of equal ones, those that stand first."""
        order = self.values.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return Exemplars(*(one.gather(1, order) for one in (self.values, self.images, self.places)))

    def join(self, other: "Exemplars") -> "Exemplars":
        """Those of both, these first: ``best`` of it is that of all their images."""
        pairs = ((self.values, other.values), (self.images, other.images), (self.places, other.places))
        return Exemplars(*(torch.cat(pair, 1) for pair in pairs))

    def take(self, channels: Int64[Tensor, " m"]) -> "Exemplars":
        """Those of some channels, on the CPU."""
        return Exemplars(*(one.cpu()[channels] for one in (self.values, self.images, self.places)))


def exemplars(outputs: Float[Tensor, "n c *hw"], first: int = 0, k: int = BEST) -> Exemplars:
    """The k images of a batch that excite each channel most, one place an image.

    Batch by batch, ``found.join(exemplars(outputs, first)).best()`` keeps as few numbers however many images there are.

    Args:
        outputs: of a layer; a unit without positions is a map of one place.
        first: number of the batch's first image.
        k: how many; fewer if there are fewer images.

    >>> maps = torch.tensor([[[0.0, 2]], [[5, 1]], [[3, 3]]])  # three images, one channel of two places
    >>> found = exemplars(maps, k=2)
    >>> found.values.tolist(), found.images.tolist(), found.places.tolist()
    ([[5.0, 3.0]], [[1, 2]], [[0, 0]])
    """
    flat = outputs.detach().flatten(2) if outputs.dim() > 2 else outputs.detach()[:, :, None]
    values, places = flat.max(2)
    images = torch.arange(first, first + len(flat), device=flat.device)[:, None].expand_as(values)
    return Exemplars(values.T, images.T, places.T).best(k)


def seen(axis: Axis, place: int) -> tuple[float, float]:
    """First and last edge, in input pixels, of what an output sees along an axis; it may lie beyond the image.

    >>> seen(Axis(4, field=10, jump=8, start=4), 1)
    (7.0, 17.0)
    """
    middle = axis.offset + place * axis.jump
    return middle - axis.receptive_field / 2, middle + axis.receptive_field / 2


def extent(axis: Axis, size: int) -> int:
    """Pixels of a patch along an axis: the receptive field, at most the image's size."""
    return max(1, min(math.ceil(axis.receptive_field - 1e-6), size))


def patch(
    image: UInt8[np.ndarray, "c h w"], rows: Axis, columns: Axis, place: tuple[int, int]
) -> UInt8[np.ndarray, "c f g"]:
    """What one unit sees of an image: its theoretical receptive field, black beyond the border.

    Along an axis on which the field is no smaller than the image, the whole image.

    Args:
        image: as the net gets it.
        rows, columns: the layer's axes, from the ledger.
        place: (row, column) of the unit in its map.
    """
    size = image.shape[1:]
    sides = [extent(axis, n) for axis, n in zip((rows, columns), size, strict=True)]
    cut = np.zeros((len(image), *sides), np.uint8)
    there, here = [], []
    for axis, at, n, side in zip((rows, columns), place, size, sides, strict=True):
        start = 0 if axis.receptive_field >= n else math.floor(seen(axis, at)[0] + 1e-6)
        low, high = min(max(start, 0), n), max(min(start + side, n), 0)
        there.append(slice(low, high))
        here.append(slice(low - start, max(high, low) - start))
    cut[:, here[0], here[1]] = image[:, there[0], there[1]]
    return cut
