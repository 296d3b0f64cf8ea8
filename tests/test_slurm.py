"""What the launcher makes of what SLURM says, with stand-ins for its commands; the real ones are in ``tests/slurm``."""

import pickle
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission, JobPaths

from src.launch import jobs, slurm
from src.launch.jobs import Job
from src.launch.slurm import MAX_FAILED_REQUEUES, SlurmQueue, Task
from src.results import files
from src.results.locks import folder_lock

Command = Callable[[str, str], Path]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command that says something, and notes what it was asked."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")

    def stand_in(name: str, says: str) -> Path:
        asked = tmp_path / f"{name}.asked"
        asked.touch()
        (place / name).write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncat <<END\n{says}\nEND\n')
        (place / name).chmod(0o755)
        return asked

    return stand_in


def job(sweep: Path, name: str) -> Job:
    return Job(name, (), sweep / name, 1)


def task(*jobs: Job) -> Task:
    return Task(jobs, several=False, at_once=1, grace=60)


def submitted(queue: SlurmQueue, number: str, *jobs: Job) -> str:
    queue.folder.mkdir(parents=True, exist_ok=True)
    DelayedSubmission(task(*jobs)).dump(JobPaths(queue.folder, number).submitted_pickle)
    return f"{number}|RUNNING|{queue.folder}/.submission_file_1.sh"


def test_jobs_that_an_earlier_command_queued_are_found(command: Command, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    wanted, finished, new = (job(sweep, name) for name in ("wanted", "finished", "new"))
    queue = SlurmQueue(sweep)
    lines = [
        submitted(queue, "7_0", finished),
        submitted(queue, "7_1", wanted),
        f"8|PENDING|{queue.folder}/.submission_file_2.sh",  # its command was killed while it submitted
        "9|RUNNING|/somewhere/else/slurm/.submission_file_3.sh",
    ]
    command("squeue", "\n".join(lines))
    cancelled = command("scancel", "")
    assert queue.reattach([wanted, new]) == [new]
    assert queue.tasks == {"7_1": task(wanted)}
    assert cancelled.read_text() == "--quiet 8\n"


def test_a_job_is_lost_once_it_has_been_gone_for_a_while(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("scontrol", "JobId=7 JobState=OUT_OF_MEMORY Reason=None")
    sweep = tmp_path / "sweep"
    names = ("finished", "failed", "lost", "waits")
    finished, failed, lost, waits = all_of_them = [job(sweep, name) for name in names]
    queue = SlurmQueue(sweep)
    queue.tasks = {f"7_{i}": task(one) for i, one in enumerate(all_of_them)}
    files.write(finished.folder / files.RUN, "{}")
    trace = "Traceback:\n  …\nRuntimeError: ended by SIGKILL\n"
    files.write(JobPaths(queue.folder, "7_1", 0).result_pickle, pickle.dumps(("error", trace)))
    ended = dict(queue.ended({"7_3": "PENDING"}))
    assert ended == {task(finished): {}, task(failed): {failed: "ended by SIGKILL"}}
    assert list(queue.ended({"7_2": "PENDING", "7_3": "PENDING"})) == [], "it was queued again"
    assert list(queue.ended({"7_3": "PENDING"})) == []
    monkeypatch.setattr(slurm, "FILE_LAG", 0)
    ((_, reasons),) = queue.ended({"7_3": "PENDING"})
    assert reasons == {lost: f"lost by SLURM: OUT_OF_MEMORY; {queue.folder}/7_2_0_log.err"}
    assert list(queue.tasks.values()) == [task(waits)]


def test_slurm_that_does_not_answer_has_lost_nothing(command: Command, tmp_path: Path) -> None:
    command("squeue", "")
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    with pytest.raises(OSError, match="no controller"):
        SlurmQueue(tmp_path).states()


def test_a_job_waits_for_a_process_that_holds_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, held, order = job(tmp_path, "a"), ExitStack(), list[str]()

    def start(job: Job, environment: dict[str, str], forked: bool = False) -> "subprocess.Popen[bytes]":
        order.append("start")
        return subprocess.Popen(["true"], start_new_session=True)

    def let_go() -> None:
        order.append("let go")
        held.close()

    monkeypatch.setattr(jobs, "start", start)
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR2)}
    held.enter_context(folder_lock(one.folder))
    threading.Timer(0.5, let_go).start()
    try:
        assert task(one)() == {}
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    assert order == ["let go", "start"]


@pytest.fixture
def allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is in one."""
    for key, value in {"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(tmp_path), "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(key, value)


@pytest.mark.usefixtures("allocation")
def test_a_job_is_queued_again_as_long_as_it_gets_further(command: Command, tmp_path: Path) -> None:
    asked = command("scontrol", "JobId=7 JobState=RUNNING Reason=None")
    one = task(job(tmp_path, "a"))

    def out_of_time(gets_further: bool) -> None:
        progress_markers = one.progress_markers()
        if gets_further:
            files.write(tmp_path / "a" / files.CHECKPOINTS / files.LAST, "…")
        with pytest.raises(SystemExit):
            one.requeue(progress_markers)

    stuck, working = [False] * (MAX_FAILED_REQUEUES - 1), [True] * 2 * MAX_FAILED_REQUEUES
    for gets_further in [*stuck, True, *working, *stuck]:
        out_of_time(gets_further)
    assert asked.read_text().count("requeue 7") == 4 * MAX_FAILED_REQUEUES - 1
    with pytest.raises(RuntimeError, match="made no progress"):
        out_of_time(False)
    assert asked.read_text().count("requeue 7") == 4 * MAX_FAILED_REQUEUES - 1


@pytest.mark.usefixtures("allocation")
def test_a_job_that_was_cancelled_is_not_queued_again(command: Command, tmp_path: Path) -> None:
    asked = command("scontrol", "JobId=7 JobState=COMPLETING Reason=None")
    one = task(job(tmp_path, "a"))
    with pytest.raises(SystemExit):
        one.requeue(one.progress_markers())
    assert "requeue" not in asked.read_text()
