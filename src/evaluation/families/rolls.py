"""What all rolls of an image do: at the output, where the worst case is known, and at every layer, by roll."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from ...metrics.base import LayerOutputs, Measure, Population, relative, resamples, undefined, wilson
from ...metrics.consistency import agreement_ends, chance_corrected
from ...metrics.rows import Estimate, Heatmap, Note, Row
from ...nets.hooks import reference_tensor
from ...transforms import crop
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, populations
from ..shift_table import ShiftTable, prepare

#: images that are too few to say anything of others: rather than all shifts of fewer, some are drawn
FEWEST = 8
#: forward passes an image that tell how far the images lie apart
IN_PLACE = 1
#: shifts by up to 8 pixels, (2 · 8 + 1)²: as many are drawn of an image
DRAWN = 17 * 17


#: what is only known with labels
OF_LABELS = ("accuracy", "worst_case", "accuracy_in_place")


class ShiftOutputs(Measure):
    """What many shifts do to the answer; where they are all there are, nothing is left to chance but the images.

    ``output_distance``: mean over all shifts g of ``‖f(gx) - f(x)‖`` over the mean distance between images. For classes
    also: ``consistency``, P[argmax f(gx) = argmax f(hx)] over all pairs of shifts, with the same corrected for chance;
    ``accuracy`` over all shifts; ``worst_case``, P[right for every shift]; ``accuracy_in_place``, of the same images
    unshifted (the first shift is none), to compare these two with.
    """

    def __init__(self, what: bool = True, others: Population | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.what, self.others = what, others

    def of_images(
        self, outputs: Float[Tensor, "n rolls d"], labels: Int64[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n k"]:
        """Of each image: how far it moves, how far the others are; agreement, right always, right, right
        in place; class shares.
        """
        still = LayerOutputs(outputs[:, 0], self.others)
        moved = (outputs - outputs[:, :1]).norm(dim=2).mean(1)
        numbers = [moved, still.distance]
        if self.what:
            answers = outputs.argmax(2)
            shares = F.one_hot(answers, outputs.shape[2]).to(outputs.dtype).mean(1)
            right = answers == (-1 if labels is None else labels[:, None])
            both = shares.square().sum(1)
            numbers += [both, right.all(1).to(both.dtype), right.to(both.dtype).mean(1)]
            numbers += [right[:, 0].to(both.dtype), *shares.unbind(1)]
        return undefined(torch.stack(numbers, 1), outputs)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """By name."""
        found = {"output_distance": relative(means[..., 0], means[..., 1])}
        if self.what:
            same, worst, right, untransformed_batches = means[..., 2:6].unbind(-1)
            found |= {
                "consistency": same,
                "consistency_corrected": chance_corrected(same, means[..., 6:]),
                "accuracy": right,
                "worst_case": worst,
                "accuracy_in_place": untransformed_batches,
            }
        return found

    def ends(self, name: str, found: dict[str, Tensor], drawn: Tensor, means: Tensor, n: int) -> tuple[float, float]:
        """Wilson's of shares."""
        if name == "output_distance":
            return super().ends(name, found, drawn, means, n)
        if name.startswith("consistency"):
            return agreement_ends(name, found["consistency"], means[6:], n)
        return wilson(found[name].item(), n)


