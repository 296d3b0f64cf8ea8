"""Offline runs on their way to W&B: the real ``wandb sync``, as documented, against a stand-in of the server.

Covers: which runs arrive, under which ids, names and group, and every line, file and table of theirs, also of runs that
were interrupted, and killed. Does not cover: what W&B's own server makes of them.
"""

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch import Trainer

from src.common.errors import Interrupted
from src.reporting.maps import save_maps
from src.reporting.wandb_files import BLOCK, CHUNK, HEADER, logged_before, records
from src.reporting.wandb_logger import WandbLogger, has_unsynced_logs, wandb_id
from src.reporting.wandb_report import sync_command
from src.results import files
from src.results.measures import summary_values
from src.results.runs import FinishedRun
from src.training import callbacks
from src.training.checkpoints import SaveCheckpoints
from src.training.run import run
from tests.helpers import ROOT, WANDB, tiny, wandb_records
from tests.wandb_server import KEY, Root, Run, serving, surroundings

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's and W&B's own

EPOCHS = 3
save = SaveCheckpoints.save


def begin(folder: Path, seed: int) -> None:
    """As a process of its own, which W&B's ends with."""
    try:
        run(tiny(seed=seed, train={"epochs": EPOCHS}, measure={"every": EPOCHS}, wandb={"mode": "offline"}), folder)
    finally:
        wandb.teardown()


def interrupted(folder: Path, seed: int, owner: object, name: str, fail: Callable[..., None]) -> None:
    """A run in which one function does something else."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises((Power, Interrupted)):
        patch.setattr(owner, name, fail)
        begin(folder, seed)


class Power(Exception):
    """It went."""


def fail_to_save(saving: SaveCheckpoints, trainer: Trainer) -> None:
    """The last epoch is over, and in ``history.csv``."""
    if trainer.current_epoch + 1 == EPOCHS:
        raise Power
    save(saving, trainer)


def ask_to_stop(run: Path, epoch: int, *maps: Any) -> None:
    """As a batch system does, at the end of the last epoch."""
    save_maps(run, epoch, *maps)
    if epoch == EPOCHS:
        os.kill(os.getpid(), signal.SIGTERM)


def fail_at_the_end(*numbers: object) -> None:
    """Pictures and the first tables are logged."""
    raise Power


def kill(run: Path) -> None:
    """Leave the log that kill -9 leaves: it ends within the row that was logged last."""
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    os.truncate(log, log.read_bytes().rindex(b"val/loss"))


def kill_at_once(run: Path) -> None:
    """Leave the log of a process that was killed before it had logged which run it was."""
    files.write(run / "wandb" / "offline-run-20260101_000000-x" / f"run-{wandb_id(run)}.wandb", HEADER)


def epochs_logged(run: Path) -> list[tuple[int, bool]]:
    """Each, and whether with the invariance that is followed."""
    rows = [record["history"]["item"] for record in wandb_records(run) if record["type"] == "history"]
    return [(row["epoch"], "invariance/crop/1px/output_distance" in row) for row in rows]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: undisturbed; failed twice; stopped, its last row lost, and killed."""
    folder = tmp_path_factory.mktemp("sweeps") / "model.pool=max, it's <all>"
    whole, failed, killed = (folder / f"seed={seed}" for seed in range(3))
    begin(whole, 0)
    interrupted(failed, 1, SaveCheckpoints, "save", fail_to_save)
    assert epochs_logged(failed) == [(1, False), (2, False)], "what is not saved will be done again"
    interrupted(failed, 1, WandbLogger, "log_summary", fail_at_the_end)
    begin(failed, 1)
    interrupted(killed, 2, callbacks, "save_maps", ask_to_stop)
    assert epochs_logged(killed) == [(1, False), (2, False), (3, True)], "what is saved is logged, before it stops"
    kill(killed)
    kill_at_once(killed)
    begin(killed, 2)
    return folder


