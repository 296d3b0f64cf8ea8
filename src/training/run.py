"""One run, from its config to its files.

    config → data → net and its summary → training → measures → files

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

from ..common.errors import Interrupted
from ..common.naming import code_checksum, code_version
from ..config import Config, to_dict
from ..data.batches import EVALUATION_BATCH, Batches, epochs_of_steps, learned_sizes
from ..data.example_images import probe_images
from ..data.splits import Splits, split
from ..metrics.rows import Row
from ..reporting.maps import finish_maps
from ..reporting.metamers import drawn_columns, write_slide
from ..reporting.terminal import console, show_closing, show_notes, show_summary
from ..reporting.wandb_logger import WandbLogger
from ..results import files
from ..results.identity import is_by_other_code, is_finished, read_checkpoint, write_identity
from ..results.locks import folder_lock
from ..results.measures import named_values, write_measures
from ..results.outcomes import DIVERGED, outcome_of
from ..results.runs import FinishedRun
from ..summary import ModelSummary, summarize, verify
from .ranks import MAIN, end_with_parent, forget_ranks, is_main_process, starting_ranks
from .untrained import first_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .lightning_module import Training


def run(cfg: Config, folder: Path) -> None:
    """Train and measure one net, unless the folder holds it finished already; resume where it stopped.

    Raises:
        UserError: the folder holds a run of another config, another process works in it, or the data are missing.
        Interrupted: a signal stopped it; the run is saved.
    """
    forget_ranks(cfg.trainer.devices * cfg.trainer.num_nodes)
    if is_finished(folder, cfg):
        other = " (by other code; remove it to train again)" if is_by_other_code(folder) else ""
        console.print(f"  finished before, kept: {folder}{other}", markup=False, soft_wrap=True)
        return
    if not is_main_process():
        with _deterministic():
            _train_as_rank(cfg, folder)
        return
    with folder_lock(folder), _deterministic():
        if is_finished(folder, cfg):  # by the process that held the lock
            return
        files.remove_parts(folder)
        failed = folder / files.FAILED
        failed.unlink(missing_ok=True)
        try:
            _run(cfg, folder)
        except Exception:
            with suppress(OSError):  # a full disk must not hide the error
                files.write(failed, traceback.format_exc())
            raise


def _train_as_rank(cfg: Config, folder: Path) -> None:
    """Train as a rank that writes no files."""
    if MAIN not in os.environ:  # a scheduler has started all ranks, and ends them
        _fit(cfg, folder, None)
        return
    end_with_parent(signal.SIGKILL)  # alone it would wait for the first rank for ever
    if os.getppid() != int(os.environ[MAIN]):
        return  # the first rank has ended already
    with suppress(Interrupted):  # a non-zero exit makes Lightning kill the first rank before it has saved
        _fit(cfg, folder, None)


def _run(cfg: Config, folder: Path) -> None:
    if not (folder / files.IDENTITY).exists():
        write_identity(folder, cfg)
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
        # of all parts of a resumed run
        facts["seconds"] = round(facts["train_seconds"] + time.perf_counter() - begin, 1)
        _log(tracker, folder, facts)
        files.write_json(folder / files.RUN, facts)  # last, as it marks the run as finished
        (folder / files.CHECKPOINTS / files.PREVIOUS).unlink(missing_ok=True)
        failed = False
    finally:
        tracker.finish(failed)
    done = FinishedRun(folder, {})
    show_notes(done.notes)
    show_closing(done.numbers, folder, done.failure)


def _measure(net: "Training", cfg: Config, splits: Splits, summary: ModelSummary, folder: Path) -> list[Row]:
    """Measure the net and analyse its features, write both, and return the rows."""
    from .evaluate_run import features_of_run, measure

    with console.status("measuring") as status:
        rows = write_measures(folder / files.MEASURES, measure(net, cfg, splits, status.update))
        if splits.permutation is None:  # else no place in a map is a place in the image
            status.update("analysing features")
            features = features_of_run(net, cfg, splits, summary, probe_images(cfg.probe, splits))
            files.write_arrays(folder / files.INSIDE, features)
    write_slide(folder / files.METAMERS, {folder.name: FinishedRun(folder, {}).pictures})
    return rows


def _log(tracker: WandbLogger, folder: Path, facts: dict[str, Any]) -> None:
    """Send W&B everything in a run's folder; what it has already is not sent again."""
    done = FinishedRun(folder, {})
    tracker.log_history(done.history)  # rows not sent before a kill
    tracker.log_maps(finish_maps(folder))
    tracker.log_measures(done.results, done.grids)
    tracker.log_pictures(drawn_columns(done.pictures))
    tracker.log_table("shapes", list(done.shapes[0]), [[_typed(cell) for cell in row.values()] for row in done.shapes])
    tracker.log_summary(facts)


