"""Jobs forked from a server: as a fresh process does them, ended as one, with nothing of the job before."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
from rich.console import Console

from src.launch.forked import AVAILABLE, ForkedJob
from src.launch.jobs import Job, JobScheduler, LiveStatus, ResourcePool, own_environment, start
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


def environment(folder: Path, **more: str) -> dict[str, str]:
    return own_environment(Job("", (), folder, 1), [], threads=1) | more


def fork(folder: Path, *words: str, **more: str) -> ForkedJob:
    folder.mkdir()
    return ForkedJob([*words, f"hydra.run.dir={folder}"], folder / files.LOG, environment(folder, **more))


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_later_job_gives_what_a_fresh_process_gives(tmp_path: Path) -> None:
    forked, fresh = tmp_path / "forked", tmp_path / "direct"  # names of one length, as they are printed
    dropped, shown = "wandb.project='${oc.env:BEFORE,none}'", "wandb.entity='${oc.env:CUDA_VISIBLE_DEVICES}'"
    assert fork(tmp_path / "first", *SHORT, "seed=3", "model.pool=avg", BEFORE="first").wait() == 0
    words = [*SHORT, "seed=1", dropped, shown]
    assert fork(forked, *words, CUDA_VISIBLE_DEVICES="7").wait() == 0
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
    assert printed[0].replace("forked", "direct") == printed[1]


def test_it_ends_as_a_fresh_process_ends(tmp_path: Path) -> None:
    assert fork(tmp_path / "wrong", *SHORT, "model.depht=2").wait() == 2
    assert files.last_line(tmp_path / "wrong" / files.LOG).startswith("error: model.depht: no such key")
    for signum, code in {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}.items():
        folder = tmp_path / signum.name
        job = fork(folder, *LONG)
        wait_for(folder / files.HISTORY)
        assert os.getpgid(job.pid) == job.pid == os.getsid(job.pid)
        job.send_signal(signum)
        assert job.wait() == code, (folder / files.LOG).read_text()
    assert (tmp_path / "SIGTERM" / files.CHECKPOINTS / files.LAST).exists(), "SIGTERM saves"


def test_a_job_whose_server_is_killed_has_failed_and_the_next_gets_another(tmp_path: Path) -> None:
    job = fork(tmp_path / "first", *LONG)
    wait_for(tmp_path / "first" / files.HISTORY)
    assert forkserver._forkserver._forkserver_pid is not None  # type: ignore[attr-defined]
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
    assert job.wait() != 0
    os.kill(job.pid, signal.SIGKILL)  # as the scheduler does
    folder = tmp_path / "second"
    second = Job("second", (*SHORT, f"hydra.run.dir={folder}"), folder, epochs=1)
    assert start(second, environment(folder), forked=True).wait() == 0


def test_a_scheduler_forks_its_jobs(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "01"]
    todo = [Job(folder.name, (*SHORT, f"hydra.run.dir={folder}"), folder, epochs=1) for folder in folders]
    queue = JobScheduler(todo, ResourcePool(2), LiveStatus(Console(quiet=True), 2), threads=1, warm=True)
    assert queue.run() == {}
    assert all(job.finished for job in todo)


def test_jobs_and_server_end_with_the_process_that_wanted_them(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from multiprocessing import forkserver\n"
        f"from src.launch.forked import ForkedJob; folder = Path({str(tmp_path)!r})\n"
        "words = [*sys.argv[1:], f'hydra.run.dir={folder}']\n"
        "job = ForkedJob(words, folder / 'log.txt', os.environ | {'OMP_NUM_THREADS': '1'})\n"
        "print(job.pid, forkserver._forkserver._forkserver_pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *LONG], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    until = time.monotonic() + 20
    for pid in map(int, done.stdout.split()):
        while alive(pid):
            assert time.monotonic() < until, "it outlived the sweep that was killed"
            time.sleep(0.05)
