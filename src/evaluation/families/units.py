"""Goodfellow's invariance: does a unit that fires for an image still fire when the image is moved?"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ...metrics.base import LayerOutputs, PairMeasure, TransformedOutputs
from ...metrics.rows import PerImage, Row
from ...nets.hooks import record_outputs
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, untransformed_batches
from ..pairs import pair_rows

#: what counts as the best units depends on how many images there are: two nets need the same
NEEDS_ALL_IMAGES = True

#: shifts that units are tried by, in pixels
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
    """What each unit (null: every) exceeds for a share ``rate`` of images: to be taken from images of their own.

    A unit "fires" above it. One that is 0 for more than 99% of images fires less often than the rate.
    """
    flat = outputs.flatten(1) if units is None else outputs.flatten(1)[:, units]
    return torch.quantile(flat, 1 - rate, dim=0)


def scores(fired: Bool[Tensor, "n u"], still_fires: Bool[Tensor, "n u"], rate: float = 0.01) -> Float[Tensor, " u"]:
    """``L / G`` of each unit, in [0, 1 / rate]: L the share of images that fire it and still do once moved, G the rate.

    As Goodfellow et al. (2009), with the rate that was asked for as G. nan: dead, no image fires it.

    >>> bits = torch.tensor([[True, False], [True, False], [False, False]])
    >>> scores(bits, torch.tensor([[True, True], [False, False], [True, False]]), rate=0.5).tolist()
    [1.0, nan]
    """
    return Goodfellow.local(torch.cat([fired, fired & still_fires], 1).double().mean(0)).float() / rate


class Goodfellow(PairMeasure):
    """``goodfellow``: the mean score of the top 20% of units, in [0, 1 / rate]; ``goodfellow_dead``: the share of units
    that no image fires, which are left out.

    A unit that fires at random scores 1; but the top 20% of a thousand such units, each judged by the few images that
    fire it, score more: put an untrained net beside it, at the same number of images. For the same reason it has no
    interval.

    Args:
        thresholds: of the units, as from ``thresholds``.
        units: indices into the flattened outputs, as from ``draw_units``; null is every unit.
        rate: the firing rate the thresholds stand for.
        top: the share of units, the best, that counts.
    """

    on = "layers"
    higher_is_better = True
    thresholds: Tensor
    units: Tensor

    def __init__(
        self,
        thresholds: Float[Tensor, " u"],
        units: Int64[Tensor, " u"] | None = None,
        rate: float = 0.01,
        top: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.rate, self.top = rate, top
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.register_buffer("units", torch.arange(len(thresholds)) if units is None else units, persistent=False)

    @staticmethod
    def local(means: Float[Tensor, "... k"]) -> Float[Tensor, "... u"]:
        """L: of the images that fire a unit, the share that fires it moved too."""
        fired, both = means.chunk(2, -1)
        return torch.where(fired > 0, both / fired, torch.nan)

    def of_images(
        self, still: LayerOutputs, moved: TransformedOutputs, labels: Int64[Tensor, " n"] | None
    ) -> UInt8[Tensor, "n k"]:
        """Whether each unit fires, and whether it does so for both."""
        fired = still.outputs[:, self.units] > self.thresholds
        return torch.cat([fired, fired & (moved.outputs[:, self.units] > self.thresholds)], 1).to(torch.uint8)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The mean of the best, and the share of the dead."""
        local = self.local(means)
        best, alive = local.nan_to_num(-math.inf).sort(-1, descending=True).values, (~local.isnan()).sum(-1)
        count = (self.top * alive).ceil()
        chosen = torch.arange(local.shape[-1], device=local.device) < count[..., None]
        score = torch.where(chosen, best, 0).sum(-1) / count / self.rate
        return {"goodfellow": score, "goodfellow_dead": 1 - alive / local.shape[-1]}

    def ends(self, name: str, found: dict[str, Tensor], drawn: Tensor, means: Tensor, n: int) -> tuple[float, float]:
        """None: the best units of a sample look better than they are, and a resample's better yet."""
        return float("nan"), float("nan")


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row | PerImage]:
    """Goodfellow's invariance under shifts: thresholds from half of the images, scores from the other half."""
    half = len(test_set.canvas) // 2
    first, second = (
        (test_set.take(one) for one in torch.arange(2 * half).split(half)) if half > 1 else (test_set, test_set)
    )
    kept: dict[str, list[Tensor]] = {layer: [] for layer in adapter.layers}
    units: dict[str, Tensor] = {}
    with record_outputs(adapter.net, adapter.layers) as maps, torch.no_grad():
        for images in untransformed_batches(adapter, first):
            adapter.net(images)
            for layer, outputs in kept.items():
                flat = maps[layer].flatten(1)
                outputs.append(flat[:, units.setdefault(layer, draw_units(flat.shape[1], seed=test_set.seed))])
    limits = {layer: thresholds(torch.cat(outputs)) for layer, outputs in kept.items()}

    def fresh(place: str) -> list[PairMeasure]:
        return [] if place == OUTPUT else [Goodfellow(limits[place], units[place])]

    yield from pair_rows(adapter, second, ["shift/crop"], fresh, SHIFTS)
