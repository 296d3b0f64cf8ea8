"""Poolings that reduce each window to one number per channel: ``Max``, ``Avg`` (average), ``LP``."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .base import Pool, sum_maps, unfold_windows
from .geometry import Window


def fraction_inside(window: Window, n: int, weights: Float[Tensor, " k"]) -> Float[Tensor, " windows"]:
    """Fraction of each window's weight that lies on a map of ``n``; in (0, 1]."""
    mask = F.pad(weights.new_ones(1, 1, n), window.pads(n))
    return F.conv1d(mask, (weights / weights.sum())[None, None], stride=window.stride)[0, 0]


def renormalise_border(
    y: Float[Tensor, "n c p q"], window: Window, size: torch.Size, weights: Float[Tensor, " k"]
) -> Float[Tensor, "n c p q"]:
    """Weighted means over zero-padded windows, renormalised to the part of each window that lies on the map."""
    if not any((*window.pads(size[-2]), *window.pads(size[-1]))):
        return y
    rows, columns = fraction_inside(window, size[-2], weights), fraction_inside(window, size[-1], weights)
    return y * (rows[:, None] * columns).reciprocal()


class Max(Pool):
    """Max pooling: the strongest response in the window, wherever it is."""

    formula = "max(x_R)"
    keeps = "constants, range; aliases, and adds frequencies that the input lacks"
    exact = "commutes with adding a constant, bit for bit, and with any increasing function"
    source = 'Riesenhuber & Poggio 1999, "Hierarchical models of object recognition in cortex"'

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        (window,) = self.windows
        return F.max_pool2d(self.pad(x, window, fill=-torch.inf), self.kernel_size, self.stride)


class Avg(Pool):
    """Average pooling: a box filter, then subsampling; keeps the mean of the map."""

    formula = "mean(x_R)"
    keeps = "constants, range, mean; gain |cos(ω/2)| at frequency ω (k = 2), 0 at π"
    exact = "blur with k = 2; wavelet is twice it"
    source = 'LeCun et al. 1998, "Gradient-based learning applied to document recognition"'

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        (window,) = self.windows
        y = F.avg_pool2d(self.pad(x, window), self.kernel_size, self.stride)
        return renormalise_border(y, window, x.shape, x.new_ones(self.kernel_size)) if self.border == "clip" else y


class LP(Pool):
    """Lp pooling: between ``avg`` of the absolute value and its ``max``.

    Computed as ``m (mean (|x|/m)^p)^(1/p)`` with m the window's largest ``|x|``, against under- and overflow.
    """

    formula = "(mean |x_R|^p)^(1/p), p = 2"
    keeps = "constants, range of |x|; the sign is lost"
    exact = "p = 1 is avg of |x|; p → ∞ its max"
    source = "Hyvärinen & Köster 2007; Sermanet et al. 2012"

    p: float = 2.0

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride, ≥ 0."""
        (window,) = self.windows
        y = self.pad(x.abs(), window)
        # the result does not depend on this scale, so no gradient flows through it
        largest = F.max_pool2d(y.detach(), self.kernel_size, self.stride)
        zero = largest == 0
        scale = torch.where(zero, 1.0, largest)
        mean = sum_maps((sample / scale) ** self.p for sample in unfold_windows(y, window)) / self.kernel_size**2
        if self.border == "clip":
            mean = renormalise_border(mean, window, x.shape, x.new_ones(self.kernel_size))
        # a window of zeros has the gradient 0, not the infinite one of 0^(1/p)
        return largest * (mean + zero.to(x.dtype)) ** (1 / self.p)


POOLS: dict[str, type[Pool]] = {"max": Max, "avg": Avg, "lp": LP}
