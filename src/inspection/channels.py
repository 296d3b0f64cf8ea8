"""Statistics of every channel of a layer: firing rate, class selectivity, duplicates, energy."""

from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torchmetrics import Metric

from ..metrics.channel_health import ChannelCorrelation, clusters
from ..metrics.class_selectivity import class_selectivity

#: the columns of ``ChannelFacts``
FACTS = ("fires", "selectivity", "best_class", "repeats", "energy")


def repeats(cluster: Int32[Tensor, " c"]) -> Int64[Tensor, " c"]:
    """The first channel of each channel's cluster (``channel_health.clusters``), which it duplicates; -1 for the first.

    >>> repeats(torch.tensor([0, 1, 0, 2, 1], dtype=torch.int32)).tolist()
    [-1, -1, 0, -1, 1]
    """
    first = (cluster[:, None] == cluster).int().argmax(1)
    return torch.where(first < torch.arange(len(cluster)), first, -1)


def ranking(facts: Float[Tensor, "c 5"]) -> Int64[Tensor, " c"]:
    """All channels by selectivity, highest first; without classes, by energy. Dead channels come last; ties are in the
    order of the channels.

    >>> nan = float("nan")
    >>> ranking(torch.tensor([[0, nan, -1, -1, 0], [1, 0.2, 3, -1, 9], [0.1, 0.7, 1, -1, 1]])).tolist()
    [2, 1, 0]
    >>> ranking(torch.tensor([[0, nan, -1, -1, 0], [1, nan, -1, -1, 1], [1, nan, -1, -1, 9]])).tolist()
    [2, 1, 0]
    """
    fires, selectivity, _, _, energy = facts.unbind(1)
    score = energy if selectivity.isnan().all() else selectivity
    return score.where(fires > 0, -1).sort(descending=True, stable=True).indices


class ChannelFacts(Metric):
    """Statistics of every channel of a layer, (c, 5) float32, with the columns ``FACTS``:

    ``fires``: share of the images for which it is above 0 at some position; 0 is a dead channel (``dead_share``).
    ``selectivity``: ``class_selectivity`` of its activations after a ReLU, averaged over positions, in [0, 1]; nan for
    a dead channel, and without classes. ``best_class``: the class of its largest mean; -1 where selectivity is nan.
    ``repeats``: the first channel of its cluster in ``channel_health.clusters``; -1 for the first. ``energy``: its mean
    square over images and positions.

    It keeps a few numbers a class and channel, and the products of all pairs of channels; nothing grows with the
    images.

    Args:
        classes: number of classes; 0: none.
        filters: one for each channel (``layers.filters_of``); None, or another number: no channel is a duplicate.
    """

    full_state_update = False
    n: Tensor
    fired: Tensor
    squares: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, classes: int, filters: Float[Tensor, "c ..."] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.classes, self.filters, self.correlation = classes, filters, ChannelCorrelation(**options)
        for name in ("n", "fired", "squares", "counts", "sums"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Float[Tensor, "n c *hw"], labels: Int64[Tensor, " n"] | None = None) -> None:
        """Add a batch: the layer's outputs, and the class of each image, if there are classes."""
        flat = outputs.detach().flatten(2) if outputs.dim() > 2 else outputs.detach()[:, :, None]
        self.n = self.n + len(flat)
        self.fired = self.fired + (flat.amax(2) > 0).double().sum(0)
        self.squares = self.squares + flat.square().mean(2).double().sum(0)
        if labels is not None:
            member = (labels[:, None] == torch.arange(self.classes, device=labels.device)).double()
            self.counts = self.counts + member.sum(0)
            self.sums = self.sums + member.T @ flat.relu().mean(2).double()
        if self.filters is not None and len(self.filters) == flat.shape[1] and self.filters[0].numel() > 1:
            self.correlation.update(outputs)

    def compute(self) -> Float[Tensor, "c 5"]:
        """The statistics, over all images so far."""
        fires, energy = (self.fired / self.n).cpu(), (self.squares / self.n).cpu()
        selectivity, best = torch.full_like(fires, torch.nan), torch.full_like(fires, -1)
        if self.counts.dim() and (self.counts > 0).sum() > 1:
            present = self.counts.cpu().nonzero()[:, 0]
            means = (self.sums.cpu()[present]) / self.counts.cpu()[present, None]
            selectivity = class_selectivity(means, torch.arange(len(present)))  # one row a class: its mean
            best = torch.where(selectivity.isnan(), -1, present[means.argmax(0)].double())
        originals = torch.full_like(fires, -1)
        if self.filters is not None and self.correlation.update_called:
            originals = repeats(clusters(self.filters, self.correlation.compute())).double()
        return torch.stack([fires, selectivity, best, originals, energy], 1).float()
