"""Poolings that low-pass filter before they subsample: blur, maxblur."""

from functools import reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from src.geometry import Window
from src.pooling.base import Pool
from src.pooling.windows import Max, weigh_border


def binomial(taps: int) -> Float[Tensor, " taps"]:
    """Row ``taps - 1`` of Pascal's triangle over its sum: ``[1]``, ``[1 1]/2``, ``[1 2 1]/4`` …; gain 0 at frequency π
    from two taps on.

    >>> binomial(3).tolist()
    [0.25, 0.5, 0.25]
    """
    row: list[int] = reduce(lambda r, _: [a + b for a, b in zip([0, *r], [*r, 0], strict=True)], range(taps - 1), [1])
    return torch.tensor(row, dtype=torch.float64).div(2 ** (taps - 1)).float()


class Blur(Pool):
    """A binomial filter with m taps a side, then ``[::s]`` (BlurPool-m): max pooling's place, without its aliasing.

    m = 1 is plain subsampling, m = 2 at stride 2 is ``avg``. Keeps constants, also at the border; an even m moves the
    map's centre by half a pixel. Source: Zhang 2019, "Making convolutional networks shift-invariant again".
    """

    taps: Tensor

    def build(self) -> None:
        """Make what it holds."""
        self.register_buffer("taps", binomial(self.kernel_size), persistent=False)

    @classmethod
    def default_window(cls, stride: int) -> int:
        """Taps of the filter: 3 at stride 2 (the paper's most accurate), more as the stride grows."""
        return max(3, 2 * stride - 1)

    def multiply_adds(self, channels: int) -> int:
        """One m×m filter a channel."""
        return channels * self.kernel_size**2

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        (window,) = self.windows
        taps = self.taps.to(x.dtype)
        kernel = (taps[:, None] * taps).expand(x.shape[1], 1, -1, -1)
        y = F.conv2d(self.extend(x, window), kernel, stride=self.stride, groups=x.shape[1])
        return weigh_border(y, window, x.shape, taps) if self.border == "clip" else y


class MaxBlur(Pool):
    """``max`` with stride 1, then ``blur``: the strongest response, subsampled with little aliasing (MaxBlurPool).

    ``kernel_size`` is the maximum's window; ``taps`` the filter's size, by default that of ``blur``; one tap: ``max``.
    Source: Zhang 2019.
    """

    def __init__(
        self,
        kernel_size: int | None = None,
        stride: int | None = None,
        padding: int | None = None,
        *,
        border: str = "clip",
        ceil_mode: bool = False,
        channels: int | None = None,
        taps: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, border=border, ceil_mode=ceil_mode, channels=channels)
        self.max = Max(self.kernel_size, 1, padding, border=border)
        taps = taps or Blur.default_window(self.stride)
        centred = (taps - 1) // 2 if ceil_mode else None  # "same" has no place to round up to
        self.blur = Blur(taps, self.stride, centred, border=border, ceil_mode=ceil_mode)

    @property
    def windows(self) -> list[Window]:
        """The maximum's window, then the filter's."""
        return self.max.windows + self.blur.windows

    def multiply_adds(self, channels: int) -> int:
        """Those of the filter."""
        return self.blur.multiply_adds(channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        y: Tensor = self.blur(self.max(x))
        return y


POOLS: dict[str, type[Pool]] = {"blur": Blur, "maxblur": MaxBlur}
