"""Test images for an external net: resized to its input, with a margin for shifts."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .image_files import is_picture, labelled, read
from .names import halves
from .sets import SETS, DataError, Images, load
from .splits import pad_images


@dataclass(frozen=True)
class ImageSample:
    """A random subset of test images."""

    padded: UInt8[Tensor, "n c H W"]  # with ``margin`` pixels around each image
    labels: Int64[Tensor, " n"]
    positions: Float[Tensor, "n _"]  # x, y, in units of the side; shape (n, 0) if unknown
    classes: list[str]  # their names; empty if the set has none


def check(name: str, root: str | None) -> None:
    """Check the arguments of ``sample`` early; ``DataError`` if there is no such set or folder."""
    if name not in SETS:
        raise DataError(f"data={name}: choose one of {', '.join(SETS)}")
    if name == "folder" and (root is None or not Path(root).expanduser().is_dir()):
        reason = f"data.root={root}: no such folder" if root else "data=folder needs data.root=FOLDER_OF_IMAGES"
        raise DataError(f"{reason}; or take data=shapes, which needs no files")


def sample(name: str, root: str, side: int, channels: int, margin: int, count: int, seed: int) -> ImageSample:
    """A random subset of a set's test images; grey images are repeated in every channel.

    Args:
        name: of the set; ``folder``: images, with or without a folder for each class.
        root: folder of data sets, or the folder of images.
        side, channels: of the net's input.
        margin: pixels around each image after resizing; true pixels if the set has them.
        count: at most this many images, chosen by ``seed``.

    Raises:
        DataError: the set is not available, has fewer than two images, or other channels than the net's input.
    """
    if name == "folder":
        files, classes = _files(Path(root).expanduser())
        part, out_of_frame = read([files[i] for i in _draw(len(files), count, seed)], side), "edge"
    else:
        source = load(name, root, image_size=64)
        part, classes, out_of_frame = source.test, source.classes, source.out_of_frame
        part = part.take(_draw(len(part), count, seed))
    if len(part) < 2:
        raise DataError(f"data={name}: {len(part)} image, where two are needed, as images are compared with each other")
    own_channels = part.images.shape[1]
    if own_channels not in (1, channels):
        raise DataError(f"data={name}: images of {own_channels} channels, where the net takes {channels}")
    padded = resized(part, side, margin, out_of_frame)
    return ImageSample(padded.expand(-1, channels, -1, -1), part.labels, part.positions, classes)


def _draw(total: int, count: int, seed: int) -> Int64[Tensor, " m"]:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]


def _files(root: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """(file, label) of each image, and the classes: ``root/test/CLASS/*``, else ``root/CLASS/*``, else ``root/*``."""
    _, root = halves(root)
    try:
        return labelled(root)
    except NotADirectoryError as error:
        raise DataError(f"data.root={root}: is no folder") from error
    except FileNotFoundError as error:
        unlabelled = sorted(str(path) for path in root.iterdir() if is_picture(path.name))
        if not unlabelled:
            raise DataError(f"data=folder: no images in data.root={root}, nor in folders in it ({error})") from error
        return [(path, 0) for path in unlabelled], []


def resized(part: Images, side: int, margin: int, out_of_frame: str) -> UInt8[Tensor, "n c H W"]:
    """Square images resized to another side, together with ``margin`` pixels around them; but for rounding, they do not
    depend on the margin: the padding becomes a whole number of pixels.
    """
    height = part.images.shape[-1]
    if height == side:
        return pad_images(part, margin, out_of_frame)
    step = height // math.gcd(height, side)
    padded = pad_images(part, step * math.ceil(margin * height / (side * step)), out_of_frame)
    target = padded.shape[-1] * side // height
    cut = (target - side) // 2 - margin
    end = target - cut

    def resize(images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c H W"]:
        x = F.interpolate(images.float(), (target, target), mode="bilinear", antialias=True)
        return x[..., cut:end, cut:end].round().to(torch.uint8)

    return torch.cat([resize(images) for images in padded.split(64)])
