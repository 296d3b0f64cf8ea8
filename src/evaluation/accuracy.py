"""Scores on original images: accuracy, calibration, R² of the predicted position, loss."""

import math
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric

from ..metrics.quantities import Quantity
from ..metrics.rows import Estimate, PerImage, Row
from ..models.tasks import Scores, Task
from ..nets.hooks import eval_mode, reference_tensor
from ..stats.bootstrap import bootstrap_interval, bootstrap_weights, wilson_interval

QUANTITIES = (
    Quantity("accuracy", low=0, high=1, better="higher", formula="P[argmax f(x) = y]", null="1 / classes"),
    Quantity("loss", low=0, better="lower", formula="the loss that training minimises",
        null="ln(classes), for cross-entropy"),
    Quantity("calibration_error", low=0, high=1, better="lower",
        formula="Σ_bins P[bin] |accuracy - confidence|, 15 bins of equal width", null="0: calibrated",
        source="Guo et al. 2017"),
    Quantity("r2", high=1, better="higher", formula="1 - SSE / SST of the predicted position, mean over x and y",
        null="0: always the mean position"),
    Quantity("position_error", low=0, better="lower",
        formula="E‖predicted - true centre‖, in units of the image's side",
        null="that of always predicting the mean position"),
    Quantity("location_leak", low=-1, high=1, better="lower",
        formula="accuracy at locations that agree with the class - accuracy at locations that contradict it",
        null="0: absolute location is not used", source="Kayhan & van Gemert 2020"),
    Quantity("gap", low=-1, high=1, better="lower", formula="score on training images - score on test images"),
)  # fmt: skip


@torch.no_grad()
def accuracy_rows(
    net: nn.Module, batches: Iterable[tuple[Tensor, Tensor, Tensor]], task: Task, part: str
) -> Iterator[Row | PerImage]:
    """Rows of a net's scores on a set of images: for classification, accuracy (Wilson interval) and expected
    calibration error (l1, 15 bins); for localisation, R² and error of the position (bootstrap over images); and the
    training loss. Batches are (normalised images, labels, positions); ``part`` is the rows' ``protocol``.
    """
    device = reference_tensor(net).device
    # a single process measures: metrics must not wait for others
    scores, loss = Scores(task, device, distributed=False), MeanMetric(math.nan, sync_on_compute=False).to(device)
    predicted, true, correct = list[Tensor](), list[Tensor](), list[Tensor]()
    with eval_mode(net):
        for x, labels, positions in batches:
            outputs = net(x)
            scores.update(outputs, labels, positions)
            loss.update(task.loss(outputs, labels, positions), len(x))
            predicted.append(task.position(outputs).detach().cpu())
            true.append(positions.cpu())
            correct.append(task.logits(outputs).argmax(1) == labels if task.classifies else labels.bool())
    n = sum(map(len, true))
    numbers = {name: number.item() for name, number in scores.compute()} | {"loss": loss.compute().item()}
    estimates = {name: Estimate(value, float("nan"), float("nan"), n) for name, value in numbers.items()}
    if task.classifies:
        estimates["accuracy"] = share_estimate(numbers["accuracy"], n)
    if task.localizes:
        estimates |= position_estimates(torch.cat(predicted), torch.cat(true))
    for name, estimate in estimates.items():
        yield Row("output", "none", part, 0, name, estimate)
    if task.classifies:
        yield PerImage("output", part, 0, "accuracy", torch.cat(correct)[:, None].cpu().numpy())
    if task.localizes:
        yield PerImage("output", part, 0, "r2", r2_of_images(torch.cat(predicted), torch.cat(true)).numpy())


def share_estimate(share: float, n: int) -> Estimate:
    """A share of n images, with Wilson's interval."""
    return Estimate(share, *wilson_interval(share, n), n)


def location_leak(similar: Estimate, dissimilar: Estimate) -> Estimate:
    """Accuracy at locations that agree with the class minus accuracy at locations that contradict it (Kayhan & van
    Gemert 2020), in [-1, 1]: 0 for a net that does not use absolute location, as with circular padding and a global
    pool.

    The interval is Newcombe's (1998), from those of the two accuracies.

    >>> location_leak(Estimate(1.0, 0.9, 1.0, 50), Estimate(0.25, 0.15, 0.35, 50))
    Estimate(value=0.75, low=0.6085786437626906, high=0.85, n=50)
    """
    value = similar.value - dissimilar.value
    down = math.hypot(similar.value - similar.low, dissimilar.high - dissimilar.value)
    up = math.hypot(similar.high - similar.value, dissimilar.value - dissimilar.low)
    return Estimate(value, value - down, value + up, min(similar.n, dissimilar.n))


def r2_of_images(predicted: Float[Tensor, "n 2"], true: Float[Tensor, "n 2"]) -> Float[Tensor, "n 1"]:
    """A value of each image, whose mean over images is R²."""
    squared, centred = (predicted - true).double().square(), true.double() - true.double().mean(0)
    return 1 - (squared / centred.square().mean(0)).mean(1, keepdim=True)


def position_estimates(predicted: Float[Tensor, "n 2"], true: Float[Tensor, "n 2"]) -> dict[str, Estimate]:
    """``r2``: 1 - SSE/SST, mean over x and y, at most 1; 0 for always predicting the mean position.
    ``position_error``: mean distance to the true centre, in units of the image's side.
    """
    n = len(true)
    weights = torch.cat([torch.ones(1, n, dtype=torch.float64), bootstrap_weights(n)])  # first: the images
    centred = true.double() - true.double().mean(0)
    squared = (predicted - true).double().square()
    total = weights @ centred.square() - (weights @ centred).square() / n
    r2 = (1 - weights @ squared / total).mean(1)
    error = weights @ squared.sum(1).sqrt() / n
    numbers = {"r2": r2, "position_error": error}
    return {name: Estimate(values[0].item(), *bootstrap_interval(values[1:], n), n) for name, values in numbers.items()}
