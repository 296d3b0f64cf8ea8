"""Layers that architectures choose from by name: paddings, heads, norms, activations."""

from collections.abc import Callable

from torch import nn

from ..pooling.heads import Attention, GeM
from .norm import BatchNorm2d

#: padding of k×k convolutions: ``full`` k - 1 zeros on each side, ``valid`` none, the others k // 2 pixels
PADDINGS = ("zeros", "circular", "reflect", "replicate", "full", "valid")
#: paddings that are also the ``border`` of pools; with the others windows of pools are cut off at the border
CONTINUED = ("circular", "reflect", "replicate")
#: global pooling of the last maps, by their channels; ``flatten``: none, all values go to the linear layer
HEADS: dict[str, Callable[[int], nn.Module] | None] = {
    "gap": lambda channels: nn.AdaptiveAvgPool2d(1),
    "gmp": lambda channels: nn.AdaptiveMaxPool2d(1),
    "gem": lambda channels: GeM(),
    "attention": Attention,
    "flatten": None,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "none": lambda channels: nn.Identity(),
}
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
