"""The data sets: found in the data folder, or where the system keeps them, or downloaded; whole, as uint8 tensors."""

import gzip
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from . import red_green
from .image_files import DataError, labelled, open_picture
from .names import halves
from .shapes import CLASSES, render

__all__ = ["MARGIN", "DataError", "Images", "Source", "load", "place", "read"]

#: true pixels around every image that sets with a larger original keep, for shifting a window over it
MARGIN = 8
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
UNPACKED = "debian"  # where `make data` unpacks that package, in the data folder


@dataclass(frozen=True)
class Images:
    """A part of a data set.

    Attributes:
        images: pixels.
        labels: class of each.
        canvas: the same images with ``MARGIN`` true pixels around them, where the set has them.
        factors: position x, y (of the image's side, in [0, 1]), size (radius, likewise) and angle (radians) of the
            object, where the set knows them.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    canvas: UInt8[Tensor, "n c H W"] | None = None
    factors: Float[Tensor, "n 4"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Int64[Tensor, " m"]) -> "Images":
        """The images of those numbers."""
        canvas = None if self.canvas is None else self.canvas[index]
        factors = None if self.factors is None else self.factors[index]
        return Images(self.images[index], self.labels[index], canvas, factors)

    @property
    def positions(self) -> Float[Tensor, "n _"]:
        """Position x, y; (n, 0) where the set does not know it."""
        return self.labels.new_empty(len(self), 0).float() if self.factors is None else self.factors[:, :2]

    def to(self, device: torch.device) -> "Images":
        """Images and what is asked about them on a device; what only measures use stays where it is."""
        factors = None if self.factors is None else self.factors.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), factors=factors)


@dataclass(frozen=True)
class Source:
    """A data set as its makers split it.

    Attributes:
        train, test: its parts.
        classes: their names.
        beyond: what lies outside an image that has no canvas: ``black`` where the makers cut objects out on black,
            ``edge`` (the border pixels repeated) where nothing is known.
        others: further test parts, by name.
        centred: whether nets get pixels of zero mean and unit variance; else black stays 0, so that zero padding goes
            on with the ground.
    """

    train: Images
    test: Images
    classes: list[str]
    beyond: str
    others: dict[str, Images] = field(default_factory=dict)
    centred: bool = True


def load(name: str, root: str, image_size: int, canvas: int | None = None) -> Source:
    """A data set by name; kept in memory, so that the next job of a sweep has it at once.

    Args:
        name: of the set.
        root: folder of data sets (of the set itself, for ``folder``).
        image_size: side of the square that images without a size of their own come in.
        canvas: side of the black square that every image is placed on; None: images as they are.

    Raises:
        DataError: it is not there and cannot be fetched; the message names the ways to get it.
    """
    return _load(name, str(Path(root).expanduser()), image_size, canvas)


@lru_cache(maxsize=2)
def _load(name: str, root: str, image_size: int, canvas: int | None) -> Source:
    if canvas is not None:
        return _placed(_load(name, root, image_size, None), canvas)
    if name == "shapes":
        return _shapes(image_size)
    if name == "red_green":
        return _red_green(image_size)
    if name == "folder":
        return _folder(Path(root), image_size)
    return _torchvision(name, Path(root))


# --- torchvision's sets --------------------------------------------------------------------------------------------


def _torchvision(name: str, root: Path) -> Source:
    from torchvision import datasets

    makers: dict[str, Callable[..., datasets.VisionDataset]] = {
        "fashion_mnist": datasets.FashionMNIST,
        "mnist": datasets.MNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }
    make = makers[name]
    if name == "fashion_mnist" and not _present(make, root):
        _unpack_debian(root)
    if not _present(make, root):
        try:
            make(root, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(_ways(name, root)) from error
    try:
        train, test = (make(root, train=flag) for flag in (True, False))
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise DataError(f"data={name} in {root} cannot be read ({error}); remove it there to get it again") from error
    beyond = "black" if "mnist" in name else "edge"
    return Source(_tensors(train), _tensors(test), [str(one) for one in train.classes], beyond)


def _present(make: Callable[..., object], root: Path) -> bool:
    try:
        make(root, train=False)
    except RuntimeError:
        return False
    except (OSError, ValueError, EOFError):
        return True  # it is there, and reading it again says what is wrong with it
    return True


def _tensors(part: object) -> Images:
    pixels = torch.as_tensor(part.data)  # type: ignore[attr-defined]
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return Images(pixels.contiguous(), torch.as_tensor(part.targets).long())  # type: ignore[attr-defined]


def _unpack_debian(root: Path) -> None:
    """Debian keeps torchvision's files gzipped under other checksums; unpack them where torchvision looks for them."""
    target = root / "FashionMNIST" / "raw"
    inside = root / UNPACKED / DEBIAN_FASHION_MNIST.relative_to("/")
    packed = next((one for one in (inside, DEBIAN_FASHION_MNIST) if one.is_dir()), None)
    if packed is None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole = Path(folder) / "raw"
        whole.mkdir()
        for file in packed.glob("*.gz"):
            with gzip.open(file) as source, (whole / file.stem).open("wb") as out:
                shutil.copyfileobj(source, out)
        shutil.rmtree(target, ignore_errors=True)  # what is there was not readable
        whole.rename(target)


