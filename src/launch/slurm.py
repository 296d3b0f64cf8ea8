"""Jobs in SLURM's queue: submit them, find them there again in a later command, wait for them, run them.

submitit writes the batch scripts into the sweep's folder ``slurm``, and calls a ``Task`` in every rank. SLURM's queue
says whether a job has ended: not every cluster keeps accounts, and a job that is preempted, out of time or lost with
its node is in the queue again.
"""

import math
import os
import pickle
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from ..results import files
from ..results.locks import lock_holder
from .jobs import POLL, Job, JobScheduler, LiveStatus, ResourcePool, visible_gpus
from .options import Slurm

#: seconds until files that an allocation wrote are seen on another machine
FILE_LAG = 15.0
#: allocations in a row that may end without saving anything new
MAX_FAILED_REQUEUES = 10
#: last lines of the batch script: a signal that comes while Python still loads kills the rank; the job is requeued
TEARDOWN = (
    "code=$?",
    "if [ $code = 140 ] || [ $code = 143 ]; then",
    "  scontrol show job $SLURM_JOB_ID | grep -q JobState=RUNNING && scontrol requeue $SLURM_JOB_ID",
    "fi",
    "exit $code",
)


@dataclass(frozen=True)
class Task:
    """What an allocation runs: one job, or several."""

    jobs: tuple[Job, ...]
    several: bool  # whether jobs share the allocation and start their own ranks; else every SLURM task is a rank
    at_once: int  # of several jobs, how many run at the same time
    grace: float  # seconds to save in

    @property
    def ranks(self) -> int:
        """Number of processes that SLURM starts."""
        return 1 if self.several else self.jobs[0].devices * self.jobs[0].nodes

    def __call__(self) -> dict[str, str]:
        """Run the jobs; returns the names of those that failed → the reason."""
        first = os.environ.get("SLURM_PROCID", "0") == "0"
        jobs = [job for job in self.jobs if not job.finished]
        ids = visible_gpus() if self.several else []
        wanted = self.at_once * max((job.gpus for job in jobs), default=0)
        resources = ResourcePool(self.at_once, ids, math.ceil(wanted / max(len(ids), 1)))
        scheduler = JobScheduler(
            jobs, resources, LiveStatus(Console(quiet=not first), len(jobs)), exclusive=not self.several
        )
        markers = self.progress_markers()

        def out_of_time(signum: int, frame: FrameType | None) -> None:
            if first:  # the other ranks stop with the first
                scheduler.stop(signal.SIGUSR2, max(self.grace - 10, self.grace / 2))
                self.requeue(markers)

        # SIGUSR2: time limit or preemption; SIGTERM: the job is cancelled or its node is taken away
        signal.signal(signal.SIGUSR2, out_of_time)
        signal.signal(signal.SIGTERM, lambda *_: scheduler.signal_all(signal.SIGTERM))
        while first and any(lock_holder(job.folder) for job in jobs):
            time.sleep(POLL)  # a node that SLURM has given up may still work
        failed = {job.name: reason for job, reason in scheduler.run().items()}
        if not first and "stopped" in failed.values():
            return {}
        if "stopped" in failed.values():
            self.requeue(markers)
        if failed and not self.several:  # srun then ends the other ranks, which wait for this one
            raise RuntimeError(*failed.values())
        return failed

    def reasons(self, folder: Path, number: str) -> dict[str, str]:
        """Names of jobs that failed → the reason, from the ranks' result files in submitit's folder; ``number`` is that
        of the allocation.
        """
        from submitit.core.utils import JobPaths

        found: dict[str, str] = {}
        for rank in reversed(range(self.ranks)):
            path = JobPaths(folder, number, rank).result_pickle
            if path.exists():
                outcome, result = pickle.loads(path.read_bytes())
                if outcome == "error":  # the result is a traceback
                    reason = result.strip().splitlines()[-1].removeprefix("RuntimeError: ")
                    result = {job.name: reason for job in self.jobs}
                found |= result
        return found

    def progress_markers(self) -> list[int]:
        """Modification times of results and checkpoints, which change whenever a job makes progress."""
        kept = [job.folder / name for job in self.jobs for name in (files.RUN, Path(files.CHECKPOINTS, files.LAST))]
        return [path.stat().st_mtime_ns for path in kept if path.exists()]

    def requeue(self, markers: list[int]) -> None:
        """End, and continue in another allocation; not where another rank has failed or SLURM has ended the job. A
        ``RuntimeError`` where too many allocations in a row made no progress, by the markers from before they ran here.
        """
        from submitit import JobEnvironment

        environment = JobEnvironment()
        failed = self.reasons(environment.paths.folder, environment.job_id)
        if not failed and _state(environment.job_id) == "RUNNING":
            count = environment.paths.folder / f"{environment.job_id}_failed_requeues"
            before = int(count.read_text(encoding="utf-8")) if count.exists() else 0
            failed_requeues = before + 1 if self.progress_markers() == markers else 0
            files.write(count, str(failed_requeues))
            if failed_requeues == MAX_FAILED_REQUEUES:
                raise RuntimeError(
                    f"{MAX_FAILED_REQUEUES} allocations in a row made no progress; give more hydra.launcher.time"
                )
            subprocess.run(["scontrol", "requeue", environment.job_id], check=True)
        raise SystemExit(1)


