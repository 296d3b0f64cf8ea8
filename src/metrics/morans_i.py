"""Moran's I: is a map smooth, or is it noise? Relative to how smooth the image itself is."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .base import LayerMeasure, undefined
from .channel_health import is_constant

SMALLEST = 8  # the side of a map below which its border decides


def morans_i(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
    """Moran's I (1950) of each map with its rook neighbours (left, right, above, below), about in [-1, 1].

    ``I = (N / W) Σ w_ij z_i z_j / Σ z_i²``: z the deviation from the map's mean, N positions, W the sum of the weights,
    1 for neighbours and 0 else. Noise has -1 / (N - 1), a smooth map nearly 1, a chessboard -1; a constant map is nan.

    >>> morans_i(torch.tensor([[[[1.0, 0], [0, 1]]]])).item()
    -1.0
    """
    h, w = maps.shape[2:]
    z = maps - maps.mean((2, 3), keepdim=True)
    beside, below = (z[..., 1:] * z[..., :-1]).sum((2, 3)), (z[:, :, 1:] * z[:, :, :-1]).sum((2, 3))
    pairs = h * (w - 1) + w * (h - 1)  # each counts twice, above and in W
    i = h * w / pairs * (beside + below) / z.square().sum((2, 3))
    flat = maps.flatten(2)
    return torch.where(is_constant(flat.amin(2), flat.amax(2)), torch.nan, i)


class Moran(LayerMeasure):
    """``morans_i``, the mean over images and channels, and ``morans_i_relative``: over that of the input itself.

    Smooth images make smooth maps, so only the relative number says something of the layer. Constant maps are left out.
    nan for maps of fewer than 8×8.
    """

    of_maps = True
    needs_images = True

    def of_images(
        self,
        outputs: Float[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"] | None,
        images: Float[Tensor, "n _ _ _"] | None,
    ) -> Float[Tensor, "n k"]:
        """Of the maps, then of the image: the sum of I, and how many have one."""
        assert images is not None, "Moran's I of maps is relative to that of the images"
        if min(outputs.shape[2:]) < SMALLEST:
            return outputs.new_full((len(outputs), 4), torch.nan)
        both = [morans_i(one) for one in (outputs, images)]
        sums = torch.stack([part for i in both for part in (i.nansum(1), (~i.isnan()).sum(1).to(i))], 1)
        return undefined(sums, outputs)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Sums over counts, then one over the other."""
        maps, images = means[..., 0] / means[..., 1], means[..., 2] / means[..., 3]
        return {"morans_i": maps, "morans_i_relative": maps / images}


LAYER_MEASURE = Moran