def _typed(text: str) -> str | float:
    """A field of a CSV file as a number, if it is one."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def log_finished(cfg: Config, folder: Path, facts: dict[str, Any]) -> None:
    """Send W&B a finished run that was copied into another sweep, as a run of its own."""
    tracker = WandbLogger(cfg, folder)
    failed = True
    try:
        _log(tracker, folder, facts)
        failed = False
    finally:
        tracker.finish(failed)


def _fit(cfg: Config, folder: Path, tracker: WandbLogger | None) -> "tuple[Training, Splits, ModelSummary, int | None]":
    """Build, check and train the net, from the last checkpoint if there is one.

    Returns:
        The net with the weights of ``train.keep``, the data, the model summary, and the epoch in which training
        diverged, or None.
    """
    from lightning.pytorch import Callback, Trainer

    from . import callbacks
    from .alarms import SayAlarms
    from .checkpoints import AtomicCheckpointIO, SaveCheckpoints, resume_from
    from .following import FollowStatistics
    from .lightning_module import module

    _silence_lightning()
    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes))
    summary = summarize(net, splits.image)
    verify(summary, net)
    if is_main_process():
        files.write_rows(folder / files.SHAPES, summary.rows())
        show_summary(summary, f"{folder.name}: model summary, verified against the running net")
    probe = probe_images(cfg.probe, splits).images
    best, mode = net.task.best
    checkpoints = folder / files.CHECKPOINTS
    history, diverged = callbacks.History(folder), callbacks.StopOnDivergence()
    track = callbacks.LogToWandb(tracker, history)
    saving = SaveCheckpoints(checkpoints, f"val/{best}", mode, cfg.trainer.save_minutes, on_saved=track.log)
    first = partial(first_images, cfg, splits)
    maps = callbacks.SaveFeatureMaps(folder, probe, splits.normalise(probe), cfg.probe.channels, cfg.probe.every, first)
    looks: list[Callback] = [FollowStatistics(cfg, splits)] if cfg.measure.follow else []
    if cfg.measure.every:
        from .evaluate_run import evaluation_set, online_rows

        test_set = evaluation_set(cfg, splits)
        rows = partial(online_rows, splits=splits, test_set=test_set)
        looks.append(callbacks.OnlineEvaluation(lambda net: named_values(rows(net)), cfg.measure.every))
    epochs, passes = cfg.train.epochs, 1
    if cfg.train.steps:
        epochs, passes = epochs_of_steps(cfg.train.steps, len(learned_sizes(len(splits.train), cfg.train.batch_size)))
    said = [SayAlarms(history, lambda line: console.print(f"  {line}", markup=False))] if cfg.alarm else []
    cut = [callbacks.StopAfterSteps(cfg.train.steps)] if cfg.train.steps else []
    trainer = Trainer(
        max_epochs=epochs,
        devices=cfg.trainer.devices,
        num_nodes=cfg.trainer.num_nodes,
        strategy=cfg.trainer.strategy,
        accelerator=cfg.trainer.accelerator,
        precision=cfg.trainer.precision,  # type: ignore[arg-type]
        logger=False,  # see LogToWandb
        callbacks=[*cut, diverged, track, *looks, history, maps, *said, callbacks.ProgressBar(console), saving],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # Batches splits each batch over the ranks
        default_root_dir=folder,
    )
    device = trainer.strategy.root_device
    batches = partial(Batches, normalise=splits.normalise, rank=trainer.global_rank, world=trainer.world_size)
    train = batches(
        splits.train.to(device), cfg.train.batch_size, seed=cfg.seed, augment=str(cfg.data.augment), passes=passes
    )
    val = batches(splits.val.to(device), EVALUATION_BATCH)
    saved = resume_from(checkpoints, progress=lambda line: console.print(f"  {line}", markup=False, soft_wrap=True))
    if saved is None:
        net.fit(splits.train.images, splits.normalise)
    with starting_ranks(trainer.strategy.launcher), _keyboard_interrupts():
        trainer.fit(net, train, val, ckpt_path=saved, weights_only=True)
    _, weights = read_checkpoint(checkpoints / f"{cfg.train.keep}.ckpt")
    net.load_state_dict(weights)
    return net.to(device), splits, summary, diverged.epoch  # Lightning has moved it to the CPU


def _facts(cfg: Config, splits: Splits, summary: ModelSummary, folder: Path) -> dict[str, Any]:
    history = files.read_rows(folder / files.HISTORY)
    return {
        "train_seconds": round(sum(float(row["seconds"]) for row in history), 1),
        "steps": int(history[-1]["step"]),
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "torch": torch.__version__,
        "code": code_version(),
        "code_checksum": code_checksum(),
        "classes": list(splits.classes),
        "images": {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
        "split_checksum": splits.checksum,
        "pixel_mean": splits.mean.tolist(),
        "pixel_std": splits.std.tolist(),
        "realised_label_noise": splits.noise_rate,
        "probe_checksum": checksum(probe_images(cfg.probe, splits).images),
    } | ({"skipped_images": splits.skipped} if cfg.data.skip_damaged else {})


def checksum(images: torch.Tensor) -> str:
    """SHA-256 of the pixels, 16 digits."""
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16]


def hardware(device: torch.device) -> str:
    """The GPU's name, or the CPU's with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {torch.get_num_threads()} threads"


@contextmanager
def _keyboard_interrupts() -> "Iterator[None]":
    """Lightning ends the process by exit code 1 at a Ctrl-C that comes before there is anything to save, or while it
    is being saved; inside the ``with`` it is a ``KeyboardInterrupt``, as everywhere else.
    """
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


@contextmanager
def _deterministic() -> "Iterator[None]":
    """Deterministic algorithms on GPUs, where PyTorch has them, so that a seed gives the same numbers again."""
    if not torch.cuda.is_available():  # CPUs are deterministic
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled: Any = torch.utils.deterministic
    fill = filled.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    filled.fill_uninitialized_memory = False  # it costs time, and no code here reads uninitialised memory
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        filled.fill_uninitialized_memory = fill


def _silence_lightning() -> None:
    """Silence Lightning's tips and notices."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
