"""Image files: find them in folders, and read them as a viewer shows them, with 8 bits per channel."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ..common.memory import refuse_too_large
from .images import MARGIN, DataError, Images
from .names import class_folders, hidden

#: file extensions of images, as in torchvision
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def open_picture(path: str | Path) -> Image.Image:
    """An image in RGB, rotated by its EXIF orientation, composited over black if transparent.

    Integers of more than 8 bits are scaled from [0, 65535]; floats from [0, 1], [0, 255] or [0, 65535], the first range
    that holds all values. Of several frames it is the first.

    Raises:
        DataError: the file is no image, or has values outside these ranges.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
        if picture.mode == "F" or picture.mode.startswith("I"):
            return _eight_bits(picture).convert("RGB")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
        return picture.convert("RGB")
    except Exception as error:  # for broken files, each format's reader raises its own types
        raise DataError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture, dtype=np.float64)
    low, high = values.min(), values.max()
    whites = (1, 255, 65535) if picture.mode == "F" else (65535,)
    white = next((value for value in whites if low >= 0 and high <= value), None)
    if white is None:
        raise ValueError(f"its values go from {low:g} to {high:g}; save it with 8 or 16 bits, or from 0 to 1")
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def labelled(root: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """(file, class) of every image in ``root/CLASS``, at any depth; and the names of the classes, sorted. A
    ``FileNotFoundError`` if there is no class folder, or one holds no image.
    """
    folders = class_folders(root)
    if not folders:
        raise FileNotFoundError(f"no folder of a class in {root}")
    files = []
    for label, folder in enumerate(folders):
        paths = pictures(folder)
        if not paths:
            raise FileNotFoundError(f"no image in {folder}")
        files += [(path, label) for path in paths]
    return files, [folder.name for folder in folders]


def pictures(folder: Path) -> list[str]:
    """Paths of the images in a folder, at any depth, without hidden folders."""
    paths = []
    for parent, names in sorted(walk(folder)):
        if not any(hidden(part) for part in Path(parent).relative_to(folder).parts):
            paths += [str(Path(parent, name)) for name in sorted(names) if is_picture(name)]
    return [path for path in paths if Path(path).is_file()]  # a pipe would be waited for


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder in a folder, and the names of its files; links are followed, but not to a folder that they are in."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        above = [path for path in Path(parent).parents if path == folder or folder in path.parents]
        if any(path.samefile(parent) for path in above):
            folders.clear()
        else:
            yield parent, names


def is_picture(name: str) -> bool:
    """Whether a file is an image by its extension, and not hidden."""
    return name.lower().endswith(ENDINGS) and not hidden(name)


def read(files: list[tuple[str, int]], size: int, skip_damaged: bool = False) -> Images:
    """The (file, label) pairs as images: the shorter side scaled to ``size + 2 MARGIN``, then a centre crop.

    Raises ``DataError`` if a file is no image, unless those are left out.
    """
    side = size + 2 * MARGIN
    refuse_too_large(f"{len(files):,} images with data.image_size={size}", 2 * len(files) * 3 * size**2)
    padded = torch.empty(len(files), 3, side, side, dtype=torch.uint8)
    kept = []
    for i, (path, _) in enumerate(files):
        try:
            picture = open_picture(path)
        except DataError as error:
            if skip_damaged:
                continue
            raise DataError(f"{error}; remove it, or leave out such files by data.skip_damaged=true") from error
        kept.append(i)
        scale = side / min(picture.size)
        resized = round(picture.width * scale), round(picture.height * scale)
        picture = picture.resize(resized, Image.Resampling.BICUBIC)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        padded[i] = torch.from_numpy(np.array(square)).permute(2, 0, 1)
    labels = torch.tensor([label for _, label in files])
    if len(kept) < len(files):
        padded, labels = padded[kept], labels[kept]
    return Images(padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN].contiguous(), labels, padded)
