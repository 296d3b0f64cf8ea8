"""Poolings that cut the spectrum: ideal, flc, wavelet."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, fft

from src.geometry import Window
from src.pooling.base import Pool


class FLC(Pool):
    """The centre of the spectrum, m of N = sm frequencies an axis, as the spectrum of the smaller map.

    Keeps the mean (DC) exactly, and every frequency below the new Nyquist frequency; at even m it keeps that of sign
    -1 and not its mirror image, so it is *not* exact for shifts that are no multiple of the stride. A filter without
    end: values may leave the range of the input. ``kernel_size`` is not used; a map that the stride does not divide is
    continued as the border says first (``clip``: the edge repeated). The FFT runs in float32 at least, and counts no
    multiply-adds. Source: Grabinski et al. 2022, "FrequencyLowCut pooling".
    """

    keeps_range = False  # negative lobes

    @property
    def windows(self) -> list[Window]:
        """The tile that an output stands for, on its first sample: sizes are exact, but the field is that of the
        arithmetic; in truth every output sees the whole map."""
        return [self.window(self.stride)]

    def cut(self, spectrum: Complex[Tensor, "n c H W"]) -> Complex[Tensor, "n c p q"]:
        """The m frequencies from -floor(m/2) on of a spectrum with zero in its centre."""
        height, width = spectrum.shape[2:]
        p, q = height // self.stride, width // self.stride
        top, left = height // 2 - p // 2, width // 2 - q // 2
        kept: Tensor = spectrum[..., top : top + p, left : left + q]
        return kept

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        y = self.tile(x).to(torch.promote_types(x.dtype, torch.float32))
        kept = self.cut(fft.fftshift(fft.fft2(y, norm="forward"), (-2, -1)))
        z: Tensor = fft.ifft2(fft.ifftshift(kept, (-2, -1)), norm="forward")
        return z.real.to(x.dtype)


class Ideal(FLC):
    """``flc`` without the new Nyquist frequency: the ideal low-pass filter, then ``[::s]``; no aliasing at all.

    A roll of the input by one pixel is a shift of the output by 1/s pixel under sinc interpolation, so with circular
    borders and N divisible by the stride no shift information is lost or made up. At even m the frequency ±1/2 is
    gone also at stride 1. Source: Michaeli, Michaeli & Soudry 2023, "Alias-free convnets".
    """

    def cut(self, spectrum: Complex[Tensor, "n c H W"]) -> Complex[Tensor, "n c p q"]:
        """The frequencies strictly between -1/2 and 1/2."""
        kept = super().cut(spectrum)
        # an even number of frequencies starts with -1/2
        rows, columns = (torch.arange(m, device=kept.device) >= 1 - m % 2 for m in kept.shape[2:])
        inside: Tensor = kept * (rows[:, None] & columns)
        return inside


class Wavelet(Pool):
    """The low band of the Haar transform, ``(a + b + c + d) / 2`` of each 2×2 tile: 2 · ``avg``.

    Orthonormal, so a constant is doubled. ``kernel_size`` is not used; an odd map is continued as the border says
    (``clip``: the edge repeated). Source: Haar 1910; Li et al. 2020, "Wavelet integrated CNNs" (WaveCNet).

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
