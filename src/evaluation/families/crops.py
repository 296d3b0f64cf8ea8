"""All shifts of a window over a padded image: the worst case under true shifts; by fragments, else one by one.

The windows of a net with padding also share the inner parts of their first maps (a third of the default net's work).
These are computed again for each window: to cut maps into strips and join them takes as long as to compute them (0.9 to
1.2 of the time on a CPU, layer by layer).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ...common.errors import UserError
from ...metrics.rows import Heatmap, Note, Row
from ...nets.hooks import reference_tensor
from ...transforms import crop
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, populations, untransformed_batches
from ..all_rolls import AGREEMENT, FORWARD_BATCH, MAX_ELEMENTS, PERMUTED, TESTED_SHIFTS, ShiftTable, one_by_one
from ..fragments import Fragments
from ..fx import padding_of
from ..worst_case import ShiftLayer, ShiftOutputs
from .rolls import MIN_IMAGES, REFERENCE_FORWARDS, allowance, sample, shift_rows

#: of the heatmaps and the note
PREFIXES = ("crop",)
#: fragments are used if they cost at most this share of a forward pass for each window
MAX_COST = 0.9
#: the largest number of images whose fragments are in memory at once
MAX_BATCH = 8


def every_shift(margin: int) -> Int64[Tensor, "shifts 2"]:
    """All shifts (down, right) by at most ``margin`` pixels along each axis, (0, 0) first.

    >>> len(every_shift(8))
    289
    """
    along = torch.arange(-margin, margin + 1)
    shifts = torch.cartesian_prod(along, along)
    return torch.cat([shifts.new_zeros(1, 2), shifts[shifts.abs().amax(1) > 0]])


@dataclass(frozen=True)
class Crops:
    """How a net's outputs for shifted windows are computed."""

    adapter: ModelAdapter
    margin: int  # around the images, in pixels; the largest shift
    forwards: float  # the cost of all windows of an image, in forward passes
    fragments: Fragments | None = None  # share computation between windows; None: each is a forward pass of its own
    why: str = ""  # the reason why fragments are not used; empty if they are

    def __call__(self, padded: Shaped[Tensor, "n c H W"], shifts: Int64[Tensor, "m 2"]) -> Float[Tensor, "n m d"]:
        """The output for image i moved (down, right) by shift j, at [i, j]."""
        if self.fragments is None:
            return one_by_one_crops(self.adapter, padded, shifts, self.margin).outputs
        with torch.no_grad():
            corners = self.margin - shifts
            outputs = self.fragments(self.adapter.normalise(padded), corners, FORWARD_BATCH).flatten(0, 1)
            selected: Tensor = self.adapter.select_output(outputs).unflatten(0, (len(padded), -1))
            return selected

    @property
    def batch(self) -> int:
        """Images of a batch."""
        if self.fragments is None:
            return FORWARD_BATCH
        return max(1, min(MAX_BATCH, MAX_ELEMENTS // self.fragments.peak))

    def how(self, count: int) -> str:
        """The method for ``count`` windows, its cost, and the reason why it is not faster: a sentence for people."""
        total = (2 * self.margin + 1) ** 2
        windows = f"all {total:,} windows" if count == total else f"{count:,} of {total:,} windows, drawn at random"
        if self.fragments is None:
            return f"{windows}, one by one: {self.why}"
        return f"{windows} by fragments of the padded image; all cost {self.forwards:.3g} forward passes per image"


def one_by_one_crops(
    adapter: ModelAdapter, padded: Shaped[Tensor, "n c H W"], shifts: Int64[Tensor, "m 2"], margin: int
) -> ShiftTable:
    """A forward pass for each window; for any net, and for its layers."""

    def shifted(some: Int64[Tensor, "k 2"]) -> Tensor:
        of_images = some.to(padded.device).repeat_interleave(len(padded), 0)
        return adapter.normalise(crop(padded.repeat(len(some), 1, 1, 1), of_images, margin))

    return one_by_one(adapter, len(padded), shifts, shifted)


def prepare(adapter: ModelAdapter, padded: Shaped[Tensor, "n c H W"], margin: int) -> Crops:
    """By fragments, if they are cheaper and agree with the net on random windows of two images; else one by one.
    ``padded`` are two or more images with their margin in pixels.
    """
    shifts, images = every_shift(margin), padded[:2]
    alone = Crops(adapter, margin, len(shifts))
    if adapter.permutation is not None:
        return replace(alone, why=PERMUTED)
    channels, height, width = adapter.normalise(images).shape[1:]
    try:
        fragments = Fragments(adapter.net, (channels, height - 2 * margin, width - 2 * margin), margin)
    except UserError as error:
        return replace(alone, why=str(error))
    forwards = fragments.forwards if math.isfinite(fragments.forwards) else MAX_COST * alone.forwards
    if len(fragments.local) == 1 or forwards > MAX_COST * alone.forwards:
        mode = padding_of(adapter.net, fragments.first_alone)
        pads = f"pads with {mode}, so it " if mode else ""
        return replace(alone, why=f"{fragments.first_alone} {pads}sees where a window ends")
    if fragments.peak > MAX_ELEMENTS:
        return replace(alone, why="the fragments of the padded image do not fit into memory")
    shared = replace(alone, forwards=forwards, fragments=fragments)
    drawn = shifts[torch.randperm(len(shifts), generator=torch.Generator().manual_seed(0))[:TESTED_SHIFTS]]
    expected = alone(images, drawn)
    off = (shared(images, drawn) - expected).abs().max() / expected.abs().max()
    if not off <= AGREEMENT.get(expected.dtype, 1e-2):
        return replace(alone, why=f"the result of fragments is off by {off:.1e}")
    return shared


def rows(adapter: ModelAdapter, test_set: EvaluationSet, forwards: int | None = None) -> Iterator[Row | Heatmap | Note]:
    """Rows for all shifts by up to the margin (protocol ``all_crops``; ``amount`` is their number), heatmaps over
    shifts of each layer, and a note on how they were computed.

    The number of images is limited to ``forwards`` forward passes. If it would be less than 8, a ``sample`` of shifts
    is measured instead (protocol ``sampled_crops``). Layers always run on every window one by one: where the output
    does not, they are measured on fewer images. None: ``allowance``.
    """
    shifts, available, protocol = every_shift(test_set.margin), len(test_set.padded), "all_crops"
    device = reference_tensor(adapter.net).device
    crops = prepare(adapter, test_set.padded[:2].to(device), test_set.margin)
    total = forwards or allowance(available, crops.fragments is not None)
    count = int(total / (crops.forwards + REFERENCE_FORWARDS))
    count_for_layers = (forwards or allowance(available, shared=False)) // (len(shifts) + REFERENCE_FORWARDS)
    if count < min(MIN_IMAGES, available):
        crops, protocol = replace(crops, fragments=None), "sampled_crops"
        count, shifts = sample(shifts, total, available, test_set.seed)
    images = test_set.take(torch.arange(min(available, max(2, count))))
    few = images.take(torch.arange(min(len(images.padded), max(2, count_for_layers)))) if crops.fragments else images
    of_few = populations(adapter, untransformed_batches(adapter, few))
    of_all = of_few if few is images else populations(adapter, untransformed_batches(adapter, images), layers=[])
    outputs = ShiftOutputs(adapter.classifies, of_all[OUTPUT])
    layers = {name: ShiftLayer(of_few[name]) for name in adapter.layers}

    def update_outputs(values: Tensor, index: Tensor) -> None:
        outputs.update(values, None if images.labels is None else images.labels[index].to(device))

    for index in images.batches() if crops.fragments else ():
        batches = (images.padded[part].to(device) for part in index.split(crops.batch))
        update_outputs(torch.cat([crops(padded, shifts) for padded in batches]), index)
    for index in few.batches():
        table = one_by_one_crops(adapter, few.padded[index].to(device), shifts, test_set.margin)
        if not crops.fragments:
            update_outputs(table.outputs, index)
        for name, layer in layers.items():
            layer.update(table, name)
    yield Note("crops", f"{crops.how(len(shifts))} ({len(images.padded)} images)")
    yield from shift_rows(outputs, layers, protocol, len(shifts), test_set)
    for layer_name, layer in layers.items() if protocol == "all_crops" else ():
        for name, values in layer.maps().items():
            heatmap = values.new_empty(2 * test_set.margin + 1, 2 * test_set.margin + 1)
            heatmap[tuple((shifts + test_set.margin).to(values.device).unbind(1))] = values
            yield Heatmap(layer_name, f"crop_{name}", heatmap.float().cpu().numpy())
