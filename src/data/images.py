"""The types of a data set: its images, its parts, and its entry in the table of sets."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..common.errors import UserError

#: true pixels around every image, in sets whose originals are larger, for shifting a window over them
MARGIN = 8


class DataError(UserError):
    """A data set that is not available, or not readable."""


@dataclass(frozen=True)
class Images:
    """A part of a data set."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]  # class of each image
    padded: UInt8[Tensor, "n c H W"] | None = None  # with ``MARGIN`` true pixels around each; None: the set has none
    #: of the object in each image: position x, y (in units of the side, in [0, 1]), size (radius, likewise) and angle
    #: (radians); None if unknown
    factors: Float[Tensor, "n 4"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Int64[Tensor, " m"]) -> "Images":
        """The images with these indices."""
        padded = None if self.padded is None else self.padded[index]
        factors = None if self.factors is None else self.factors[index]
        return Images(self.images[index], self.labels[index], padded, factors)

    @property
    def positions(self) -> Float[Tensor, "n _"]:
        """Position x, y of each object; shape (n, 0) if unknown."""
        return self.labels.new_empty(len(self), 0).float() if self.factors is None else self.factors[:, :2]

    @property
    def sizes(self) -> Float[Tensor, " n"] | None:
        """Size of each object; None if unknown."""
        return None if self.factors is None else self.factors[:, 2]

    def to(self, device: torch.device) -> "Images":
        """Images, labels and factors on a device; ``padded`` stays where it is."""
        factors = None if self.factors is None else self.factors.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), factors=factors)


@dataclass(frozen=True)
class Source:
    """A data set in its official split."""

    train: Images
    test: Images
    classes: list[str]
    #: padding of images without true pixels around them: ``black`` if the objects were cut out on black, else ``edge``
    #: (replicated border pixels)
    out_of_frame: str
    others: dict[str, Images] = field(default_factory=dict)  # further test parts, by name
    centred: bool = True  # pixels are normalised to mean 0 and variance 1; else black stays 0, as in zero padding
    #: the least and the largest size of an object, in units of the side, if it is uniform in between; None: unknown
    object_size: tuple[float, float] | None = None
    skipped: int = 0  # files that were left out, as they could not be read


@dataclass(frozen=True)
class DataSet:
    """An entry of the table of data sets: the shape of its images, known without loading them, and its loader."""

    channels: int
    side: int | None  # height and width in pixels; None: ``data.image_size``
    classes: int | None  # how many; None: as many as ``data.root`` has folders
    #: (data.root, data.image_size) → the set; ``DataError`` if it is not available
    load: Callable[[Path, int], Source]
    #: the same for other sizes of objects, ``data.object_size``; None: they cannot be chosen
    load_sized: Callable[[Path, int, tuple[float, float]], Source] | None = None
    #: the same without the files that cannot be read; None: it has none
    load_readable: Callable[[Path, int], Source] | None = None
    others: tuple[str, ...] = ()  # names of the further test parts, ``Source.others``
