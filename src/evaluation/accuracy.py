"""How good a net's answers are, on the images as they are: accuracy, R² of the position, loss, calibration."""

import math
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric

from ..metrics.base import interval, resamples, wilson
from ..metrics.rows import Estimate, PerImage, Row
from ..models.tasks import Scores, Task
from ..nets.hooks import eval_mode, reference_tensor


@torch.no_grad()
def accuracy_rows(
    net: nn.Module, batches: Iterable[tuple[Tensor, Tensor, Tensor]], task: Task, part: str
) -> Iterator[Row | PerImage]:
    """What the task asks for, of a net on a set: accuracy (Wilson interval) and expected calibration error (l1, 15
    bins); R² and error of the position (bootstrap over images); and the loss it is trained by.

    Args:
        net: takes the batches' images.
        batches: (normalised images, labels, positions).
        task: what its outputs answer.
        part: name of the set, the rows' ``protocol``.
    """
    device = reference_tensor(net).device
    # one process measures: the metrics must not wait for others
    scores, loss = Scores(task, device, distributed=False), MeanMetric(math.nan, sync_on_compute=False).to(device)
    answers: list[Tensor] = []
    truths: list[Tensor] = []
    right: list[Tensor] = []
    n = 0
    with eval_mode(net):
        for x, labels, positions in batches:
            outputs = net(x)
            scores.update(outputs, labels, positions)
            loss.update(task.loss(outputs, labels, positions), len(x))
            answers.append(task.position(outputs).detach().cpu())
            truths.append(positions.cpu())
            right.append(task.logits(outputs).argmax(1) == labels if task.classifies else labels.bool())
            n += len(x)
    numbers = {name: number.item() for name, number in scores.compute()} | {"loss": loss.compute().item()}
    estimates = {name: Estimate(value, float("nan"), float("nan"), n) for name, value in numbers.items()}
    if task.classifies:
        estimates["accuracy"] = Estimate(numbers["accuracy"], *wilson(numbers["accuracy"], n), n)
    if task.localizes:
        estimates |= position_estimates(torch.cat(answers), torch.cat(truths))
    for name, estimate in estimates.items():
        yield Row("output", "none", part, 0, name, estimate)
    if task.classifies:
        yield PerImage("output", part, 0, "accuracy", torch.cat(right)[:, None].cpu().numpy())
    if task.localizes:
        yield PerImage("output", part, 0, "r2", explained(torch.cat(answers), torch.cat(truths)).numpy())


def location_leak(similar: Estimate, dissimilar: Estimate) -> Estimate:
    """Accuracy where places agree with classes less that where they tell the wrong one (Kayhan & van Gemert 2020), in
    [-1, 1]: 0 for a net that does not use places, as one with circular padding and a global pool must.

    The interval is Newcombe's, from those of the two shares.

    >>> location_leak(Estimate(1.0, 0.9, 1.0, 50), Estimate(0.25, 0.15, 0.35, 50))
    Estimate(value=0.75, low=0.6085786437626906, high=0.85, n=50)
    """
    value = similar.value - dissimilar.value
    down = math.hypot(similar.value - similar.low, dissimilar.high - dissimilar.value)
    up = math.hypot(similar.high - similar.value, dissimilar.value - dissimilar.low)
    return Estimate(value, value - down, value + up, min(similar.n, dissimilar.n))


def explained(answers: Float[Tensor, "n 2"], truths: Float[Tensor, "n 2"]) -> Float[Tensor, "n 1"]:
    """What each image has of R²: numbers whose mean it is."""
    squared, centred = (answers - truths).double().square(), truths.double() - truths.double().mean(0)
    return 1 - (squared / centred.square().mean(0)).mean(1, keepdim=True)


def position_estimates(answers: Float[Tensor, "n 2"], truths: Float[Tensor, "n 2"]) -> dict[str, Estimate]:
    """``r2``: 1 - SSE/SST, mean over x and y, at most 1; 0 is what always answering the mean position scores.
    ``position_error``: mean distance to the true centre, in units of the image's side.
    """
    n = len(truths)
    weights = torch.cat([torch.ones(1, n, dtype=torch.float64), resamples(n)])  # the images themselves come first
    centred = truths.double() - truths.double().mean(0)
    squared = (answers - truths).double().square()
    total = weights @ centred.square() - (weights @ centred).square() / n
    r2 = (1 - weights @ squared / total).mean(1)
    error = weights @ squared.sum(1).sqrt() / n
    found = {"r2": r2, "position_error": error}
    return {name: Estimate(values[0].item(), *interval(values[1:], n), n) for name, values in found.items()}
