"""Weights & Biases: runs. Online when logged in, else offline, without asking or waiting."""

import hashlib
import math
import os
import re
import shlex
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config, to_dict
from ..errors import UserError
from ..metrics.rows import COLUMNS, Row
from ..results.files import WANDB_ID, write
from ..results.runs import named_values
from .maps import picture
from .wandb_files import logged_before

if TYPE_CHECKING:
    import numpy as np
    from wandb import Run


#: characters that W&B's server takes of a group, a run's name and a report's title; it refuses a run with more
LONGEST = 128
#: W&B's own variable, for which it has no setting
STAGING = "WANDB_DATA_DIR"


def logged_in() -> bool:
    """Whether there is a key for W&B: from its absence, never by asking the network, which would mean waiting."""
    import wandb

    return bool(wandb.login(prompt=False, verify=False))


def mode_of(cfg: Config) -> str:
    """``online``, ``offline`` or ``disabled``: what the config asks for, where ``auto`` is one of the first two.

    Raises:
        UserError: online, and there is no key.
    """
    mode = str(cfg.wandb.mode)
    if mode == "auto":
        return "online" if logged_in() else "offline"
    if mode == "online" and not logged_in():
        raise UserError("wandb.mode=online: not logged in to W&B; `wandb login` first, or wandb.mode=offline")
    return mode


def default_entity() -> str:
    """Where W&B puts what names no entity; asks the server."""
    import wandb

    return str(wandb.Api().default_entity or "")


def new_id() -> str:
    """An id that no other run has."""
    return uuid.uuid4().hex[:12]


def identity(run: Path) -> str | None:
    """The id that W&B knows a run by; None where it was never started there."""
    kept = run / WANDB_ID
    return kept.read_text() if kept.exists() else None


def unsynced(run: Path) -> bool:
    """Whether something of a run still waits for ``wandb sync``, which leaves a mark beside what it has sent."""
    logs = run.glob("wandb/offline-run-*/*.wandb")
    return any(not log.with_name(f"{log.name}.synced").exists() for log in logs)


def fitting(name: str) -> str:
    """A folder's name as W&B takes it: cut where it is too long, and still its own.

    >>> fitting("model.pool=max,avg"), len(fitting(500 * "x"))
    ('model.pool=max,avg', 128)
    """
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def group_of(run: Path) -> str:
    """The group of a run: its sweep's folder.

    >>> group_of(Path("outputs/pooling/model.pool=max,seed=0"))
    'pooling'
    """
    return fitting(run.absolute().parent.name)


def variant_of(run: Path) -> str:
    """What a run is called without its seed, as far as its folder says.

    >>> variant_of(Path("outputs/pooling/model.pool=max,seed=0"))
    'model.pool=max'
    """
    return re.sub(r"(^|,)seed=\d+(?=,|$)", "", run.name).strip(",") or run.name


@contextmanager
def _staging_in(folder: Path) -> Iterator[None]:
    """Where a table's copy waits to be uploaded: for ``wandb sync``, the home folder may be another's by then."""
    given = os.environ.get(STAGING)
    os.environ[STAGING] = given or str(folder.absolute())
    try:
        yield
    finally:
        if given is None:
            del os.environ[STAGING]


