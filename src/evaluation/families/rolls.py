"""All rolls of an image: their mean and worst case at the output, and a heatmap over rolls at every layer."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from ...metrics.base import Labels, Measure, Statistics
from ...metrics.consistency import chance_corrected, consistency_interval
from ...metrics.layer_outputs import LayerOutputs, Population, nan_where_not_finite, ratio_or_nan
from ...metrics.quantities import Quantity
from ...metrics.rows import Estimate, Heatmap, Note, Row
from ...nets.hooks import reference_tensor
from ...stats.bootstrap import bootstrap_weights, wilson_interval
from ...transforms import crop
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, populations
from ..shift_table import ShiftTable, prepare

QUANTITIES = (
    Quantity("worst_case", low=0, high=1, better="higher", formula="P[argmax f(gx) = y for every shift g]",
        null="at most accuracy_in_place; falls with the number of shifts"),
    Quantity("accuracy_in_place", low=0, high=1, better="higher",
        formula="P[argmax f(x) = y] of the images whose shifts are measured", null="1 / classes"),
)  # fmt: skip
#: of the heatmaps and the note
PREFIXES = ("roll",)
#: the least number of images: rather than all shifts of fewer, a sample of shifts is measured
MIN_IMAGES = 8
#: forward passes per image for its distance to the other images
REFERENCE_FORWARDS = 1
#: the size of a sample of shifts: as many as the shifts by up to 8 pixels, (2 · 8 + 1)²
SAMPLE_SIZE = 17 * 17
#: numbers that need labels
NEED_LABELS = ("accuracy", "worst_case", "accuracy_in_place")


class ShiftOutputs(Measure):
    """The net's output under many shifts of each image; if these are all shifts, only the images are random.

    ``output_distance``: mean over all shifts g of ``‖f(gx) - f(x)‖``, relative to the mean distance between images. For
    classification also: ``consistency``, P[argmax f(gx) = argmax f(hx)] over all pairs of shifts, and the same
    corrected for chance; ``accuracy`` over all shifts; ``worst_case``, P[correct for every shift];
    ``accuracy_in_place``, of the same images unshifted (the first shift is (0, 0)), to compare both with. The
    population is that of the outputs for all images; None: each batch is all.
    """

    def __init__(self, classifies: bool = True, population: Population | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.classifies, self.population = classifies, population

    def of_images(self, outputs: Float[Tensor, "n rolls d"], labels: Labels | None = None) -> Statistics:
        """The distance between shifts and between images; then the agreement of two shifts, correct for all shifts,
        correct, correct unshifted, and the share of each predicted class.
        """
        distance = (outputs - outputs[:, :1]).norm(dim=2).mean(1)
        statistics = [distance, LayerOutputs(outputs[:, 0], self.population).distance]
        if self.classifies:
            predictions = outputs.argmax(2)
            shares = F.one_hot(predictions, outputs.shape[2]).to(outputs.dtype).mean(1)
            correct = predictions == (-1 if labels is None else labels[:, None])
            agreement = shares.square().sum(1)
            statistics += [agreement, correct.all(1).to(agreement.dtype), correct.to(agreement.dtype).mean(1)]
            statistics += [correct[:, 0].to(agreement.dtype), *shares.unbind(1)]
        return nan_where_not_finite(torch.stack(statistics, 1), outputs)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """All numbers; the distance alone without classification."""
        numbers = {"output_distance": ratio_or_nan(means[..., 0], means[..., 1])}
        if self.classifies:
            agreement, worst, correct, unshifted = means[..., 2:6].unbind(-1)
            corrected = chance_corrected(agreement, means[..., 6:])
            numbers |= {"consistency": agreement, "consistency_corrected": corrected}
            numbers |= {"accuracy": correct, "worst_case": worst, "accuracy_in_place": unshifted}
        return numbers

    def interval(self, name: str, value: float, resampled: Tensor, means: Tensor, n: int) -> tuple[float, float]:
        """Wilson's, for shares."""
        if name == "output_distance":
            return super().interval(name, value, resampled, means, n)
        if name.startswith("consistency"):
            return consistency_interval(name, means[2], means[6:], n)
        return wilson_interval(value, n)


