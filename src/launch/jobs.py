"""Jobs as processes of their own: their queue, their GPUs and cores, and a live table of them.

A job is a single run, ``python -m src.train … hydra.run.dir=FOLDER``, so nothing of the process that starts it, and
nothing of the job before it, can leak into it. Its output goes to ``log.txt`` in its folder. The process is a fresh
one, or a child of a process that has only imported what jobs need (``forked``).
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..common.naming import PACKAGE, command
from ..results import files
from ..training.ranks import RANKS, end_with_parent
from .forked import AVAILABLE, ForkedJob

#: exit codes of a run that a signal stopped: after it has saved, or before there was anything to save
STOPPED = tuple(code for signum in (signal.SIGTERM, signal.SIGUSR2) for code in (128 + signum, -signum))
#: environment variables that set the threads of numerical libraries
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: seconds a job has to save in when all are stopped
GRACE = 60.0
POLL = 0.2

ChildProcess = subprocess.Popen[bytes] | ForkedJob


@dataclass(frozen=True)
class Job:
    """One run to start."""

    name: str  # shown to people; no two jobs of a sweep have the same
    arguments: tuple[str, ...]  # of the train command
    folder: Path  # of the run
    epochs: int  # of its training, unless its length is given in steps
    devices: int = 1  # on one machine; each is a process
    nodes: int = 1  # machines
    gpus: int = 0  # that it needs on each machine; 0: it runs on the CPU
    steps: int | None = None  # of its training, where its length is given in steps

    @property
    def finished(self) -> bool:
        """Whether its folder holds a finished run."""
        return (self.folder / files.RUN).exists()

    @property
    def forkable(self) -> bool:
        """Whether it is one process: Lightning starts the ranks of several devices by the command line."""
        return self.devices * self.nodes == 1


def cores() -> int:
    """CPU cores this process may use; under SLURM those of its task."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The ids by which CUDA_VISIBLE_DEVICES names the GPUs this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [index.strip() for index in given.split(",") if index.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


class ResourcePool:
    """The GPUs of a machine, and how many jobs may run on it at the same time.

    Args:
        at_once: largest number of jobs.
        gpus: ids; a job gets those that the fewest other jobs use.
        jobs_per_gpu: largest number of jobs that share a GPU.
    """

    def __init__(self, at_once: int, gpus: Sequence[str] = (), jobs_per_gpu: int = 1) -> None:
        self.free, self.jobs_per_gpu = at_once, jobs_per_gpu
        self.used = Counter(dict.fromkeys(gpus, 0))

    def acquire(self, gpus: int) -> list[str] | None:
        """Reserve this number of GPUs for a job: their ids; None where there are not enough free."""
        available = sorted((gpu for gpu in self.used if self.used[gpu] < self.jobs_per_gpu), key=self.used.__getitem__)
        if not self.free or len(available) < gpus:
            return None
        self.free -= 1
        self.used.update(available[:gpus])
        return available[:gpus]

    def release(self, gpus: Sequence[str]) -> None:
        """Give back the GPUs of a job that has ended."""
        self.free += 1
        self.used.subtract(gpus)


def own_environment(job: Job, gpus: Sequence[str], threads: int) -> dict[str, str]:
    """Environment variables of a job that has these GPUs to itself, and this number of threads for each process."""
    kept = {key: value for key, value in os.environ.items() if key not in RANKS and not key.startswith("SLURM_")}
    return kept | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} | dict.fromkeys(THREADS, str(threads))