class WandbLogger:
    """A run at W&B. The sweep's folder is its group; its id is kept in its folder, so a resumed run goes on.

    Importing and starting W&B takes over a second, so it happens in the background, behind the first training steps;
    whatever needs the run waits for it. With ``wandb.mode=disabled`` nothing is started, and logging does nothing.
    What an earlier part of the run has logged is not logged again.

    Args:
        cfg: of the run.
        run: its folder; W&B's own folder is put inside.
        told: of what is no training, and is not resumed: its name, group, job_type and config at W&B.
    """

    def __init__(self, cfg: Config, run: Path, **told: Any) -> None:
        self.cfg, self.folder, self.told = cfg, run, told
        self._starting: Future[Run | None] | None = None
        self._logged: set[tuple[str, Any]] = set()

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
        mode = mode_of(self.cfg)
        if mode == "disabled":
            return None
        import wandb

        training = {"name": self.folder.name, "group": group_of(self.folder), "job_type": "train"}
        told: dict[str, Any] = self.told or training | {"config": to_dict(self.cfg)}
        known = new_id() if self.told else self._identity()
        before = logged_before(self.folder, known)
        experiment = wandb.init(
            project=self.cfg.wandb.project,
            entity=self.cfg.wandb.entity,
            id=known,
            resume="allow",
            dir=self.folder,
            mode="online" if mode == "online" else "offline",
            settings=wandb.Settings(
                console="off",
                silent=True,
                x_disable_stats=True,
                disable_git=True,
                x_transaction_log_flush_interval=0.1,  # seconds; a process that is killed loses no more
            ),
            **told | {"name": fitting(told["name"])},
        )
        sent = math.inf if experiment.offline else experiment.starting_step  # a kill takes what W&B had yet to send
        self._logged = {one for one, step in before.items() if step < sent}
        experiment.define_metric("epoch", hidden=True)
        for keys in ("train/*", "val/*", "lr", "grad_norm*", "step", "maps/*", "invariance/*"):
            experiment.define_metric(keys, step_metric="epoch")
        return experiment

    def _identity(self) -> str:
        if identity(self.folder) is None:
            write(self.folder / WANDB_ID, new_id())
        return identity(self.folder) or ""

    def _log(self, row: Mapping[str, Any]) -> None:
        """Log a row, once."""
        names = {(name, row.get("epoch")) for name in row}
        if self.experiment is not None and not names <= self._logged:
            self.experiment.log(dict(row))
            self._logged |= names

    def log_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The rows of ``history.csv``, those too that W&B lost when an earlier part of the run was killed.

        The seconds of an epoch are left out: W&B has its own clock, and the summary the run's.
        """
        for row in rows:
            self._log({name: float(value) for name, value in row.items() if value != "" and name != "seconds"})

    def log_maps(self, pictures: Mapping[int, Mapping[str, Path]]) -> None:
        """Feature maps, one call an epoch, so that an epoch's stages stand side by side; then a table of all."""
        if self.experiment is None or not pictures:
            return
        import wandb

        variant, rows = variant_of(self.folder), []
        for epoch, stages in pictures.items():
            images = {stage: wandb.Image(str(path)) for stage, path in stages.items()}
            self._log({"epoch": epoch, **{f"maps/{stage}": image for stage, image in images.items()}})
            rows += [(variant, stage, epoch, image) for stage, image in images.items()]
        self.log_table("maps", ("variant", "stage", "epoch", "picture"), rows)

    def log_grids(self, grids: Mapping[str, "np.ndarray"]) -> None:
        """Pictures of all grids: ``grids/roll_map/stage1`` …; no roll stands in the middle."""
        if self.experiment is None or not grids:
            return
        import wandb

        self._log({f"grids/{name}": wandb.Image(picture(name, plane)) for name, plane in grids.items()})

    def log_table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table of numbers and words."""
        if self.experiment is None:
            return
        import wandb

        with _staging_in(self.folder / "wandb"):
            self._log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def log_measures(self, rows: Sequence[Row], grids: Mapping[str, "np.ndarray"]) -> None:
        """What was measured: its table, its grids, and every number of the net under the name that stays."""
        self.log_table("measures", COLUMNS, [row.values() for row in rows])
        self.log_grids(grids)
        self.log_summary(named_values(rows))

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """The run's closing numbers, under names that stay."""
        if self.experiment is not None:
            self.experiment.summary.update(dict(numbers))

    @property
    def place(self) -> str:
        """Where the run is to be seen, or how it gets there; nothing where W&B is disabled."""
        if self.experiment is None:
            return ""
        if self.experiment.offline:
            return f"wandb sync {shlex.quote(str(Path(self.experiment.dir).parent))}"
        return self.experiment.url or ""

    def finish(self, failed: bool) -> None:
        """Close the run, if it was started."""
        if self._starting is not None and self.experiment is not None:
            self.experiment.finish(exit_code=int(failed))
