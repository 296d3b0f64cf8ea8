"""What measuring gives: rows of a tidy table, grids to look at, notes to read. Importing this costs nothing."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

COLUMNS = ("layer", "transform", "protocol", "amount", "measure", "value", "low", "high", "n")


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval over images, and how many images it comes from."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Row:
    """One line of ``measures.csv``. ``layer=output`` is the answer itself."""

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
    """A number for each place of a plane, to be looked at: an entry ``measure/layer`` of the run's ``grids.npz``."""

    layer: str
    measure: str
    plane: Float[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class PerImage:
    """What a number is made of, image by image, so that nets can be compared on the same images: a mean (k = 1) or a
    ratio of two means (k = 2); an entry of the run's ``per_image.npz``.
    """

    layer: str
    protocol: str
    amount: float
    measure: str
    values: Shaped[np.ndarray, "n k"]


@dataclass(frozen=True)
class Note:
    """How a family of measures was had, in a line for people: an entry of the run's ``notes.json``."""

    measure: str
    words: str
