"""What measures share: intervals by bootstrap over images, and the forms a measure can have.

A measure is a torchmetrics ``Metric``. Its ``update`` is fed batch by batch and keeps a few numbers an image, never the
maps, so memory does not grow with their size; ``compute`` gives its numbers by name, ``estimates`` the same with their
intervals. What it computes stands beside it as a pure function.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from scipy.special import ndtr, ndtri, stdtrit
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from ..stats.intervals import range_of
from . import MODULES
from .rows import Estimate

#: numbers that are worked on at once on a CPU: 2 MB in float32
AT_ONCE = 2**19
#: a spread this small beside the values themselves is none, in float32
ROUNDING = 1e-5


@cache  # one draw serves every number of the same images
def resamples(n: int, seed: int = 0, draws: int = 1000) -> Float[Tensor, "draws n"]:
    """Bootstrap weights: how often each of n images is in each of the resampled sets (rows sum to n).

    Drawn once and shared by every number of a table, so a resampled mean is one product ``weights @ values / n``.
    """
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.multinomial(n, np.full(n, 1 / n), size=draws)).double()


def interval(resampled: Float[Tensor, " draws"], n: int) -> tuple[float, float]:
    """A 95% interval from values of resamples of n images, of those resamples that have one: their percentiles, a
    little further out than the middle 95%, so that the interval of a mean is as wide as Student's (expanded percentile
    bootstrap; Hesterberg 2015). The middle 95% covers 88% with 8 images. nan where n < 2.

    It asks for images that are alike enough: with fewer than 8, or where one image in ten decides (covered: 79% at 20
    images, 88% at 60), a sample does not show how much others may differ.
    """
    if n < 2 or resampled.isnan().all():
        return float("nan"), float("nan")
    low, high = torch.nanquantile(resampled, torch.tensor([_tail(n), 1 - _tail(n)], dtype=resampled.dtype)).tolist()
    return low, high


@cache
def _tail(n: int) -> float:
    """Of the percentiles that ``interval`` takes for n images, the lower."""
    return float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.975)))


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n images, in [0, 1] (Wilson 1927); nan where n is 0.

    It has a width at 0 and 1 too, where all resamples are alike. Of a mean of numbers between 0 and 1 it is too wide,
    if anything, as these vary less than zeros and ones of the same mean.

    >>> [round(end, 3) for end in wilson(1.0, 20)]
    [0.839, 1.0]
    """
    if not n > 0 or math.isnan(share):
        return float("nan"), float("nan")
    z = float(ndtri(0.975))
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    return min(share, max(low, 0.0)), max(share, min(high, 1.0))  # rounding puts no end beyond the share


def without_interval(numbers: dict[str, Tensor], n: int) -> Iterator[tuple[str, Estimate]]:
    """(name, estimate) of numbers that no resampling of images gives an interval: maxima, ranks, counts of what never
    happens. They are biased at any number of images, and a resample, which has fewer different ones, more so.
    """
    for name, value in numbers.items():
        yield name, Estimate(value.item(), float("nan"), float("nan"), n)


