"""Poolings that cut the spectrum: ideal, flc, wavelet."""

import copy
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from .base import Pool, Size, at_least_single
from .geometry import Window


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

    A filter without end. ``kernel_size`` is not used; a map that the stride does not divide is continued as the border
    says first (``clip``: the edge repeated). As products with small matrices, in float32 at least: on a CPU and maps of
    56 a fraction of the time of FFTs.
    """

    formula = "the lowest N/s frequencies"
    keeps = "constants, mean; every frequency below the new Nyquist frequency; not the range"
    exact = (
        "a roll is a sinc shift where N/s is odd, else only for rolls by multiples of s: of the new Nyquist "
        "frequency it keeps one sign and not its mirror image"
    )
    source = 'Grabinski et al. 2022, "FrequencyLowCut pooling"'
    differs = "where 4 does not divide N the authors' slice of the spectrum is off its centre by one frequency"

    keeps_range = False  # negative lobes

    #: with every frequency its negative is kept, so a real map stays real on each axis alone
    symmetric: ClassVar[bool] = False

    def build(self) -> None:
        """Make what it holds."""
        #: pixels between its outputs
        self.step = self.stride

    def dense(self) -> "FLC":
        """The same filter with no sample left out."""
        twin = copy.copy(self)
        twin.step = 1
        return twin

    @property
    def windows(self) -> list[Window]:
        """The tile that an output stands for, on its first sample: sizes are exact, but the field is that of the
        arithmetic; in truth every output sees the whole map."""
        return [self.window(self.stride)]

    def frequencies(self, m: int) -> range:
        """Kept, of a map of m outputs, in periods a map."""
        return range(-(m // 2), m - m // 2)

    def one_sided(self, *m: int) -> bool:
        """Whether a frequency is kept without its negative, on all axes of so many outputs."""
        return not self.symmetric and not any(one % 2 for one in m)

    def multiply_adds(self, channels: int, read: Size, made: Size) -> int:
        """Of the products with both matrices; where a frequency is one-sided, of rank two as well."""
        (p, q), (h, w) = made, (one * self.stride for one in made)
        return channels * (h * w * q + p * h * q + self.one_sided(p, q) * 2 * (h * w + 2 * h + 2 * q + p * q))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        with torch.autocast(x.device.type, enabled=False):
            y = at_least_single(self.tile(x))
            height, width = y.shape[2:]
            z = along_both(y, self.filter(height, y), self.filter(width, y))
            if self.one_sided(height // self.stride, width // self.stride):
                (down, up), (right, left) = self.one_side(height, y), self.one_side(width, y)
                z = z - along_both(along_both(y, down, right), up, left)
            return z.to(x.dtype)

    def filter(self, n: int, like: Tensor) -> Float[Tensor, "p n"]:
        """``cos(2π k (t - i) / n) / n`` summed over the kept frequencies, for samples i and outputs at t."""
        frequencies = torch.tensor([*self.frequencies(n // self.stride)], device=like.device)
        samples = torch.arange(n, device=like.device)
        response = waves(frequencies[:, None] * samples, n, like).real.sum(0) / n
        found: Tensor = response[(samples[:: self.step, None] - samples) % n]
        return found

    def one_side(self, n: int, like: Tensor) -> tuple[Float[Tensor, "2 n"], Float[Tensor, "p 2"]]:
        """What the frequency without its negative makes of a real map besides: ``sin(2π k (t - i) / n) / n``, as the
        product of two factors.
        """
        wave = waves(self.frequencies(n // self.stride)[0] * torch.arange(n, device=like.device), n, like)
        outputs = wave[:: self.step]
        return torch.stack([wave.real, wave.imag]) / n, torch.stack([outputs.imag, -outputs.real], 1)


def waves(periods: Int64[Tensor, "*f n"], n: int, like: Tensor) -> Complex[Tensor, "*f n"]:
    """``exp(2πi periods / n)``; whole numbers of periods are left out before they cost digits."""
    phase = (periods % n).to(like.dtype) * (2 * math.pi / n)
    return torch.polar(torch.ones_like(phase), phase)


class Ideal(FLC):
    """``flc`` without the new Nyquist frequency: the ideal low-pass filter, then ``[::s]``; no aliasing at all.

    No shift information is lost or made up. At even m the frequency ±1/2 is gone also at stride 1.
    """

    formula = "the frequencies below π/s, then [::s]"
    keeps = "constants, mean; every frequency below the new Nyquist frequency; not the range"
    exact = "circular, s | N: a roll by one pixel is a sinc shift of the output by 1/s pixel"
    source = 'Michaeli, Michaeli & Soudry 2023, "Alias-free convnets"'
    differs = "at s = 3 and N = 6, 18, 30 the authors' filter keeps the new Nyquist frequency"

    symmetric = True

    def frequencies(self, m: int) -> range:
        """Those strictly between -1/2 and 1/2 of a period an output."""
        return range(-((m - 1) // 2), (m - 1) // 2 + 1)


class Wavelet(Pool):
    """The low band of the Haar transform of each 2×2 tile.

    ``kernel_size`` is not used; an odd map is continued as the border says (``clip``: the edge repeated).

    Raises:
        ValueError: a stride other than 2.
    """

    formula = "(a + b + c + d) / 2, s = 2 alone"
    keeps = "constants, range, mean, each times 2; the norm of the low band (orthonormal)"
    exact = "2 · avg"
    source = 'Haar 1910; Li et al. 2020, "Wavelet integrated CNNs" (WaveCNet)'

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
