"""Poolings that cut the spectrum: ideal, flc, wavelet."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor

from src.geometry import Window
from src.pooling.base import Pool, at_least_single


def along_both(
    x: Float[Tensor, "n c h w"], rows: Float[Tensor, "p h"], columns: Float[Tensor, "q w"]
) -> Float[Tensor, "n c p q"]:
    """``rows · x · columnsᵀ`` for every map, in the memory format it has."""
    if x.is_contiguous():
        return rows @ (x @ columns.mT)
    n, c, h, w = x.shape
    y = columns @ x.permute(0, 2, 3, 1).reshape(n * h, w, c)
    return (rows @ y.view(n, h, -1)).view(n, len(rows), len(columns), c).permute(0, 3, 1, 2)


class FLC(Pool):
    """The centre of the spectrum, m of N = sm frequencies an axis, as the spectrum of the smaller map.

    Formula: the lowest N/s frequencies
    Keeps: constants, mean; every frequency below the new Nyquist frequency; not the range
    Exact: a roll is a sinc shift where N/s is odd, else only for rolls by multiples of s: of the new Nyquist frequency
        it keeps one sign and not its mirror image
    Source: Grabinski et al. 2022, "FrequencyLowCut pooling"

    A filter without end. ``kernel_size`` is not used; a map that the stride does not divide is continued as the border
    says first (``clip``: the edge repeated). As products with small matrices, in float32 at least: on a CPU and maps of
    56 a fraction of the time of FFTs. They count no multiply-adds, as an FFT would not.
    """

    keeps_range = False  # negative lobes

    #: with every frequency its negative is kept, so a real map stays real on each axis alone
    symmetric: ClassVar[bool] = False

    @property
    def windows(self) -> list[Window]:
        """The tile that an output stands for, on its first sample: sizes are exact, but the field is that of the
        arithmetic; in truth every output sees the whole map."""
        return [self.window(self.stride)]

    def frequencies(self, m: int) -> range:
        """Kept, of a map of m outputs, in periods a map."""
        return range(-(m // 2), m - m // 2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        with torch.autocast(x.device.type, enabled=False):
            y = at_least_single(self.tile(x))
            rows, columns = (self.resampling(n, y) for n in y.shape[2:])
            z = along_both(y, rows.real, columns.real)
            if not self.symmetric:
                z = z - along_both(y, rows.imag, columns.imag)
            return z.to(x.dtype)

    def resampling(self, n: int, like: Tensor) -> Complex[Tensor, "p n"]:
        """From n samples to n/s, by way of the kept frequencies: ``exp(2πi k (s j - i) / n) / n`` summed over k."""
        m = n // self.stride
        k = torch.tensor([*self.frequencies(m)], device=like.device)[:, None]

        def waves(size: int) -> Complex[Tensor, "k size"]:
            # whole numbers of periods are left out before they cost digits
            phase = (k * torch.arange(size, device=like.device) % size).to(like.dtype) * (2 * math.pi / size)
            return torch.polar(torch.ones_like(phase), phase)

        return waves(m).mT @ waves(n).conj() / n


class Ideal(FLC):
    """``flc`` without the new Nyquist frequency: the ideal low-pass filter, then ``[::s]``; no aliasing at all.

    Formula: the frequencies below π/s, then [::s]
    Keeps: constants, mean; every frequency below the new Nyquist frequency; not the range
    Exact: circular, s | N: a roll by one pixel is a sinc shift of the output by 1/s pixel
    Source: Michaeli, Michaeli & Soudry 2023, "Alias-free convnets"

    No shift information is lost or made up. At even m the frequency ±1/2 is gone also at stride 1.
    """

    symmetric = True

    def frequencies(self, m: int) -> range:
        """Those strictly between -1/2 and 1/2 of a period an output."""
        return range(-((m - 1) // 2), (m - 1) // 2 + 1)


class Wavelet(Pool):
    """The low band of the Haar transform of each 2×2 tile.

    Formula: (a + b + c + d) / 2, s = 2 alone
    Keeps: constants, range, mean, each times 2; the norm of the low band (orthonormal)
    Exact: 2 · avg
    Source: Haar 1910; Li et al. 2020, "Wavelet integrated CNNs" (WaveCNet)

    ``kernel_size`` is not used; an odd map is continued as the border says (``clip``: the edge repeated).

    Raises:
        ValueError: a stride other than 2.
    """

    strides: ClassVar[tuple[int, ...]] = (2,)
    gain = 2.0

    def build(self) -> None:
        """Make what it holds."""
        if self.stride != 2:
            raise ValueError(f"one level of the Haar transform halves a map: stride 2 alone, not {self.stride}")

    @property
    def windows(self) -> list[Window]:
        """2×2 tiles."""
        return [self.window(2)]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps of half the size."""
        return 2 * F.avg_pool2d(self.tile(x), 2)


POOLS: dict[str, type[Pool]] = {"ideal": Ideal, "flc": FLC, "wavelet": Wavelet}