def synced(folder: Path, address: str, home: Path) -> str:
    """What the documented command says."""
    path = f"{WANDB.parent}{os.pathsep}{os.environ['PATH']}"
    environment = surroundings(address, home) | {"WANDB_API_KEY": KEY, "PATH": path}
    done = subprocess.run(
        sync_command(folder), shell=True, cwd=home, env=environment, capture_output=True, text=True, check=True
    )
    assert "ERROR" not in done.stderr, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def arrived(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """The server once the command was given, and given again."""
    home = tmp_path_factory.mktemp("home")
    assert all(has_unsynced_logs(run) for run in sweep.iterdir())
    with serving() as (address, root):
        synced(sweep, address, home)
        asked = len(root.asked)
        assert "No runs to sync" in synced(sweep, address, home)
        assert len(root.asked) == asked, "nothing is sent twice"
    assert not root.wrong
    assert not any(has_unsynced_logs(run) for run in sweep.iterdir())
    return root


def test_every_run_arrives_once_in_one_group(sweep: Path, arrived: Root) -> None:
    assert set(arrived.runs) == {wandb_id(run) for run in sweep.iterdir()}
    assert {run.said["groupName"] for run in arrived.runs.values()} == {sweep.name}
    assert {run.said["displayName"] for run in arrived.runs.values()} == {f"seed={seed}" for seed in range(3)}
    assert {run.said["jobType"] for run in arrived.runs.values()} == {"train"}
    assert arrived.projects == ["whatwhere"]


@pytest.mark.parametrize(("seed", "exits"), [(0, [0]), (1, [1, 1, 0]), (2, [1, 0])])
def test_nothing_of_a_run_is_lost_and_nothing_comes_twice(
    sweep: Path, arrived: Root, seed: int, exits: list[int]
) -> None:
    folder = sweep / f"seed={seed}"
    there, left = arrived.runs[wandb_id(folder) or ""], FinishedRun(folder, {})
    assert there.exits == exits, "of each part, in their order"
    assert there.config["seed"] == seed
    steps = [row.pop("_step") for row in there.history]
    assert steps == list(range(len(steps)))
    assert epochs_of(there) == [
        {name: pytest.approx(float(value)) for name, value in row.items() if value and name != "seconds"}
        for row in left.history
    ]
    pictures = [(row["epoch"], set(row) - {"epoch"}) for row in rows_of(there) if "maps/stage1" in row]
    assert pictures == [(epoch, {"maps/stage1", "maps/stage2"}) for epoch in range(EPOCHS + 1)], (
        "an epoch's in one call"
    )
    kinds = [value["_type"] for row in rows_of(there) for value in row.values() if isinstance(value, dict)]
    assert kinds.count("table-file") == 3
    media = [value["path"] for row in rows_of(there) for value in row.values() if isinstance(value, dict)]
    assert len(set(media)) == len(media) and set(media) <= set(there.files), "with their files"
    assert len(there.history) == EPOCHS + (EPOCHS + 1) + 3
    facts = {"parameters", "seconds", "split_checksum"}
    assert {key: there.summary[key] for key in facts} == {key: left.facts[key] for key in facts}
    sorted_by = summary_values(left.results)
    assert {key: there.summary[key] for key in sorted_by} == pytest.approx(sorted_by, nan_ok=True)
    assert len(there.summary) <= 150, "the others are in the table"


def rows_of(run: Run) -> list[dict[str, object]]:
    """Its history without W&B's own keys."""
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in run.history]


def epochs_of(run: Run) -> list[dict[str, object]]:
    return [row for row in rows_of(run) if "val/loss" in row]


def test_tables_arrive_whole(sweep: Path, arrived: Root) -> None:
    assert {(artifact.run, artifact.state) for artifact in arrived.artifacts} == {
        (name, "COMMITTED") for name in arrived.runs
    }
    for folder in sweep.iterdir():
        name = wandb_id(folder)
        found = {artifact.name: artifact.files for artifact in arrived.artifacts if artifact.run == name}
        assert set(found) == {f"run-{name}-{table}" for table in ("maps", "measures", "shapes")}
        assert len([file for file in found[f"run-{name}-maps"] if file.endswith(".png")]) == 2 * (EPOCHS + 1)