class Measure(Metric):
    """Numbers that are functions of means over images: of a few statistics an image, which are all it keeps.

    A subclass says which: ``of_images`` gives them for a batch, ``of_means`` makes the named numbers of their means.
    0/0 is nan: nothing to compare with.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better: bool | None = None

    kept: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("kept", default=[], dist_reduce_fx="cat")

    def of_images(self, *inputs: Any) -> Float[Tensor, "n k"]:
        """The statistics of each image of a batch."""
        raise NotImplementedError

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The measure's numbers, of the means over images; for many sets of images at once."""
        raise NotImplementedError

    def update(self, *inputs: Any) -> None:
        """Add a batch."""
        self.kept.append(self.of_images(*inputs).detach())

    def statistics(self) -> Float[Tensor, "n k"]:
        """Of all images so far."""
        return dim_zero_cat(self.kept).double()

    def compute(self) -> dict[str, Tensor]:
        """Its numbers by name, of all images so far."""
        return self.of_means(self.statistics().mean(0))

    def ends(
        self, name: str, found: dict[str, Tensor], drawn: Float[Tensor, " draws"], means: Float[Tensor, " k"], n: int
    ) -> tuple[float, float]:
        """The 95% interval of one of its numbers.

        Args:
            name: of the number.
            found: all its numbers.
            drawn: the number in resampled images.
            means: of the statistics, over images.
            n: images.
        """
        return interval(drawn, n)

    def estimates(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """(name, estimate) of all images so far; ``weights`` as from ``resamples``, for as many images."""
        for _, name, estimate in estimates([self], weights):
            yield name, estimate


def estimates(
    measures: Sequence[Measure], weights: Float[Tensor, "draws n"]
) -> Iterator[tuple[Measure, str, Estimate]]:
    """The numbers of measures that have seen the same number of images, in one product: many small ones take longer."""
    kept = [measure.statistics().cpu() for measure in measures]
    n = weights.shape[1]
    resampled = (weights @ torch.cat(kept, 1) / n).split([one.shape[1] for one in kept], 1)
    for measure, own, drawn_means in zip(measures, kept, resampled, strict=True):
        means = own.mean(0)
        found, drawn = measure.of_means(means), measure.of_means(drawn_means)
        for name, value in found.items():
            (low, high), (least, most) = measure.ends(name, found, drawn[name], means, n), range_of(name)
            yield measure, name, Estimate(value.item(), max(low, least), min(high, most), n)


def in_memory(maps: Float[Tensor, "n c ..."]) -> tuple[Float[Tensor, "n ..."], int]:
    """The maps with their dimensions in the order they have in memory, and which of them are the channels: the last
    of channels_last maps, which are slow to sum in another order. No gradients.

    >>> in_memory(torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last))[1]
    3
    """
    last = maps.dim() == 4 and not maps.is_contiguous() and maps.is_contiguous(memory_format=torch.channels_last)
    at = 3 if last else 1
    return maps.detach().movedim(1, at), at


def total(outputs: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Of all images: as products of some images each, which take half the time of a sum on a CPU; one of all would run
    on one core.
    """
    n = len(outputs)
    parts = next(k for k in range(8, 0, -1) if n % k == 0)
    summed: Tensor = (outputs.new_ones(parts, 1, n // parts) @ outputs.unflatten(0, (parts, -1))).sum((0, 1))
    return summed


def squares(maps: Float[Tensor, "n c ..."], others: Float[Tensor, "m c ..."]) -> Float[Tensor, "n c"]:
    """Of each image and channel, the sum over positions of the squared difference. Where there are fewer others (n is a
    multiple of m), they are taken again and again.
    """
    maps, at = in_memory(maps)
    others = others.detach().movedim(1, at)
    places = tuple(1 + place for place in range(1, maps.dim()) if place != at)
    # a CPU does as many images at once as its caches hold
    images = max(1, AT_ONCE // max(1, maps[:1].numel())) if maps.device.type == "cpu" else len(maps)
    found = []
    for turns in maps.unflatten(0, (-1, len(others))).split(max(1, images // len(others))):
        both = zip(turns.split(images, 1), others.split(images), strict=True)
        apart = (F.mse_loss(one, other.expand_as(one), reduction="none") for one, other in both)
        found.append(torch.cat([part.sum(places) if places else part for part in apart], 1))
    return torch.cat(found).flatten(0, 1)


class Population:
    """What is known of a layer's outputs for all images measured: every distance to "other images" is over all pairs of
    these, however they are batched. Fed batch by batch, it keeps a few numbers an output, never the maps.

    Args:
        keep: also keep the outputs themselves, which distances that are not squared need: for answers, not for maps.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep, self.n = keep, 0
        self.kept: list[Tensor] = []

    def add(self, outputs: Float[Tensor, "n c ..."]) -> None:
        """Count in a batch (n ≥ 1)."""
        maps, at = in_memory(outputs)
        middle = total(maps.flatten(1)).div(len(maps)).view(1, *maps.shape[1:]).movedim(at, 1)
        around_middle = squares(outputs, middle).double().sum(0)
        units = maps.flatten(1) / lengths(maps.flatten(1))[:, None]
        direction = total(units).view(1, *maps.shape[1:]).movedim(at, 1).double()
        same = units.square().sum().double()
        if self.keep:
            self.kept.append(outputs.detach().flatten(1))
        if not self.n:
            self.n, self.mean, self.spread = len(maps), middle.double(), around_middle
            self.direction, self.same = direction, same
            return
        # Chan, Golub & LeVeque (1983): the sums of squares about each mean, and what the means lie apart
        apart, n = middle.double() - self.mean, self.n + len(maps)
        squared_apart = apart.square().reshape(*apart.shape[:2], -1).sum((0, 2))
        self.spread = self.spread + around_middle + squared_apart * self.n * len(maps) / n
        self.mean = self.mean + apart * len(maps) / n
        self.direction, self.same, self.n = self.direction + direction, self.same + same, n

    @cached_property
    def varies(self) -> Bool[Tensor, " c"]:
        """Of each channel, whether it is not the same for all images; rounding is no difference."""
        scale = self.mean.square().reshape(*self.mean.shape[:2], -1).sum((0, 2))
        return self.spread > self.n * ROUNDING**2 * scale

    @cached_property
    def outputs(self) -> Float[Tensor, "n d"]:
        """All outputs that were kept."""
        return torch.cat(self.kept)

    @cached_property
    def distance(self) -> Float[Tensor, ""]:
        """The mean l2 distance over all pairs of images."""
        some = self.outputs.split(max(1, AT_ONCE // self.n))
        return torch.stack([self.distances(one).sum() for one in some]).sum() / self.n

    def distances(self, outputs: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
        """Of each of the images, the mean of the l2 distances to all others."""
        apart = torch.cdist(outputs, self.outputs, compute_mode="donot_use_mm_for_euclid_dist")
        return apart.sum(1) / (self.n - 1)

    @property
    def variance(self) -> Float[Tensor, " c"]:
        """Of each channel, that over images, summed over positions; unbiased."""
        return torch.where(self.varies, self.spread, 0) / (self.n - 1)

    @property
    def cosine(self) -> Float[Tensor, ""]:
        """The mean cosine over all pairs of images."""
        return (self.direction.square().sum() - self.same) / (self.n * (self.n - 1))


def lengths(flat: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The l2 norm of each row, above 0: something that can be divided by."""
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return norms.clamp(min=torch.finfo(flat.dtype).tiny)


def relative(above: Float[Tensor, "..."], below: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """One mean over another that is a distance between images: nan where that is not above 0, as where all images are
    the same, or in a resample of few images by their ``shares``, which may be negative.
    """
    return torch.where(below > 0, above / below, torch.nan)


def shares(others: Float[Tensor, " m"], pairs: Float[Tensor, ""], n: int) -> Float[Tensor, " m"]:
    """What each of n images has of a mean over all pairs of them, by its own mean over the others: numbers whose mean
    is that of all pairs, and whose variance over n is that of the mean of all pairs over draws of images.

    The mean over pairs is a U-statistic (Hoeffding 1948), and these are its jackknife's pseudo-values. To resample
    each image's mean over the others itself gives half the standard error, as it is in the means of the others too.

    >>> shares(torch.tensor([1.0, 2, 3]), torch.tensor(2.0), 3).tolist()
    [-2.0, 2.0, 6.0]
    """
    return pairs + (others - pairs) * 2 * (n - 1) / max(n - 2, 1)


class LayerOutputs:
    """A layer's outputs for a batch of untouched images, with what measures need of them, made once when asked for.

    What compares with other images is given as each image's share of the mean over all pairs (``shares``).

    Args:
        outputs: of the batch.
        population: of all images measured, the batch among them; None: the batch is all.
    """

    def __init__(self, outputs: Float[Tensor, "n ..."], population: Population | None = None) -> None:
        self.maps = outputs
        self.given = population

    @cached_property
    def population(self) -> Population:
        """Of all images measured."""
        if self.given is not None:
            return self.given
        alone = Population(keep=True)
        alone.add(self.maps)
        return alone

    @cached_property
    def outputs(self) -> Float[Tensor, "n d"]:
        """Flattened."""
        return self.maps.flatten(1)

    @cached_property
    def flat(self) -> Float[Tensor, "n d"]:
        """Flattened in the order they have in memory: no copy."""
        return in_memory(self.maps)[0].flatten(1)

    @cached_property
    def deviation(self) -> Float[Tensor, "n c"]:
        """Of each image and channel, the sum over positions of the squared distance to the mean output of all."""
        found = squares(self.maps, self.population.mean.to(self.maps).reshape(1, *self.maps.shape[1:]))
        varies = self.population.varies
        return found * varies.repeat_interleave(found.shape[1] // len(varies))  # a flattened map has many a channel

    @cached_property
    def squared(self) -> Float[Tensor, " n"]:
        """Of each image, its share of the mean squared l2 distance over all pairs of images (n ≥ 2)."""
        n = self.population.n
        pairs = 2 * self.population.variance.sum().to(self.maps)
        return shares((self.deviation.sum(1) * n / (n - 1) + pairs / 2).to(self.maps), pairs, n)

    @cached_property
    def distance(self) -> Float[Tensor, " n"]:
        """Of each image, its share of the mean l2 distance over all pairs of images (n ≥ 2)."""
        others = self.population
        return shares(others.distances(self.outputs), others.distance, others.n)

    @cached_property
    def length(self) -> Float[Tensor, " n"]:
        """The l2 norm of each image's outputs."""
        norms: Tensor = torch.linalg.vector_norm(self.flat, dim=1)
        return norms

    @cached_property
    def cosine(self) -> Float[Tensor, " n"]:
        """Of each image, its share of the mean cosine over all pairs of images (n ≥ 2)."""
        units, at, n = self.flat / lengths(self.flat)[:, None], in_memory(self.maps)[1], self.population.n
        direction = self.population.direction.to(self.maps).reshape(1, *self.maps.shape[1:]).movedim(1, at).flatten()
        others = (units @ direction - units.square().sum(1)) / (n - 1)
        return shares(others, self.population.cosine.to(others), n)


class TransformedOutputs(LayerOutputs):
    """The same layer's outputs for the same images transformed, with how far they are from the untouched ones'."""

    def __init__(self, still: LayerOutputs, outputs: Float[Tensor, "n ..."]) -> None:
        super().__init__(outputs)
        self.still = still

    @cached_property
    def apart(self) -> Float[Tensor, "n c"]:
        """Of each image and channel, the sum over positions of ``(φ(gx) - φ(x))²``."""
        return squares(self.maps, self.still.maps)


def undefined(statistics: Shaped[Tensor, "n k"], *answers: Float[Tensor, "n ..."]) -> Shaped[Tensor, "n k"]:
    """The statistics, nan for images with an answer that is infinite or nan: of such, ``argmax`` says the first of
    equals, so that a net that says nothing would agree with itself, and be right about that class.
    """
    missing = torch.stack([~one.flatten(1).isfinite().all(1) for one in answers]).any(0)
    return torch.where(missing[:, None], torch.nan, statistics) if missing.any() else statistics


class PairMeasure(Measure):
    """Compares a layer's outputs for images with those for the same images transformed."""

    #: where it is taken: "output" (the logits) or "layers" (every layer that is watched)
    on: ClassVar[str]
    #: whether it makes sense of classes alone
    of_classes: ClassVar[bool] = False
    #: whether it asks for the labels
    needs_labels: ClassVar[bool] = False
    #: whether it compares with the distance to other images, and so needs their ``Population``
    relative: ClassVar[bool] = False
    #: of maps no outputs can be kept
    keeps_outputs: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.others = Population(self.keeps_outputs)

    def statistics(self) -> Float[Tensor, "n k"]:
        """Of all images so far. Where batches came without a ``Population``, it is that of all of them now."""
        found = super().statistics()
        return self.over_all(found, self.others) if self.others.n else found

    def over_all(self, statistics: Float[Tensor, "n k"], others: Population) -> Float[Tensor, "n k"]:
        """The statistics of batches, each compared with its own images, put on the scale of all pairs of images."""
        return statistics

    def update(
        self,
        still: LayerOutputs | Float[Tensor, "n ..."],
        moved: TransformedOutputs | Float[Tensor, "n ..."],
        labels: Int64[Tensor, " n"] | None = None,
    ) -> None:
        """Add a batch: outputs for the images, for the transformed ones, and the labels where the measure asks.

        Several measures can share one ``LayerOutputs`` and one ``TransformedOutputs``, and what these have made.
        """
        still = still if isinstance(still, LayerOutputs) else LayerOutputs(still)
        if self.relative and still.given is None:
            self.others.add(still.maps)
        moved = moved if isinstance(moved, TransformedOutputs) else TransformedOutputs(still, moved)
        super().update(still, moved, labels)
        if self.on == "output":
            self.kept[-1] = undefined(self.kept[-1], still.outputs, moved.outputs)

    def of_images(
        self, still: LayerOutputs, moved: TransformedOutputs, labels: Int64[Tensor, " n"] | None
    ) -> Shaped[Tensor, "n k"]:
        """The statistics of each image of a batch."""
        raise NotImplementedError


class LayerMeasure(Measure):
    """Looks at one layer's outputs for untouched images."""

    #: whether it makes sense of maps alone, not of vectors
    of_maps: ClassVar[bool] = False
    #: whether it asks for the labels
    needs_labels: ClassVar[bool] = False
    #: whether it asks for the images
    needs_images: ClassVar[bool] = False

    def update(
        self,
        outputs: Float[Tensor, "n ..."],
        labels: Int64[Tensor, " n"] | None = None,
        images: Float[Tensor, "n c h w"] | None = None,
    ) -> None:
        """Add a batch: the layer's outputs, with the labels and the images where the measure asks for them."""
        super().update(outputs, labels, images)


def pair_measures() -> list[type[PairMeasure]]:
    """All measures of pairs, an image and the same transformed."""
    return _registered("MEASURE")


def layer_measures() -> list[type[LayerMeasure]]:
    """All measures of a layer's outputs for untouched images."""
    return _registered("LAYER_MEASURE")


def _registered(name: str) -> list[Any]:
    modules = (import_module(f"{__package__}.{one}") for one in MODULES)
    return [getattr(module, name) for module in modules if name in vars(module)]
