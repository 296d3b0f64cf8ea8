"""Checkpoints of a run: when they are saved, atomic writes, and resuming although one is damaged.

A run resumes from ``last.ckpt``: saved after each epoch, every few minutes within one, and when a signal arrives.
``previous.ckpt`` is the one before, in case the last is damaged. ``best.ckpt`` is that of the best epoch so far.
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

from ..common.errors import Interrupted
from ..results.files import BEST, HISTORY, LAST, NEXT, PREVIOUS, read_rows, write
from ..results.identity import FORMAT

#: signals on which a run saves and stops: Ctrl-C, the end of an allocation, a requeue
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
NOTHING, SAVE, STOP = 0, 1, 2
#: what a run resumes from
NEEDED = {"config", "state_dict", "within", "loops", "optimizer_states", "lr_schedulers", "callbacks"}
#: batches between two times that the ranks of a run agree on whether to save: each makes a GPU wait
AGREE_EVERY = 10


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: the file has its old content or the new one, also after a kill or a full disk.

    Lightning's own may be copied in from a temporary folder on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a temporary file beside ``path``, then rename it."""
        packed = io.BytesIO()
        torch.save(checkpoint, packed)
        write(Path(path), packed.getbuffer())


class SaveCheckpoints(Checkpoint):
    """Saves the checkpoints of a run, and stops it after a signal.

    After a signal, the run is saved at the end of the batch, or of the epoch if that was its last batch. Then the
    handler that was there before is called, as a batch system's that requeues the job. Without one, the run ends with
    ``Interrupted``.

    Args:
        folder: of the checkpoints.
        score, mode: logged number by which the best epoch is chosen, and whether ``max`` or ``min`` is best.
        minutes: between two checkpoints within an epoch; 0: only after a signal.
        on_saved: called after an epoch is saved.
    """

    def __init__(self, folder: Path, score: str, mode: str, minutes: float, on_saved: Callable[[], None]) -> None:
        self.folder, self.score, self.minutes, self.on_saved = folder, score, minutes, on_saved
        self.sign = 1 if mode == "max" else -1
        self.best = -math.inf
        self.signum: int | None = None
        self.before: dict[int, Any] = {}

    @property
    def state_key(self) -> str:
        """The key of its state in checkpoints; that of earlier versions."""
        return "Saving"

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score."""
        self.best = state_dict["best"]

    # --- when ------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave out Lightning's SIGTERM handler: it waits for other ranks in any state, and all hang."""
        disable_signal_handlers(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install signal handlers: from here on there is something to save."""
        if threading.current_thread() is threading.main_thread():
            found = ((signum, signal.getsignal(signum)) for signum in SIGNALS)
            self.before = {signum: handler for signum, handler in found if handler not in (signal.SIG_IGN, None)}
        for signum in self.before:
            signal.signal(signum, self._on_signal)
        self.saved = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Save if it is time or a signal came."""
        # after the last batch of an epoch, the epoch is saved, after its validation
        if trainer.should_stop or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        due = self.minutes > 0 and time.monotonic() - self.saved > 60 * self.minutes
        wanted = _agreed(trainer, STOP if self.signum else SAVE if due else NOTHING)
        if wanted:
            self.save(trainer)
        if wanted == STOP:
            self._stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, also as the best one if it is."""
        score = self.sign * float(trainer.callback_metrics[self.score])
        first = self.best == -math.inf
        better = trainer.strategy.reduce_boolean_decision(score > self.best or first)
        if better:
            self.best = -math.inf if math.isnan(score) else score
            trainer.save_checkpoint(self.folder / BEST)  # first, as last.ckpt records that it was saved
        self.save(trainer)
        self.on_saved()
        if _agreed(trainer, STOP if self.signum else NOTHING, always=True):
            self._stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers that were there before."""
        if self.signum:
            self._stop()
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers that were there before."""
        self._restore_handlers()

    def save(self, trainer: Trainer) -> None:
        """Write ``last.ckpt``; the file that was there becomes ``previous.ckpt``."""
        last, coming = self.folder / LAST, self.folder / NEXT
        trainer.save_checkpoint(coming)
        if trainer.is_global_zero:
            if last.exists():
                last.replace(self.folder / PREVIOUS)
            coming.replace(last)
        self.saved = time.monotonic()

    # --- signals ---------------------------------------------------------------------------------------------------

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if signum == signal.SIGINT:  # a second Ctrl-C does not wait
            signal.signal(signum, self.before[signum])

    def _stop(self) -> None:
        """Call the earlier handler of the signal; a rank that got no signal stops as if by SIGTERM."""
        signum, self.signum = self.signum or signal.SIGTERM, None
        before = self.before.get(signum)
        if callable(before) and before is not signal.default_int_handler:
            before(signum, None)
        else:
            raise Interrupted(signum)

    def _restore_handlers(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}


def resume_from(folder: Path, progress: Callable[[str], None]) -> Path | None:
    """The newest checkpoint in a folder that is whole and of this version; None where training has to start.
    ``progress`` is called with one line about one that is not, and what is used instead.
    """
    kept = [path for name in (LAST, NEXT, PREVIOUS, BEST) if (path := folder / name).exists()]
    flaws = {path: flaw for path in kept if (flaw := _flaw(path))}
    # only training again gives the best epoch's weights
    good = None if folder / BEST in flaws else next((path for path in kept if path not in flaws), None)
    if flaws and good != kept[0]:
        path, flaw = next(iter(flaws.items()))
        progress(f"{path} {flaw}: resuming from {good.name if good else 'the start'}")
    elif good and good.name != BEST and not (folder / BEST).exists() and read_rows(folder.parent / HISTORY):
        progress(f"{folder / BEST} is missing: resuming from the start")
        return None
    return good


def _flaw(path: Path) -> str:
    """Why no run can resume from a file; empty if one can. Every part of it has a checksum, which torch itself does
    not check.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:
                return "is damaged"
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # flipped bits can raise anything
        return "is damaged"
    if not isinstance(tree, dict) or not tree.keys() >= NEEDED or tree.get("format", FORMAT) != FORMAT:
        return "was written by another version"
    return ""


def disable_signal_handlers(trainer: Trainer) -> None:
    """Keep Lightning from installing its own; a private part of Lightning."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def _agreed(trainer: Trainer, wanted: int, always: bool = False) -> int:
    """The largest of what the ranks want."""
    if trainer.world_size == 1:
        return wanted
    if not always and trainer.fit_loop.epoch_loop.batch_idx % AGREE_EVERY:
        return NOTHING
    most = trainer.strategy.reduce(torch.tensor(wanted, device=trainer.strategy.root_device), reduce_op="max")
    return int(most)
