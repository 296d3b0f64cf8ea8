"""The types of a data set: its images, its parts, and its entry in the table of sets."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..errors import UserError

#: true pixels around every image, in sets whose originals are larger, for shifting a window over them
MARGIN = 8


class DataError(UserError):
    """A data set that is not available, or not readable."""


@dataclass(frozen=True)
class Images:
    """A part of a data set.

    Attributes:
        images: pixels.
        labels: class of each image.
        padded: the same images with ``MARGIN`` true pixels around them; None if the set has none.
        factors: of the object in each image: position x, y (in units of the side, in [0, 1]), size (radius, likewise)
            and angle (radians); None if unknown.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    padded: UInt8[Tensor, "n c H W"] | None = None
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

    def to(self, device: torch.device) -> "Images":
        """Images, labels and factors on a device; ``padded`` stays where it is."""
        factors = None if self.factors is None else self.factors.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), factors=factors)


@dataclass(frozen=True)
class Source:
    """A data set in its official split.

    Attributes:
        train, test: the parts.
        classes: their names.
        out_of_frame: padding of images without true pixels around them: ``black`` if the objects were cut out on black,
            ``edge`` (replicated border pixels) otherwise.
        others: further test parts, by name.
        centred: whether pixels are normalised to zero mean and unit variance; else black stays 0, the value of zero
            padding.
    """

    train: Images
    test: Images
    classes: list[str]
    out_of_frame: str
    others: dict[str, Images] = field(default_factory=dict)
    centred: bool = True


@dataclass(frozen=True)
class DataSet:
    """An entry of the table of data sets: the shape of its images, known without loading them, and its loader.

    Attributes:
        channels: of its images.
        side: height and width in pixels; None: ``data.image_size``.
        classes: how many; None: as many as ``data.root`` has folders.
        load: (data.root, data.image_size) → the set; raises ``DataError`` if it is not available.
    """

    channels: int
    side: int | None
    classes: int | None
    load: Callable[[Path, int], Source]
