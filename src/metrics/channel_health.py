"""Health of channels: the shares that are dead, constant, or duplicates of another channel."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int32
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta
from torch import Tensor
from torchmetrics import Metric

from .base import Images, Labels, LayerMeasure, check_outputs
from .quantities import Quantity

QUANTITIES = (
    Quantity("dead_share", low=0, high=1, better="lower",
        formula="share of channels with max φ ≤ 0 over all images and positions",
        null="falls with n: a channel that fires for 1% of images looks dead in 64 of them with probability .53"),
    Quantity("constant_share", low=0, high=1, better="lower",
        formula="share of channels with a single value over all images and positions"),
    Quantity("duplicate_share", low=0, high=1, better="lower",
        formula="1 - clusters / channels, linked by cosine of filters ≥ .95 and correlation of activations ≥ .95"),
    Quantity("max_filter_cosine", low=-1, high=1,
        formula="the largest cosine of two filters of the layer's last convolution",
        null="max_filter_cosine_null: its median for filters of random direction"),
)  # fmt: skip
#: a range below this share of the largest absolute value is rounding
ROUNDING = 1e-6


def is_constant(low: Float[Tensor, "..."], high: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Whether the values between a minimum and a maximum are the same up to rounding."""
    return high - low <= ROUNDING * high.abs().maximum(low.abs())


def share_of(which: Bool[Tensor, " c"], values: Float[Tensor, " c"]) -> Float[Tensor, ""]:
    """The share of channels that are ``which``; nan if the values of any channel are nan."""
    return torch.where(values.isnan().any(), torch.nan, which.double().mean())


def dead_share(outputs: Float[Tensor, "n c *hw"]) -> Float[Tensor, ""]:
    """Share of channels without a positive number in all images and positions, in [0, 1]. Report n with it: a channel
    that fires for 1% of images looks dead in 64 of them with probability .53.

    >>> dead_share(torch.tensor([[0.0, 1, -1, 2], [0, -2, -1, 2]])).item()
    0.5
    """
    high = outputs.transpose(0, 1).flatten(1).amax(1)
    return share_of(high <= 0, high).float()


class Health(LayerMeasure):
    """``dead_share``, and ``constant_share``: of channels with a single value in all images and positions.

    After a ReLU dead channels are constant too. No intervals: both only fall with n, and a bootstrap sample has fewer
    distinct images.
    """

    higher_is_better = False
    has_intervals = False
    low: Tensor
    high: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("low", torch.tensor(float("inf")), dist_reduce_fx="min")
        self.add_state("high", torch.tensor(-float("inf")), dist_reduce_fx="max")

    def update(
        self, outputs: Float[Tensor, "n c *hw"], labels: Labels | None = None, images: Images | None = None
    ) -> None:
        """Add a batch: update the minimum and maximum of each channel."""
        check_outputs(type(self).__name__, outputs)
        low, high = outputs.detach().transpose(0, 1).flatten(1).aminmax(dim=1)
        self.low, self.high = low.minimum(self.low), high.maximum(self.high)

    def compute(self) -> dict[str, Tensor]:
        """Both shares, for all images so far."""
        shares = {"dead_share": self.high <= 0, "constant_share": is_constant(self.low, self.high)}
        return {name: share_of(share, self.high) for name, share in shares.items()}


def clusters(
    filters: Float[Tensor, "c ..."], correlation: Float[Tensor, "c c"], t: float = 0.95
) -> Int32[Tensor, " c"]:
    """The cluster index of each channel. Two channels are linked if the cosine of their filters and the correlation of
    their activations are both at least t; clusters are the connected components.

    The cosine keeps its sign: before a ReLU, a filter and its negative compute different features.
    """
    linked = (cosines(filters) >= t) & (correlation.to(filters) >= t)
    return torch.from_numpy(connected_components(linked.cpu().numpy(), directed=False)[1])


def duplicate_share(filters: Float[Tensor, "c ..."], correlation: Float[Tensor, "c c"], t: float = 0.95) -> float:
    """Share of channels that can be removed so that one of each cluster is left, in [0, 1).

    >>> duplicate_share(torch.tensor([[1.0, 0], [2, 0], [0, 1], [0, -1]]), torch.ones(4, 4))
    0.25
    """
    cluster = clusters(filters, correlation, t)
    return 1 - len(cluster.unique()) / len(cluster)


def cosines(filters: Float[Tensor, "c ..."]) -> Float[Tensor, "c c"]:
    """The cosine of all pairs of filters; 0 for a filter of zeros."""
    directions = F.normalize(filters.detach().flatten(1))
    return directions @ directions.T


def max_cosine(filters: Float[Tensor, "c ..."]) -> float:
    """The largest cosine of two different filters (c ≥ 2), in [-1, 1]."""
    return cosines(filters).fill_diagonal_(-1).max().item()


def max_cosine_null(count: int, size: int) -> float:
    """The median of ``max_cosine`` for ``count`` filters of ``size`` weights with random directions, as untrained.

    The cosine of two such filters is a Beta variable on [-1, 1], and any two pairs are independent.

    >>> round(max_cosine_null(32, 27), 2), round(max_cosine_null(64, 576), 2)
    (0.54, 0.14)
    """
    half, pairs = (size - 1) / 2, count * (count - 1) / 2
    return 2 * float(beta.ppf(0.5 ** (1 / pairs), half, half)) - 1


class ChannelCorrelation(Metric):
    """Correlations of a layer's channels over images and positions, (c, c) in [-1, 1]; nan for a constant channel."""

    full_state_update = False
    n: Tensor
    sums: Tensor
    products: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("n", "sums", "products"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Float[Tensor, "n c *hw"]) -> None:
        """Add a batch: sums, and sums of products, in double precision."""
        x = outputs.detach().transpose(0, 1).flatten(1).double()
        self.n, self.sums, self.products = self.n + x.shape[1], self.sums + x.sum(1), self.products + x @ x.T

    def compute(self) -> Float[Tensor, "c c"]:
        """The correlations, over all images so far."""
        covariance = self.products / self.n - torch.outer(self.sums, self.sums) / self.n**2
        variance, square = covariance.diagonal(), self.products.diagonal() / self.n
        deviation = torch.where(variance > ROUNDING**2 * square, variance, torch.nan).sqrt()
        return (covariance / torch.outer(deviation, deviation)).clamp(-1, 1)


LAYER_MEASURE = Health
