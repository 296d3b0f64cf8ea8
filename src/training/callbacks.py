"""Lightning callbacks of a run: history.csv, feature maps of the example images, online evaluation, progress bar."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from ..common.errors import UserError
from ..models.blocks import Network
from ..models.norm import calibrated
from ..nets.hooks import record_outputs
from ..reporting.maps import save_maps
from ..reporting.wandb_logger import WandbLogger
from ..results.files import HISTORY, read_rows, write_rows
from .lightning_module import Training


class History(Callback):
    """Writes ``history.csv``, one row per epoch; a resumed run appends to the epochs that it had finished."""

    before = 0.0  # seconds of this epoch in an earlier process
    epochs = 0  # that an earlier process had finished

    def __init__(self, run: Path) -> None:
        self.path = run / HISTORY
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the rows of the epochs before the checkpoint; ``UserError`` if some of them are missing."""
        self.start = time.perf_counter() - self.before
        self.rows = [dict(row) for row in read_rows(self.path) if int(row["epoch"]) <= trainer.current_epoch]
        if len(self.rows) < self.epochs:
            found = f"{len(self.rows)} of the {self.epochs} epochs that the checkpoint has behind it"
            raise UserError(f"{self.path} has {found}; remove {self.path.parent} to train again")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """The seconds of the epoch so far, and the number of epochs before it."""
        return {"seconds": time.perf_counter() - self.start, "epochs": len(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.before, self.epochs = state_dict["seconds"], state_dict.get("epochs", 0)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch; its seconds are those of training and validation."""
        numbers = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        counts = {"epoch": int(numbers.pop("epoch")), "step": trainer.global_step}
        self.rows.append(counts | numbers | {"seconds": round(time.perf_counter() - self.start, 3)})
        write_rows(self.path, self.rows)


class StopAfterSteps(Callback):
    """Ends the last epoch early, at a number of optimiser steps; it is validated and saved as any other."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Ask Lightning to validate and to end the epoch."""
        trainer.should_stop = trainer.global_step >= self.steps

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training ends as its epochs are done, so that callbacks can tell it from divergence."""
        trainer.should_stop = False


class StopOnDivergence(Callback):
    """Ends training after the epoch in which weights or the validation loss became infinite or nan.

    ``epoch`` is that epoch, counted from 1; None where training did not diverge. The checkpoint holds it: a run that
    resumes from there trains no further.
    """

    def __init__(self) -> None:
        self.epoch: int | None = None

    @property
    def state_key(self) -> str:
        """The key of its state in checkpoints; that of earlier versions."""
        return "Diverged"

    def state_dict(self) -> dict[str, Any]:
        """The epoch in which training diverged, or None, for the checkpoint."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the epoch in which training diverged from a checkpoint."""
        self.epoch = state_dict["epoch"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no further if the checkpoint is of a diverged run."""
        trainer.should_stop = self.epoch is not None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check weights and loss, before the other callbacks run."""
        numbers = [*pl_module.parameters(), trainer.callback_metrics["val/loss"]]
        if not torch.stack([number.isfinite().all().cpu() for number in numbers]).all():
            self.epoch = trainer.current_epoch + 1
            trainer.should_stop = True


class OnlineEvaluation(Callback):
    """Evaluates the net every few epochs while it trains, and logs the numbers to ``history.csv`` and W&B.

    Those before training are the ``_untrained`` rows of ``measures.csv``.
    """

    def __init__(self, evaluate: Callable[[Training], dict[str, float]], every: int) -> None:
        self.evaluate, self.every = evaluate, every
        self.columns: list[str] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the numbers of an earlier epoch."""
        for column in self.columns:
            trainer.callback_metrics.pop(column, None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate, unless training has diverged."""
        if (trainer.current_epoch + 1) % self.every == 0 and not trainer.should_stop:
            assert isinstance(pl_module, Training)
            numbers = self.evaluate(pl_module)
            self.columns = list(numbers)
            pl_module.log_dict({name: torch.tensor(value) for name, value in numbers.items()}, rank_zero_only=True)


class LogToWandb(Callback):
    """Starts W&B after the first training step, and logs the rows of ``history.csv``.

    An epoch is logged after it is saved: an unsaved epoch is trained again, and would be logged twice.
    """

    def __init__(self, tracker: WandbLogger | None, history: History) -> None:
        self.tracker, self.history = tracker, history

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Start W&B."""
        if self.tracker is not None:
            self.tracker.start()

    def log(self) -> None:
        """Log the saved epochs that are not logged yet."""
        if self.tracker is not None:
            self.tracker.log_history(self.history.rows)
            self.tracker.log_newest_maps()


#: bytes that a run's feature maps may take, before they are compressed
MAPS_LIMIT = 64_000_000


class SaveFeatureMaps(Callback):
    """Saves the feature maps of the same example images before training and after every ``every`` epochs; more where a
    run's would take over ``MAPS_LIMIT``.

    Before training, the net's batch norms get the statistics of the ``first`` training images.
    """

    def __init__(
        self,
        run: Path,
        images: UInt8[Tensor, "n c h w"],
        normalised: Float[Tensor, "n c h w"],
        channels: int,
        every: int,
        first: Callable[[torch.device], Iterable[Tensor]],
    ) -> None:
        self.run, self.images, self.normalised = run, images.cpu().numpy(), normalised
        self.channels, self.every, self.first = channels, every, first

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Capture epoch 0, unless the run resumes; written with the first checkpoint, not to delay training."""
        with calibrated(pl_module, self.first(pl_module.device)):
            maps, epochs = self._maps(pl_module), trainer.max_epochs or 1
        size = self.images.nbytes + sum(2 * values.size for values in maps.values())  # kept in float16
        self.cadence = max(self.every, -(-epochs * size // MAPS_LIMIT))
        self.untrained = maps if trainer.global_step == 0 else None

    @rank_zero_only
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write epoch 0: a run that resumes from this checkpoint has no untrained net."""
        if self.untrained is not None:
            save_maps(self.run, 0, self.images, self.untrained)
            self.untrained = None

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save every ``every`` epochs (see ``cadence``) and the last; not an epoch in which training diverged."""
        self.on_save_checkpoint(trainer, pl_module, {})
        epoch = trainer.current_epoch + 1
        if (epoch % self.cadence == 0 or epoch == trainer.max_epochs) and not trainer.should_stop:
            save_maps(self.run, epoch, self.images, self._maps(pl_module))

    def _maps(self, net: LightningModule) -> dict[str, Float[np.ndarray, "n k p q"]]:
        assert isinstance(net, Network)
        with record_outputs(net, net.stages) as outputs, torch.no_grad():
            net(self.normalised.to(net.device))
        shown = {stage: outputs[stage][:, : self.channels].float().cpu() for stage in net.stages}
        # vectors as maps of one pixel
        return {stage: x.reshape(*x.shape[:2], *(x.shape[2:] or (1, 1))).numpy() for stage, x in shown.items()}


def _line(numbers: Mapping[str, float]) -> str:
    return "  ".join(f"{'R²' if name == 'r2' else name} {value:.3f}" for name, value in numbers.items())


class ProgressBar(Callback):
    """Shows a bar with loss, accuracy and time left; without a terminal, a line per epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            refresh_per_second=2,
            transient=True,
            disable=not console.is_terminal,
        )

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        assert isinstance(pl_module, Training)
        total, done = pl_module.total_steps, trainer.global_step
        self.task = self.bar.add_task("training", total=total, completed=done, numbers="")
        self.bar.start()

    @rank_zero_only
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Update the bar every 20 steps: reading the loss makes a GPU wait."""
        if trainer.global_step % 20 == 0 and self.console.is_terminal:
            assert isinstance(pl_module, Training)
            numbers = _line(pl_module.so_far())
            where = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.bar.update(self.task, description=where, completed=trainer.global_step, numbers=numbers)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line for the epoch."""
        assert isinstance(pl_module, Training)
        names, numbers = ("loss", *pl_module.task.scores), trainer.callback_metrics
        train, val = (_line({name: float(numbers[f"{part}/{name}"]) for name in names}) for part in ("train", "val"))
        where = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.console.print(f"  {where}  {train}  validation {val}", highlight=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self.bar.stop()
