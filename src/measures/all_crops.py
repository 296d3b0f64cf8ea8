"""All shifts of a window over its canvas, one by one: the worst case under true shifts.

Windows share little that can be shared exactly: a padded net sees the border of each in every layer. So each is a
forward pass, on as many images as there are passes for.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from src.activations import evaluating
from src.measures.all_rolls import FEWEST, RollOutputs, allowance
from src.measures.base import resamples
from src.measures.rolls import TOGETHER
from src.measures.rows import Row
from src.measures.subject import Scene, Subject
from src.transforms import crop


def every_shift(margin: int) -> Int64[Tensor, "shifts 2"]:
    """All of at most ``margin`` pixels along each axis, (0, 0) first.

    >>> len(every_shift(8))
    289
    """
    along = torch.arange(-margin, margin + 1)
    shifts = torch.cartesian_prod(along, along)
    return torch.cat([shifts.new_zeros(1, 2), shifts[shifts.abs().amax(1) > 0]])


@torch.no_grad()
def windows(
    subject: Subject, canvas: UInt8[Tensor, "n c H W"], shifts: Int64[Tensor, "shifts 2"], margin: int
) -> Float[Tensor, "n shifts d"]:
    """The answer of image i moved by shift j at [i, j]."""
    found = []
    with evaluating(subject.net):
        for some in shifts.split(max(1, TOGETHER // len(canvas))):
            many = canvas.repeat_interleave(len(some), 0)
            moved = crop(many, some.to(canvas.device).repeat(len(canvas), 1), margin)
            answers = subject.answer(subject.net(subject.normalise(moved)))
            found.append(answers.unflatten(0, (len(canvas), -1)))
    return torch.cat(found, 1)


def crop_rows(subject: Subject, scene: Scene, forwards: int | None = None) -> Iterator[Row]:
    """Rows for all shifts of up to the scene's margin (protocol ``all_crops``; ``amount`` is their number).

    They are taken of as many images as ``forwards`` forward passes pay for (by default ``allowance``). Where that is
    fewer than 16, shifts are drawn instead (protocol ``sampled_crops``).
    """
    shifts, most = every_shift(scene.margin), len(scene.canvas)
    total = forwards or allowance(most)
    few = min(FEWEST, most)
    if total < few * len(shifts):
        others = 1 + torch.randperm(len(shifts) - 1, generator=torch.Generator().manual_seed(scene.seed))
        shifts, protocol = shifts[[0, *others[: max(1, total // few - 1)].tolist()]], "sampled_crops"
    else:
        protocol = "all_crops"
    count = min(most, max(2, total // len(shifts)))
    device = next(subject.net.parameters()).device
    measure = RollOutputs(subject.what)
    for index in torch.arange(count).tensor_split(-(-count // TOGETHER)):
        labels = None if scene.labels is None else scene.labels[index].to(device)
        measure.update(windows(subject, scene.canvas[index].to(device), shifts, scene.margin), labels)
    for name, estimate in measure.estimates(resamples(count, scene.seed)):
        if scene.labels is not None or name not in ("accuracy", "worst_case"):
            yield Row("output", "shift", protocol, len(shifts), name, estimate)
