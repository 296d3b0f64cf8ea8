"""``data=red_green``: does a net use positions to classify? (Kayhan & van Gemert 2020, section 4.2)"""

from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ...common.memory import refuse_too_large
from ..images import DataError, DataSet, Images, Source

Pixels = UInt8[Tensor, "n 3 h w"]
CLASSES = ("red left of green", "green left of red")


def render(count: int, size: int, seed: int) -> tuple[Pixels, Pixels, Int64[Tensor, " n"]]:
    """Two squares on black, one red, one green; which of them is on the left is the class.

    The first class lies in the upper half, the second in the lower, so position predicts the class as well as colour
    does. In the *dissimilar* images the halves are exchanged (a roll by half the side): a net that uses the colours is
    as accurate on them, one that uses the position is wrong.

    In units of side / 32: squares of 4; the left one starts at 0 … 9, the right one anywhere right of it with a gap of
    1 or more; each at its own height, 3 … 10 in the upper half, 16 more in the lower. All uniform; classes alternate.

    Returns:
        the images, their dissimilar versions, labels.
    """
    generator = torch.Generator().manual_seed(seed)
    unit = size // 32
    labels = torch.arange(count) % 2
    left = torch.randint(0, 10 * unit, (count,), generator=generator)
    first = left + 5 * unit
    right = first + (torch.rand(count, generator=generator) * (28 * unit - first)).long()
    heights = torch.randint(3 * unit, 11 * unit, (2, count), generator=generator) + 16 * unit * labels
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    pixels, index = torch.arange(size), torch.arange(count)
    for x, y, colour in ((left, heights[0], labels), (right, heights[1], 1 - labels)):
        rows, columns = ((pixels >= start[:, None]) & (pixels < start[:, None] + 4 * unit) for start in (y, x))
        images[index, colour] |= (rows[:, :, None] & columns[:, None, :]).to(torch.uint8) * 255
    return images, images.roll(size // 2, 2), labels


def _load(root: Path, size: int) -> Source:
    if size % 32:
        raise DataError(f"data.image_size={size}: data=red_green needs a multiple of 32")
    refuse_too_large(f"data.image_size={size}", 5_000 * 3 * size**2)
    images, _, labels = render(3_000, size, seed=1)
    similar, dissimilar, test_labels = render(1_000, size, seed=2)
    others = {"dissimilar": Images(dissimilar, test_labels)}
    test = Images(similar, test_labels)
    return Source(Images(images, labels), test, list(CLASSES), "black", others, centred=False)


SETS = {"red_green": DataSet(3, None, len(CLASSES), _load, others=("dissimilar",))}
