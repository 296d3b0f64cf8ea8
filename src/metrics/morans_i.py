"""Moran's I: the spatial autocorrelation of a layer's maps, smooth or noise; relative to that of the image."""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Images, Labels, LayerMeasure, Statistics
from .channel_health import is_constant
from .layer_outputs import nan_where_not_finite
from .quantities import Quantity

QUANTITIES = (
    Quantity("morans_i",
        formula="(N / W) Σ w_ij z_i z_j / Σ z_i², w_ij = 1 for rook neighbours, mean over images and channels",
        null="-1 / (N - 1), about 0: noise; 1 smooth, -1 a chessboard", source="Moran 1950"),
    Quantity("morans_i_relative", formula="morans_i of the maps / morans_i of the images",
        null="0: noise; 1: as smooth as the image"),
)  # fmt: skip
#: sides of smaller maps, where the border dominates, give nan
SMALLEST = 8


def morans_i(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
    """Moran's I (1950) of each map for rook neighbours (left, right, above, below), about in [-1, 1].

    ``I = (N / W) Σ w_ij z_i z_j / Σ z_i²``: z the deviation from the map's mean, N positions, W the sum of the weights,
    1 for neighbours, else 0. Noise gives -1 / (N - 1), a smooth map nearly 1, a chessboard -1, a constant map nan.

    >>> morans_i(torch.tensor([[[[1.0, 0], [0, 1]]]])).item()
    -1.0
    """
    h, w = maps.shape[2:]
    z = maps - maps.mean((2, 3), keepdim=True)
    right, below = (z[..., 1:] * z[..., :-1]).sum((2, 3)), (z[:, :, 1:] * z[:, :, :-1]).sum((2, 3))
    pairs = h * (w - 1) + w * (h - 1)  # each counts twice, above and in W
    i = h * w / pairs * (right + below) / z.square().sum((2, 3))
    flat = maps.flatten(2)
    return torch.where(is_constant(flat.amin(2), flat.amax(2)), torch.nan, i)


class Moran(LayerMeasure):
    """``morans_i``, the mean over images and channels, and ``morans_i_relative``: divided by that of the input images.

    Smooth images make smooth maps, so only the relative number describes the layer. Constant maps are left out. nan for
    maps smaller than 8×8.
    """

    of_maps = True

    def of_images(self, outputs: Float[Tensor, "n c h w"], labels: Labels | None, images: Images | None) -> Statistics:
        """The sum of I over maps, the number of maps that are not constant; the same for the image's channels."""
        assert images is not None, "Moran's I of maps is relative to that of the images"
        if min(outputs.shape[2:]) < SMALLEST:
            return outputs.new_full((len(outputs), 4), torch.nan)
        values = [morans_i(maps) for maps in (outputs, images)]
        sums = torch.stack([part for i in values for part in (i.nansum(1), (~i.isnan()).sum(1).to(i))], 1)
        return nan_where_not_finite(sums, outputs)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The mean I of the maps, and its ratio to that of the images."""
        maps, images = means[..., 0] / means[..., 1], means[..., 2] / means[..., 3]
        return {"morans_i": maps, "morans_i_relative": maps / images}


LAYER_MEASURE = Moran
