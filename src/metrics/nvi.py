"""Normalised variance: how much a channel varies with the transform, relative to how much it varies with the image."""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Labels, PairMeasure, Statistics
from .layer_outputs import LayerOutputs, Population, TransformedOutputs
from .quantities import Quantity

QUANTITIES = (
    Quantity("nvi", low=0, better="lower", formula="mean over channels of sqrt(Var_g φ(gx) / Var_x φ(x))",
        null="about 1: the transform changes a channel as much as another image does",
        source="Quiroga et al. 2020, normalised variance; see class NVI for the difference"),
    Quantity("constant_channels", low=0, high=1, formula="share of channels that are the same for all images"),
)  # fmt: skip


def nvi(reference: Float[Tensor, "n c *hw"], transformed: Float[Tensor, "n c *hw"]) -> Float[Tensor, " c"]:
    """``sqrt(Var_g φ(gx) / Var_x φ(x))`` of each channel, in [0, ∞): 0 is invariant, about 1 is as different as another
    image. nan for a channel that is the same for all images (Quiroga et al. 2020, normalised variance).

    >>> x = torch.tensor([[0.0, 1], [4, 1]])
    >>> nvi(x, x + torch.tensor([2.0, 1])).tolist()
    [0.5, nan]
    """
    original = LayerOutputs(reference)
    return NVI.ratio(NVI.of_images(original, TransformedOutputs(original, transformed)).mean(0))


class NVI(PairMeasure):
    """``nvi``, the mean over channels, and ``constant_channels``, the share of channels left out of it.

    Unlike in ``invariance_error``, all channels count equally, whatever their scale. The units of a vector are its
    channels. The ratio of a channel that rarely fires depends on few images: if it fires for one image in six, the 95%
    interval covers 88% (250 images), otherwise 92% or more.

    For each channel it is ``sqrt(mean_x Var_g φ(gx) / Var_x φ(x))``: the root of averaged variances. The library that
    coined the name (tmeasures) averages standard deviations, ``mean_x Std_g / mean_g Std_x``, which is another number:
    a mean of roots is at most the root of the mean.
    """

    on = "layers"
    needs_population = True
    higher_is_better = False
    without_interval = ("constant_channels",)

    @staticmethod
    def ratio(means: Float[Tensor, "... k"]) -> Float[Tensor, "... c"]:
        """The root of the ratio of both variances, for each channel."""
        over_transform, over_images = means.chunk(2, -1)
        return torch.where(over_images > 0, over_transform / over_images, torch.nan).sqrt()

    @staticmethod
    def of_images(reference: LayerOutputs, transformed: TransformedOutputs, labels: Labels | None = None) -> Statistics:
        """The contribution of each image to each channel's variance over the transform, then to that over images.

        ``½(φ(gx) - φ(x))²`` is the variance of two values; a squared deviation from the mean of n ≥ 2 images counts
        n/(n - 1). So the means over images are unbiased. Each position has its own mean; variances are averaged over
        positions.
        """
        n, positions = reference.population.n, reference.maps[0, 0].numel()
        over_transform, over_images = 0.5 * transformed.squared_difference, reference.squared_deviation * n / (n - 1)
        return torch.cat([over_transform, over_images], 1) / positions

    def over_all(self, statistics: Float[Tensor, "n k"], population: Population) -> Float[Tensor, "n k"]:
        """With the variance over all images, averaged over positions."""
        over_transform, over_images = statistics.chunk(2, 1)
        positions = population.mean[0, 0].numel()
        scale = population.variance / positions / over_images.mean(0)
        return torch.cat([over_transform, torch.where(population.varies, over_images * scale, 0)], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The mean ratio of the channels that vary, and the share of those that do not."""
        ratio = self.ratio(means)
        varies = means.chunk(2, -1)[1] > 0
        share = torch.where(means.isnan().any(-1), torch.nan, varies.to(ratio).mean(-1))
        return {"nvi": torch.where(varies, ratio, 0).mean(-1) / share, "constant_channels": 1 - share}


MEASURE = NVI
