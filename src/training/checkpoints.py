"""A run's checkpoints: often enough, whole or not at all, and read back though one is damaged.

``last.ckpt`` is where a run goes on: written after each epoch, every few minutes within one, and when a signal asks.
``previous.ckpt`` is the one before it, in case that is damaged. ``best.ckpt`` is that of the best epoch so far.
"""

import io
import math
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ..errors import Interrupted
from ..results.files import BEST, LAST, NEXT, PREVIOUS, write

#: what asks a run to save and stop: a terminal, a batch system that wants the machine back, one that will run it again
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
NOTHING, SAVE, STOP = 0, 1, 2
#: processes of one run agree so often, in batches, on whether to save: asking makes a GPU wait
AGREE_EVERY = 10


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are there whole or not at all; Lightning's own are copied into place from the folder for
    temporary files, where that lies on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write it aside, then put it in its place."""
        packed = io.BytesIO()
        torch.save(checkpoint, packed)
        write(Path(path), packed.getbuffer())


class SaveCheckpoints(Checkpoint):
    """Writes the checkpoints of a run, and stops it when a signal asks for that.

    A signal is heeded at the end of the batch, or of the epoch where that was its last: the run is saved, then whoever
    handled the signal before gets it, as a batch system's handler that puts the job back into its queue. Where nobody
    did, the run ends with ``Interrupted``.

    Args:
        folder: of the checkpoints.
        score, mode: logged number that tells the best epoch, and whether as its ``max`` or ``min``.
        minutes: between two checkpoints within an epoch; 0: none but those that a signal asks for.
        then: is called when an epoch is saved.
    """

    def __init__(self, folder: Path, score: str, mode: str, minutes: float, then: Callable[[], None]) -> None:
        self.folder, self.score, self.minutes, self.then = folder, score, minutes, then
        self.sign = 1 if mode == "max" else -1
        self.best = -math.inf
        self.signum: int | None = None
        self.before: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.best = state_dict["best"]

    # --- when ------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep Lightning's handler of SIGTERM out: it speaks to the other ranks whatever they are at, and both hang."""
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is something to save."""
        if threading.current_thread() is threading.main_thread():
            found = {signum: signal.getsignal(signum) for signum in SIGNALS}
            self.before = {signum: one for signum, one in found.items() if one not in (signal.SIG_IGN, None)}
        for signum in self.before:
            signal.signal(signum, self._asked)
        self.saved = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Save if it is time, or asked for."""
        if _epoch_is_over(trainer):
            return
        wanted = STOP if self.signum else SAVE if self._due() else NOTHING
        wanted = _agreed(trainer, wanted)
        if wanted:
            save_now(trainer)
        if wanted == STOP:
            self._stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and whether it is the best epoch so far."""
        score = self.sign * float(trainer.callback_metrics[self.score])
        first = self.best == -math.inf
        better = trainer.strategy.reduce_boolean_decision(score > self.best or first)
        if better:
            self.best = -math.inf if math.isnan(score) else score
            trainer.save_checkpoint(self.folder / BEST)  # first: the other one holds that this is done
        self.save(trainer)
        self.then()
        if _agreed(trainer, STOP if self.signum else NOTHING, always=True):
            self._stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let others handle the signals again."""
        if self.signum:
            self._stop()
        self._let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let others handle the signals again."""
        self._let_go()

    def save(self, trainer: Trainer) -> None:
        """Write ``last.ckpt``; the one there was becomes ``previous.ckpt``."""
        last, coming = self.folder / LAST, self.folder / NEXT
        trainer.save_checkpoint(coming)
        if trainer.is_global_zero:
            if last.exists():
                last.replace(self.folder / PREVIOUS)
            coming.replace(last)
        self.saved = time.monotonic()

    # --- signals ---------------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        return self.minutes > 0 and time.monotonic() - self.saved > 60 * self.minutes

    def _asked(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if signum == signal.SIGINT:  # a second one does not wait
            signal.signal(signum, self.before[signum])

    def _stop(self) -> None:
        """Hand the signal on; in a process that got none, another one of the run did."""
        signum, self.signum = self.signum or signal.SIGTERM, None
        before = self.before.get(signum)
        if callable(before) and before is not signal.default_int_handler:
            before(signum, None)
        else:
            raise Interrupted(signum)

    def _let_go(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}


def save_now(trainer: Trainer) -> bool:
    """Write ``last.ckpt`` at the end of a batch; to be called in all processes of the run.

    Returns:
        Whether it was written. After the last batch of an epoch it is not: that epoch's own follows its validation.
    """
    if _epoch_is_over(trainer):
        return False
    (saving,) = (one for one in trainer.checkpoint_callbacks if isinstance(one, SaveCheckpoints))
    saving.save(trainer)
    return True


def resume_from(folder: Path, progress: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a run; None where it has to begin.

    Args:
        folder: of the checkpoints.
        tell: is told in one line of one that is damaged, and what is done about it.
    """
    kept = [path for name in (LAST, NEXT, PREVIOUS, BEST) if (path := folder / name).exists()]
    damaged = [path for path in kept if not _is_whole(path)]
    # the best epoch's weights cannot be had again but by training
    good = None if folder / BEST in damaged else next((path for path in kept if path not in damaged), None)
    if damaged and good != kept[0]:
        progress(f"{damaged[0]} is damaged: going on from {good.name if good else 'the start'}")
    return good


def _is_whole(path: Path) -> bool:
    """Whether every part of a checkpoint has its checksum; torch itself does not look."""
    try:
        with zipfile.ZipFile(path) as packed:
            return packed.testzip() is None
    except OSError:
        raise
    except Exception:  # bits that flipped can look like anything
        return False


def _epoch_is_over(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _agreed(trainer: Trainer, wanted: int, always: bool = False) -> int:
    """The most that any process of the run wants."""
    if trainer.world_size == 1:
        return wanted
    if not always and trainer.fit_loop.epoch_loop.batch_idx % AGREE_EVERY:
        return NOTHING
    most = trainer.strategy.reduce(torch.tensor(wanted, device=trainer.strategy.root_device), reduce_op="max")
    return int(most)
