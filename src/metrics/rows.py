"""What measuring yields: rows of a table, heatmaps, per-image values, notes. Importing this module costs nothing."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped, UInt8

COLUMNS = ("layer", "transform", "protocol", "amount", "measure", "value", "low", "high", "n")


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval over images (nan: it has none), and the number of images."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Row:
    """One line of ``measures.csv``; ``layer=output`` is the net's output, ``measure`` is in ``metrics.quantities``."""

    layer: str
    transform: str
    protocol: str
    amount: float
    measure: str
    estimate: Estimate

    def values(self) -> tuple[object, ...]:
        """In the order of ``COLUMNS``."""
        e = self.estimate
        amount = int(self.amount) if self.amount == int(self.amount) else self.amount
        return self.layer, self.transform, self.protocol, amount, self.measure, e.value, e.low, e.high, e.n


@dataclass(frozen=True)
class Heatmap:
    """A matrix to be shown as an image: the entry ``measure/layer`` of the run's ``grids.npz``."""

    layer: str
    measure: str
    values: Float[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class PerImage:
    """The statistics of each image that a number is a mean (k = 1) or a ratio of two means (k = 2) of, so that nets can
    be compared on the same images: an entry of the run's ``per_image.npz``.
    """

    layer: str
    protocol: str
    amount: float
    measure: str
    values: Shaped[np.ndarray, "n k"]


@dataclass(frozen=True)
class Pictures:
    """Images that measuring made, a row for each image that they belong to: the entry ``measure/layer`` of the run's
    ``pictures.npz``, and how far each is from what it should be, ``measure/layer/distance``.
    """

    layer: str
    measure: str
    values: UInt8[np.ndarray, "rows columns c h w"]
    distance: Float[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Note:
    """How something was measured, in one sentence: an entry of the run's ``notes.json``."""

    measure: str
    words: str


#: all that measuring yields
Result = Row | Heatmap | PerImage | Pictures | Note
