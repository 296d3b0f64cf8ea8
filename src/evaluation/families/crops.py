"""All shifts of a window over its canvas: the worst case under true shifts; by fragments, else one by one.

What a padded net's windows have in common, the inside of their first maps (a third of the default net's work), is not
shared: to cut such maps into strips and to join them again takes as long as to compute them whole (0.9 to 1.2 of the
time on a CPU, layer by layer).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from ...errors import UserError
from ...metrics.rows import Heatmap, Note, Row
from ...nets.hooks import reference_tensor
from ...transforms import crop
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, populations, untransformed_batches
from ..fragments import Fragments
from ..fx import padding_of
from ..shift_table import AGREEMENT, ROOM, TOGETHER, TRIED, ShiftTable, one_by_one
from .rolls import FEWEST, IN_PLACE, ShiftLayer, ShiftOutputs, allowance, sample, shift_rows

#: fragments are worth it up to this share of a forward pass for each window
WORTH = 0.9
#: images whose fragments are held at once
IMAGES = 8


def every_shift(margin: int) -> Int64[Tensor, "shifts 2"]:
    """All of at most ``margin`` pixels along each axis, (0, 0) first.

    >>> len(every_shift(8))
    289
    """
    along = torch.arange(-margin, margin + 1)
    shifts = torch.cartesian_prod(along, along)
    return torch.cat([shifts.new_zeros(1, 2), shifts[shifts.abs().amax(1) > 0]])


@dataclass(frozen=True)
class Crops:
    """How a net's answers for shifted windows are had.

    Attributes:
        margin: around the images, in pixels; shifts are up to it.
        forwards: what all windows of an image cost, in forward passes.
        fragments: share what neighbouring windows have in common; None: each is a forward pass of its own.
        why: fragments are not used, in a line; empty where they are.
    """

    adapter: ModelAdapter
    margin: int
    forwards: float
    fragments: Fragments | None = None
    why: str = ""

    def __call__(self, canvas: UInt8[Tensor, "n c H W"], shifts: Int64[Tensor, "m 2"]) -> Float[Tensor, "n m d"]:
        """The answer of image i moved (down, right) by shift j at [i, j]."""
        if self.fragments is None:
            return enumerated(self.adapter, canvas, shifts, self.margin).outputs
        with torch.no_grad():
            outputs = self.fragments(self.adapter.normalise(canvas), self.margin - shifts, TOGETHER).flatten(0, 1)
            answers: Tensor = self.adapter.answer(outputs).unflatten(0, (len(canvas), -1))
            return answers

    @property
    def batch(self) -> int:
        """Images at once."""
        return TOGETHER if self.fragments is None else max(1, min(IMAGES, ROOM // self.fragments.peak))

    def how(self, count: int) -> str:
        """What is done with so many of the windows, at what cost, and why it is not done for less."""
        every = (2 * self.margin + 1) ** 2
        some = f"all {every:,} windows" if count == every else f"{count:,} of {every:,} windows, drawn"
        if self.fragments is None:
            return f"{some}, a forward pass each, as little or nothing can be shared: {self.why}"
        return f"{some} by fragments of the canvas; all cost {self.forwards:.3g} forward passes an image"


def enumerated(
    adapter: ModelAdapter, canvas: UInt8[Tensor, "n c H W"], shifts: Int64[Tensor, "m 2"], margin: int
) -> ShiftTable:
    """Each window a forward pass; for any net, and for its layers."""

    def moved(some: Int64[Tensor, "k 2"]) -> Tensor:
        many = some.to(canvas.device).repeat_interleave(len(canvas), 0)
        return adapter.normalise(crop(canvas.repeat(len(some), 1, 1, 1), many, margin))

    return one_by_one(adapter, len(canvas), shifts, moved)


def prepare(adapter: ModelAdapter, canvas: UInt8[Tensor, "n c H W"], margin: int) -> Crops:
    """By fragments, if that spares anything and gives what the net gives for random windows of two images; else one by
    one.
    """
    shifts, some = every_shift(margin), canvas[:2]
    alone = Crops(adapter, margin, len(shifts))
    channels, height, width = adapter.normalise(some).shape[1:]
    try:
        fragments = Fragments(adapter.net, (channels, height - 2 * margin, width - 2 * margin), margin)
    except UserError as error:
        return replace(alone, why=str(error))
    forwards = fragments.forwards if math.isfinite(fragments.forwards) else WORTH * alone.forwards
    if len(fragments.local) == 1 or forwards > WORTH * alone.forwards:
        return replace(alone, why=_sees_the_end(adapter.net, fragments.first_alone))
    if fragments.peak > ROOM:
        return replace(alone, why="the fragments of the canvas do not fit into memory")
    shared = replace(alone, forwards=forwards, fragments=fragments)
    drawn = shifts[torch.randperm(len(shifts), generator=torch.Generator().manual_seed(0))[:TRIED]]
    right = alone(some, drawn)
    off = (shared(some, drawn) - right).abs().max() / right.abs().max()
    if not off <= AGREEMENT.get(right.dtype, 1e-2):
        return replace(alone, why=f"what fragments give is off by {off:.1e}")
    return shared


def _sees_the_end(net: nn.Module, name: str) -> str:
    """Why a layer does not give a window what it gives the canvas there, as far as its padding says so."""
    mode = padding_of(net, name)
    return f"{name} pads with {mode}, so it sees where a window ends" if mode else f"{name} sees where a window ends"


def rows(adapter: ModelAdapter, test_set: EvaluationSet, forwards: int | None = None) -> Iterator[Row | Heatmap | Note]:
    """Rows for all shifts of up to the scene's margin (protocol ``all_crops``; ``amount`` is their number), each
    layer's maps of them, and a note that says how they were had, and why not by fragments where they were not.

    They are taken of as many images as ``forwards`` forward passes pay for (by default ``allowance``). Where that is
    fewer than 8, shifts are drawn instead (protocol ``sampled_crops``, by ``sample``). Layers take every window one by
    one; where the answers do not, fewer images will do for them.
    """
    shifts, most, protocol = every_shift(test_set.margin), len(test_set.canvas), "all_crops"
    device = reference_tensor(adapter.net).device
    crops = prepare(adapter, test_set.canvas[:2].to(device), test_set.margin)
    total = forwards or allowance(most, crops.fragments is not None)
    count = int(total / (crops.forwards + IN_PLACE))
    few = (forwards or allowance(most, shared=False)) // (len(shifts) + IN_PLACE)
    if count < min(FEWEST, most):
        crops, protocol = replace(crops, fragments=None), "sampled_crops"
        count, shifts = sample(shifts, total, most, test_set.seed)
    chosen = test_set.take(torch.arange(min(most, max(2, count))))
    seen = chosen.take(torch.arange(min(len(chosen.canvas), max(2, few)))) if crops.fragments else chosen
    others = populations(adapter, untransformed_batches(adapter, seen))
    everyone = others if seen is chosen else populations(adapter, untransformed_batches(adapter, chosen), layers=[])
    answers = ShiftOutputs(adapter.what, everyone[OUTPUT])
    layers = {name: ShiftLayer(others[name]) for name in adapter.layers}

    def answered(outputs: Tensor, index: Tensor) -> None:
        answers.update(outputs, None if chosen.labels is None else chosen.labels[index].to(device))

    for index in chosen.batches() if crops.fragments else ():
        some = (chosen.canvas[part].to(device) for part in index.split(crops.batch))
        answered(torch.cat([crops(canvas, shifts) for canvas in some]), index)
    for index in seen.batches():
        table = enumerated(adapter, seen.canvas[index].to(device), shifts, test_set.margin)
        if not crops.fragments:
            answered(table.outputs, index)
        for name, layer in layers.items():
            layer.update(table, name)
    yield Note("crops", f"{crops.how(len(shifts))} ({len(chosen.canvas)} images)")
    yield from shift_rows(answers, layers, protocol, len(shifts), test_set)
    for layer_name, layer in layers.items() if protocol == "all_crops" else ():
        for name, values in layer.maps().items():
            plane = values.new_empty(2 * test_set.margin + 1, 2 * test_set.margin + 1)
            plane[tuple((shifts + test_set.margin).to(values.device).unbind(1))] = values
            yield Heatmap(layer_name, f"crop_{name}", plane.float().cpu().numpy())
