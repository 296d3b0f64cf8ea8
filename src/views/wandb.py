"""Weights & Biases: the only file that knows it. Online when logged in, else offline, without asking or waiting."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from src.config import Config, to_dict


def start(cfg: Config, run: Path) -> WandbLogger | None:
    """The logger of a run: the sweep's folder is its group, its id comes from its folder, so a resumed run goes on.

    Args:
        cfg: of the run.
        run: its folder; W&B's own folder is put inside.

    Returns:
        None with ``wandb.mode=disabled``.
    """
    mode = str(cfg.wandb.mode)
    if mode == "disabled":
        return None
    if mode == "auto":  # from the absence of a key: asking the network would mean waiting for it
        mode = "online" if wandb.api.api_key else "offline"
    group, name = run.parent.name, run.name
    experiment = wandb.init(
        project=cfg.wandb.project,
        entity=cfg.wandb.entity,
        group=group,
        name=name,
        id=hashlib.sha256(f"{group}/{name}".encode()).hexdigest()[:12],
        resume="allow",
        dir=run,
        mode="online" if mode == "online" else "offline",
        config=to_dict(cfg),
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True),
    )
    experiment.define_metric("epoch", hidden=True)
    for keys in ("train/*", "val/*", "lr", "maps/*"):
        experiment.define_metric(keys, step_metric="epoch")
    return WandbLogger(experiment=experiment)


def log_maps(logger: WandbLogger, pictures: Mapping[int, Mapping[str, Path]]) -> None:
    """Feature maps, one call an epoch, so that an epoch's stages stand side by side."""
    for epoch, stages in pictures.items():
        images = {f"maps/{stage}": wandb.Image(str(path)) for stage, path in stages.items()}
        logger.experiment.log({"epoch": epoch, **images})


def log_table(logger: WandbLogger, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table of numbers and words."""
    logger.experiment.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})


def log_summary(logger: WandbLogger, numbers: Mapping[str, float]) -> None:
    """The run's closing numbers, under names that stay."""
    logger.experiment.summary.update(dict(numbers))


def finish(logger: WandbLogger, failed: bool = False) -> None:
    """Close the run."""
    logger.experiment.finish(exit_code=1 if failed else 0)
