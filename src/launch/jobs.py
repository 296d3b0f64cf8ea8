"""Jobs as processes of their own: a queue of them, the GPUs and cores they get, one screen for all.

A job is a single run, ``python -m src.train … hydra.run.dir=FOLDER``, so nothing of the process that starts it, and
nothing of the job before it, can leak into it. What it prints goes to ``log.txt`` in its folder.
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

from ..naming import PACKAGE, command
from ..results import files
from ..training.ranks import end_with_parent

#: how a run ends that was told to stop: having saved first, or having had nothing to save yet
STOPPED = tuple(code for signum in (signal.SIGTERM, signal.SIGUSR2) for code in (128 + signum, -signum))
#: what tells a process that it is one of several ranks; a job that is to be started afresh must not see it
RANKS = (
    "LOCAL_RANK",
    "RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
#: what numerical libraries read their number of threads from
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: seconds a job gets to save when all are stopped
GRACE = 60.0
POLL = 0.2


@dataclass(frozen=True)
class Job:
    """One run to start.

    Attributes:
        name: what tells it from the others.
        arguments: after ``python -m src.train``.
        folder: of the run.
        epochs: it trains for.
        devices: on one machine; each is a process.
        nodes: machines.
        gpus: it takes on each machine; 0: none, it runs on the CPU.
    """

    name: str
    arguments: tuple[str, ...]
    folder: Path
    epochs: int
    devices: int = 1
    nodes: int = 1
    gpus: int = 0

    @property
    def finished(self) -> bool:
        """Whether its folder holds it complete."""
        return (self.folder / files.RUN).exists()


def quoted(path: Path) -> str:
    """A path as a value in Hydra's grammar: commas and equal signs are part of the name."""
    return "'" + str(path).replace("'", "\\'") + "'"


def cores() -> int:
    """CPU cores this process may use; under SLURM those of its task."""
    given = os.environ.get("SLURM_CPUS_PER_TASK")
    if given:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The ids by which CUDA_VISIBLE_DEVICES names the GPUs this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one.strip() for one in given.split(",") if one.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


class ResourcePool:
    """What a machine has to give to jobs.

    Args:
        at_once: jobs that run at the same time, at most.
        gpus: ids; a job gets as many as it asks for, those that the fewest others use.
        jobs_per_gpu: that share one, at most.
    """

    def __init__(self, at_once: int, gpus: Sequence[str] = (), jobs_per_gpu: int = 1) -> None:
        self.free, self.jobs_per_gpu = at_once, jobs_per_gpu
        self.used = Counter(dict.fromkeys(gpus, 0))

    def take(self, gpus: int) -> list[str] | None:
        """A place with this many GPUs: their ids; None where none is free."""
        open_ones = sorted((gpu for gpu in self.used if self.used[gpu] < self.jobs_per_gpu), key=self.used.__getitem__)
        if not self.free or len(open_ones) < gpus:
            return None
        self.free -= 1
        self.used.update(open_ones[:gpus])
        return open_ones[:gpus]

    def give_back(self, gpus: Sequence[str]) -> None:
        """A job is done with its place."""
        self.free += 1
        self.used.subtract(gpus)


def own_environment(job: Job, gpus: Sequence[str], threads: int) -> dict[str, str]:
    """The environment of a job that has these GPUs, and so many threads for each of its processes, to itself."""
    kept = {key: value for key, value in os.environ.items() if key not in RANKS and not key.startswith("SLURM_")}
    return kept | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} | dict.fromkeys(THREADS, str(threads))


