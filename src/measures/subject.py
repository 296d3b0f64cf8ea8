"""What measuring needs: a net with the layers to look at, and images to look with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor, nn

from src.measures import Row, pair_measures
from src.measures.shifts import shift_rows


def identity(outputs: Tensor) -> Tensor:
    """The outputs themselves."""
    return outputs


@dataclass(frozen=True)
class Subject:
    """A net, and how it takes images: all that measuring needs to know about it.

    Attributes:
        net: takes what ``normalise`` gives.
        layers: names of the modules to look at.
        normalise: pixels from 0 to 255 (n c h w), bytes or floats, to what the net takes.
        answer: the part of the net's outputs that is the answer (n d).
        what: whether the answer is a class.
    """

    net: nn.Module
    layers: list[str]
    normalise: Callable[[Tensor], Tensor]
    answer: Callable[[Tensor], Tensor] = identity
    what: bool = True


@dataclass(frozen=True)
class Scene:
    """Test images to measure on.

    Attributes:
        canvas: the images with ``margin`` pixels around each; n ≥ 2.
        margin: largest shift, in pixels.
        labels: class of each, where the net was asked for it.
        positions: x, y of the object in each, in units of the side, where they are known.
        seed: of all that is drawn.
    """

    canvas: UInt8[Tensor, "n c H W"]
    margin: int
    labels: Int64[Tensor, " n"] | None = None
    positions: Float[Tensor, "n _"] | None = None
    seed: int = 0


def normaliser(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """Pixels from 0 to 255 → ``(pixels / 255 - mean) / std``, channels last in memory.

    >>> normaliser((0.5,), (0.25,))(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)).tolist()
    [[[[-2.0, 2.0]]]]
    """
    scale, shift = 1 / (255 * torch.tensor(std)), torch.tensor(mean) / torch.tensor(std)

    def normalise(pixels: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        x = pixels.to(torch.float32, memory_format=torch.channels_last)
        return x * scale.to(x.device)[:, None, None] - shift.to(x.device)[:, None, None]

    return normalise


def rows(subject: Subject, scene: Scene) -> Iterator[Row]:
    """All rows of a net on some images.

    >>> from src.nets import default_layers
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    >>> pixels = torch.arange(3 * 12 * 12).view(3, 1, 12, 12).remainder(251).to(torch.uint8)
    >>> subject = Subject(net, default_layers(net, (1, 8, 8)), normaliser((0.5,), (0.5,)))
    >>> found = list(rows(subject, Scene(pixels, margin=2)))
    >>> sorted({row.layer for row in found})
    ['1', '2', '3', 'output']
    """
    measures = [kind for kind in pair_measures() if subject.what or not kind.of_classes]
    return shift_rows(
        subject.net,
        subject.layers,
        scene.canvas,
        scene.margin,
        subject.normalise,
        measures,
        scene.seed,
        subject.answer,
        scene.labels,
    )
