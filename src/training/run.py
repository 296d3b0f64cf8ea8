"""One run, from its config to its files: the story, top to bottom.

    config → data → net and its ledger → training → measures → files

A run's folder holds ``config.yaml``, ``shapes.csv``, ``history.csv``, ``checkpoints/``, ``maps/``, ``measures.csv``,
``inside.npz`` and, once it is finished, ``run.json``. A run whose training diverged is finished too, and not measured.
"""

import hashlib
import logging
import os
import platform
import signal
import time
import traceback
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from ..config import Config, to_dict
from ..data.batches import EVALUATION_BATCH, Batches
from ..data.example_images import probe_images
from ..data.splits import Splits, split
from ..errors import Interrupted
from ..metrics.rows import Row
from ..reporting.maps import finish_maps
from ..reporting.terminal import console, show_closing, show_notes, show_summary
from ..reporting.wandb_logger import WandbLogger
from ..results import files
from ..results.locks import folder_lock
from ..results.outcomes import DIVERGED, outcome_of
from ..results.runs import FinishedRun, finished, named_values, read_checkpoint, record, write_measures
from ..summary import ModelSummary, summarize, verify
from .ranks import MAIN, end_with_parent, is_main_process, starting_ranks
from .untrained import first_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .lightning_module import Training


def run(cfg: Config, folder: Path) -> None:
    """Do the run, unless its folder already holds it finished; go on where it stopped.

    Args:
        cfg: checked (``src.config.check``).
        folder: of the run.

    Raises:
        UserError: the folder holds a run of another config, another process works in it, or the data are missing.
        Interrupted: a signal asked for it; the run is saved.
    """
    if finished(folder, cfg):
        console.print(f"  finished before, kept: {folder}", markup=False, soft_wrap=True)
        return
    if not is_main_process():
        with _repeatable():
            _follow(cfg, folder)
        return
    with folder_lock(folder), _repeatable():
        if finished(folder, cfg):  # by whoever was at work here until now
            return
        files.remove_parts(folder)
        failed = folder / files.FAILED
        failed.unlink(missing_ok=True)
        try:
            _run(cfg, folder)
        except Exception:
            with suppress(OSError):  # a full disk: what stopped the run is what is to be said
                files.write(failed, traceback.format_exc())
            raise


def _follow(cfg: Config, folder: Path) -> None:
    """Train as one of the ranks that write no files."""
    if MAIN not in os.environ:  # a scheduler has started all of them, and looks after each
        _fit(cfg, folder, None)
        return
    end_with_parent(signal.SIGKILL)  # whatever this one is at: alone it would wait for the other for ever
    if os.getppid() != int(os.environ[MAIN]):
        return  # it is gone already
    with suppress(
        Interrupted
    ):  # Lightning kills the first rank where another ends with a code; that one has still to end
        _fit(cfg, folder, None)


def _run(cfg: Config, folder: Path) -> None:
    if not (folder / files.IDENTITY).exists():
        record(folder, cfg)
    files.write(folder / files.CONFIG, yaml.safe_dump(to_dict(cfg), sort_keys=False))
    tracker = WandbLogger(cfg, folder)
    failed = True
    try:
        net, splits, summary, diverged = _fit(cfg, folder, tracker)

        begin = time.perf_counter()
        ended: dict[str, Any]
        if diverged is None:
            ended = {"outcome": outcome_of(_measure(net, cfg, splits, summary, folder), splits.test.labels)}
        else:
            write_measures(folder / files.MEASURES, [])
            ended = {"outcome": DIVERGED, "diverged_in_epoch": diverged}
        facts = _facts(cfg, splits, summary, folder) | {"hardware": hardware(net.device)} | ended
        facts["seconds"] = round(facts["train_seconds"] + time.perf_counter() - begin, 1)  # all parts of a resumed run
        _log(tracker, folder, facts)
        files.write_json(folder / files.RUN, facts)  # last: it says that all else is there
        (folder / files.CHECKPOINTS / files.PREVIOUS).unlink(missing_ok=True)
        failed = False
    finally:
        tracker.finish(failed)
    done = FinishedRun(folder, {})
    show_notes(done.notes)
    show_closing(done.numbers, folder, done.failure)


def _measure(net: "Training", cfg: Config, splits: Splits, summary: ModelSummary, folder: Path) -> list[Row]:
    """Write what is measured on the net, and what it looks like inside; gives the rows."""
    from .evaluate_run import features_of_run, measure

    with console.status("measuring") as status:
        rows = write_measures(folder / files.MEASURES, measure(net, cfg, splits, status.update))
        status.update("looking inside")
        look = features_of_run(net, cfg, splits, summary, probe_images(cfg.probe, splits))
        files.write_arrays(folder / files.INSIDE, look)
    return rows


def _log(tracker: WandbLogger, folder: Path, facts: dict[str, Any]) -> None:
    """Send W&B all that a run left; what it has already is not sent again."""
    done = FinishedRun(folder, {})
    tracker.log_history(done.history)  # what a kill after the last epoch took
    tracker.log_maps(finish_maps(folder))
    tracker.log_measures(done.found, done.grids)
    tracker.log_table("shapes", list(done.shapes[0]), [[_typed(one) for one in row.values()] for row in done.shapes])
    tracker.log_summary(facts)


