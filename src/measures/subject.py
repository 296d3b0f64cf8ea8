"""What is measured, and on what: a net with how it takes images, and the images."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn


@dataclass(frozen=True)
class Subject:
    """A net, and how it takes images: all that measuring needs to know about it.

    Attributes:
        net: images → outputs.
        layers: names of the modules to look at.
        normalise: pixels in 0 … 255 (n, c, h, w) → what the net takes.
        answer: the part of the outputs that is the answer.
        what: whether the answer is a class.
    """

    net: nn.Module
    layers: list[str]
    normalise: Callable[[Tensor], Tensor]
    answer: Callable[[Tensor], Tensor] = lambda outputs: outputs
    what: bool = True


@dataclass(frozen=True)
class Scene:
    """Test images to measure on, with ``margin`` pixels around each.

    Attributes:
        canvas: n ≥ 2 images.
        margin: in pixels; the largest shift.
        labels: None where they are not the net's classes.
        positions: of the objects, None where they are not known.
        seed: of all that is drawn.
    """

    canvas: UInt8[Tensor, "n c H W"]
    margin: int
    labels: Int64[Tensor, " n"] | None = None
    positions: Float[Tensor, "n _"] | None = None
    seed: int = 0
