"""``data=shapes``: rendered shapes with known class, position, size and angle, for classification and localization."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ...common.memory import refuse_too_large
from ..images import MARGIN, DataSet, Images, Source

Field = Float[Tensor, "n h w"]
#: least and largest radius, of the image's side
RADII = (0.12, 0.25)


def _box(u: Field, v: Field, a: float, b: float) -> Field:
    return torch.maximum(u.abs() - a, v.abs() - b)


def _disk(u: Field, v: Field) -> Field:
    return torch.hypot(u, v) - 1


def _triangle(u: Field, v: Field) -> Field:
    s = math.sqrt(3) / 2
    return torch.stack([v, s * u - v / 2, -s * u - v / 2]).amax(0) - 0.5


#: signed distance to the outline in units of the shape's radius, negative inside; all fit the unit disk
CLASSES: dict[str, Callable[[Field, Field], Field]] = {
    "disk": _disk,
    "ring": lambda u, v: (torch.hypot(u, v) - 0.8).abs() - 0.2,
    "half": lambda u, v: torch.maximum(_disk(u, v), -v),
    "square": lambda u, v: _box(u, v, 0.7, 0.7),
    "frame": lambda u, v: torch.maximum(_box(u, v, 0.7, 0.7), -_box(u, v, 0.35, 0.35)),
    "bar": lambda u, v: _box(u, v, 0.95, 0.3),
    "cross": lambda u, v: torch.minimum(_box(u, v, 0.95, 0.28), _box(u, v, 0.28, 0.95)),
    "triangle": _triangle,
}


def render(
    count: int, size: int, margin: int, seed: int, radii: tuple[float, float] = RADII
) -> tuple[UInt8[Tensor, "n 1 H W"], Int64[Tensor, " n"], Float[Tensor, "n 4"]]:
    """One shape per image, anti-aliased, lighter than its background, with pixel noise of standard deviation 0.03.

    Classes are balanced; centre, radius (in ``radii``, of the side), angle and both grey levels are uniform. The shape
    lies inside the central ``size × size`` pixels; the background continues over the margin.

    The same ``seed`` gives the same images on any machine with the same torch.

    Returns:
        padded images (side ``size + 2 margin``), labels, and factors x, y, radius (of ``size``) and angle (radians).
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Float[Tensor, " n"]:
        return low + (high - low) * torch.rand(count, generator=generator)

    labels = (torch.arange(count) % len(CLASSES))[torch.randperm(count, generator=generator)]
    radius, angle = uniform(*radii), uniform(0.0, 2 * math.pi)
    x, y = (radius + (1 - 2 * radius) * uniform(0.0, 1.0) for _ in range(2))
    background, contrast = uniform(0.05, 0.35), uniform(0.3, 0.6)
    pixels = (torch.arange(-margin, size + margin) + 0.5) / size
    padded = torch.empty(count, 1, len(pixels), len(pixels), dtype=torch.uint8)
    for label, outline in enumerate(CLASSES.values()):
        for index in (labels == label).nonzero()[:, 0].split(512):
            r, a = radius[index, None, None], angle[index, None, None]
            u = (pixels[None, None, :] - x[index, None, None]) / r
            v = (pixels[None, :, None] - y[index, None, None]) / r
            distance = outline(u * a.cos() + v * a.sin(), v * a.cos() - u * a.sin()) * r * size
            cover = (0.5 - distance).clamp(0, 1)
            grey = background[index, None, None] + contrast[index, None, None] * cover
            grey += 0.03 * torch.randn(grey.shape, generator=generator)
            padded[index, 0] = grey.clamp(0, 1).mul(255).round().to(torch.uint8)
    return padded, labels, torch.stack([x, y, radius, angle], 1)


def _load(root: Path, size: int, radii: tuple[float, float] = RADII) -> Source:
    refuse_too_large(f"data.image_size={size}", 2 * 14_000 * size**2)
    parts = []
    for count, seed in ((12_000, 1), (2_000, 2)):
        padded, labels, factors = render(count, size, MARGIN, seed, radii)
        images = padded[..., MARGIN : MARGIN + size, MARGIN : MARGIN + size].contiguous()
        parts.append(Images(images, labels, padded, factors))
    train, test = parts
    return Source(train, test, list(CLASSES), "edge", object_size=radii)


SETS = {"shapes": DataSet(1, None, len(CLASSES), _load, _load)}
