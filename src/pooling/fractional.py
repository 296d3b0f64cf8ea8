"""``Fractional``: max pooling by a ratio that is no whole number."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..common.errors import UserError
from .base import Pool

#: the offset of a sequence of regions is a whole number of such parts of 1: then no rounding moves a region
PARTS = 2**16


class Fractional(Pool):
    """Fractional max pooling: maxima over regions whose sides are 1 or 2 pixels, irregularly, by a ratio 1 < α < 2.

    A layer of stride s is the least number j of such poolings in a row with α = s^(1/j) < 2: two of √2 at stride 2. So
    its output has the size that any pool of stride s gives, and the summary, the phase tree and the comparison of nets
    see the whole number s; only between its poolings is the stride no whole number. Each region is on average s pixels
    wide, and at most 2^j. ``poolings`` sets j.

    The regions of n pixels start at ceil(α (i + u)), Graham's pseudorandom sequences, with α = N_in / N_out. In
    training u is drawn for each forward pass, pooling and axis from torch's global generator; in eval it is 1/2. With
    ``random`` set, sides are a random permutation in training. With ``overlapping`` set, a region takes one more pixel.

    Raises:
        UserError: ``poolings`` too few for sides of at most 2 pixels.
    """

    formula = "max(x_R), R irregular, of 1 or 2 pixels a side; j times, by α = s^(1/j) < 2"
    keeps = "constants, range; aliases"
    exact = """α = 2 (j = 1 at s = 2) is max with k = 2, whatever u; else the stride between its poolings is no whole
        number, and rolls by s do not commute"""
    source = 'Graham 2014, "Fractional max-pooling"'
    differs = "in eval one sequence, u = 1/2; the author averages the answers for many drawn ones"

    tiled = True  # right for sizes; the regions are not all alike
    commutes_with_rolls = False
    poolings: int | None = None  # j; None: the least
    overlapping: bool = False
    random: bool = False

    def sizes(self, n: int) -> list[int]:
        """Sizes of an axis of n pixels before, between and after the poolings."""
        j = self.poolings or next(j for j in range(1, self.stride + 1) if self.stride < 2**j or self.stride == 1)
        if self.stride > 2**j:
            raise UserError(f"Fractional: poolings={j}: of a ratio of at most 2 each, stride {self.stride} needs more")
        m = -(-n // self.stride)
        return [n, *(min(math.ceil(m * self.stride ** (i / j)), n) for i in range(j - 1, 0, -1)), m]

    def starts(self, n: int, m: int, device: torch.device) -> Int64[Tensor, " _"]:
        """First pixel of each of the m regions of n ≤ 2m pixels, and n."""
        if self.training and self.random:
            wide = torch.randperm(m, device=device) < n - m
            return torch.cat([wide.new_zeros(1, dtype=torch.int64), (1 + wide.long()).cumsum(0)])
        if self.training:
            offset = torch.randint(1, PARTS, (), device=device)
        else:
            offset = torch.tensor(PARTS // 2, device=device)
        places = (torch.arange(m + 1, device=device) * PARTS + offset) * n
        starts = -(-places // (m * PARTS))
        return starts - starts[0]

    def along(self, x: Float[Tensor, "n c h w"], m: int, axis: int) -> Float[Tensor, "n c H W"]:
        """Maxima of m regions along one axis."""
        n = x.shape[axis]
        starts = self.starts(n, m, x.device)
        first, last = starts[:-1], starts[1:] - int(not self.overlapping)
        beyond = {"circular": last % n, "reflect": (n - 1) - (n - 1 - last).abs()}.get(
            self.border, last.clamp(max=n - 1)
        )
        samples = [first, beyond] if not self.overlapping else [first, (first + 1).minimum(starts[1:] - 1), beyond]
        picked = [select(x, axis, index) for index in samples]
        largest = picked[0]
        for other in picked[1:]:
            largest = torch.maximum(largest, other)
        return largest

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        y = self.pad_to_multiple(x)
        for height, width in zip(self.sizes(y.shape[2])[1:], self.sizes(y.shape[3])[1:], strict=True):
            y = self.along(self.along(y, height, 2), width, 3)
        return y


def select(x: Float[Tensor, "n c h w"], axis: int, index: Int64[Tensor, " _"]) -> Float[Tensor, "n c H W"]:
    """``x.index_select(axis, index)``; keeps the memory format, as that does not."""
    if x.is_contiguous():
        return x.index_select(axis, index)
    return x.permute(0, 2, 3, 1).index_select(axis - 1, index).permute(0, 3, 1, 2)


POOLS: dict[str, type[Pool]] = {"fractional": Fractional}
