"""Weights & Biases: the only file that knows it. Online when logged in, else offline, without asking or waiting."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from src.config import Config, to_dict
from src.files import WANDB_ID, write

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger
    from wandb import Run


def start(cfg: Config, run: Path) -> "Future[Run | None]":
    """Begin the run in the background: starting W&B takes as long as importing Lightning, so both go at once.

    The sweep's folder is its group; its id is kept in its folder, so a resumed run goes on.

    Args:
        cfg: of the run.
        run: its folder; W&B's own folder is put inside.
    """
    return ThreadPoolExecutor(1).submit(_start, cfg, run)


def _start(cfg: Config, run: Path) -> "Run | None":
    mode = str(cfg.wandb.mode)
    if mode == "disabled":
        return None
    if mode == "auto":  # from the absence of a key: asking the network would mean waiting for it
        mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
    experiment = wandb.init(
        project=cfg.wandb.project,
        entity=cfg.wandb.entity,
        group=run.parent.name,
        name=run.name,
        id=_identity(run),
        resume="allow",
        dir=run,
        mode="online" if mode == "online" else "offline",
        config=to_dict(cfg),
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True),
    )
    experiment.define_metric("epoch", hidden=True)
    for keys in ("train/*", "val/*", "lr", "maps/*"):
        experiment.define_metric(keys, step_metric="epoch")
    return experiment


def _identity(run: Path) -> str:
    """The run's id at W&B, kept in its folder: whoever goes on with the folder goes on with the run."""
    kept = run / WANDB_ID
    if not kept.exists():
        write(kept, uuid.uuid4().hex[:12])
    return kept.read_text()


def logger(starting: "Future[Run | None]") -> "WandbLogger | None":
    """Lightning's logger of the run; None with ``wandb.mode=disabled``."""
    from lightning.pytorch.loggers import WandbLogger

    experiment = starting.result()
    return None if experiment is None else WandbLogger(experiment=experiment)


def log_maps(logger: "WandbLogger", pictures: Mapping[int, Mapping[str, Path]]) -> None:
    """Feature maps, one call an epoch, so that an epoch's stages stand side by side."""
    for epoch, stages in pictures.items():
        images = {f"maps/{stage}": wandb.Image(str(path)) for stage, path in stages.items()}
        logger.experiment.log({"epoch": epoch, **images})


def log_table(logger: "WandbLogger", name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table of numbers and words."""
    logger.experiment.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})


def log_summary(logger: "WandbLogger", numbers: Mapping[str, float]) -> None:
    """The run's closing numbers, under names that stay."""
    logger.experiment.summary.update(dict(numbers))


def finish(starting: "Future[Run | None]", failed: bool) -> None:
    """Close the run."""
    experiment = starting.result()
    if experiment is not None:
        experiment.finish(exit_code=int(failed))
