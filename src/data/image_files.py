"""Pictures in files: found in folders, and opened as what a viewer shows, with 8 bits a channel."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError
from .names import class_folders, hidden

#: endings of files that are taken for pictures, as torchvision has them
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
#: values that stand for white; the first that none exceeds is taken: whole numbers come from files of 16 bits
WHITE_OF_FLOATS, WHITE_OF_INTEGERS = (1, 255, 65535), (65535,)


class DataError(UserError):
    """A data set that is not available, or not readable."""


def open_picture(path: str | Path) -> Image.Image:
    """A picture in RGB, upright (EXIF's orientation is followed), what is transparent over black.

    Whole numbers of more than 8 bits are scaled from [0, 65535], floats from [0, 1] where none exceeds 1, else from
    [0, 255] where none exceeds that, else from [0, 65535]. Of several frames it is the first.

    Raises:
        DataError: the file is no picture, or has values outside these ranges.
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
    except Exception as error:  # each format's reader raises kinds of its own for a broken file
        raise DataError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture, dtype=np.float64)
    low, high = values.min(), values.max()
    ranges = WHITE_OF_FLOATS if picture.mode == "F" else WHITE_OF_INTEGERS
    white = next((one for one in ranges if low >= 0 and high <= one), None)
    if white is None:
        raise ValueError(f"its values go from {low:g} to {high:g}; save it with 8 or 16 bits, or from 0 to 1")
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def labelled(root: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """(file, class) of every picture in ``root/CLASS``, at any depth, and the classes, in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder, or one of them holds no picture.
    """
    folders = class_folders(root)
    if not folders:
        raise FileNotFoundError(f"no folder of a class in {root}")
    files = []
    for label, folder in enumerate(folders):
        found = pictures(folder)
        if not found:
            raise FileNotFoundError(f"no image in {folder}")
        files += [(path, label) for path in found]
    return files, [one.name for one in folders]


def pictures(folder: Path) -> list[str]:
    """The pictures in a folder, at any depth, but for those in hidden folders."""
    found = []
    for at, _, names in sorted(os.walk(folder, followlinks=True)):
        if not any(hidden(part) for part in Path(at).relative_to(folder).parts):
            found += [str(Path(at, one)) for one in sorted(names) if is_picture(one)]
    return found


def is_picture(name: str) -> bool:
    """Whether a file is named as a picture; hidden ones are none."""
    return name.lower().endswith(ENDINGS) and not hidden(name)