class ShiftLayer(Measure):
    """What many shifts do to a layer: ``invariance_error``; ``cosine``, with ``cosine_random`` of two images beside it;
    the means over all shifts, and a map of each, by shift.
    """

    errors: Tensor
    cosines: Tensor

    def __init__(self, others: Population | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.others = others
        for name in ("errors", "cosines"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, table: ShiftTable, name: str) -> None:
        """Add the layer of that name in a batch's table."""
        squared, lengths, still = table.squared[name], table.lengths[name], LayerOutputs(table.still[name], self.others)
        product = (lengths[:, :1].square() + lengths.square() - squared) / 2  # by the law of cosines
        cosines = torch.where(lengths == 0, 0, product / (lengths[:, :1] * lengths))
        self.errors, self.cosines = self.errors + squared.double().sum(0), self.cosines + cosines.double().sum(0)
        super().update(still, squared.mean(1), cosines.mean(1))

    def of_images(
        self, still: LayerOutputs, squared: Float[Tensor, " n"], cosines: Float[Tensor, " n"]
    ) -> Float[Tensor, "n k"]:
        """How far the others are, how far shifts move it; the cosine with them, and with the others."""
        return torch.stack([still.squared, squared, cosines, still.cosine], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """By name."""
        others, squared, cosine, random = means.unbind(-1)
        return {"invariance_error": relative(squared, others), "cosine": cosine, "cosine_random": random}

    def maps(self) -> dict[str, Float[Tensor, " shifts"]]:
        """Of each shift: its invariance error, and its cosine."""
        means = dim_zero_cat(self.kept).double().mean(0)
        n = sum(map(len, self.kept))
        return {"map": self.errors / n / means[0], "cosine": self.cosines / n}


def allowance(images: int, shared: bool) -> int:
    """Forward passes that many shifts of a few images may cost: for each image there is ten where shifts share work,
    else five; but no fewer than all 17 × 17 shifts by up to 8 pixels of 8 images take.

    >>> allowance(1000, shared=True), allowance(1000, shared=False), allowance(100, shared=False)
    (10000, 5000, 2320)
    """
    return max((10 if shared else 5) * images, FEWEST * (DRAWN + IN_PLACE))


def sample(
    shifts: Int64[Tensor, "shifts 2"], forwards: int, images: int, seed: int
) -> tuple[int, Int64[Tensor, "some 2"]]:
    """How many of the images to take, and which shifts, the first of which is none, where each costs a forward pass.

    There are 289 of as many images as that pays for, and fewer where that would be fewer than 8 images; never more, so
    that nets which are given other numbers of images get as many each.
    """
    count = min(images, max(FEWEST, forwards // (DRAWN + IN_PLACE)))
    order = torch.randperm(len(shifts) - 1, generator=torch.Generator().manual_seed(seed))
    return count, shifts[[0, *(1 + order[: min(DRAWN - 1, max(1, forwards // count - 1 - IN_PLACE))]).tolist()]]


def rows(adapter: ModelAdapter, test_set: EvaluationSet, forwards: int | None = None) -> Iterator[Row | Heatmap | Note]:
    """Rows for all H · W rolls (protocol ``all_rolls``; ``amount`` is their number), and each layer's map of them,
    and a note that says how they were had, and why not by the phase tree where they were not.

    As many images are taken as cost ``forwards`` forward passes; where that is fewer than 8, rolls are drawn instead
    (protocol ``sampled_rolls``, by ``sample``).

    Args:
        subject: the net.
        scene: the images.
        forwards: forward passes to spend; by default ``allowance``.
    """
    device = reference_tensor(adapter.net).device
    images = crop(test_set.canvas, torch.zeros(len(test_set.canvas), 2, dtype=torch.long), test_set.margin)
    rolls = prepare(adapter, adapter.normalise(images[:2].to(device)))
    forwards = forwards or allowance(len(images), rolls.tree is not None)
    count, protocol = int(forwards / (rolls.forwards + IN_PLACE)), "all_rolls"
    if count < FEWEST <= len(images):
        protocol = "sampled_rolls"
        count, some = sample(rolls.shifts, forwards, len(images), test_set.seed)
        rolls = replace(rolls, tree=None, shifts=some)
    count = min(max(count, 2), len(images))
    some = images[:count].split(test_set.batch)
    others = populations(adapter, (adapter.normalise(one.to(device)) for one in some))
    outputs = ShiftOutputs(adapter.what, others[OUTPUT])
    layers = {name: ShiftLayer(others[name]) for name in adapter.layers}
    for part in torch.arange(count).tensor_split(-(-count // rolls.batch)):
        table = rolls(adapter.normalise(images[part].to(device)))
        outputs.update(table.outputs, None if test_set.labels is None else test_set.labels[part].to(device))
        for name, layer in layers.items():
            layer.update(table, name)
    yield Note("rolls", f"{rolls.how} ({count} images)")
    yield from shift_rows(outputs, layers, protocol, len(rolls.shifts), test_set)
    for layer_name, layer in layers.items() if protocol == "all_rolls" else ():
        for name, plane in layer.maps().items():
            yield Heatmap(layer_name, f"roll_{name}", plane.view(images.shape[2:]).float().cpu().numpy())


def shift_rows(
    outputs: ShiftOutputs, layers: Mapping[str, ShiftLayer], protocol: str, amount: int, test_set: EvaluationSet
) -> Iterator[Row]:
    """Rows of the output and of every layer, by so many shifts."""

    def estimates(measure: Measure) -> Iterator[tuple[str, Estimate]]:
        return measure.estimates(resamples(sum(map(len, measure.kept)), test_set.seed))

    for name, estimate in estimates(outputs):
        if test_set.labels is not None or name not in OF_LABELS:
            yield Row("output", "shift", protocol, amount, name, estimate)
    for layer_name, layer in layers.items():
        for name, estimate in estimates(layer):
            yield Row(layer_name, "shift", protocol, amount, name, estimate)