class JobScheduler:
    """Runs jobs in their order, each as soon as there is a place for it; one that fails does not stop the others.

    Args:
        jobs: to run.
        places: where.
        screen: what shows them.
        threads: of each process; null: the cores, divided by the processes that run at once.
        alone: an allocation has one job, whose environment is what the scheduler made it.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        places: ResourcePool,
        screen: "LiveStatus",
        threads: int | None = None,
        alone: bool = False,
    ) -> None:
        self.waiting = deque(jobs)
        self.places, self.screen, self.alone = places, screen, alone
        most = max((one.devices for one in jobs), default=1)
        fit = len(places.used) * places.jobs_per_gpu // max(min((one.gpus for one in jobs), default=0), 1)
        at_once = max(1, min(places.free, len(jobs), fit or places.free))
        self.threads = threads or max(1, cores() // (at_once if alone else at_once * most))
        self.running: dict[Job, tuple[subprocess.Popen[bytes], list[str]]] = {}
        self.told: signal.Signals | None = None

    def run(self) -> dict[Job, str]:
        """Run all of them; whatever ends this early ends them too, after they have saved.

        Returns:
            Those that failed, and why.
        """
        failed: dict[Job, str] = {}
        try:
            with self.screen:
                while self.running or (self.waiting and not self.told):
                    self._start_what_fits()
                    for job in [one for one, (process, _) in self.running.items() if not _alive(process)]:
                        process, gpus = self.running.pop(job)
                        _end_group(process)  # ranks that outlived their first
                        process.wait()
                        self.places.give_back(gpus)
                        if process.returncode:
                            failed[job] = why(job, process.returncode)
                        self.screen.ended(job, failed.get(job))
                    self.screen.update(list(self.running), len(self.waiting))
                    time.sleep(POLL)
        finally:
            self.stop(signal.SIGTERM)
        return failed | dict.fromkeys(self.waiting, "stopped")

    def _start_what_fits(self) -> None:
        while self.waiting and not self.told:
            gpus = self.places.take(0 if self.alone else self.waiting[0].gpus)
            if gpus is None:
                break
            job = self.waiting.popleft()
            environment = dict(os.environ) if self.alone else own_environment(job, gpus, self.threads)
            if self.alone:
                environment |= dict.fromkeys(THREADS, str(self.threads))
            self.running[job] = start(job, environment), gpus
            if self.told:  # meanwhile
                self.progress(self.told)
            self.screen.started(job, gpus)
        if self.waiting and not self.running and not self.told:
            raise RuntimeError(f"{self.waiting[0].name} takes {self.waiting[0].gpus} GPUs: there are too few")

    def progress(self, signum: signal.Signals) -> "list[subprocess.Popen[bytes]]":
        """Ask every job that still runs to save and to end, and start no other; a signal's handler may do it."""
        self.told = signum
        processes = [process for process, _ in self.running.values()]
        for process in filter(_alive, processes):
            process.send_signal(signum)
        return processes

    def stop(self, signum: signal.Signals, grace: float = GRACE) -> None:
        """The same, and end those that have not ended within ``grace`` seconds."""
        processes = self.progress(signum)
        try:
            until = time.monotonic() + grace
            while any(map(_alive, processes)) and time.monotonic() < until:
                time.sleep(0.05)
        finally:  # asked a second time, they end at once
            for process in processes:
                _end_group(process)


def start(job: Job, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start its process, in a group of its own: Ctrl-C reaches it by us, and its ranks end with it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    given = [f"{key}={environment[key]}" for key in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS") if key in environment]
    with (job.folder / files.LOG).open("ab") as log:
        log.write(f"$ {' '.join(given)} {command('train')} {shlex.join(job.arguments)}\n".encode())
        log.flush()
        return subprocess.Popen(
            [sys.executable, "-m", f"{PACKAGE}.train", *job.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 (all it does is one system call)
        )


def why(job: Job, code: int) -> str:
    """What a job that did not end well died of, in one line."""
    if code in STOPPED:
        return "stopped"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    for path in (job.folder / files.FAILED, job.folder / files.LOG):
        with suppress(OSError):
            if words := files.last_line(path):
                return words
    return f"exit code {code}"


def _alive(process: "subprocess.Popen[bytes]") -> bool:
    """Without reaping it, and without Popen's lock: this may run in a signal's handler."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    return False


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class LiveStatus:
    """All jobs on one screen: who waits, at which epoch who runs, who failed; without a terminal a line a change.

    Args:
        console: to print on.
        total: jobs altogether.
    """

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
        """A job begins; said of one that has begun before, it changes nothing."""
        if job in self.since:
            return
        self.since[job] = time.monotonic()
        self.number += 1
        if not self.console.is_terminal:
            where = f"  GPU {','.join(gpus)}" if gpus else ""
            self._print(f"  started {self.number}/{self.total}: {job.name}{where}")

    def ended(self, job: Job, reason: str | None) -> None:
        """A job is over."""
        seconds = time.monotonic() - self.since.pop(job, time.monotonic())
        if reason is None:
            self.finished += 1
            self._print(f"  finished {self.finished}/{self.total}: {job.name}  {seconds:.0f} s")
        else:
            self.failed += 1
            self._print(f"  failed: {job.name}: {reason}; {job.folder / files.LOG}")

    def update(self, running: Sequence[Job], waiting: int) -> None:
        """Where everything stands."""
        if not self.console.is_terminal:
            return
        title = f"{waiting} waiting, {len(running)} running, {self.finished} finished, {self.failed} failed"
        table = Table(box=None, pad_edge=False)
        for column in ("job", "epoch", "seconds"):
            table.add_column(column, justify="left" if column == "job" else "right")
        for job in running:
            seconds = time.monotonic() - self.since.get(job, time.monotonic())
            table.add_row(escape(job.name), f"{epochs_done(job)}/{job.epochs}", f"{seconds:.0f}")
        self.live.update(Group(Text(title, style="bold"), table))

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def epochs_done(job: Job) -> int:
    """The epochs it has behind it, as its history says."""
    return len(files.read_rows(job.folder / files.HISTORY))
