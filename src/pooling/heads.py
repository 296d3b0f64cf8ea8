"""Global poolings with learned parameters, for the head of a net: ``GeM`` and ``Attention``."""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .base import Size, at_least_float32, clamp_forward


class GlobalPool(nn.Module):
    """Reduces every map (n, c, h, w) to one number (n, c, 1, 1)."""

    output_size: ClassVar[int] = 1

    def parameters_by_formula(self, channels: int) -> int:
        """Number of learned parameters."""
        raise NotImplementedError

    def multiply_adds(self, channels: int, input_size: Size) -> int:
        """Multiply-adds (MACs) per image; pointwise functions and plain sums count as none."""
        return 0


class GeM(GlobalPool):
    """Generalised-mean pooling, (mean relu(x)^p)^(1/p), with one learned p ≥ 1 for all channels.

    Radenović, Tolias & Chum 2019, "Fine-tuning CNN image retrieval with no human annotation", eq. 3. On maps ≥ 0 p = 1
    is ``gap``, p → ∞ ``gmp``. Computed as ``m (mean (x/m)^p)^(1/p)`` with m the map's maximum, against overflow; the
    authors clip x at 1e-6 instead of 0, and do not bound p.
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))

    def parameters_by_formula(self, channels: int) -> int:
        """The exponent p."""
        return 1

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
        """One number for each map, ≥ 0."""
        y, p = at_least_float32(x).relu(), clamp_forward(self.p, 1)
        # the result does not depend on this scale, so no gradient flows through it
        largest = y.detach().amax((2, 3), keepdim=True)
        zero = (largest == 0).to(y.dtype)
        mean = ((y / (largest + zero)) ** p).mean((2, 3), keepdim=True)
        # an empty map has the gradient 0, not the infinite one of 0^(1/p)
        return (largest * (mean + zero) ** (1 / p)).to(x.dtype)


class Attention(GlobalPool):
    """Attention pooling: the mean over places, weighted by a softmax of q · x / √c, with a learned query q.

    One head whose keys and values are the maps themselves: Vaswani et al. 2017, "Attention is all you need", eq. 1,
    with a query that is no part of the image, as in Ilse, Tomczak & Welling 2018, "Attention-based deep multiple
    instance learning". A query of zeros, where it starts, is ``gap``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(channels))

    def parameters_by_formula(self, channels: int) -> int:
        """The query."""
        return channels

    def multiply_adds(self, channels: int, input_size: Size) -> int:
        """The logits, and the weighted sum."""
        return 2 * channels * math.prod(input_size)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
        """One number for each map."""
        values = x.flatten(2)
        logits = self.query.to(x.dtype) @ values / math.sqrt(x.shape[1])
        y: Tensor = values @ logits.softmax(1)[..., None]
        return y[..., None]
