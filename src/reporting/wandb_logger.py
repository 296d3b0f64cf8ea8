"""Logging of runs to Weights & Biases: online when logged in, else offline, without asking or waiting."""

import hashlib
import math
import os
import re
import shlex
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..common.errors import UserError
from ..config import Config, to_dict
from ..metrics.rows import COLUMNS, Row
from ..results.files import WANDB_ID, write
from ..results.measures import summary_values
from .maps import ROLL_MAP, epochs_of, heatmap_picture, pictures_of_epoch
from .terminal import console
from .wandb_files import logged_before

if TYPE_CHECKING:
    import numpy as np
    from wandb import Run, Settings

#: largest number of characters of a group, a run's name and a report's title; the server refuses longer ones
LONGEST = 128
#: seconds that W&B's server is waited for, when a run starts
PATIENCE = 20
#: environment variable of W&B without a corresponding setting
STAGING = "WANDB_DATA_DIR"
#: set once the server could not be reached: this process does not wait for it again
UNREACHABLE = threading.Event()
#: keys that are drawn against the epoch
BY_EPOCH = ("train/*", "val/*", "lr", "grad_norm*", "step", "maps/*", "maps_so_far/*", "invariance/*", "layers/*")


def logged_in() -> bool:
    """Whether there is an API key for W&B, and its server was not found to be away; does not ask the network. A
    ``UserError`` where W&B refuses what the environment says of it: a key that is none, an address that is none.
    """
    import wandb

    if UNREACHABLE.is_set():
        return False
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except Exception as error:  # the library raises many kinds
        raise UserError(
            f"W&B refuses what the environment says of it ({_words_of(error)}): correct WANDB_API_KEY, WANDB_BASE_URL "
            "and their like, or unset them"
        ) from error


