"""Effective dimension: in how many directions a layer's output varies."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from .base import Images, Labels, LayerMeasure, Statistics
from .quantities import Quantity

QUANTITIES = (
    Quantity("effective_rank", low=0,
        formula="exp(-Σ q ln q), q the singular values of the centred outputs over their sum",
        null="the untrained net's, at the same number of images", source="Roy & Vetterli 2007"),
    Quantity("participation_ratio", low=0, formula="(Σλ)² / Σλ², λ the eigenvalues of the covariance",
        null="participation_ratio_isotropic", source="Gao et al. 2017"),
    Quantity("participation_ratio_isotropic", low=0,
        formula="1 / (1/d + 1/(n - 1)): participation_ratio of n images with equal variance in all d directions"),
)  # fmt: skip


def eigenvalues(x: Float[Tensor, "n d"]) -> Float[Tensor, " k"]:
    """The min(n, d) eigenvalues of the covariance, times n - 1, from the smaller of xᵀx and xxᵀ; nan if any x is."""
    centred = x.double() - x.double().mean(0)
    product = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    if not product.isfinite().all():  # LAPACK would refuse it
        return product.new_full((len(product),), torch.nan)
    values: Tensor = torch.linalg.eigvalsh(product)
    return values.clamp(min=0)  # rounding makes some negative


def effective_rank(spectrum: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """``exp(-Σ q ln q)``, q the singular values over their sum, in [1, k] (Roy & Vetterli 2007); nan without variance.
    ``spectrum`` are the squared singular values, as from ``eigenvalues``.

    >>> round(effective_rank(torch.tensor([9.0, 9, 9, 0])).item(), 4)
    3.0
    """
    singular = spectrum.sqrt()
    entropy: Tensor = torch.special.entr(singular / singular.sum()).sum()
    return entropy.exp()


def participation_ratio(spectrum: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """``(Σλ)² / Σλ²``, in [1, k] (Gao et al. 2017); nan without variance. Small eigenvalues hardly count.

    >>> participation_ratio(torch.tensor([3.0, 3, 0])).item()
    2.0
    """
    return spectrum.sum().square() / spectrum.square().sum()


def isotropic(n: int, d: int) -> float:
    """The approximate participation ratio of n images with equal variance in all d directions: the most that n allows.

    >>> round(isotropic(101, 100), 6)
    50.0
    """
    return 1 / (1 / d + 1 / (n - 1))


class Dimension(LayerMeasure):
    """``effective_rank``, ``participation_ratio`` and ``participation_ratio_isotropic``, its value at equal variances.

    Maps are averaged over positions to one vector an image, so that n is the number of images for every layer. Both
    grow with n, so compare them at equal n only. No intervals: a bootstrap sample has images twice, which lowers both.
    """

    has_intervals = False

    def of_images(self, outputs: Float[Tensor, "n d *hw"], labels: Labels | None, images: Images | None) -> Statistics:
        """The mean of each channel."""
        return outputs.reshape(*outputs.shape[:2], -1).mean(2)

    def compute(self) -> dict[str, Tensor]:
        """Name → number, for all images so far."""
        pooled = dim_zero_cat(self.batches)
        spectrum = eigenvalues(pooled)
        return {
            "effective_rank": effective_rank(spectrum),
            "participation_ratio": participation_ratio(spectrum),
            "participation_ratio_isotropic": torch.tensor(isotropic(*pooled.shape)),
        }


LAYER_MEASURE = Dimension
