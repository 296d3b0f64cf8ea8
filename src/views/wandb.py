"""Weights & Biases: the only file that knows it. Online when logged in, else offline, without asking or waiting."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config import Config, to_dict
from src.files import WANDB_ID, write
from src.views.maps import picture

if TYPE_CHECKING:
    import numpy as np
    from lightning.pytorch.loggers import WandbLogger
    from wandb import Run


class Tracker:
    """A run at W&B. The sweep's folder is its group; its id is kept in its folder, so a resumed run goes on.

    Importing and starting W&B takes over a second, so it happens in the background, behind the first training steps;
    whatever needs the run waits for it. With ``wandb.mode=disabled`` nothing is started, and logging does nothing.

    Args:
        cfg: of the run.
        run: its folder; W&B's own folder is put inside.
    """

    def __init__(self, cfg: Config, run: Path) -> None:
        self.cfg, self.folder = cfg, run
        self._starting: Future[Run | None] | None = None

    def begin(self) -> "Future[Run | None]":
        """Start in the background, once."""
        if self._starting is None:
            self._starting = ThreadPoolExecutor(1).submit(self._start)
        return self._starting

    @property
    def experiment(self) -> "Run | None":
        """The run, when it has started; None where W&B is disabled."""
        return self.begin().result()

    def _start(self) -> "Run | None":
        mode = str(self.cfg.wandb.mode)
        if mode == "disabled":
            return None
        import wandb

        if mode == "auto":  # from the absence of a key: asking the network would mean waiting for it
            mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
        experiment = wandb.init(
            project=self.cfg.wandb.project,
            entity=self.cfg.wandb.entity,
            group=self.folder.parent.name,
            name=self.folder.name,
            id=self._identity(),
            resume="allow",
            dir=self.folder,
            mode="online" if mode == "online" else "offline",
            config=to_dict(self.cfg),
            settings=wandb.Settings(
                console="off",
                silent=True,
                x_disable_stats=True,
                disable_git=True,
                x_transaction_log_flush_interval=1,  # seconds; a process that is killed loses no more
            ),
        )
        experiment.define_metric("epoch", hidden=True)
        for keys in ("train/*", "val/*", "lr", "maps/*", "invariance/*"):
            experiment.define_metric(keys, step_metric="epoch")
        return experiment

    def _identity(self) -> str:
        kept = self.folder / WANDB_ID
        if not kept.exists():
            write(kept, uuid.uuid4().hex[:12])
        return kept.read_text()

    def logger(self) -> "WandbLogger | None":
        """Lightning's logger of the run."""
        from lightning.pytorch.loggers import WandbLogger

        return None if self.experiment is None else WandbLogger(experiment=self.experiment)

    def log_maps(self, pictures: Mapping[int, Mapping[str, Path]]) -> None:
        """Feature maps, one call an epoch, so that an epoch's stages stand side by side."""
        if self.experiment is None:
            return
        import wandb

        for epoch, stages in pictures.items():
            images = {f"maps/{stage}": wandb.Image(str(path)) for stage, path in stages.items()}
            self.experiment.log({"epoch": epoch, **images})

    def log_grids(self, grids: Mapping[str, "np.ndarray"]) -> None:
        """Pictures of all grids: ``grids/roll_map/stage1`` …; no roll stands in the middle."""
        if self.experiment is None or not grids:
            return
        import wandb

        images = {f"grids/{name}": wandb.Image(picture(name, plane)) for name, plane in grids.items()}
        self.experiment.log(images)

    def log_table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table of numbers and words."""
        if self.experiment is None:
            return
        import wandb

        self.experiment.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """The run's closing numbers, under names that stay."""
        if self.experiment is not None:
            self.experiment.summary.update(dict(numbers))

    def finish(self, failed: bool) -> None:
        """Close the run, if it was started."""
        if self._starting is not None and self.experiment is not None:
            self.experiment.finish(exit_code=int(failed))