def _words_of(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def mode_of(cfg: Config) -> str:
    """``online``, ``offline`` or ``disabled``: that of the config, where ``auto`` becomes one of the first two.

    Raises:
        UserError: online without an API key; or W&B refuses the one that is there.
    """
    mode = str(cfg.wandb.mode)
    if mode == "online" and UNREACHABLE.is_set():
        return "offline"
    if mode == "auto":
        try:
            return "online" if logged_in() else "offline"
        except UserError as error:
            console.print(f"  {error}; logging offline, for wandb sync", markup=False, soft_wrap=True)
            UNREACHABLE.set()
            return "offline"
    if mode == "online" and not logged_in():
        raise UserError("wandb.mode=online: not logged in to W&B; `wandb login` first, or wandb.mode=offline")
    return mode


def default_entity() -> str:
    """The entity of runs and reports that name none; asks the server."""
    import wandb

    return str(wandb.Api().default_entity or "")


def new_wandb_id() -> str:
    """A random, unique id for a run."""
    return uuid.uuid4().hex[:12]


def wandb_id(run: Path) -> str | None:
    """The id of a run at W&B; None where it was never started there."""
    path = run / WANDB_ID
    return path.read_text(encoding="utf-8") if path.exists() else None


def has_unsynced_logs(run: Path) -> bool:
    """Whether a run has logs without the mark that ``wandb sync`` leaves beside those it has sent."""
    logs = run.glob("wandb/offline-run-*/*.wandb")
    return any(not log.with_name(f"{log.name}.synced").exists() for log in logs)


def shorten_name(name: str) -> str:
    """A folder's name for W&B: where it is too long, cut and made unique by a hash.

    >>> shorten_name("model.pool=max,avg"), len(shorten_name(500 * "x"))
    ('model.pool=max,avg', 128)
    """
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def group_of(run: Path) -> str:
    """The W&B group of a run: the name of its sweep's folder.

    >>> group_of(Path("outputs/pooling/model.pool=max,seed=0"))
    'pooling'
    """
    return shorten_name(run.absolute().parent.name)


def name_without_seed(run: Path) -> str:
    """The name of a run's folder without its seed.

    >>> name_without_seed(Path("outputs/pooling/model.pool=max,seed=0"))
    'model.pool=max'
    """
    return re.sub(r"(^|,)seed=\d+(?=,|$)", "", run.name).strip(",") or run.name


@contextmanager
def _staging_in(folder: Path) -> Iterator[None]:
    """Stage tables in this folder until upload, as the home folder may differ when ``wandb sync`` runs."""
    before = os.environ.get(STAGING)
    os.environ[STAGING] = before or str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[STAGING]


def settings() -> "Settings":
    """W&B without console capture, system metrics and git. The ``x_`` settings are not part of its public interface
    (``tests/test_private_api.py``).
    """
    import wandb

    return wandb.Settings(
        console="off", silent=True, init_timeout=PATIENCE, x_disable_stats=True, disable_git=True,
        x_transaction_log_flush_interval=0.1,  # seconds of rows that a killed process can lose
    )  # fmt: skip


def _started(start: "Callable[[Literal['online', 'offline']], Run]", mode: str) -> "Run | None":
    """The run, offline where the server cannot be reached; None where W&B cannot start at all, which stops no work."""
    import wandb

    if mode == "online":
        try:
            return start("online")
        except Exception as error:  # the network, the server and the library raise many kinds
            said = f"W&B cannot be reached ({_words_of(error)}): logging offline, for wandb sync"
            console.print(f"  {said}", markup=False, soft_wrap=True)
            UNREACHABLE.set()
            wandb.teardown()  # its process holds the id of the run that did not begin
    try:
        return start("offline")
    except Exception as error:  # as where the environment names no server
        console.print(f"  W&B cannot start ({_words_of(error)}): not logged there", markup=False, soft_wrap=True)
        return None


class WandbLogger:
    """A run at W&B. Its group is the sweep's folder; its id is kept in its own folder, so that it can be resumed.

    Importing and starting W&B takes over a second, so this happens in the background during the first training steps;
    whatever needs the run waits for it. With ``wandb.mode=disabled`` nothing is started, and logging does nothing.
    Rows that an earlier part of the run logged are not logged again.

    Args:
        cfg: of the run.
        run: its folder, in which W&B makes its own.
        init_kwargs: name, group, job_type and config at W&B, for anything but a training run; it is not resumed.
    """

    def __init__(self, cfg: Config, run: Path, **init_kwargs: Any) -> None:
        self.cfg, self.folder, self.init_kwargs = cfg, run, init_kwargs
        self._starting: Future[Run | None] | None = None
        self._logged: set[tuple[str, Any]] = set()

    def start(self) -> "Future[Run | None]":
        """Start the run in the background, once."""
        if self._starting is None:
            self._starting = ThreadPoolExecutor(1).submit(self._init)
        return self._starting

    @property
    def experiment(self) -> "Run | None":
        """The run; waits until it has started. None where W&B is disabled."""
        return self.start().result()

    def _init(self) -> "Run | None":
        mode = mode_of(self.cfg)
        if mode == "disabled":
            return None
        import wandb

        training = {"name": self.folder.name, "group": group_of(self.folder), "job_type": "train"}
        init_kwargs: dict[str, Any] = self.init_kwargs or training | {"config": to_dict(self.cfg)}
        if not self.init_kwargs and wandb_id(self.folder) is None:
            write(self.folder / WANDB_ID, new_wandb_id())
        run_id = new_wandb_id() if self.init_kwargs else wandb_id(self.folder) or ""
        before = logged_before(self.folder, run_id)

        def start(mode: Literal["online", "offline"]) -> "Run":
            return wandb.init(
                project=self.cfg.wandb.project, entity=self.cfg.wandb.entity, id=run_id, resume="allow",
                dir=self.folder, mode=mode, settings=settings(),
                **init_kwargs | {"name": shorten_name(init_kwargs["name"])},
            )  # fmt: skip

        experiment = _started(start, mode)
        if experiment is None:
            return None
        sent = math.inf if experiment.offline else experiment.starting_step  # rows not yet sent were lost in a kill
        self._logged = {name_and_epoch for name_and_epoch, step in before.items() if step < sent}
        experiment.define_metric("epoch", hidden=True)
        for keys in BY_EPOCH:
            experiment.define_metric(keys, step_metric="epoch")
        return experiment

    def _log(self, row: Mapping[str, Any]) -> None:
        """Log a row unless it was logged before."""
        names = {(name, row.get("epoch")) for name in row}
        if self.experiment is not None and not names <= self._logged:
            self.experiment.log(dict(row))
            self._logged |= names

    def log_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log the rows of ``history.csv``, also those that W&B lost when an earlier part of the run was killed.

        Seconds per epoch are left out: W&B has its own clock, and the summary has those of the run.
        """
        for row in rows:
            self._log({name: float(value) for name, value in row.items() if value != "" and name != "seconds"})

    def log_maps(self, pictures: Mapping[int, Mapping[str, Path]]) -> None:
        """Log feature maps in one call per epoch, so that its stages share a step; then a table of all."""
        if self.experiment is None or not pictures:
            return
        import wandb

        variant, rows = name_without_seed(self.folder), []
        for epoch, stages in pictures.items():
            images = {stage: wandb.Image(str(path)) for stage, path in stages.items()}
            self._log({"epoch": epoch, **{f"maps/{stage}": image for stage, image in images.items()}})
            rows += [(variant, stage, epoch, image) for stage, image in images.items()]
        self.log_table("maps", ("variant", "stage", "epoch", "picture"), rows)

    def log_newest_maps(self) -> None:
        """Log the feature maps of the newest epoch as ``maps_so_far/stage1`` …, on the colour scale so far, if online:
        so they can be seen while the run trains. ``log_maps`` logs those of all epochs on one scale.
        """
        epochs = epochs_of(self.folder)
        if self.experiment is None or self.experiment.offline or not epochs:
            return
        import wandb

        pictures = pictures_of_epoch(self.folder, epochs[-1])
        images = {f"maps_so_far/{stage}": wandb.Image(str(path)) for stage, path in pictures.items()}
        self._log({"epoch": epochs[-1], **images})

    def log_grids(self, grids: Mapping[str, "np.ndarray"]) -> None:
        """Log pictures of all heatmaps: ``grids/roll_map/stage1`` …; no roll is in the middle."""
        if self.experiment is None or not grids:
            return
        import wandb

        images = {}
        for name, plane in grids.items():
            where = "no roll" if name.startswith(ROLL_MAP) else "no shift" if "crop" in name else ""
            words = f"{name.replace('_', ' ').replace('/', ', ')}: dark 0, yellow {plane.max():.3g}"
            words += f"; {where} in the middle" * bool(where)
            images[f"grids/{name}"] = wandb.Image(heatmap_picture(name, plane), caption=words)
        self._log(images)

    def log_pictures(self, pictures: Mapping[str, "np.ndarray"]) -> None:
        """Log pictures that measuring made: ``pictures/metamers/stage1`` …"""
        if self.experiment is None or not pictures:
            return
        import wandb

        self._log({f"pictures/{name}": wandb.Image(pixels) for name, pixels in pictures.items()})

    def log_table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Log a table."""
        if self.experiment is None:
            return
        import wandb

        with _staging_in(self.folder / "wandb"):
            self._log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def log_measures(self, rows: Sequence[Row], grids: Mapping[str, "np.ndarray"]) -> None:
        """Log measures: their table, their heatmaps, and as summary keys those that people sort by."""
        self.log_table("measures", COLUMNS, [row.values() for row in rows])
        self.log_grids(grids)
        self.log_summary(summary_values(rows))

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """Log the run's final values."""
        if self.experiment is not None:
            self.experiment.summary.update(dict(numbers))

    @property
    def url_or_sync_command(self) -> str:
        """The run's address, or offline the command that syncs it; empty where W&B is disabled."""
        if self.experiment is None:
            return ""
        if self.experiment.offline:
            return f"wandb sync {shlex.quote(str(Path(self.experiment.dir).parent))}"
        return self.experiment.url or ""

    def finish(self, failed: bool) -> None:
        """Finish the run, if it was started."""
        if self._starting is not None and self.experiment is not None:
            self.experiment.finish(exit_code=int(failed))