@pytest.mark.parametrize("end", [-1, 33_000, 32_768, 9_000])
def test_a_log_that_ends_within_a_record_is_repaired(tmp_path: Path, end: int, long: bytes) -> None:
    log = tmp_path / "wandb" / "offline-run-1" / "run-a.wandb"
    files.write(log, long[:end])
    before = logged_before(tmp_path, "a")
    assert log.stat().st_size < len(long[:end])
    epochs = [record["history"]["item"]["epoch"] for record in wandb_records(tmp_path) if record["type"] == "history"]
    assert epochs and {epoch for name, epoch in before if name == "x/1"} == set(epochs)
    kept = log.read_bytes()
    assert logged_before(tmp_path, "a") == before and log.read_bytes() == kept == long[: len(kept)]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A log of several blocks."""
    folder = tmp_path_factory.mktemp("long")
    tracker = WandbLogger(tiny(wandb={"mode": "offline"}), folder)
    tracker.log_history({"epoch": epoch} | {f"x/{i}": i / 7 for i in range(90)} for epoch in range(20))
    tracker.finish(failed=False)
    wandb.teardown()
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert log.stat().st_size > 3 * 32_768
    return log.read_bytes()


@pytest.mark.parametrize("left", range(9))
def test_records_are_found_wherever_blocks_end(left: int) -> None:
    sizes = [BLOCK - len(HEADER) - CHUNK.size - left, 3 * BLOCK, 0, 5]
    written = [bytes([i]) * size for i, size in enumerate(sizes)]
    log = written_by_the_book(written)
    found = list(records(log))
    assert [record for _, record in found] == written and found[-1][0] == len(log)
    assert [list(records(log[: end - 1])) for end, _ in found] == [found[:i] for i in range(len(found))]


def written_by_the_book(contents: list[bytes]) -> bytes:
    """LevelDB's format: https://github.com/google/leveldb/blob/main/doc/log_format.md; with W&B's header and sums."""
    log = HEADER
    for content in contents:
        kinds, rest, begun = {(0, 1): 1, (0, 0): 2, (1, 0): 3, (1, 1): 4}, content, 0
        while rest or not begun:
            room = BLOCK - len(log) % BLOCK - CHUNK.size
            if room < 0:
                log += bytes(room + CHUNK.size)
                continue
            part, rest = rest[:room], rest[room:]
            body = bytes([kinds[begun, not rest]]) + part
            log += zlib.crc32(body).to_bytes(4, "little") + len(part).to_bytes(2, "little") + body
            begun = 1
    return log


@pytest.mark.parametrize("content", [b"", HEADER[:3], HEADER, HEADER + bytes(500)])
def test_a_log_without_a_run_is_removed(tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "wandb" / "offline-run-1" / "run-a.wandb"
    files.write(log, content)
    assert logged_before(tmp_path, "another's") == {} and log.exists()
    assert logged_before(tmp_path, "a") == {} and not log.exists()


def test_a_log_of_another_format_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "wandb" / "offline-run-1" / "run-a.wandb"
    files.write(log, b":W&B\xe1\xbe\x01 whatever")
    assert logged_before(tmp_path, "a") == {} and log.read_bytes().endswith(b"whatever")


ONLINE = """
import os, signal, time
from pathlib import Path
from src.reporting.wandb_logger import WandbLogger
from tests.helpers import tiny

def part(epochs):
    tracker = WandbLogger(tiny(wandb={"mode": "online"}), Path.cwd())
    assert tracker.experiment
    time.sleep(1)  # what is there by then is sent at once, all else in 15 seconds
    tracker.log_history({"epoch": epoch, "val/loss": 1 / epoch} for epoch in epochs)
    return tracker

child = os.fork()
if not child:
    part([1, 2, 3])
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
part([1, 2, 3, 4]).finish(failed=True)
part([1, 2, 3, 4, 5]).finish(failed=False)
"""


def test_rows_lost_in_a_kill_are_sent_by_the_next_part(tmp_path: Path) -> None:
    with serving() as (address, root):
        environment = surroundings(address, tmp_path) | {"WANDB_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", ONLINE], cwd=tmp_path, env=environment, check=True)
    (there,) = root.runs.values()
    assert [row["epoch"] for row in there.history] == [1, 2, 3, 4, 5]
    assert [row["_step"] for row in there.history] == [0, 1, 2, 3, 4]
    assert there.exits == [1, 0], "the first was lost"
