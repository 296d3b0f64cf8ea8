"""Learned mixtures of average and max: ``Mixed``, ``Gated``."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import Pool, Size
from .windows import Avg, Max


class Mixed(Pool):
    """Mixed pooling: one learned mixture of maximum and mean for the whole layer."""

    formula = "a max(x_R) + (1 − a) mean(x_R)"
    keeps = "constants; the range for a in [0, 1], where it starts (1/2) and to which nothing confines it"
    exact = "a = 1 is max, a = 0 is avg"
    source = 'Lee, Gallagher & Tu 2016, "Generalizing pooling functions in CNNs: mixed, gated, and tree"'

    def build(self) -> None:
        """Make both pools and the learned parameters."""
        self.max, self.avg = (
            pool(self.kernel_size, self.stride, self.padding, border=self.border, ceil_mode=self.ceil_mode)
            for pool in (Max, Avg)
        )
        self.add_weights()

    def add_weights(self) -> None:
        """Make the learned parameters."""
        self.a = nn.Parameter(torch.tensor(0.5))

    def parameters_by_formula(self, channels: int) -> int:
        """The mixing weight a."""
        return 1

    def mixing_weight(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Weight a of the maximum: one number, or one per window."""
        return self.a

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        a = self.mixing_weight(x)
        y: Tensor = a * self.max(x) + (1 - a) * self.avg(x)
        return y.to(x.dtype)


class Gated(Mixed):
    """Gated pooling: ``mixed`` with a gate per window, from one learned k×k mask w and one bias b for all channels.

    The part of a clipped window outside the map adds nothing to w · x_R.
    """

    formula = "mixed with a = σ(w · x_R + b)"
    keeps = "constants, range"
    exact = "w = b = 0, where it starts, is mixed with a = 1/2; b → ∞ is max, b → −∞ avg"
    source = 'Lee, Gallagher & Tu 2016, "Generalizing pooling functions in CNNs: mixed, gated, and tree"'

    def add_weights(self) -> None:
        """Make the mask and the bias."""
        self.weight = nn.Parameter(torch.zeros(1, 1, self.kernel_size, self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(1))

    def parameters_by_formula(self, channels: int) -> int:
        """k² of the mask and one bias."""
        return self.kernel_size**2 + 1

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """One k×k filter per channel."""
        return channels * self.kernel_size**2 * math.prod(output_size)

    def mixing_weight(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """The gate of each window."""
        c = x.shape[1]
        y = self.pad(x, self.windows[0])
        return F.conv2d(y, self.weight.expand(c, -1, -1, -1), self.bias.expand(c), self.stride, groups=c).sigmoid()


POOLS: dict[str, type[Pool]] = {"mixed": Mixed, "gated": Gated}
