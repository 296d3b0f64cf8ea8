"""What measures share: intervals by bootstrap over images, and the forms a measure can have.

A measure is a torchmetrics ``Metric``. Its ``update`` is fed batch by batch and keeps a few numbers an image, never the
maps, so memory does not grow with their size; ``compute`` gives its numbers by name, ``estimates`` the same with their
intervals. What it computes stands beside it as a pure function.
"""

from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from src.measures.rows import Estimate

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


def interval(resampled: Float[Tensor, " draws"]) -> tuple[float, float]:
    """The middle 95% of resampled values (percentile bootstrap), of those resamples that have one."""
    low, high = torch.nanquantile(resampled, torch.tensor([0.025, 0.975], dtype=resampled.dtype)).tolist()
    return low, high


def around(value: float, resampled: Float[Tensor, " draws"]) -> tuple[float, float]:
    """``value ± 1.96`` standard deviations of resampled values: for a number that picks the best of several.

    A resample, noisier than its sample, picks better ones yet, and the middle of its values can lie beside the number.
    """
    half = 1.96 * resampled.std().item()
    return value - half, value + half


def without_interval(numbers: dict[str, Tensor], n: int) -> Iterator[tuple[str, Estimate]]:
    """(name, estimate) of numbers that a bootstrap over images would bias, as maxima and ranks."""
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
    #: whether it picks the best of several: its interval is then ``around`` the number
    picks_best: ClassVar[bool] = False

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

    def compute(self) -> dict[str, Tensor]:
        """Its numbers by name, of all images so far."""
        return self.of_means(dim_zero_cat(self.kept).double().mean(0))

    def estimates(self, weights: Float[Tensor, "draws n"]) -> Iterator[tuple[str, Estimate]]:
        """(name, estimate) of all images so far; ``weights`` as from ``resamples``, for as many images."""
        for _, name, estimate in estimates([self], weights):
            yield name, estimate


def estimates(
    measures: Sequence[Measure], weights: Float[Tensor, "draws n"]
) -> Iterator[tuple[Measure, str, Estimate]]:
    """The numbers of measures that have seen the same number of images, in one product: many small ones take longer."""
    kept = [dim_zero_cat(measure.kept).double().cpu() for measure in measures]
    n = weights.shape[1]
    resampled = (weights @ torch.cat(kept, 1) / n).split([one.shape[1] for one in kept], 1)
    for measure, own, means in zip(measures, kept, resampled, strict=True):
        found, drawn = measure.of_means(own.mean(0)), measure.of_means(means)
        for name, value in found.items():
            ends = around(value.item(), drawn[name]) if measure.picks_best else interval(drawn[name])
            yield measure, name, Estimate(value.item(), *ends, n)


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


class Still:
    """A layer's outputs for a batch of untouched images, with what measures need of them, made once when asked for."""

    def __init__(self, outputs: Float[Tensor, "n ..."]) -> None:
        self.maps = outputs

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
        """Of each image and channel, the sum over positions of the squared distance to the batch's mean output."""
        maps, at = in_memory(self.maps)
        middle = total(self.flat).div(len(maps)).view(1, *maps.shape[1:]).movedim(at, 1)
        found = squares(self.maps, middle)
        scale = middle.square().reshape(*middle.shape[:2], -1).sum(2)
        # rounding is no deviation: a constant channel has none
        return torch.where(found.mean(0) > ROUNDING**2 * scale, found, 0)

    @cached_property
    def squared(self) -> Float[Tensor, " n"]:
        """Of each image, the mean of the squared l2 distances to the batch's other images (n ≥ 2)."""
        norms, n = self.deviation.sum(1), len(self.maps)
        return (norms + norms.mean()) * n / (n - 1)

    @cached_property
    def distance(self) -> Float[Tensor, " n"]:
        """Of each image, the mean of the l2 distances to the batch's other images (n ≥ 2)."""
        centred = self.flat - total(self.flat) / len(self.flat)  # what all share would only cost precision
        apart = torch.cdist(centred, centred, compute_mode="use_mm_for_euclid_dist")
        apart.fill_diagonal_(0)
        return apart.sum(1) / (len(apart) - 1)

    @cached_property
    def length(self) -> Float[Tensor, " n"]:
        """The l2 norm of each image's outputs."""
        norms: Tensor = torch.linalg.vector_norm(self.flat, dim=1)
        return norms

    @cached_property
    def cosine(self) -> Float[Tensor, " n"]:
        """Of each image, the mean of the cosines with the batch's other images (n ≥ 2)."""
        u, n = self.flat / self.length.clamp(min=torch.finfo(self.flat.dtype).tiny)[:, None], len(self.maps)
        return (u @ total(u) - u.square().sum(1)) / (n - 1)


class Moved(Still):
    """The same layer's outputs for the same images transformed, with how far they are from the untouched ones'."""

    def __init__(self, still: Still, outputs: Float[Tensor, "n ..."]) -> None:
        super().__init__(outputs)
        self.still = still

    @cached_property
    def apart(self) -> Float[Tensor, "n c"]:
        """Of each image and channel, the sum over positions of ``(φ(gx) - φ(x))²``."""
        return squares(self.maps, self.still.maps)


class PairMeasure(Measure):
    """Compares a layer's outputs for images with those for the same images transformed."""

    #: where it is taken: "output" (the logits) or "layers" (every layer that is watched)
    on: ClassVar[str]
    #: whether it makes sense of classes alone
    of_classes: ClassVar[bool] = False
    #: whether it asks for the labels
    needs_labels: ClassVar[bool] = False

    def update(
        self,
        still: Still | Float[Tensor, "n ..."],
        moved: Moved | Float[Tensor, "n ..."],
        labels: Int64[Tensor, " n"] | None = None,
    ) -> None:
        """Add a batch: outputs for the images, for the transformed ones, and the labels where the measure asks.

        Several measures can share one ``Still`` and one ``Moved``, and what these have made.
        """
        still = still if isinstance(still, Still) else Still(still)
        super().update(still, moved if isinstance(moved, Moved) else Moved(still, moved), labels)

    def of_images(self, still: Still, moved: Moved, labels: Int64[Tensor, " n"] | None) -> Shaped[Tensor, "n k"]:
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
