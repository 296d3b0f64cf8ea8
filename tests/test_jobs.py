"""Jobs as processes: places, environments, how they end; without training anything."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from src.launch import jobs
from src.launch.jobs import Job, JobScheduler, LiveStatus, ResourcePool, failure_reason, own_environment, visible_gpus
from src.results import files
from tests.helpers import ROOT

#: what stands for ``python -m src.train``: its one argument is a program
Program = Callable[[str, str], Job]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    def start(job: Job, environment: dict[str, str], server: None = None) -> "subprocess.Popen[bytes]":
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / files.LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", *job.arguments], env=environment, stdout=log, stderr=log, start_new_session=True
            )

    monkeypatch.setattr(jobs, "start", start)
    monkeypatch.setattr(jobs, "POLL", 0.01)
    return lambda name, code: Job(name, (code,), tmp_path / name, epochs=1)


def screen(total: int = 1) -> LiveStatus:
    return LiveStatus(Console(quiet=True), total)


def log(job: Job) -> str:
    return (job.folder / files.LOG).read_text()


@given(
    st.integers(1, 6),
    st.integers(0, 4),
    st.integers(1, 3),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=40),
)
def test_no_gpu_and_no_core_is_given_more_often_than_there_are(at_once, gpus, share, moves):
    places = ResourcePool(at_once, [str(i) for i in range(gpus)], share)
    out: list[list[str]] = []
    for take, wanted in moves:
        if take:
            given_ids = places.acquire(wanted)
            used = [gpu for one in out for gpu in one]
            room = sum(used.count(str(i)) < share for i in range(gpus))
            assert (given_ids is None) == (len(out) == at_once or room < wanted)
            if given_ids is not None:
                assert len(set(given_ids)) == wanted
                out.append(given_ids)
        elif out:
            places.release(out.pop())
        everything = [gpu for one in out for gpu in one]
        assert len(out) <= at_once
        assert all(everything.count(gpu) <= share for gpu in everything)


def test_one_gpu_after_the_other_is_filled_evenly() -> None:
    places = ResourcePool(4, ["0", "7"], 2)
    assert [places.acquire(1) for _ in range(4)] == [["0"], ["7"], ["0"], ["7"]]


def test_a_job_sees_its_own_gpus_and_nothing_of_other_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in ("LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "MASTER_PORT"):
        monkeypatch.setenv(key, "1")
    found = own_environment(Job("a", (), tmp_path, 1), ["2", "3"], threads=3)
    assert found["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["PATH"] == os.environ["PATH"]
    assert not {key for key in found if key.startswith(("SLURM_", "LOCAL_", "WORLD", "MASTER"))}


def test_the_visible_gpus_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-8f")
    assert visible_gpus() == ["1", "GPU-8f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_one_that_fails_does_not_stop_the_others(program: Program) -> None:
    todo = [
        program("good", "print('well')"),
        program("wrong", "raise ValueError('so it goes')"),
        program("killed", "import os; os.kill(os.getpid(), 9)"),
        program("late", "print('well')"),
    ]
    failed = JobScheduler(todo, ResourcePool(2), screen()).run()
    assert {job.name: reason for job, reason in failed.items()} == {
        "wrong": "ValueError: so it goes",
        "killed": "ended by SIGKILL",
    }
    assert log(todo[0]) == log(todo[3]) == "well\n"


def test_so_many_run_at_a_time_as_there_are_places(program: Program, tmp_path: Path) -> None:
    # each writes down who else is there, and waits until it has seen the number that the test is about
    code = (
        "import os, pathlib, time\n"
        f"here = pathlib.Path({str(tmp_path)!r}, 'here'); here.mkdir(exist_ok=True)\n"
        "mine = here / str(os.getpid()); mine.touch()\n"
        "most, until = 0, time.monotonic() + 20\n"
        "while most < 2 and time.monotonic() < until: most = max(most, len(list(here.iterdir())))\n"
        "time.sleep(0.2); print(max(most, len(list(here.iterdir())))); mine.rename(here.parent / mine.name)\n"
    )
    todo = [program(f"job{i}", code) for i in range(4)]
    assert JobScheduler(todo, ResourcePool(2), screen()).run() == {}
    assert [log(job) for job in todo] == ["2\n"] * 4


def test_threads_are_shared_out(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: 8)
    todo = [program(f"job{i}", "import os; print(os.environ['OMP_NUM_THREADS'])") for i in range(3)]
    JobScheduler(todo, ResourcePool(2), screen()).run()
    assert [log(job) for job in todo] == ["4\n"] * 3
    assert JobScheduler(todo, ResourcePool(100), screen()).threads == 2, "three jobs, not a hundred"
    assert JobScheduler(todo, ResourcePool(2), screen(), threads=3).threads == 3


def test_ended_early_all_save_and_are_gone(program: Program) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "rank = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', rank.pid, flush=True), sys.exit(143)))\n"
        "print('ready', flush=True); time.sleep(100)\n"
    )
    todo = [program(f"job{i}", code) for i in range(2)]

    class Interrupted(LiveStatus):
        def update(self, running: object, waiting: int) -> None:
            if all((job.folder / files.LOG).exists() and "ready" in log(job) for job in todo):
                raise KeyboardInterrupt

    queue = JobScheduler(todo, ResourcePool(2), Interrupted(Console(quiet=True), 2))
    with pytest.raises(KeyboardInterrupt):
        queue.run()
    for job in todo:
        _, saved, rank = log(job).split()
        assert saved == "saved"
        until = time.monotonic() + 20
        while alive(int(rank)):
            assert time.monotonic() < until, "a rank outlived its job"
    assert all(process.poll() == 143 for process, _ in queue.running.values())


def test_jobs_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\nexec sleep 100\n")
    stand_in.chmod(0o755)
    script = (
        "import os, sys; from pathlib import Path; from src.launch.jobs import Job, start\n"
        f"sys.executable = {str(stand_in)!r}\n"
        f"print(start(Job('a', (), Path({str(tmp_path)!r}), 1), os.environ).pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    until = time.monotonic() + 20
    while alive(int(done.stdout)):
        assert time.monotonic() < until, "a job outlived the sweep that was killed"


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_job_that_needs_more_gpus_than_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="big takes 3 GPUs"):
        JobScheduler([Job("big", (), tmp_path, 1, gpus=3)], ResourcePool(1, ["0", "1"]), screen()).run()


def test_why_a_job_ended(tmp_path: Path) -> None:
    job = Job("a", (), tmp_path, 1)
    assert failure_reason(job, 3) == "exit code 3"
    assert failure_reason(job, 128 + signal.SIGTERM) == failure_reason(job, -signal.SIGUSR2) == "stopped"
    (tmp_path / files.LOG).write_text("epoch 1\nerror: model.depth=9\n")
    assert failure_reason(job, 2) == "error: model.depth=9"


def test_the_screen_says_who_waits_runs_and_failed(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        console = Console(file=file, force_terminal=True, width=100)
        one, other = (Job(name, (), tmp_path / name, 5) for name in ("pool=max", "pool=avg"))
        files.write_rows(one.folder / files.HISTORY, [{"epoch": 1}, {"epoch": 2}])
        with LiveStatus(console, 3) as shown:
            shown.started(one)
            shown.started(other)
            shown.ended(other, "ended by SIGKILL")
            shown.update([one], 1)
            shown.live.refresh()
    text = (tmp_path / "out").read_text()
    assert "failed: pool=avg: ended by SIGKILL" in text
    assert "1 waiting, 1 running, 0 finished, 1 failed" in text
    assert "2/5" in text
