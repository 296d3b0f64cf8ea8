"""Poolings that low-pass filter before they subsample: ``Blur`` (BlurPool), ``MaxBlur`` (MaxBlurPool)."""

import math
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .base import Pool, Size
from .geometry import Window
from .windows import Max, renormalise_border


def binomial(taps: int) -> Float[Tensor, " taps"]:
    """Binomial filter: row ``taps - 1`` of Pascal's triangle, normalised. With two taps or more, its gain at π is 0.

    >>> binomial(3).tolist()
    [0.25, 0.5, 0.25]
    """
    row: list[int] = reduce(lambda r, _: [a + b for a, b in zip([0, *r], [*r, 0], strict=True)], range(taps - 1), [1])
    return torch.tensor([number / 2 ** (taps - 1) for number in row])  # from 68 taps on they are beyond int64


class Blur(Pool):
    """BlurPool: a binomial filter with m taps per side, then ``[::s]``; aliases less than max pooling.

    Preserves constants at the border too; an even m shifts the map by half a pixel.
    """

    formula = "(binomial_m ∗ x)[::s], m = 3"
    keeps = "constants, range, mean (s = 2); gain |cos(ω/2)|^(m − 1) at frequency ω, 0 at π"
    exact = "m = 1 is x[::s], m = 2 is avg; the map's mean does not see rolls (s = 2, m ≥ 2)"
    source = 'Zhang 2019, "Making convolutional networks shift-invariant again"'
    differs = """for 2 < m ≤ s, as m = s = 3, the first window starts at the border; the authors' is centred on the
        first sample"""

    taps: Tensor

    def build(self) -> None:
        """Make the filter."""
        self.register_buffer("taps", binomial(self.kernel_size), persistent=False)

    @classmethod
    def default_window(cls, stride: int) -> int:
        """Taps of the filter: 3 at stride 2 (the most accurate in the paper), ``2 stride - 1`` above."""
        return max(3, 2 * stride - 1)

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """One m×m filter per channel."""
        return channels * self.kernel_size**2 * math.prod(output_size)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        (window,) = self.windows
        taps = self.taps.to(x.dtype)
        kernel = (taps[:, None] * taps).repeat(x.shape[1], 1, 1, 1)
        padded, zeros = self.pad_for_convolution(x, window)
        y = F.conv2d(padded, kernel, stride=self.stride, padding=zeros, groups=x.shape[1])
        return renormalise_border(y, window, x.shape, taps) if self.border == "clip" else y


class MaxBlur(Pool):
    """MaxBlurPool: ``max`` with stride 1, then ``blur``; max pooling with less aliasing.

    ``kernel_size`` is the window of the maximum; ``taps`` the size of the filter, by default that of ``blur``.
    """

    formula = "(binomial_m ∗ max(x_R))[::s], m = 3"
    keeps = "constants, range; of the maximum's map what blur keeps"
    exact = "m = 1 is max; the map's mean does not see rolls (s = 2)"
    source = 'Zhang 2019, "Making convolutional networks shift-invariant again"'
    differs = """the maximum's map has N samples, the authors' N − 1: the last row and column differ, and at odd N they
        have none"""

    def __init__(self, *args: Any, taps: int | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.max = Max(self.kernel_size, 1, self.padding, border=self.border)
        taps = taps or Blur.default_window(self.stride)
        centred = (taps - 1) // 2 if self.ceil_mode else None  # "same" padding has no ceil mode
        self.blur = Blur(taps, self.stride, centred, border=self.border, ceil_mode=self.ceil_mode)

    @property
    def windows(self) -> list[Window]:
        """The window of the maximum, then that of the filter."""
        return self.max.windows + self.blur.windows

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """Those of the blur filter; a maximum counts as none."""
        return self.blur.multiply_adds(channels, input_size, output_size)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        y: Tensor = self.blur(self.max(x))
        return y


POOLS: dict[str, type[Pool]] = {"blur": Blur, "maxblur": MaxBlur}
