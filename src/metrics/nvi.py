"""Normalised variance invariance: how a channel varies with the transform, in units of how it varies with the image."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .base import LayerOutputs, PairMeasure, Population, TransformedOutputs


def variances(still: LayerOutputs, moved: TransformedOutputs) -> Float[Tensor, "n k"]:
    """What each image adds to each channel's variance over the transform, then to that over images (n ≥ 2).

    ``½(φ(gx) - φ(x))²`` is the variance of two values; a squared deviation from n images' mean counts n/(n - 1). So
    the means over images are unbiased. Every position has a mean of its own; then positions are averaged.
    """
    n, positions = still.population.n, still.maps[0, 0].numel()
    return torch.cat([0.5 * moved.apart, still.deviation * n / (n - 1)], 1) / positions


def nvi(still: Float[Tensor, "n c *hw"], moved: Float[Tensor, "n c *hw"]) -> Float[Tensor, " c"]:
    """``sqrt(Var_g φ(gx) / Var_x φ(x))`` of each channel, in [0, ∞): 0 invariant, about 1 no better than another image.

    nan where a channel is the same for all images (Quiroga et al. 2020, normalised variance).

    >>> x = torch.tensor([[0.0, 1], [4, 1]])
    >>> nvi(x, x + torch.tensor([2.0, 1])).tolist()
    [0.5, nan]
    """
    before = LayerOutputs(still)
    return NVI.ratio(variances(before, TransformedOutputs(before, moved)).mean(0))


class NVI(PairMeasure):
    """``nvi``, the mean over channels, and ``constant_channels``, the share that is left out of it.

    Other than in ``invariance_error``, every channel counts the same, however loud it is. A vector's units are its
    channels. A channel that hardly ever fires has a ratio that few images decide: with one among six, 95% intervals
    held the truth 88 times in 100 (250 images), else 92 times or more.

    Of a channel it is ``sqrt(mean_x Var_g φ(gx) / Var_x φ(x))``: variances are averaged, then the root is taken. The
    library that coined the name (tmeasures) averages standard deviations, ``mean_x Std_g / mean_g Std_x``, which is
    another number: a mean of roots is at most the root of the mean.
    """

    on = "layers"
    relative = True
    higher_is_better = False

    @staticmethod
    def ratio(means: Float[Tensor, "... k"]) -> Float[Tensor, "... c"]:
        """Of each channel, the root of one variance over the other."""
        over_transform, over_images = means.chunk(2, -1)
        return torch.where(over_images > 0, over_transform / over_images, torch.nan).sqrt()

    def of_images(
        self, still: LayerOutputs, moved: TransformedOutputs, labels: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n k"]:
        """Both variances of all channels."""
        return variances(still, moved)

    def over_all(self, statistics: Float[Tensor, "n k"], others: Population) -> Float[Tensor, "n k"]:
        """The variance over all images, a position."""
        over_transform, over_images = statistics.chunk(2, 1)
        positions = others.mean[0, 0].numel()
        scale = others.variance / positions / over_images.mean(0)
        return torch.cat([over_transform, torch.where(others.varies, over_images * scale, 0)], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Over channels: a mean and a share."""
        ratio = self.ratio(means)
        varies = means.chunk(2, -1)[1] > 0
        share = torch.where(means.isnan().any(-1), torch.nan, varies.to(ratio).mean(-1))
        return {"nvi": torch.where(varies, ratio, 0).mean(-1) / share, "constant_channels": 1 - share}

    def ends(self, name: str, found: dict[str, Tensor], drawn: Tensor, means: Tensor, n: int) -> tuple[float, float]:
        """Of the share of channels none: a resample, which has fewer different images, finds more that are constant."""
        return super().ends(name, found, drawn, means, n) if name == "nvi" else (float("nan"), float("nan"))


MEASURE = NVI