def _ways(name: str, root: Path) -> str:
    ways = [f"put its files under {root} (data.root=FOLDER)"]
    if name == "fashion_mnist":
        ways.append("install Debian's package dataset-fashion-mnist, or run `make data`")
    ways.append("run with a network, so that torchvision downloads it")
    return f"data={name} is not here and could not be downloaded: {'; or '.join(ways)} (data=shapes needs no files)"


# --- a folder of images --------------------------------------------------------------------------------------------


def _folder(root: Path, size: int) -> Source:
    """``root/{train,test}/CLASS/*``; or ``root/CLASS/*``, of which every fifth file of a class is for testing."""
    train_root, test_root = halves(root)
    try:
        if train_root != test_root:
            (train, classes), (test, others) = labelled(train_root), labelled(test_root)
            if classes != others:
                raise DataError(f"data=folder: {root}/train and {root}/test hold different classes")
            return Source(read(train, size), read(test, size), classes, "edge")
        every, classes = labelled(root)
    except FileNotFoundError as error:
        raise DataError(
            f"data=folder: data.root={root} must hold CLASS/*.png, or train/CLASS/*.png and test/CLASS/*.png ({error})"
        ) from error
    labels = [label for _, label in every]
    held = [(i - labels.index(label)) % 5 == 4 for i, label in enumerate(labels)]
    train = [one for one, out in zip(every, held, strict=True) if not out]
    test = [one for one, out in zip(every, held, strict=True) if out]
    if not test:
        raise DataError(f"data=folder: {len(train)} images in {root} are too few to hold any out for testing")
    return Source(read(train, size), read(test, size), classes, "edge")


def read(files: list[tuple[str, int]], size: int) -> Images:
    """Every image with its shorter side scaled to ``size + 2 MARGIN``, its middle square taken as the canvas.

    Raises:
        DataError: a file is no image.
    """
    whole = size + 2 * MARGIN
    canvas = torch.empty(len(files), 3, whole, whole, dtype=torch.uint8)
    for i, (path, _) in enumerate(files):
        picture = open_picture(path)
        scale = whole / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
        )
        left, top = (picture.width - whole) // 2, (picture.height - whole) // 2
        square = picture.crop((left, top, left + whole, top + whole))
        canvas[i] = torch.from_numpy(np.array(square)).permute(2, 0, 1)
    labels = torch.tensor([label for _, label in files])
    return Images(canvas[..., MARGIN:-MARGIN, MARGIN:-MARGIN].contiguous(), labels, canvas)


# --- rendered shapes -----------------------------------------------------------------------------------------------


def _shapes(size: int) -> Source:
    parts = []
    for count, seed in ((12_000, 1), (2_000, 2)):
        canvas, labels, factors = render(count, size, MARGIN, seed)
        inner = canvas[..., MARGIN : MARGIN + size, MARGIN : MARGIN + size].contiguous()
        parts.append(Images(inner, labels, canvas, factors))
    train, test = parts
    return Source(train, test, list(CLASSES), "edge")


# --- the red-green task --------------------------------------------------------------------------------------------


def _red_green(size: int) -> Source:
    if size % 32:
        raise DataError(f"data.image_size={size}: data=red_green needs a multiple of 32")
    images, _, labels = red_green.render(3_000, size, seed=1)
    similar, dissimilar, test_labels = red_green.render(1_000, size, seed=2)
    test, moved = Images(similar, test_labels), Images(dissimilar, test_labels)
    others = {"dissimilar": moved}
    return Source(Images(images, labels), test, list(red_green.CLASSES), "black", others, centred=False)


# --- any set, on a larger canvas -----------------------------------------------------------------------------------


def _placed(source: Source, side: int) -> Source:
    """The set with every image somewhere on a black square; where, is drawn once, for training and test apart."""
    height, width = source.test.images.shape[-2:]
    if side < max(height, width):
        raise DataError(f"data.canvas={side}: smaller than the images, which are {height}×{width}")
    others = {name: place(part, side, seed=2) for name, part in source.others.items()}  # where their twins lie
    train, test = place(source.train, side, seed=1), place(source.test, side, seed=2)
    return replace(source, train=train, test=test, others=others, beyond="black")


def place(part: Images, side: int, seed: int) -> Images:
    """Each image on black, its place uniform over those that hold it whole; its factors say where.

    Args:
        part: images of at most ``side``; what they know of their object is carried over.
        side: of the new images.
        seed: of the places.
    """
    n, channels, height, width = part.images.shape
    generator = torch.Generator().manual_seed(seed)
    top = torch.randint(0, side - height + 1, (n,), generator=generator)
    left = torch.randint(0, side - width + 1, (n,), generator=generator)
    images = torch.zeros(n, channels, side, side, dtype=torch.uint8)
    for i, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        images[i, :, y : y + height, x : x + width] = part.images[i]
    x, y, size, angle = (torch.tensor([0.5, 0.5, 0.5, 0.0]).expand(n, 4) if part.factors is None else part.factors).T
    factors = torch.stack([(left + x * width) / side, (top + y * height) / side, size * width / side, angle], 1)
    return Images(images, part.labels, factors=factors)


if __name__ == "__main__":
    import sys

    try:
        source = load("fashion_mnist", sys.argv[1], 0)
    except DataError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    print(f"Fashion-MNIST: {len(source.train)} + {len(source.test)} images in {sys.argv[1]}/")
