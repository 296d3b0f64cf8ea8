"""Layers that architectures choose from by name: paddings, heads, norms, activations."""

from collections.abc import Callable

from torch import nn

from .norm import BatchNorm2d

#: what a k×k convolution sees beyond the border, and how many pixels of it: same (k // 2), full (k - 1), valid (none)
PADDINGS = ("zeros", "circular", "reflect", "replicate", "full", "valid")
#: those that continue the map, which a pool's windows then see too; with the others a window is cut off at the border
CONTINUED = ("circular", "reflect", "replicate")
#: what makes one vector of an image's maps: their means, their maxima, or all of their values
HEADS = {"gap": nn.AdaptiveAvgPool2d, "gmp": nn.AdaptiveMaxPool2d, "flatten": None}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "none": lambda channels: nn.Identity(),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
