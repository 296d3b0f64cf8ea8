"""Tasks: classify an object (``what``), localize it (``where``), or both; with their losses and scores."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

#: variance of a coordinate that is uniform over the image's side: the loss of always predicting the image's centre is
#: 1, similar to the initial cross-entropy
UNIFORM_VARIANCE = 1 / 12

Labels = Int64[Tensor, " n"]
Positions = Float[Tensor, "n 2"]


@dataclass(frozen=True)
class Task:
    """``what``: classify; ``where``: regress the centre (x, y) in units of the image's side; ``both``: a head each."""

    name: str
    classes: int  # of the data set

    @property
    def classifies(self) -> bool:
        """Whether the net predicts classes."""
        return self.name != "where"

    @property
    def localizes(self) -> bool:
        """Whether the net predicts positions."""
        return self.name != "what"

    @property
    def outputs(self) -> int:
        """Number of the net's outputs per image."""
        return self.classifies * self.classes + self.localizes * 2

    @property
    def scores(self) -> list[str]:
        """Names of the scores, which are in [0, 1] for a trained net."""
        return ["accuracy"] * self.classifies + ["r2"] * self.localizes

    @property
    def best(self) -> tuple[str, str]:
        """The validation score that selects the best epoch, and whether its ``max`` or ``min`` is best."""
        return ("loss", "min") if len(self.scores) > 1 else (self.scores[0], "max")

    def logits(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n classes"]:
        """The class logits in the outputs; (n, 0) if the task has no classes."""
        return outputs[:, : self.classifies * self.classes]

    def position(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n xy"]:
        """The predicted position in the outputs, which give it relative to the image's centre."""
        return outputs[:, self.classifies * self.classes :] + 0.5

    def answer(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """The output that metrics compare: the logits, or the position if there are none."""
        return self.logits(outputs) if self.classifies else self.position(outputs)

    def loss(
        self, outputs: Float[Tensor, "n k"], labels: Labels, positions: Float[Tensor, "n _"], smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """Cross-entropy, plus the position's squared error relative to always predicting the image's centre."""
        loss = outputs.new_zeros(())
        if self.classifies:
            loss = loss + F.cross_entropy(self.logits(outputs), labels, label_smoothing=smoothing)
        if self.localizes:
            loss = loss + F.mse_loss(self.position(outputs), positions) / UNIFORM_VARIANCE
        return loss

    # in training, scores come from sums: a torchmetrics object takes longer per step
    def sums(
        self, outputs: Float[Tensor, "n k"], labels: Labels, positions: Float[Tensor, "n _"]
    ) -> Float[Tensor, "8"]:
        """The sums over a batch that ``scores_of`` needs; they add up over batches."""
        sums = outputs.new_zeros(8)
        sums[0] = len(labels)
        if self.classifies:
            logits = self.logits(outputs)
            correct = (logits.argmax(1) == labels).sum()
            sums[1] = torch.where(logits.isfinite().all(), correct, torch.nan)  # argmax of nan is the first class
        if self.localizes:
            centred = positions - 0.5
            squared = (self.position(outputs) - positions).square()
            sums[2:] = torch.cat([squared.sum(0), centred.sum(0), centred.square().sum(0)])
        return sums

    def scores_of(self, sums: Float[Tensor, "8"]) -> dict[str, Float[Tensor, ""]]:
        """Accuracy; R², averaged over x and y."""
        n, correct, squared, first, second = sums[0], sums[1], sums[2:4], sums[4:6], sums[6:8]
        r2 = (1 - squared / (second - first.square() / n)).mean()
        return {name: {"accuracy": correct / n, "r2": r2}[name] for name in self.scores}


class Scores:
    """The scores of a set by torchmetrics, updated batch by batch; ``distributed``: over the batches of all ranks."""

    def __init__(self, task: Task, device: torch.device, distributed: bool = True) -> None:
        # imported here, as a model summary does not need torchmetrics
        from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
        from torchmetrics.regression import R2Score

        options: Any = {"sync_on_compute": distributed}
        self.task = task
        self.undefined = torch.tensor(False, device=device)
        self.of_class: dict[str, Any] = {}
        self.of_position: dict[str, Any] = {}
        if task.classifies:
            self.of_class["accuracy"] = MulticlassAccuracy(task.classes, average="micro", **options).to(device)
            self.of_class["calibration_error"] = MulticlassCalibrationError(task.classes, **options).to(device)
        if task.localizes:
            self.of_position["r2"] = R2Score(**options).to(device)

    def update(self, outputs: Float[Tensor, "n k"], labels: Labels, positions: Float[Tensor, "n _"]) -> None:
        """Add a batch of outputs (n, task.outputs)."""
        logits = self.task.logits(outputs)
        self.undefined = self.undefined | ~outputs.isfinite().all()
        for metric in self.of_class.values():
            metric.update(logits.nan_to_num(), labels)
        for metric in self.of_position.values():
            metric.update(self.task.position(outputs), positions)

    def compute(self) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """(name, score); nan if any output is not finite, as ``argmax`` of nan would be the first class."""
        for name, metric in (self.of_class | self.of_position).items():
            yield name, torch.where(self.undefined, torch.nan, metric.compute())
