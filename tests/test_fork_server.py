"""Jobs forked from a server: as a fresh process does them, ended as one, with nothing of the job before."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from src.launch.fork_server import AVAILABLE, ForkedJob, ForkServer
from src.launch.jobs import Job, JobScheduler, LiveStatus, ResourcePool, own_environment
from src.results import files
from tests.faults import contents
from tests.helpers import ROOT
from tests.test_jobs import alive

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="Linux only")

SHORT = (
    "data=shapes data.image_size=16 data.train_size=128 data.val_size=60 model.depth=2 model.width=4 train.epochs=1 "
    "train.batch_size=64 model.dropout=0.2 measure.what=[shift] measure.images=20 wandb.mode=disabled "
    "trainer.accelerator=cpu"
).split()
LONG = [*SHORT, "train.epochs=100000", "probe.every=100000"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    made = ForkServer(environment(tmp_path_factory.getbasetemp()), "tests")
    yield made
    made.close()


def environment(folder: Path, **more: str) -> dict[str, str]:
    return own_environment(Job("", (), folder, 1), [], threads=1) | more


def fork(server: ForkServer, folder: Path, *words: str, **more: str) -> ForkedJob:
    folder.mkdir()
    forked = server.fork([*words, f"hydra.run.dir={folder}"], folder / files.LOG, environment(folder, **more))
    assert forked is not None
    return forked


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_later_job_gives_what_a_fresh_process_gives(server: ForkServer, tmp_path: Path) -> None:
    forked, fresh = tmp_path / "forked", tmp_path / "fresh"
    dropped, shown = "wandb.project='${oc.env:BEFORE,none}'", "wandb.entity='${oc.env:CUDA_VISIBLE_DEVICES}'"
    assert fork(server, tmp_path / "first", *SHORT, "seed=3", "model.pool=avg", BEFORE="first").wait() == 0
    words = [*SHORT, "seed=1", dropped, shown]
    assert fork(server, forked, *words, CUDA_VISIBLE_DEVICES="7").wait() == 0
    command = [sys.executable, "-m", "src.train", *words, f"hydra.run.dir={fresh}"]
    fresh.mkdir()
    with (fresh / files.LOG).open("wb") as log:
        own = environment(fresh, CUDA_VISIBLE_DEVICES="7")
        subprocess.run(command, cwd=ROOT, env=own, stdout=log, stderr=log, check=True)
    assert contents(forked) == contents(fresh)
    assert (forked / files.CONFIG).read_bytes() == (fresh / files.CONFIG).read_bytes()
    assert "project: none" in (forked / files.CONFIG).read_text(), "a variable of the job before"
    assert "'7'" in (forked / files.CONFIG).read_text()
    assert sorted(path.name for path in forked.iterdir()) == sorted(path.name for path in fresh.iterdir())
    printed = (forked / files.LOG).read_text(), (fresh / files.LOG).read_text()
    assert printed[0].replace(str(forked), "") == printed[1].replace(str(fresh), "")


def test_it_ends_as_a_fresh_process_ends(server: ForkServer, tmp_path: Path) -> None:
    assert fork(server, tmp_path / "wrong", *SHORT, "model.depht=2").wait() == 2
    assert files.last_line(tmp_path / "wrong" / files.LOG).startswith("error: model.depht: no such key")
    for signum, code in {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}.items():
        folder = tmp_path / signum.name
        job = fork(server, folder, *LONG)
        assert os.getpgid(job.pid) == job.pid == os.getsid(job.pid)
        wait_for(folder / files.HISTORY)
        job.send_signal(signum)
        assert job.wait() == code, (folder / files.LOG).read_text()
    assert (tmp_path / "SIGTERM" / files.CHECKPOINTS / files.LAST).exists(), "SIGTERM saves"


def test_a_killed_server_loses_no_job(tmp_path: Path) -> None:
    class Killing(LiveStatus):
        def started(self, job: Job, gpus: object = ()) -> None:
            if job.name == "0":
                assert queue.server and queue.server.process and queue.server.forked
                queue.server.process.kill()
                queue.server.process.wait()

    folders = [tmp_path / name for name in "01"]
    todo = [Job(folder.name, (*SHORT, f"hydra.run.dir={folder}"), folder, epochs=1) for folder in folders]
    queue = JobScheduler(todo, ResourcePool(2), Killing(Console(quiet=True), 2), threads=1, warm=True)
    assert queue.run() == {}
    assert all(job.finished for job in todo)


def test_jobs_and_server_end_with_the_process_that_wanted_them(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from src.launch.fork_server import ForkServer\n"
        f"server = ForkServer(os.environ, 'tests'); folder = Path({str(tmp_path)!r})\n"
        "job = server.fork([*sys.argv[1:], f'hydra.run.dir={folder}'], folder / 'log.txt', os.environ)\n"
        "print(job.pid, server.process.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *LONG], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    until = time.monotonic() + 20
    for pid in map(int, done.stdout.split()):
        while alive(pid):
            assert time.monotonic() < until, "it outlived the sweep that was killed"
            time.sleep(0.05)
