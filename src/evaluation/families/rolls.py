"""All rolls of an image: their mean and worst case at the output, and a heatmap over rolls at every layer."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from ...metrics.base import Measure
from ...metrics.quantities import Quantity
from ...metrics.rows import Estimate, Heatmap, Note, Row
from ...nets.hooks import reference_tensor
from ...stats.bootstrap import bootstrap_weights
from ...transforms import crop
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, populations
from ..all_rolls import prepare
from ..worst_case import NEED_LABELS, ShiftLayer, ShiftOutputs

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
