"""Goodfellow's invariance score: does a unit that fires for an image also fire for the shifted image?"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...metrics.base import Labels, PairMeasure, Statistics
from ...metrics.layer_outputs import LayerOutputs, TransformedOutputs
from ...metrics.quantities import Quantity
from ...metrics.rows import PerImage, Row
from ...nets.hooks import record_outputs
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, untransformed_batches
from ..pairs import pair_rows

QUANTITIES = (
    Quantity("goodfellow", low=0, better="higher",
        formula="mean over the top 20% of units of L/G: L = P[fires for gx | fires for x], G = 1% the firing rate",
        null="1 for a unit that fires at random; the top 20% of such units score more: see the untrained net",
        source="Goodfellow et al. 2009"),
    Quantity("goodfellow_dead", low=0, high=1, better="lower", formula="share of units that no image fires"),
)  # fmt: skip
PREFIXES = ("goodfellow",)
#: which units are the best depends on the number of images: nets are comparable at equal numbers only
NEEDS_ALL_IMAGES = True
#: in pixels
SHIFTS = (1.0, 4.0)


def draw_units(size: int, count: int = 1000, seed: int = 0) -> Int64[Tensor, " u"]:
    """Indices of at most ``count`` of a layer's ``size`` units (a channel at a position), in order, drawn by ``seed``.

    >>> draw_units(3, 5).tolist()
    [0, 1, 2]
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def thresholds(
    outputs: Float[Tensor, "n ..."], rate: float = 0.01, units: Int64[Tensor, " u"] | None = None
) -> Float[Tensor, " u"]:
    """The value that each unit (None: all) exceeds for a share ``rate`` of images; it "fires" above it.

    Compute it on other images than the score. A unit that is 0 for more than 99% of images fires less often than the
    rate.
    """
    flat = outputs.flatten(1) if units is None else outputs.flatten(1)[:, units]
    return torch.quantile(flat, 1 - rate, dim=0)


class Goodfellow(PairMeasure):
    """``goodfellow``: the mean score of the top 20% of units, in [0, 1 / rate]; ``goodfellow_dead``: the share of units
    that no image fires, which are left out. The score is ``L / G``: L the share of the images that fire a unit which
    also do so shifted, G the nominal firing rate (Goodfellow et al. 2009).

    A unit that fires at random scores 1, but the top 20% of a thousand such units score more, as each score depends on
    few images: compare with an untrained net on the same number of images. For the same reason it has no interval.

    Args:
        thresholds: of the units, as from ``thresholds``.
        units: indices into the flattened outputs, as from ``draw_units``; None: all units.
        rate: the firing rate of the thresholds.
        top: the share of units that is averaged, the best first.
    """

    on = "layers"
    higher_is_better = True
    #: the best units of a sample look better than they are, and those of a bootstrap sample even more
    without_interval = ("goodfellow", "goodfellow_dead")
    thresholds: Tensor
    units: Tensor

    def __init__(
        self, thresholds: Float[Tensor, " u"], units: Int64[Tensor, " u"] | None = None, rate: float = 0.01,
        top: float = 0.2, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**options)
        self.rate, self.top = rate, top
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.register_buffer("units", torch.arange(len(thresholds)) if units is None else units, persistent=False)

    @staticmethod
    def local(means: Float[Tensor, "... k"]) -> Float[Tensor, "... u"]:
        """L of each unit: the share of the images that fire it which also do so shifted."""
        fired, both = means.chunk(2, -1)
        return torch.where(fired > 0, both / fired, torch.nan)

    def of_images(self, reference: LayerOutputs, transformed: TransformedOutputs, labels: Labels | None) -> Statistics:
        """Whether each unit fires for the image, and whether it fires for both."""
        fires = reference.outputs[:, self.units] > self.thresholds
        fires_shifted = transformed.outputs[:, self.units] > self.thresholds
        return torch.cat([fires, fires & fires_shifted], 1).to(torch.uint8)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The mean score of the best units, and the share of dead ones."""
        local = self.local(means)
        best, alive = local.nan_to_num(-math.inf).sort(-1, descending=True).values, (~local.isnan()).sum(-1)
        count = (self.top * alive).ceil()
        is_top = torch.arange(local.shape[-1], device=local.device) < count[..., None]
        score = torch.where(is_top, best, 0).sum(-1) / count / self.rate
        return {"goodfellow": score, "goodfellow_dead": 1 - alive / local.shape[-1]}


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row | PerImage]:
    """Goodfellow's score for shifts: thresholds from one half of the images, scores from the other."""
    half = len(test_set.padded) // 2
    first = second = test_set
    if half > 1:
        first, second = (test_set.take(index) for index in torch.arange(2 * half).split(half))
    activations: dict[str, list[Tensor]] = {layer: [] for layer in adapter.layers}
    units: dict[str, Tensor] = {}
    with record_outputs(adapter.net, adapter.layers, adapter.views) as maps, torch.no_grad():
        for images in untransformed_batches(adapter, first):
            adapter.net(images)
            for layer, batches in activations.items():
                flat = maps[layer].flatten(1)
                batches.append(flat[:, units.setdefault(layer, draw_units(flat.shape[1], seed=test_set.seed))])
    limits = {layer: thresholds(torch.cat(batches)) for layer, batches in activations.items()}

    def metric_factory(name: str) -> list[PairMeasure]:
        return [] if name == OUTPUT else [Goodfellow(limits[name], units[name])]

    yield from pair_rows(adapter, second, ["shift/crop"], metric_factory, SHIFTS)