class ShiftLayer(Measure):
    """A layer under many shifts of each image: ``invariance_error``, ``cosine`` and ``cosine_random`` (of two different
    images), as means over all shifts; and the first two for each shift. The population as for ``ShiftOutputs``.
    """

    errors: Tensor
    cosines: Tensor

    def __init__(self, population: Population | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.population = population
        for name in ("errors", "cosines"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, table: ShiftTable, name: str) -> None:
        """Add the layer of that name in a batch's table."""
        squared, norms = table.squared_difference[name], table.norms[name]
        product = (norms[:, :1].square() + norms.square() - squared) / 2  # by the law of cosines
        cosines = torch.where(norms == 0, 0, product / (norms[:, :1] * norms))
        self.errors, self.cosines = self.errors + squared.double().sum(0), self.cosines + cosines.double().sum(0)
        super().update(LayerOutputs(table.reference[name], self.population), squared.mean(1), cosines.mean(1))

    def of_images(
        self, reference: LayerOutputs, squared: Float[Tensor, " n"], cosines: Float[Tensor, " n"]
    ) -> Statistics:
        """The squared distances to other images and to its own shifts; the cosines with its shifts and other images."""
        return torch.stack([reference.squared_distance, squared, cosines, reference.cosine], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """``invariance_error``, ``cosine`` and ``cosine_random`` from the means of ``of_images``."""
        others, squared, cosine, random = means.unbind(-1)
        return {"invariance_error": ratio_or_nan(squared, others), "cosine": cosine, "cosine_random": random}

    def maps(self) -> dict[str, Float[Tensor, " shifts"]]:
        """The invariance error (``map``) and the cosine of each shift."""
        means = dim_zero_cat(self.batches).double().mean(0)
        n = sum(map(len, self.batches))
        return {"map": self.errors / n / means[0], "cosine": self.cosines / n}


def allowance(images: int, shared: bool) -> int:
    """The number of forward passes that may be spent: ten for each image if shifts share computation, else five; but no
    fewer than for 17 × 17 shifts of 8 images.

    >>> allowance(1000, shared=True), allowance(1000, shared=False), allowance(100, shared=False)
    (10000, 5000, 2320)
    """
    return max((10 if shared else 5) * images, MIN_IMAGES * (SAMPLE_SIZE + REFERENCE_FORWARDS))


def sample(
    shifts: Int64[Tensor, "shifts 2"], forwards: int, images: int, seed: int
) -> tuple[int, Int64[Tensor, "some 2"]]:
    """The number of images, and a sample of shifts, (0, 0) first, if each shift costs a forward pass.

    The sample has 289 shifts, or fewer if there would otherwise be fewer than 8 images. It never has more, so that nets
    measured on different numbers of images get the same number of shifts.

    ``shifts`` are all, (0, 0) first; ``forwards`` the forward passes to spend; ``images`` how many there are.
    """
    count = min(images, max(MIN_IMAGES, forwards // (SAMPLE_SIZE + REFERENCE_FORWARDS)))
    size = min(SAMPLE_SIZE - 1, max(1, forwards // count - 1 - REFERENCE_FORWARDS))
    order = torch.randperm(len(shifts) - 1, generator=torch.Generator().manual_seed(seed))
    return count, shifts[[0, *(1 + order[:size]).tolist()]]


def rows(adapter: ModelAdapter, test_set: EvaluationSet, forwards: int | None = None) -> Iterator[Row | Heatmap | Note]:
    """Rows for all H · W rolls (protocol ``all_rolls``; ``amount`` is their number), a heatmap over rolls of each
    layer, and a note on how they were computed.

    The number of images is limited to ``forwards`` forward passes. If it would be less than 8, a ``sample`` of rolls is
    measured instead (protocol ``sampled_rolls``). None: ``allowance``.
    """
    device = reference_tensor(adapter.net).device
    images = crop(test_set.padded, torch.zeros(len(test_set.padded), 2, dtype=torch.long), test_set.margin)
    rolls = prepare(adapter, adapter.normalise(images[:2].to(device)))
    forwards = forwards or allowance(len(images), rolls.tree is not None)
    count, protocol = int(forwards / (rolls.forwards + REFERENCE_FORWARDS)), "all_rolls"
    if count < MIN_IMAGES <= len(images):
        protocol = "sampled_rolls"
        count, shifts = sample(rolls.shifts, forwards, len(images), test_set.seed)
        rolls = replace(rolls, tree=None, shifts=shifts)
    count = min(max(count, 2), len(images))
    batches = images[:count].split(test_set.batch)
    population = populations(adapter, (adapter.normalise(batch.to(device)) for batch in batches))
    outputs = ShiftOutputs(adapter.classifies, population[OUTPUT])
    layers = {name: ShiftLayer(population[name]) for name in adapter.layers}
    for index in torch.arange(count).tensor_split(-(-count // rolls.batch)):
        table = rolls(adapter.normalise(images[index].to(device)))
        outputs.update(table.outputs, None if test_set.labels is None else test_set.labels[index].to(device))
        for name, layer in layers.items():
            layer.update(table, name)
    yield Note("rolls", f"{rolls.how} ({count} images)")
    yield from shift_rows(outputs, layers, protocol, len(rolls.shifts), test_set)
    for layer_name, layer in layers.items() if protocol == "all_rolls" else ():
        for name, values in layer.maps().items():
            yield Heatmap(layer_name, f"roll_{name}", values.view(images.shape[2:]).float().cpu().numpy())


def shift_rows(
    outputs: ShiftOutputs, layers: Mapping[str, ShiftLayer], protocol: str, amount: int, test_set: EvaluationSet
) -> Iterator[Row]:
    """The rows of the output and of every layer; ``amount`` is the number of shifts."""

    def estimates(metric: Measure) -> Iterator[tuple[str, Estimate]]:
        return metric.estimates(bootstrap_weights(sum(map(len, metric.batches)), test_set.seed))

    for name, estimate in estimates(outputs):
        if test_set.labels is not None or name not in NEED_LABELS:
            yield Row("output", "shift", protocol, amount, name, estimate)
    for layer_name, layer in layers.items():
        for name, estimate in estimates(layer):
            yield Row(layer_name, "shift", protocol, amount, name, estimate)
