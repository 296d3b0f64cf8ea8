"""Poolings in a transform domain: ``FLC`` (FrequencyLowCut), ``Ideal``, ``DiffStride`` (all Fourier), ``Wavelet``."""

import copy
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int64
from torch import Tensor, nn

from ..common.errors import UserError
from .base import Pool, Size, at_least_float32, clamp_forward


def separable_product(
    x: Float[Tensor, "n c h w"], rows: Float[Tensor, "p h"], columns: Float[Tensor, "q w"]
) -> Float[Tensor, "n c p q"]:
    """``rows · x · columnsᵀ`` for every map; keeps the memory format."""
    if x.is_contiguous():
        return rows @ (x @ columns.mT)
    n, c, h, w = x.shape
    y = columns @ x.permute(0, 2, 3, 1).reshape(n * h, w, c)
    return (rows @ y.view(n, h, -1)).view(n, len(rows), len(columns), c).permute(0, 3, 1, 2)


class FLC(Pool):
    """FrequencyLowCut pooling: the lowest m of N = sm frequencies per axis are the spectrum of the smaller map.

    A global filter. Maps are padded to a multiple of the stride by the border's mode (``clip``: edge values). Computed
    as products with small matrices in at least float32: on a CPU and maps of 56, a fraction of the time of FFTs.
    """

    formula = "the lowest N/s frequencies"
    keeps = "constants, mean; every frequency below the new Nyquist frequency; not the range"
    exact = """a roll is a sinc shift where N/s is odd, else only for rolls by multiples of s: of the new Nyquist
        frequency it keeps one sign and not its mirror image"""
    source = 'Grabinski et al. 2022, "FrequencyLowCut pooling"'
    differs = "where 4 does not divide N the authors' slice of the spectrum is off its centre by one frequency"

    tiled = True  # right for sizes, but the true receptive field is the whole map
    #: whether the kept frequencies are symmetric about 0, so that the filter is real on each axis
    symmetric: ClassVar[bool] = False

    def build(self) -> None:
        """Set the step between outputs, in pixels."""
        self.step = self.stride

    def dense(self) -> "FLC":
        """The same filter at every pixel, without subsampling."""
        copied = copy.copy(self)
        copied.step = 1
        return copied

    def frequencies(self, m: int) -> range:
        """Kept frequencies for m outputs, in periods per map."""
        return range(-(m // 2), m - m // 2)

    def one_sided(self, *m: int) -> bool:
        """Whether a frequency is kept without its negative, on all of the axes (by their numbers of outputs)."""
        return not self.symmetric and not any(size % 2 for size in m)

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """The products with both matrices, and the rank-two correction if a frequency is one-sided."""
        (p, q), (h, w) = output_size, (size * self.stride for size in output_size)
        return channels * (h * w * q + p * h * q + self.one_sided(p, q) * 2 * (h * w + 2 * h + 2 * q + p * q))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        device = "cpu" if x.is_meta else x.device.type  # of "meta" autocast knows nothing
        with torch.autocast(device, enabled=False):
            y = at_least_float32(self.pad_to_multiple(x))
            height, width = y.shape[2:]
            z = separable_product(y, self.filter(height, y, 0), self.filter(width, y, 1))
            if self.one_sided(height // self.stride, width // self.stride):
                (row_in, row_out), (column_in, column_out) = self.one_side(height, y, 0), self.one_side(width, y, 1)
                z = z - separable_product(separable_product(y, row_in, column_in), row_out, column_out)
            return z.to(x.dtype)

    def gains(self, frequencies: Int64[Tensor, " f"], axis: int, like: Tensor) -> Float[Tensor, " f"]:
        """Gain of each kept frequency along an axis (0: rows)."""
        return torch.ones_like(frequencies, dtype=like.dtype)

    def filter(self, n: int, like: Tensor, axis: int = 0) -> Float[Tensor, "p n"]:
        """Filter matrix: ``cos(2π k (t - i) / n) / n`` times the gain, summed over kept frequencies k, for samples i
        and outputs t.
        """
        frequencies = torch.tensor([*self.frequencies(n // self.stride)], device=like.device)
        samples = torch.arange(n, device=like.device)
        waves = complex_wave(frequencies[:, None] * samples, n, like).real
        response = (self.gains(frequencies, axis, like)[:, None] * waves).sum(0) / n
        matrix: Tensor = response[(samples[:: self.step, None] - samples) % n]
        return matrix

    def one_side(self, n: int, like: Tensor, axis: int = 0) -> tuple[Float[Tensor, "2 n"], Float[Tensor, "p 2"]]:
        """Imaginary part of the one-sided frequency k, ``sin(2π k (t - i) / n) / n`` times its gain, as two factors of
        rank two.
        """
        lowest = self.frequencies(n // self.stride)[0]
        wave = complex_wave(lowest * torch.arange(n, device=like.device), n, like)
        outputs, gain = wave[:: self.step], self.gains(torch.tensor([lowest], device=like.device), axis, like)
        return gain * torch.stack([wave.real, wave.imag]) / n, torch.stack([outputs.imag, -outputs.real], 1)


def complex_wave(periods: Int64[Tensor, "*f n"], n: int, like: Tensor) -> Complex[Tensor, "*f n"]:
    """``exp(2πi periods / n)``, with the argument reduced modulo n first, for precision."""
    phase = (periods % n).to(like.dtype) * (2 * math.pi / n)
    return torch.polar(torch.ones_like(phase), phase)


class Ideal(FLC):
    """The ideal low-pass filter, then ``[::s]``: ``flc`` without the new Nyquist frequency; alias-free.

    At even m the frequency ±1/2 is removed at stride 1 too.
    """

    formula = "the frequencies below π/s, then [::s]"
    keeps = "constants, mean; every frequency below the new Nyquist frequency; not the range"
    exact = "circular, s | N: a roll by one pixel is a sinc shift of the output by 1/s pixel"
    source = 'Michaeli, Michaeli & Soudry 2023, "Alias-free convnets"'
    differs = "at s = 3 and N = 6, 18, 30 the authors' filter keeps the new Nyquist frequency"

    symmetric = True

    def frequencies(self, m: int) -> range:
        """Those strictly between -1/2 and 1/2 period per output."""
        return range(-((m - 1) // 2), (m - 1) // 2 + 1)


class DiffStride(FLC):
    """DiffStride: ``flc`` whose band has a learned width, that of a stride S ≥ s for each axis, no whole number.

    Frequencies beyond the band of S fade out over R = 4 frequencies, so that S has a gradient. The output keeps
    ceil(N / s) places whatever S is, as all shapes are known before training; at s = 1 too S can only narrow the band.
    """

    formula = "the lowest N/s frequencies k, times clip((R + K s/S − |k|) / R, 0, 1), K the highest, R = 4"
    keeps = "constants, mean; frequencies of the band of S ≥ s; not the range"
    exact = "S = s, where it starts, is flc, a hard crop; at s = 1 the identity"
    source = 'Riad, Teboul, Grangier & Zeghidour 2022, "Learning strides in convolutional neural networks"'
    differs = """the output has ceil(N / s) places, where the authors' has about N / S + 2R, which changes in training;
        S is at least s, not 1; K is the highest kept frequency, N / 2s rounded down"""

    smoothness: float = 4.0  # R, in frequencies

    def build(self) -> None:
        """Make the learned strides."""
        super().build()
        self.learned = nn.Parameter(torch.full((2,), float(self.stride)))

    def parameters_by_formula(self, channels: int) -> int:
        """S for rows and columns."""
        return 2

    def gains(self, frequencies: Int64[Tensor, " f"], axis: int, like: Tensor) -> Float[Tensor, " f"]:
        """Gain of each kept frequency along an axis (0: rows): 1 within the band of S, falling to 0 beyond it."""
        learned = clamp_forward(self.learned[axis].to(like.dtype), self.stride)
        distance = frequencies.abs().amax() * self.stride / learned - frequencies.abs()
        return ((self.smoothness + distance) / self.smoothness).clamp(0, 1)


class Wavelet(Pool):
    """The low-pass band of the Haar wavelet transform, one value per 2×2 tile.

    An odd map is padded by the border's mode (``clip``: edge values).

    Raises:
        UserError: a stride other than 2.
    """

    formula = "(a + b + c + d) / 2, s = 2 alone"
    keeps = "constants, range, mean, each times 2; the norm of the low band (orthonormal)"
    exact = "2 · avg"
    source = 'Haar 1910; Li et al. 2020, "Wavelet integrated CNNs" (WaveCNet)'

    strides = (2,)
    gain = 2.0
    tiled = True

    def build(self) -> None:
        """Check the stride."""
        if self.stride != 2:
            raise UserError(f"Wavelet: one level of the Haar transform halves a map: stride 2 only, not {self.stride}")

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps of half the size."""
        return 2 * F.avg_pool2d(self.pad_to_multiple(x), 2)


POOLS: dict[str, type[Pool]] = {"ideal": Ideal, "flc": FLC, "diffstride": DiffStride, "wavelet": Wavelet}
