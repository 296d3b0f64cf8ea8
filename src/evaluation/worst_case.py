"""Many shifts of each image: the mean and the worst case over them at the output, the mean and a map at a layer."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from ..metrics.base import Labels, Measure, Statistics
from ..metrics.consistency import chance_corrected, consistency_interval
from ..metrics.layer_outputs import LayerOutputs, Population, nan_where_not_finite, ratio_or_nan
from ..stats.bootstrap import wilson_interval
from .all_rolls import ShiftTable

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
