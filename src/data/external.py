"""Test images for a net that was trained elsewhere: at the side that it takes, with room around them for shifts."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .image_files import is_picture, labelled
from .names import SETS, halves
from .sets import DataError, Images, load, read
from .splits import canvas

#: side at which sets without a size of their own are drawn, before they come to the net's
DRAWN = 64
#: images that are resized at once
PART = 64


@dataclass(frozen=True)
class Sample:
    """Some images of a set.

    Attributes:
        canvas: they, with ``margin`` pixels around each.
        labels: class of each.
        positions: x, y, in units of the side; (n, 0) where the set does not know them.
        classes: their names; none where the set has no classes.
    """

    canvas: UInt8[Tensor, "n c H W"]
    labels: Int64[Tensor, " n"]
    positions: Float[Tensor, "n _"]
    classes: list[str]


def check(name: str, root: str | None) -> None:
    """Refuse what ``sample`` could not find, before any work.

    Raises:
        DataError: no such set, or a folder that is not there.
    """
    if name not in SETS:
        raise DataError(f"data={name}: choose one of {', '.join(SETS)}")
    if name == "folder" and (root is None or not Path(root).expanduser().is_dir()):
        what = f"data.root={root}: no such folder" if root else "data=folder needs data.root=FOLDER_OF_IMAGES"
        raise DataError(f"{what}; or take data=shapes, which needs no files")


def sample(name: str, root: str, side: int, channels: int, margin: int, count: int, seed: int) -> Sample:
    """Images of a set's test part, grey ones repeated in every channel.

    Args:
        name: of the set; ``folder`` is a folder of images, with a folder for each class or with none.
        root: where sets lie, or the folder.
        side, channels: of the images that the net takes.
        margin: pixels around each, at the net's side: the true ones where the set has them.
        count: at most so many images.
        seed: draws them.

    Raises:
        DataError: the set is not to be had, has fewer than two images, or other channels than the net takes.
    """
    if name == "folder":
        files, classes = _files(Path(root).expanduser())
        part, beyond = read([files[i] for i in _draw(len(files), count, seed)], side), "edge"
    else:
        source = load(name, root, DRAWN)
        part, classes, beyond = source.test, source.classes, source.beyond
        part = part.take(_draw(len(part), count, seed))
    if len(part) < 2:
        raise DataError(f"data={name}: {len(part)} image, where two are needed, as images are compared with each other")
    given = part.images.shape[1]
    if given not in (1, channels):
        raise DataError(f"data={name}: images of {given} channels, where the net takes {channels}")
    wide = resized(part, side, margin, beyond)
    return Sample(wide.expand(-1, channels, -1, -1), part.labels, part.positions, classes)


def _draw(there: int, count: int, seed: int) -> Int64[Tensor, " m"]:
    return torch.randperm(there, generator=torch.Generator().manual_seed(seed))[:count]


def _files(root: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """(file, class) of each image, and the classes: ``root/test/CLASS/*``, else ``root/CLASS/*``, else ``root/*``."""
    _, root = halves(root)
    try:
        return labelled(root)
    except FileNotFoundError as error:
        loose = sorted(str(one) for one in root.iterdir() if is_picture(one.name))
        if not loose:
            raise DataError(f"data=folder: no images in data.root={root}, nor in folders in it ({error})") from error
        return [(one, 0) for one in loose], []


def resized(part: Images, side: int, margin: int, beyond: str) -> UInt8[Tensor, "n c H W"]:
    """Square images at another side, with ``margin`` pixels around them that were resized with them.

    The image proper is the same whatever the margin, up to rounding: what is resized reaches out by as many pixels as
    become a whole number at the new side.
    """
    height = part.images.shape[-1]
    if height == side:
        return canvas(part, margin, beyond)
    step = height // math.gcd(height, side)
    whole = canvas(part, step * math.ceil(margin * height / (side * step)), beyond)
    target = whole.shape[-1] * side // height
    cut = (target - side) // 2 - margin
    end = target - cut

    def scaled(images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c H W"]:
        x = F.interpolate(images.float(), (target, target), mode="bilinear", antialias=True)
        return x[..., cut:end, cut:end].round().to(torch.uint8)

    return torch.cat([scaled(images) for images in whole.split(PART)])
