"""What each channel of a layer does: how often it fires, for which class, and whose work it repeats."""

from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torchmetrics import Metric

from ..metrics.channel_health import ChannelCorrelation, clusters
from ..metrics.class_selectivity import class_selectivity

#: the columns of what ``ChannelFacts`` gives
FACTS = ("fires", "selectivity", "best_class", "repeats", "energy")


def repeats(cluster: Int32[Tensor, " c"]) -> Int64[Tensor, " c"]:
    """Of each channel the first one of its cluster (``health.clusters``), which it repeats; -1 for that one itself.

    >>> repeats(torch.tensor([0, 1, 0, 2, 1], dtype=torch.int32)).tolist()
    [-1, -1, 0, -1, 1]
    """
    first = (cluster[:, None] == cluster).int().argmax(1)
    return torch.where(first < torch.arange(len(cluster)), first, -1)


def ranking(facts: Float[Tensor, "c 5"]) -> Int64[Tensor, " c"]:
    """All channels, the most selective first; where none has a selectivity (no classes), the one of most energy. The
    dead come last; ties in the order of the channels.

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
    """Facts of every channel of a layer, (c, 5) float32, the columns as in ``FACTS``:

    ``fires``: share of the images for which it is above 0 at some position; 0 is what ``health`` calls dead.
    ``selectivity``: ``class_selectivity`` of what it keeps after a ReLU and a mean over positions, in [0, 1]; nan for a
    dead channel, and without classes. ``best_class``: the class of its largest mean; -1 where selectivity is nan.
    ``repeats``: the first channel of its cluster in ``health.clusters``; -1 where it is that one.
    ``energy``: its mean square over images and positions.

    It keeps a few numbers a class and channel, and the products of all pairs of channels; nothing grows with images.

    Args:
        classes: number of classes; 0: there are none.
        filters: of the channels (``capture.filters_of``); None, or not one for each channel: nothing repeats.
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
        """Add a batch: the layer's outputs, and the class of each image where there are classes."""
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
        """The facts, of all images so far."""
        fires, energy = (self.fired / self.n).cpu(), (self.squares / self.n).cpu()
        selectivity, best = torch.full_like(fires, torch.nan), torch.full_like(fires, -1)
        if self.counts.dim() and (self.counts > 0).sum() > 1:
            there = self.counts.cpu().nonzero()[:, 0]
            means = (self.sums.cpu()[there]) / self.counts.cpu()[there, None]
            selectivity = class_selectivity(means, torch.arange(len(there)))  # a class's mean stands for its images
            best = torch.where(selectivity.isnan(), -1, there[means.argmax(0)].double())
        others = torch.full_like(fires, -1)
        if self.filters is not None and self.correlation.update_called:
            others = repeats(clusters(self.filters, self.correlation.compute())).double()
        return torch.stack([fires, selectivity, best, others, energy], 1).float()
