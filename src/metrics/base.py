"""The three forms a metric can have: of statistics of images, of pairs of images, and of a layer.

A metric is a torchmetrics ``Metric``. Its ``update`` takes a batch and keeps a few numbers per image, not the maps, so
that memory does not grow with their size. ``compute`` gives its numbers by name, ``estimates`` also their intervals.
The same number of a single batch is a pure function in the metric's file.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn
from torchmetrics.utilities.data import dim_zero_cat

from ..common.errors import UserError
from ..stats.bootstrap import bootstrap_interval
from . import MODULES
from .layer_outputs import LayerOutputs, Population, TransformedOutputs, nan_where_not_finite
from .quantities import range_of
from .rows import Estimate

Labels = Int64[Tensor, " n"]
Images = Float[Tensor, "n _ _ _"]
#: k numbers of each image
Statistics = Shaped[Tensor, "n k"]


def check_outputs(name: str, *outputs: Any) -> None:
    """Refuse what is no batch of outputs of the same layer, for the same images; ``name`` is that of the metric.

    Raises:
        UserError: no tensors of floating-point numbers, of other than (n, c, …), empty, or of several shapes.
    """
    for tensor in outputs:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UserError(f"{name}: a tensor of floating-point numbers is needed, not {kind}")
        if tensor.ndim < 2 or 0 in tensor.shape:
            raise UserError(
                f"{name}: outputs of shape {tuple(tensor.shape)}: (n, channels, …) is needed, none of them 0"
            )
    if len({tensor.shape for tensor in outputs}) > 1:
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in outputs)
        raise UserError(f"{name}: outputs of shapes {shapes}: both must be of the same layer for the same images")


class Measure(Metric):
    """Numbers that are functions of means over images.

    A subclass defines two steps: ``of_images`` gives k statistics of each image of a batch, ``of_means`` makes the
    named numbers of their means over images. 0/0 is nan.
    """

    full_state_update = False
    higher_is_better: bool | None = None
    #: numbers that the bootstrap gives no interval, as their value depends on how many distinct images there are
    without_interval: ClassVar[tuple[str, ...]] = ()
    #: whether ``estimates`` gives intervals: none for maxima, ranks and counts of what never happens, which are biased
    #: at any n, and more so in a bootstrap sample, which has fewer distinct images
    has_intervals: ClassVar[bool] = True
    #: the statistics of every batch, (n, k)
    batches: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("batches", default=[], dist_reduce_fx="cat")

    def of_images(self, *inputs: Any) -> Statistics:
        """The statistics of each image of a batch."""
        raise NotImplementedError

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """Name → number, from the means over images; any leading dimensions are bootstrap samples."""
        raise NotImplementedError

    def update(self, *inputs: Any) -> None:
        """Add a batch: the inputs of ``of_images``."""
        self.batches.append(self.of_images(*inputs).detach())

    def statistics(self) -> Float[Tensor, "n k"]:
        """The statistics of all images so far."""
        return dim_zero_cat(self.batches).double()

    def compute(self) -> dict[str, Tensor]:
        """Name → number, for all images so far."""
        return self.of_means(self.statistics().mean(0))

    def interval(
        self, name: str, value: float, resampled: Float[Tensor, " draws"], means: Float[Tensor, " k"], n: int
    ) -> tuple[float, float]:
        """The 95% interval of a number: by bootstrap, unless a subclass computes it from the value or from ``means``,
        those of the statistics over n images. ``resampled`` is the number in the bootstrap samples.
        """
        return bootstrap_interval(resampled, n)

    def estimates(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """(name, estimate) for all images so far; ``weights`` from ``bootstrap_weights`` for as many images."""
        if self.has_intervals:
            yield from ((name, estimate) for _, name, estimate in estimates([self], weights))
            return
        for name, value in self.compute().items():
            yield name, Estimate(value.item(), float("nan"), float("nan"), weights.shape[1])


def estimates(
    measures: Sequence[Measure], weights: Float[Tensor, "draws n"]
) -> Iterator[tuple[Measure, str, Estimate]]:
    """(metric, name, estimate) of metrics of the same number of images; one matrix product resamples all of them, which
    is faster than many small ones.
    """
    statistics = [measure.statistics().cpu() for measure in measures]
    n = weights.shape[1]
    resampled_means = (weights @ torch.cat(statistics, 1) / n).split([table.shape[1] for table in statistics], 1)
    for measure, table, drawn in zip(measures, statistics, resampled_means, strict=True):
        means = table.mean(0)
        numbers, resampled = measure.of_means(means), measure.of_means(drawn)
        for name, value in numbers.items():
            low, high = float("nan"), float("nan")
            if name not in measure.without_interval:
                low, high = measure.interval(name, value.item(), resampled[name], means, n)
            least, most = range_of(name)
            yield measure, name, Estimate(value.item(), max(low, least), min(high, most), n)


class PairMeasure(Measure):
    """Compares a layer's outputs for images with those for the same images transformed (``MEASURE`` of a file).

    A metric that compares with other images (``needs_population``) needs at least 2 in every batch. Where all their
    outputs are the same it is nan, and ``compute`` warns.
    """

    #: where it is measured: "output" (the logits) or "layers" (every observed layer)
    on: ClassVar[str]
    #: needs outputs that are class scores
    of_classes: ClassVar[bool] = False
    #: needs the labels
    needs_labels: ClassVar[bool] = False
    #: compares with the distance to other images, so it needs their ``Population``
    needs_population: ClassVar[bool] = False
    #: its ``Population`` must keep all outputs: for logits, not for maps
    keeps_outputs: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.population = Population(self.keeps_outputs)
        self.shape: torch.Size | None = None

    def statistics(self) -> Float[Tensor, "n k"]:
        """The statistics of all images so far; batches that came without a ``Population`` are compared with all."""
        statistics = super().statistics()
        return self.over_all(statistics, self.population) if self.population.n else statistics

    def over_all(self, statistics: Float[Tensor, "n k"], population: Population) -> Float[Tensor, "n k"]:
        """Statistics of batches that were compared within themselves, rescaled to all pairs of images."""
        return statistics

    def update(
        self,
        reference: LayerOutputs | Float[Tensor, "n ..."],
        transformed: TransformedOutputs | Float[Tensor, "n ..."],
        labels: Labels | None = None,
    ) -> None:
        """Add a batch: outputs for the original and for the transformed images; labels if the metric needs them.

        Several metrics can share one ``LayerOutputs`` and one ``TransformedOutputs``, with what these have cached.

        Raises:
            UserError: outputs of other shapes than (n, c, …) or than those of the batches before, integers, a batch
                of one image, or no labels where they are needed.
        """
        if not isinstance(reference, LayerOutputs):  # else the caller has several metrics, and knows its layers
            self._refuse_unfit(reference, transformed, labels)
        reference = reference if isinstance(reference, LayerOutputs) else LayerOutputs(reference)
        if self.needs_population and reference.shared_population is None:
            self.population.add(reference.maps)
        if not isinstance(transformed, TransformedOutputs):
            transformed = TransformedOutputs(reference, transformed)
        super().update(reference, transformed, labels)
        if self.on == "output":
            self.batches[-1] = nan_where_not_finite(self.batches[-1], reference.outputs, transformed.outputs)

    def _refuse_unfit(self, reference: Any, transformed: Any, labels: Labels | None) -> None:
        name = type(self).__name__
        check_outputs(name, reference, transformed)
        if self.shape not in (None, reference.shape[1:]):
            sizes = f"{tuple(reference.shape[1:])} after {tuple(self.shape or ())}"
            raise UserError(
                f"{name}: outputs of {sizes} for an image: all must be of one layer; call reset() before another layer"
            )
        if self.needs_labels and (labels is None or len(labels) != len(reference)):
            raise UserError(f"{name}: {len(reference)} labels are needed")
        if self.needs_population and len(reference) < 2:
            raise UserError(f"{name}: a batch of 1 image: it compares with other images, so at least 2 are needed")
        self.shape = reference.shape[1:]

    def compute(self) -> dict[str, Tensor]:
        """Name → number, for all images so far; warns of those that are nan."""
        numbers = super().compute()
        if missing := [name for name, number in numbers.items() if number.isnan()]:
            why = "all outputs, or predictions, are the same, or some are not finite"
            rank_zero_warn(f"{', '.join(missing)} of {len(dim_zero_cat(self.batches))} images: nan, as {why}")
        return numbers

    def of_images(self, reference: LayerOutputs, transformed: TransformedOutputs, labels: Labels | None) -> Statistics:
        """The statistics of each image of a batch."""
        raise NotImplementedError


class LayerMeasure(Measure):
    """Describes one layer's outputs for original images (``LAYER_MEASURE`` of a file)."""

    #: needs maps, not vectors
    of_maps: ClassVar[bool] = False
    #: needs the labels
    needs_labels: ClassVar[bool] = False

    def update(
        self, outputs: Float[Tensor, "n ..."], labels: Labels | None = None, images: Images | None = None
    ) -> None:
        """Add a batch: the layer's outputs, with the labels and the images if the metric needs them.

        Raises:
            UserError: outputs of other shapes than (n, c, …), or integers.
        """
        check_outputs(type(self).__name__, outputs)
        super().update(outputs, labels, images)


def pair_measures() -> list[type[PairMeasure]]:
    """All registered metrics of pairs: an image and the same image transformed."""
    return _registered("MEASURE")


def layer_measures() -> list[type[LayerMeasure]]:
    """All registered metrics of a layer's outputs for original images."""
    return _registered("LAYER_MEASURE")


def _registered(name: str) -> list[Any]:
    modules = (import_module(f"{__package__}.{module}") for module in MODULES)
    return [getattr(module, name) for module in modules if name in vars(module)]
