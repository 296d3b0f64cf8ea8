"""``Training``, the LightningModule of every architecture: loss, metrics, optimiser, schedule, checkpoint."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics.aggregation import MeanMetric

from ..config import Config, to_dict
from ..models import architecture, scale_width_to_params
from ..models.optimisers import SCHEDULES, optimiser
from ..models.tasks import Scores, Task
from ..results.identity import FORMAT

Batch = tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"], Float[Tensor, "n _"]]  # images, labels, positions


class Training(LightningModule):
    """Training of the ``Network`` it is joined with (see ``src.models.module``) for its task.

    Training scores are summed by hand, as logging every step would cost more than the sums; validation uses
    torchmetrics. An epoch's numbers are logged together, at its end, under ``train/…`` and ``val/…``; ``grad_norm`` and
    ``grad_norm_max`` are the mean and the maximum over its steps of the l2 norm of the gradient of all parameters.
    """

    cfg: Config
    task: Task
    stages: list[str]  # of the Network, as is
    fit: Callable[[Tensor, Callable[[Tensor], Tensor]], None]
    _within: list[dict[str, Any]] | None = None

    def on_train_epoch_start(self) -> None:
        """Each epoch has its own random stream, so a resumed run draws the dropout it would have drawn."""
        # a rank's images are others
        torch.manual_seed(self.cfg.seed * 1_000_003 + self.current_epoch + self.global_rank * 2**40)
        self._sums = torch.zeros(9, device=self.device)  # loss, then the task's
        self._norms = torch.zeros(3, device=self.device)  # of gradients: sum, maximum, steps

    def on_train_start(self) -> None:
        """Within an epoch, restore the position, the random state and the sums of the checkpoint.

        Lightning restores the position too late where a schedule needs the number of steps.
        """
        if self._within is not None:
            mine, self._within = self._within[self.global_rank], None
            batches: Any = self.trainer.train_dataloader
            if mine["batches"]["position"] < len(batches):
                batches.load_state_dict(mine["batches"])
            self._sums = mine["sums"].to(self.device)
            # older checkpoints have no gradient norms
            self._norms = mine.get("norms", torch.full((3,), math.nan)).to(self.device)
            torch.set_rng_state(mine["random"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(mine["random_cuda"], self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the config as plain data, as a checkpoint's path is enough to measure its net; and the position in the
        epoch, sums and random state of every rank.
        """
        checkpoint["config"], checkpoint["format"] = self._config_tree, FORMAT
        batches: Any = self.trainer.train_dataloader
        mine = {
            "batches": batches.state_dict(),
            "sums": self._sums.cpu(),
            "norms": self._norms.cpu(),
            "random": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            mine["random_cuda"] = torch.cuda.get_rng_state(self.device)
        everyone: list[Any] = [mine]
        if self.trainer.world_size > 1:
            everyone *= self.trainer.world_size
            torch.distributed.all_gather_object(everyone, mine)
        checkpoint["within"] = everyone

    @cached_property
    def _config_tree(self) -> dict[str, Any]:
        return to_dict(self.cfg)  # 10 ms, as long as an epoch of a small net; a checkpoint is saved in each

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of the ranks until training starts."""
        self._within = checkpoint["within"]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss of a batch."""
        x, labels, positions = batch
        outputs = self(x)
        loss = self.task.loss(outputs, labels, positions, smoothing=self.cfg.train.label_smoothing)
        batches: Any = self.trainer.train_dataloader
        if batches.counts(index):
            self._sums += torch.cat([loss.detach()[None] * len(x), self.task.sums(outputs.detach(), labels, positions)])
        share: float = batches.weight(index)
        return loss * share

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Add the norm of the gradient, as it comes from the batch: the mean over all devices, before any clipping.

        With float16, a step whose scaled gradient overflows is skipped, and does not count.
        """
        gradients = [weight.grad for weight in self.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).float()
        taken = torch.ones_like(norm)
        if (scaler := getattr(self.trainer.precision_plugin, "scaler", None)) is not None:
            if getattr(optimizer, "_step_supports_amp_scaling", False):  # it unscales the gradients itself
                norm = norm / scaler.get_scale()
            taken = norm.isfinite().float()
            norm = norm.nan_to_num(0, 0)
        self._norms = torch.stack([self._norms[0] + norm, torch.maximum(self._norms[1], norm), self._norms[2] + taken])

    def so_far(self, sums: Float[Tensor, "9"] | None = None) -> dict[str, float]:
        """Loss and scores of the epoch's batches so far, on this device; or of the given sums."""
        sums = self._sums if sums is None else sums
        numbers = {"loss": sums[0] / sums[1], **self.task.scores_of(sums[1:])}
        return {name: number.item() for name, number in numbers.items()}

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics; they are no submodules, so that the state dict holds weights only."""
        self._val = Scores(self.task, self.device)
        self._val_loss = MeanMetric(math.nan).to(self.device)  # nan stays nan

    def validation_step(self, batch: Batch, index: int) -> None:
        """Add a batch to the metrics."""
        batches: Any = self.trainer.val_dataloaders
        if not batches.counts(index):
            return
        x, labels, positions = batch
        outputs = self(x)
        self._val.update(outputs, labels, positions)
        self._val_loss.update(self.task.loss(outputs, labels, positions), len(x))

    def on_validation_epoch_end(self) -> None:
        """Log the numbers of the epoch, which ends with its validation."""
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        numbers: dict[str, Any] = {f"train/{name}": number for name, number in self.so_far(sums).items()}
        numbers["val/loss"] = self._val_loss.compute()
        numbers |= {f"val/{name}": number for name, number in self._val.compute()}
        # the same in all ranks
        numbers |= {"grad_norm": self._norms[0] / self._norms[2], "grad_norm_max": self._norms[1]}
        numbers["lr"] = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        numbers["epoch"] = self.current_epoch + 1.0  # epochs trained, as everywhere; Lightning's own counts from 0
        self.log_dict({name: torch.as_tensor(value) for name, value in numbers.items()})

    def configure_optimizers(self) -> Any:
        """The optimiser, and a schedule that steps every batch."""
        train = self.cfg.train
        optimizer = optimiser(train.optimizer, self.parameters(), train.lr, train.weight_decay)
        schedule = SCHEDULES[train.schedule](optimizer, train.lr, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        of_epochs = int(self.trainer.estimated_stepping_batches)
        return min(self.cfg.train.steps or of_epochs, of_epochs)


def module(cfg: Config, image: tuple[int, int, int], classes: int) -> Training:
    """The LightningModule of a config: ``class Ladder(Ladder, Training)``, with its weights drawn by ``cfg.seed``."""
    kind, task = architecture(cfg.model.name), Task(str(cfg.data.task), classes)
    model = scale_width_to_params(cfg.model, image, task.outputs)
    torch.manual_seed(cfg.seed)
    net: Training = type(kind.__name__, (kind, Training), {})(model, image, task.outputs)
    net.cfg, net.task = cfg, task
    return net.to(memory_format=torch.channels_last)  # as the images come: about a quarter faster
