"""What every architecture shares as a LightningModule: loss, metrics, optimiser, schedule, checkpoint."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from src.models.optimisers import SCHEDULES, optimiser

if TYPE_CHECKING:
    from src.config import Config

Batch = tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]


class Training(LightningModule):
    """Cross-entropy training of the ``Network`` it is joined with (see ``src.models.module``).

    Training loss and accuracy are summed by hand, as logging every step would cost more than the sums; validation
    and test use torchmetrics. An epoch's numbers are logged together, at its end, under ``train/…`` and ``val/…``.
    """

    cfg: "Config"
    stages: list[str]  # of the Network

    def on_train_epoch_start(self) -> None:
        """Each epoch has its own random stream, so a resumed run draws the dropout it would have drawn."""
        torch.manual_seed(self.cfg.seed * 1_000_003 + self.current_epoch)
        self._sums = torch.zeros(3, device=self.device)  # loss, correct, images

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y, label_smoothing=self.cfg.train.label_smoothing)
        correct = (logits.detach().argmax(1) == y).sum()
        self._sums += torch.stack([loss.detach() * len(y), correct, torch.full_like(loss, len(y))])
        return loss

    def on_validation_epoch_start(self) -> None:
        """Fresh metrics; they are no submodules, so the net's state is its weights alone."""
        self._val = _metrics(self.num_outputs).to(self.device)
        self._val_loss = MeanMetric().to(self.device)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Adds a batch to the metrics."""
        x, y = batch
        logits = self(x)
        self._val.update(logits, y)
        self._val_loss.update(F.cross_entropy(logits, y), len(y))

    def on_validation_epoch_end(self) -> None:
        """Log the epoch: it ends with its validation."""
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        loss, correct, images = sums.tolist()
        numbers = {
            "train/loss": loss / images,
            "train/accuracy": correct / images,
            "val/loss": self._val_loss.compute(),
        }
        numbers |= {f"val/{name}": value for name, value in self._val.compute().items()}
        numbers["lr"] = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        numbers["epoch"] = self.current_epoch + 1.0  # epochs trained, as everywhere; Lightning's own counts from 0
        self.log_dict({name: torch.as_tensor(value) for name, value in numbers.items()})

    @property
    def num_outputs(self) -> int:
        """Number of logits."""
        return int(self.get_submodule("logits").out_features)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        """The optimiser, and a schedule that moves every step."""
        train = self.cfg.train
        optimizer = optimiser(train.optimizer, self.parameters(), train.lr, train.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = SCHEDULES[train.schedule](optimizer, train.lr, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _metrics(classes: int) -> MetricCollection:
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "calibration_error": MulticlassCalibrationError(classes),
        }
    )
