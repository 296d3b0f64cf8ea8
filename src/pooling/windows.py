"""Poolings that reduce each window to one number per channel: max, avg, lp."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .base import Pool, samples, total
from .geometry import Window


def share_inside(window: Window, n: int, weights: Float[Tensor, " k"]) -> Float[Tensor, " places"]:
    """Share of the window's weight that lies on a map of ``n``, at each of its places; in (0, 1]."""
    inside = F.pad(weights.new_ones(1, 1, n), window.pads(n))
    return F.conv1d(inside, (weights / weights.sum())[None, None], stride=window.stride)[0, 0]


def weigh_border(
    y: Float[Tensor, "n c p q"], window: Window, size: torch.Size, weights: Float[Tensor, " k"]
) -> Float[Tensor, "n c p q"]:
    """A weighted mean over zero-filled windows, made the mean over the part of each window that lies on the map."""
    if not any((*window.pads(size[-2]), *window.pads(size[-1]))):
        return y
    rows, columns = share_inside(window, size[-2], weights), share_inside(window, size[-1], weights)
    return y * (rows[:, None] * columns).reciprocal()


class Max(Pool):
    """The strongest response in the window, wherever it stood."""

    formula = "max(x_R)"
    keeps = "constants, range; aliases, and makes frequencies of its own"
    exact = "commutes with adding a constant, bit for bit, and with any increasing function"
    source = 'Riesenhuber & Poggio 1999, "Hierarchical models of object recognition in cortex"'

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        (window,) = self.windows
        return F.max_pool2d(self.extend(x, window, fill=-torch.inf), self.kernel_size, self.stride)


class Avg(Pool):
    """A box filter, then subsampling: keeps the mean of the map, blurs where it stood."""

    formula = "mean(x_R)"
    keeps = "constants, range, mean; gain |cos(ω/2)| at frequency ω (k = 2), 0 at π"
    exact = "blur with k = 2; wavelet is twice it"
    source = 'LeCun et al. 1998, "Gradient-based learning applied to document recognition"'

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        (window,) = self.windows
        y = F.avg_pool2d(self.extend(x, window), self.kernel_size, self.stride)
        return weigh_border(y, window, x.shape, x.new_ones(self.kernel_size)) if self.border == "clip" else y


class LP(Pool):
    """Between ``avg`` of the absolute value and its ``max``.

    Computed as ``m (mean (|x|/m)^p)^(1/p)`` with m the window's largest ``|x|``, so that no power under- or overflows.
    """

    formula = "(mean |x_R|^p)^(1/p), p = 2"
    keeps = "constants, range of |x|; the sign is lost"
    exact = "p = 1 is avg of |x|; p → ∞ its max"
    source = "Hyvärinen & Köster 2007; Sermanet et al. 2012"

    p: float = 2.0

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride, ≥ 0."""
        (window,) = self.windows
        y = self.extend(x.abs(), window)
        # a scale, not a function of x: the result does not depend on it, so no gradient flows through it
        largest = F.max_pool2d(y.detach(), self.kernel_size, self.stride)
        empty = largest == 0
        scale = torch.where(empty, 1.0, largest)
        mean = total((part / scale) ** self.p for part in samples(y, window)) / self.kernel_size**2
        if self.border == "clip":
            mean = weigh_border(mean, window, x.shape, x.new_ones(self.kernel_size))
        # an empty window has the value 0 and the gradient 0, not 0^(1/p) with an infinite one
        return largest * (mean + empty.to(x.dtype)) ** (1 / self.p)


POOLS: dict[str, type[Pool]] = {"max": Max, "avg": Avg, "lp": LP}
