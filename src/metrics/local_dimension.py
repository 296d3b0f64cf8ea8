"""Local intrinsic dimension: how fast the number of neighbours grows with their distance. Followed in training, and not
part of ``measures.csv``.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .quantities import Quantity

QUANTITIES = (
    Quantity("local_dimension", low=0,
        formula="mean over images of -k / Σᵢ ln(rᵢ / rₖ), r₁ ≤ … ≤ rₖ the distances to the k = 20 nearest other images",
        null="the untrained net's, at the same number of images; falls, then rises with fitted label noise",
        source="Levina & Bickel 2004, Amsaleg et al. 2015, Ma et al. 2018"),
)  # fmt: skip
NEIGHBOURS = 20


def local_dimension(x: Float[Tensor, "n d"], k: int = NEIGHBOURS) -> float:
    """The maximum-likelihood estimate of each row's local dimension, averaged over rows, in [0, ∞); k is at most n - 1.

    A row whose k neighbours are all equally far has no finite estimate, and is left out; 0 for a row with a duplicate;
    nan if no row is left, or any number is not finite. Too large by k / (k - 2) where
    points lie evenly.

    >>> round(local_dimension(torch.tensor([[0.0], [1.0], [3.0]]), k=2), 3)  # of 1 and 3, 1 and 2, 2 and 3
    3.213
    """
    if not x.isfinite().all() or len(x) < 3:
        return float("nan")
    flat = x.double()
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    nearest = distances.topk(min(k, len(x) - 1), largest=False).values
    logs = (nearest / nearest[:, -1:]).log().mean(1)
    estimates = -1 / logs[logs < 0]
    return estimates.mean().item()
