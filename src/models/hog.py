"""Baseline: a linear classifier of histograms of oriented gradients (HOG), hand-crafted features."""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..summary import Layer
from .blocks import NO_LAYERS, Network
from .options import Model

ORIENTATIONS, BLOCK = 9, 2
CLIP, EPSILON = 0.2, 1e-5


class Histograms(nn.Module):
    """Per cell of ``cell`` × ``cell`` pixels, the sum of gradient magnitudes in each of 9 directions (0 to 180°),
    normalised over blocks of 2×2 cells.

    Equals ``skimage.feature.hog`` (L2-Hys norm; of several channels, the one of largest gradient), but takes batches,
    on any device. Source: Dalal & Triggs 2005.
    """

    def __init__(self, image: tuple[int, int, int], cell: int) -> None:
        super().__init__()
        self.cell = cell
        rows, columns = (side // cell - BLOCK + 1 for side in image[1:])
        self.out_features = rows * columns * BLOCK**2 * ORIENTATIONS

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Images to vectors, ordered (block row, block column, cell row, cell column, direction)."""
        down = F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
        right = F.pad(x[..., 2:] - x[..., :-2], (1, 1, 0, 0))
        strongest = (down.square() + right.square()).argmax(1, keepdim=True)
        down, right = down.gather(1, strongest), right.gather(1, strongest)
        angle = torch.rad2deg(torch.atan2(down, right)) % 180
        direction = (angle * (ORIENTATIONS / 180)).long().clamp(max=ORIENTATIONS - 1)
        shares = x.new_zeros(len(x), ORIENTATIONS, *x.shape[2:]).scatter_(1, direction, torch.hypot(down, right))
        cells = F.avg_pool2d(shares, self.cell)
        blocks = cells.unfold(2, BLOCK, 1).unfold(3, BLOCK, 1).permute(0, 2, 3, 4, 5, 1).flatten(3)
        return _normalise(_normalise(blocks).clamp(max=CLIP)).flatten(1)

    def summary_rule(self, layer: Layer) -> Layer:
        """A vector whose receptive field is the whole image; sums and norms count as no multiply-adds."""
        rows, columns = layer.rows.whole(), layer.columns.whole()
        return replace(layer, channels=self.out_features, rows=rows, columns=columns, layout="nc")

    def extra_repr(self) -> str:
        """Shown by ``print(net)``."""
        return f"cell={self.cell}, out_features={self.out_features}"


def _normalise(vectors: Float[Tensor, "n p q d"]) -> Float[Tensor, "n p q d"]:
    return vectors / (vectors.square().sum(-1, keepdim=True) + EPSILON**2).sqrt()


class HOG(Network):
    """Fixed histograms and a trained head. About 8 cells along the shorter side, of at least 4 pixels each."""

    unsupported_axes: ClassVar = NO_LAYERS | {"width": 1, "parameters": None}

    def build(self, model: Model) -> None:
        """Add the histograms."""
        self.add("histograms", Histograms(self.image, cell=max(4, min(self.image[1:]) // 8)))
