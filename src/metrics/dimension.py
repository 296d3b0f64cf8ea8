"""Dimension: in how many directions does a layer's output vary?"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from .base import LayerMeasure, without_interval
from .rows import Estimate


def eigenvalues(x: Float[Tensor, "n d"]) -> Float[Tensor, " k"]:
    """Of the covariance, times n - 1: min(n, d) of them, from the smaller of the two products of x with itself."""
    centred = x.double() - x.double().mean(0)
    product = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    if not product.isfinite().all():  # LAPACK would refuse it
        return product.new_full((len(product),), torch.nan)
    found: Tensor = torch.linalg.eigvalsh(product)
    return found.clamp(min=0)  # rounding makes some negative


def effective_rank(spectrum: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """``exp(-Σ q ln q)``, q the singular values over their sum, in [1, k] (Roy & Vetterli 2007); nan for no variance.

    Args:
        spectrum: the squared singular values, as from ``eigenvalues``.

    >>> round(effective_rank(torch.tensor([9.0, 9, 9, 0])).item(), 4)
    3.0
    """
    singular = spectrum.sqrt()
    entropy: Tensor = torch.special.entr(singular / singular.sum()).sum()
    return entropy.exp()


def participation_ratio(spectrum: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """``(Σλ)² / Σλ²``, in [1, k] (Gao et al. 2017); nan for no variance. Small directions count less than in the rank.

    >>> participation_ratio(torch.tensor([3.0, 3, 0])).item()
    2.0
    """
    return spectrum.sum().square() / spectrum.square().sum()


def isotropic(n: int, d: int) -> float:
    """About the participation ratio of n images that vary in all d directions alike: what n alone allows.

    >>> round(isotropic(101, 100), 6)
    50.0
    """
    return 1 / (1 / d + 1 / (n - 1))


class Dimension(LayerMeasure):
    """``effective_rank``, ``participation_ratio`` and ``participation_ratio_isotropic``, its value at equal variances.

    A map counts as one vector an image, the means of its channels: so n is the number of images for every layer. Both
    grow with n and are compared at equal n only. A resample holds images twice, which lowers them: no intervals.
    """

    def of_images(
        self,
        outputs: Float[Tensor, "n d *hw"],
        labels: Int64[Tensor, " n"] | None,
        images: Float[Tensor, "n _ _ _"] | None,
    ) -> Float[Tensor, "n k"]:
        """The mean of each channel."""
        return outputs.reshape(*outputs.shape[:2], -1).mean(2)

    def compute(self) -> dict[str, Tensor]:
        """Its numbers by name, of all images so far."""
        pooled = dim_zero_cat(self.kept)
        spectrum = eigenvalues(pooled)
        return {
            "effective_rank": effective_rank(spectrum),
            "participation_ratio": participation_ratio(spectrum),
            "participation_ratio_isotropic": torch.tensor(isotropic(*pooled.shape)),
        }

    def estimates(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """(name, estimate), without intervals."""
        return without_interval(self.compute(), weights.shape[1])


LAYER_MEASURE = Dimension
