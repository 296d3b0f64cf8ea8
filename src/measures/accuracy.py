"""Accuracy, loss and calibration on the images as they are."""

from collections.abc import Iterable, Iterator

import torch
from scipy.stats import binomtest
from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from src.activations import evaluating
from src.measures.base import Estimate, Row


@torch.no_grad()
def accuracy_rows(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: int, part: str) -> Iterator[Row]:
    """Accuracy (Wilson interval), cross-entropy and expected calibration error (l1, 15 bins) of a net on a set.

    Args:
        net: takes the batches' images, gives logits.
        batches: (normalised images, labels).
        classes: number of them.
        part: name of the set, the rows' ``protocol``.
    """
    device = next(net.parameters()).device
    # one process measures: the metrics must not wait for others
    accuracy = MulticlassAccuracy(classes, average="micro", sync_on_compute=False).to(device)
    calibration = MulticlassCalibrationError(classes, sync_on_compute=False).to(device)
    loss = MeanMetric(sync_on_compute=False).to(device)
    n = 0
    with evaluating(net):
        for x, y in batches:
            logits = net(x)
            accuracy.update(logits, y)
            calibration.update(logits, y)
            loss.update(nn.functional.cross_entropy(logits, y), len(y))
            n += len(y)
    share = accuracy.compute().item()
    wilson = binomtest(round(share * n), n).proportion_ci(method="wilson")
    yield Row("output", "none", part, 0, "accuracy", Estimate(share, wilson.low, wilson.high, n))
    for name, metric in (("loss", loss), ("calibration_error", calibration)):
        yield Row("output", "none", part, 0, name, Estimate(metric.compute().item(), float("nan"), float("nan"), n))
