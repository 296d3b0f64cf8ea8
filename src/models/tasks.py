"""What a net is asked about an object: what it is, where it is, or both; with the loss and the scores of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import Metric

#: variance of a coordinate that is uniform over the image's side: the position's loss is 1 for a net that always
#: answers the middle, about as much as the cross-entropy at its start
UNIFORM_VARIANCE = 1 / 12

Labels = Int64[Tensor, " n"]
Positions = Float[Tensor, "n 2"]


@dataclass(frozen=True)
class Task:
    """``what``: classify; ``where``: regress the centre (x, y) in units of the image's side; ``both``: one head each.

    Attributes:
        name: of the task.
        classes: of the data set.
    """

    name: str
    classes: int

    @property
    def classifies(self) -> bool:
        """Whether classes are asked for."""
        return self.name != "where"

    @property
    def localizes(self) -> bool:
        """Whether positions are asked for."""
        return self.name != "what"

    @property
    def outputs(self) -> int:
        """Numbers that the net gives for an image."""
        return self.classifies * self.classes + self.localizes * 2

    @property
    def scores(self) -> list[str]:
        """The numbers a user looks at, in [0, 1] for a net that has learned."""
        return ["accuracy"] * self.classifies + ["r2"] * self.localizes

    @property
    def best(self) -> tuple[str, str]:
        """What says on validation which epoch is the best, and whether as its ``max`` or ``min``."""
        return ("loss", "min") if len(self.scores) > 1 else (self.scores[0], "max")

    def logits(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n classes"]:
        """The part of the outputs that answers "what"; empty where it is not asked for."""
        return outputs[:, : self.classifies * self.classes]

    def position(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n xy"]:
        """The part that answers "where": the net gives the distance from the image's middle."""
        return outputs[:, self.classifies * self.classes :] + 0.5

    def answer(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """What measures of the output look at: the logits, or the position where there are none."""
        return self.logits(outputs) if self.classifies else self.position(outputs)

    def loss(
        self, outputs: Float[Tensor, "n k"], labels: Labels, positions: Float[Tensor, "n _"], smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """Cross-entropy, plus the squared error of the position over that of always answering the middle."""
        loss = outputs.new_zeros(())
        if self.classifies:
            loss = loss + F.cross_entropy(self.logits(outputs), labels, label_smoothing=smoothing)
        if self.localizes:
            loss = loss + F.mse_loss(self.position(outputs), positions) / UNIFORM_VARIANCE
        return loss

    # --- scores from sums: in training a metric object would cost more each step than they do ----------------------

    def sums(
        self, outputs: Float[Tensor, "n k"], labels: Labels, positions: Float[Tensor, "n _"]
    ) -> Float[Tensor, "8"]:
        """Numbers that add up over batches, all that ``scores_of`` needs."""
        sums = outputs.new_zeros(8)
        sums[0] = len(labels)
        if self.classifies:
            logits = self.logits(outputs)
            right = (logits.argmax(1) == labels).sum()
            sums[1] = torch.where(logits.isfinite().all(), right, torch.nan)  # of nan, argmax says the first class
        if self.localizes:
            centred = positions - 0.5
            squared = (self.position(outputs) - positions).square()
            sums[2:] = torch.cat([squared.sum(0), centred.sum(0), centred.square().sum(0)])
        return sums

    def scores_of(self, sums: Float[Tensor, "8"]) -> dict[str, Float[Tensor, ""]]:
        """The scores: share of right classes; R², the mean of that of x and of y."""
        n, correct, squared, first, second = sums[0], sums[1], sums[2:4], sums[4:6], sums[6:8]
        r2 = (1 - squared / (second - first.square() / n)).mean()
        return {name: {"accuracy": correct / n, "r2": r2}[name] for name in self.scores}


class Scores:
    """The scores of a set, fed batch by batch, by torchmetrics.

    Args:
        task: what was asked.
        device: where the outputs are.
        distributed: whether other processes hold further batches of the set.
    """

    def __init__(self, task: Task, device: torch.device, distributed: bool = True) -> None:
        # here, so that a ledger does not pay for importing torchmetrics
        from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
        from torchmetrics.regression import R2Score

        options: Any = {"sync_on_compute": distributed}
        self.task = task
        self.undefined = torch.tensor(False, device=device)
        self.of_class: dict[str, Metric] = {}
        self.of_position: dict[str, Metric] = {}
        if task.classifies:
            self.of_class["accuracy"] = MulticlassAccuracy(task.classes, average="micro", **options).to(device)
            self.of_class["calibration_error"] = MulticlassCalibrationError(task.classes, **options).to(device)
        if task.localizes:
            self.of_position["r2"] = R2Score(**options).to(device)

    def update(self, outputs: Float[Tensor, "n k"], labels: Labels, positions: Float[Tensor, "n _"]) -> None:
        """Add a batch."""
        logits = self.task.logits(outputs)
        self.undefined = self.undefined | ~outputs.isfinite().all()
        for metric in self.of_class.values():
            metric.update(logits.nan_to_num(), labels)
        for metric in self.of_position.values():
            metric.update(self.task.position(outputs), positions)

    def compute(self) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """(name, number); nan where some output is, of which ``argmax`` would say that it is the first class."""
        for name, metric in (self.of_class | self.of_position).items():
            yield name, torch.where(self.undefined, torch.nan, metric.compute())