class JobScheduler:
    """Runs jobs in their order, each as soon as its resources are free; one that fails does not stop the others.

    Args:
        jobs: to run.
        resources: of this machine.
        status: shows them.
        threads: of each process; None: the cores, divided by the processes that run at the same time.
        exclusive: the one job of an allocation, which gets the environment that SLURM made.
        warm: fork jobs of one device from a process that has imported everything, where there are several.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        resources: ResourcePool,
        status: "LiveStatus",
        threads: int | None = None,
        exclusive: bool = False,
        warm: bool = False,
    ) -> None:
        self.waiting = deque(jobs)
        self.resources, self.status, self.exclusive = resources, status, exclusive
        most = max((job.devices for job in jobs), default=1)
        fit = len(resources.used) * resources.jobs_per_gpu // max(min((job.gpus for job in jobs), default=0), 1)
        at_once = max(1, min(resources.free, len(jobs), fit or resources.free))
        self.threads = threads or max(1, cores() // (at_once if exclusive else at_once * most))
        self.warm = warm and AVAILABLE and sum(job.forkable for job in jobs) > 1
        self.running: dict[Job, tuple[ChildProcess, list[str]]] = {}
        self.stop_signal: signal.Signals | None = None

    def run(self) -> dict[Job, str]:
        """Run all of them. An exception or a signal that ends this early also ends the jobs, after they have saved.

        Returns:
            The jobs that failed → the reason.
        """
        failed: dict[Job, str] = {}
        try:
            with self.status:
                while self.running or (self.waiting and not self.stop_signal):
                    self._start_ready_jobs()
                    for job in [job for job, (process, _) in self.running.items() if not _alive(process)]:
                        process, gpus = self.running.pop(job)
                        _end_group(process)  # other ranks may outlive the first
                        process.wait()
                        self.resources.release(gpus)
                        if process.returncode:
                            failed[job] = failure_reason(job, process.returncode)
                        self.status.ended(job, failed.get(job))
                    self.status.update(list(self.running), len(self.waiting))
                    time.sleep(POLL)
        finally:
            self.stop(signal.SIGTERM)
        return failed | dict.fromkeys(self.waiting, "stopped")

    def _start_ready_jobs(self) -> None:
        while self.waiting and not self.stop_signal:
            gpus = self.resources.acquire(0 if self.exclusive else self.waiting[0].gpus)
            if gpus is None:
                break
            job = self.waiting.popleft()
            environment = dict(os.environ) if self.exclusive else own_environment(job, gpus, self.threads)
            if self.exclusive:
                environment |= dict.fromkeys(THREADS, str(self.threads))
            self.running[job] = start(job, environment, self.warm and job.forkable), gpus
            if self.stop_signal:  # it came in the meantime
                self.signal_all(self.stop_signal)
            self.status.started(job, gpus)
        if self.waiting and not self.running and not self.stop_signal:
            raise RuntimeError(f"{self.waiting[0].name} takes {self.waiting[0].gpus} GPUs: there are too few")

    def signal_all(self, signum: signal.Signals) -> list[ChildProcess]:
        """Send a signal to every running job, which then saves and ends; start no other. Safe in handlers."""
        self.stop_signal = signum
        processes = [process for process, _ in self.running.values()]
        for process in filter(_alive, processes):
            process.send_signal(signum)
        return processes

    def stop(self, signum: signal.Signals, grace: float = GRACE) -> None:
        """Signal all, and kill those that have not ended within ``grace`` seconds."""
        processes = self.signal_all(signum)
        try:
            until = time.monotonic() + grace
            while any(map(_alive, processes)) and time.monotonic() < until:
                time.sleep(0.05)
        finally:  # a second signal kills them at once
            for process in processes:
                _end_group(process)


def start(job: Job, environment: Mapping[str, str], forked: bool = False) -> ChildProcess:
    """Start a job in a process group of its own: Ctrl-C is passed on to it, and its ranks end with it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    given = [f"{key}={environment[key]}" for key in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS") if key in environment]
    with (job.folder / files.LOG).open("ab") as log:
        log.write(f"$ {' '.join(given)} {command('train')} {shlex.join(job.arguments)}\n".encode())
        log.flush()
        if forked:
            with suppress(ConnectionError, EOFError):  # the server is gone; the next job gets another
                return ForkedJob(job.arguments, job.folder / files.LOG, environment)
        return subprocess.Popen(
            [sys.executable, "-m", f"{PACKAGE}.train", *job.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 (all it does is one system call)
        )


def failure_reason(job: Job, code: int) -> str:
    """Why a job failed, in one line: its own error message, or the signal or the exit code that ended it."""
    if code in STOPPED:
        return "stopped"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    for path in (job.folder / files.FAILED, job.folder / files.LOG):
        with suppress(OSError):
            if words := files.last_line(path):
                return words
    return f"exit code {code}"


def _alive(process: ChildProcess) -> bool:
    """Whether a process runs; without reaping it and without Popen's lock, as a signal handler may ask."""
    if isinstance(process, ForkedJob):
        return process.alive
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    return False


def _end_group(process: ChildProcess) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class LiveStatus:
    """A live table of all jobs in the terminal; without a terminal, a line for each change."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.finished = self.failed = self.number = 0
        self.since: dict[Job, float] = {}
        self.live = Live(console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "LiveStatus":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def started(self, job: Job, gpus: Sequence[str] = ()) -> None:
        """Note that a job runs; a second note changes nothing."""
        if job in self.since:
            return
        self.since[job] = time.monotonic()
        self.number += 1
        if not self.console.is_terminal:
            where = f"  GPU {','.join(gpus)}" if gpus else ""
            self._print(f"  started {self.number}/{self.total}: {job.name}{where}")

    def ended(self, job: Job, reason: str | None) -> None:
        """Note that a job has ended; ``reason``: why it failed."""
        seconds = time.monotonic() - self.since.pop(job, time.monotonic())
        if reason is None:
            self.finished += 1
            self._print(f"  finished {self.finished}/{self.total}: {job.name}  {seconds:.0f} s")
        else:
            self.failed += 1
            self._print(f"  failed: {job.name}: {reason}; {job.folder / files.LOG}")

    def update(self, running: Sequence[Job], waiting: int) -> None:
        """Refresh the table."""
        if not self.console.is_terminal:
            return
        title = f"{waiting} waiting, {len(running)} running, {self.finished} finished, {self.failed} failed"
        table = Table(box=None, pad_edge=False)
        for column in ("job", "epoch", "seconds"):
            table.add_column(column, justify="left" if column == "job" else "right")
        for job in running:
            seconds = time.monotonic() - self.since.get(job, time.monotonic())
            table.add_row(escape(job.name), trained(job), f"{seconds:.0f}")
        self.live.update(Group(Text(title, style="bold"), table))

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def trained(job: Job) -> str:
    """The epochs that a job has finished, by its history, of all: ``3/10``; or the steps: ``600/2000 steps``."""
    history = files.read_rows(job.folder / files.HISTORY)
    if job.steps is None:
        return f"{len(history)}/{job.epochs}"
    return f"{history[-1]['step'] if history else 0}/{job.steps} steps"