def _typed(text: str) -> str | float:
    """A field of a CSV file as the number that it is, if it is one."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def log_finished(cfg: Config, folder: Path, facts: dict[str, Any]) -> None:
    """Send W&B a finished run as one of its own, as it was copied into another sweep."""
    tracker = WandbLogger(cfg, folder)
    failed = True
    try:
        _log(tracker, folder, facts)
        failed = False
    finally:
        tracker.finish(failed)


def _fit(cfg: Config, folder: Path, tracker: WandbLogger | None) -> "tuple[Training, Splits, ModelSummary, int | None]":
    """Build, check and train, from the last checkpoint if there is one; gives the net of the epoch to keep, and the
    epoch in which the training diverged, if it did.
    """
    from lightning.pytorch import Trainer

    from .callbacks import (
        History,
        LogToWandb,
        OnlineEvaluation,
        ProgressBar,
        SaveConfig,
        SaveFeatureMaps,
        StopOnDivergence,
    )
    from .checkpoints import AtomicCheckpointIO, SaveCheckpoints, resume_from
    from .lightning_module import module

    _quiet()
    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes))
    summary = summarize(net, splits.image)
    verify(summary, net)
    if is_main_process():
        files.write_rows(folder / files.SHAPES, summary.rows())
        show_summary(summary, f"{folder.name}: its ledger, held against the running net")
    probe = probe_images(cfg.probe, splits).images
    best, mode = net.task.best
    checkpoints = folder / files.CHECKPOINTS
    history, diverged = History(folder), StopOnDivergence()
    track = LogToWandb(tracker, history)
    saving = SaveCheckpoints(checkpoints, f"val/{best}", mode, cfg.trainer.save_minutes, then=track.log)
    first = partial(first_images, cfg, splits)
    maps = SaveFeatureMaps(folder, probe, splits.normalise(probe), cfg.probe.channels, cfg.probe.every, first)
    follow = [OnlineEvaluation(_look(cfg, splits), cfg.measure.every)] if cfg.measure.every else []
    trainer = Trainer(
        max_epochs=cfg.train.epochs,
        devices=cfg.trainer.devices,
        num_nodes=cfg.trainer.num_nodes,
        strategy=cfg.trainer.strategy,
        accelerator=cfg.trainer.accelerator,
        precision=cfg.trainer.precision,  # type: ignore[arg-type]
        logger=False,  # see Track
        callbacks=[SaveConfig(cfg), diverged, track, *follow, history, maps, ProgressBar(console), saving],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # Batches deals each batch out by rank
        default_root_dir=folder,
    )
    device = trainer.strategy.root_device
    batches = partial(Batches, mean=splits.mean, std=splits.std, rank=trainer.global_rank, world=trainer.world_size)
    train = batches(splits.train.to(device), cfg.train.batch_size, seed=cfg.seed, augment=str(cfg.data.augment))
    val = batches(splits.val.to(device), EVALUATION_BATCH)
    saved = resume_from(checkpoints, progress=lambda line: console.print(f"  {line}", markup=False, soft_wrap=True))
    if saved is None:
        net.fit(splits.train.images, splits.normalise)
    with starting_ranks():
        trainer.fit(net, train, val, ckpt_path=saved, weights_only=True)
    _, weights = read_checkpoint(checkpoints / f"{cfg.train.keep}.ckpt")
    net.load_state_dict(weights)
    return net.to(device), splits, summary, diverged.epoch  # Lightning has put it back on the CPU


def _look(cfg: Config, splits: Splits) -> "Callable[[Training], dict[str, float]]":
    """What is followed while a net trains, under the names of the run's summary."""
    from .evaluate_run import evaluation_set, online_rows

    test_set = evaluation_set(cfg, splits)
    return lambda net: named_values(online_rows(net, splits, test_set))


def _facts(cfg: Config, splits: Splits, summary: ModelSummary, folder: Path) -> dict[str, Any]:
    history = files.read_rows(folder / files.HISTORY)
    return {
        "train_seconds": round(sum(float(row["seconds"]) for row in history), 1),
        "steps": int(history[-1]["step"]),
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "torch": torch.__version__,
        "classes": list(splits.classes),
        "images": {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
        "split_checksum": splits.checksum,
        "realised_label_noise": splits.noise_rate,
        "probe_checksum": checksum(probe_images(cfg.probe, splits).images),
    }


def checksum(images: torch.Tensor) -> str:
    """Of the pixels: the same images, the same sum."""
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16]


def hardware(device: torch.device) -> str:
    """What a run ran on: the GPU's name, or the CPU's with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {torch.get_num_threads()} threads"


@contextmanager
def _repeatable() -> "Iterator[None]":
    """A GPU adds in the same order every time, wherever it has a way to: the same seed then gives the same numbers."""
    if not torch.cuda.is_available():  # a CPU does
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled: Any = torch.utils.deterministic
    fill = filled.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    filled.fill_uninitialized_memory = False  # it costs, and nothing here reads what it did not write
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        filled.fill_uninitialized_memory = fill


def _quiet() -> None:
    """Lightning's tips and notices say nothing here that the run does not say better."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
