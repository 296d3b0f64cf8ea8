"""Poolings that keep one of the s² polyphase components of a map: aps."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from src.geometry import Window
from src.pooling.base import Pool


class APS(Pool):
    """Of the s² phases ``x[i::s, j::s]``, the one with the largest l2 norm over channels and positions together.

    A roll of the input permutes the phases but not their norms, so with circular convolutions, N divisible by the
    stride and no ties, a roll of the input by any (i, j) is a roll of the output, bit for bit. ``kernel_size`` is not
    used. Rows that complete the last phase of an odd map follow the border (``clip``: the edge repeated).
    Source: Chaman & Dokmanić 2021, "Truly shift-invariant convolutional neural networks".
    """

    @property
    def windows(self) -> list[Window]:
        """Any one sample of an s×s tile; which one depends on the whole map."""
        return [Window(self.stride, self.stride, self.padding)]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride; gradients reach the kept phase only."""
        s = self.stride
        (window,) = self.windows
        (top, bottom), (left, right) = window.pads(x.shape[-2]), window.pads(x.shape[-1])
        if any((top, bottom, left, right)):
            mode = "replicate" if self.border == "clip" else self.border
            x = F.pad(x, (left, right, top, bottom), mode=mode)
        phases = F.pixel_unshuffle(x, s).unflatten(1, (x.shape[1], s * s))
        strongest = phases.square().sum((1, 3, 4)).argmax(1)
        kept: Tensor = phases[torch.arange(len(x), device=x.device), :, strongest]
        return kept


POOLS: dict[str, type[Pool]] = {"aps": APS}