class SlurmQueue:
    """The jobs of a sweep, by its folder, in SLURM's queue."""

    def __init__(self, sweep: Path) -> None:
        self.folder = (sweep / "slurm").absolute()
        self.tasks: dict[str, Task] = {}  # by SLURM's number
        self.missing_since: dict[str, float] = {}  # SLURM's number → when it was first missing from the queue

    def states(self) -> dict[str, str]:
        """SLURM's number of every job of the sweep that waits, runs or is ending → its state; ``OSError`` if it does
        not answer.
        """
        command = f"squeue --all --array --noheader --user={os.getuid()} --format=%i|%T|%o".split()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
        lines = [line.strip().split("|", 2) for line in done.stdout.splitlines()]
        return {number: state for number, state, script in lines if Path(script).parent == self.folder}

    def reattach(self, jobs: Sequence[Job]) -> list[Job]:
        """Find jobs that an earlier command submitted; returns the others, which have to be submitted."""
        from submitit.core.utils import DelayedSubmission, JobPaths

        left = {job.folder: job for job in jobs}
        for number in self.states():
            submitted = JobPaths(self.folder, number).submitted_pickle
            if not submitted.exists():  # the command was killed while it submitted; such a job has no task
                subprocess.run(["scancel", "--quiet", number], check=False)
                continue
            task: Any = DelayedSubmission.load(submitted).function
            if mine := tuple(left.pop(job.folder) for job in task.jobs if job.folder in left):
                self.tasks[number] = replace(task, jobs=mine)
        return list(left.values())

    def submit(self, jobs: Sequence[Job], options: Slurm) -> None:
        """Put jobs into the queue: an array for all that need the same resources."""
        from submitit import SlurmExecutor

        def kind(job: Job) -> tuple[int, int, int]:
            return job.nodes, job.devices, job.gpus

        for (nodes, devices, gpus), same in groupby(sorted(jobs, key=kind), key=kind):
            several = options.jobs_per_allocation > 1
            packs = list(_chunks(list(same), options.jobs_per_allocation))
            executor = SlurmExecutor(folder=self.folder)
            executor.update_parameters(
                job_name=self.folder.parent.name[:40],
                time=options.time,
                nodes=nodes,
                # several jobs in one allocation start their own ranks
                ntasks_per_node=1 if several else devices,
                cpus_per_task=options.cpus,
                mem=f"{options.memory:g}GB" if options.memory else "0",
                gpus_per_node=(gpus * options.jobs_at_once if options.gpus is None else options.gpus) or None,
                array_parallelism=options.array_parallelism,
                signal_delay_s=options.grace,
                setup=options.setup,
                teardown=list(TEARDOWN),
                # srun does not take the first from sbatch since 22.05; a rank that fails ends those that wait for it
                srun_args=[f"--cpus-per-task={options.cpus}", "--kill-on-bad-exit"],
                additional_parameters={"requeue": True} | options.extra,
                **{
                    key: getattr(options, key)
                    for key in ("partition", "account", "qos", "constraint")
                    if getattr(options, key) is not None
                },
            )
            for some in _chunks(packs, options.array_size):
                tasks = [Task(tuple(pack), several, options.jobs_at_once, options.grace) for pack in some]
                numbers = [job.job_id for job in executor.submit_array(tasks)]
                self.tasks |= dict(zip(numbers, tasks, strict=True))

    def ended(self, states: dict[str, str]) -> Iterator[tuple[Task, dict[Job, str]]]:
        """Tasks that have ended, with their failed jobs → the reason, from files rather than from SLURM."""
        for number, task in list(self.tasks.items()):
            if number in states:
                self.missing_since.pop(number, None)
                continue
            lost = [job for job in task.jobs if not job.finished]
            reasons = task.reasons(self.folder, number)
            late = time.monotonic() - self.missing_since.setdefault(number, time.monotonic()) > FILE_LAG
            if late or all(job.name in reasons for job in lost):
                del self.tasks[number]
                unknown = f"lost by SLURM: {_state(number)}; {self.folder}/{number}_0_log.err" if late else ""
                yield task, {job: reasons.get(job.name, unknown) for job in lost}

    def cancel(self) -> None:
        """Take all jobs from the queue, and wait until those that run have saved."""
        while numbers := self.states():
            subprocess.run(["scancel", "--quiet", *{number.partition("_")[0] for number in numbers}], check=False)
            time.sleep(1)


def _chunks(things: list[Any], size: int) -> Iterator[Any]:
    for start in range(0, len(things), size):
        yield things[start : start + size]


def _state(number: str) -> str:
    """SLURM's name for the state of a job; ``forgotten`` where it knows none."""
    command = ["scontrol", "--oneliner", "show", "job", number]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = re.search(r"JobState=(\S+)", output)
    return match[1] if match else "forgotten"
