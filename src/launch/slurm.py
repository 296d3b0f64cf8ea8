"""Jobs in SLURM's queue: submitted, found there again by a later command, waited for; and what an allocation does.

submitit writes the batch scripts, into the sweep's folder ``slurm``, and calls a ``Task`` in every rank. Whether a job
is over is asked of SLURM itself: not every cluster keeps accounts, and what is preempted, out of time or lost with its
node is in the queue again.
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

#: seconds until what an allocation has written is seen from another machine
LAG = 15.0
#: allocations in a row that may end before anything new is saved
PATIENCE = 10
#: the batch script's last lines: a rank that is told to stop while Python loads dies of it, and has nothing to save
AT_ONCE = (
    "code=$?",
    "if [ $code = 140 ] || [ $code = 143 ]; then",
    "  scontrol show job $SLURM_JOB_ID | grep -q JobState=RUNNING && scontrol requeue $SLURM_JOB_ID",
    "fi",
    "exit $code",
)


@dataclass(frozen=True)
class Task:
    """What an allocation does: its job, or several.

    Attributes:
        jobs: to run.
        several: whether they share the allocation; each then starts its own ranks. Else every task of SLURM is a rank.
        at_once: of several.
        grace: seconds that they have to save in.
    """

    jobs: tuple[Job, ...]
    several: bool
    at_once: int
    grace: float

    @property
    def ranks(self) -> int:
        """The processes that SLURM starts."""
        return 1 if self.several else self.jobs[0].devices * self.jobs[0].nodes

    def __call__(self) -> dict[str, str]:
        """Run them; gives those that failed, and why."""
        first = os.environ.get("SLURM_PROCID", "0") == "0"
        jobs = [one for one in self.jobs if not one.finished]
        ids = visible_gpus() if self.several else []
        wanted = self.at_once * max((one.gpus for one in jobs), default=0)
        places = ResourcePool(self.at_once, ids, math.ceil(wanted / max(len(ids), 1)))
        queue = JobScheduler(jobs, places, LiveStatus(Console(quiet=not first), len(jobs)), alone=not self.several)
        reached = self.reached()

        def out_of_time(signum: int, frame: FrameType | None) -> None:
            if first:  # the other ranks stop with it
                queue.stop(signal.SIGUSR2, max(self.grace - 10, self.grace / 2))
                self.queue_again(reached)

        # how SLURM announces the end of the time, and preemption; and all else that takes a job from its machine
        signal.signal(signal.SIGUSR2, out_of_time)
        signal.signal(signal.SIGTERM, lambda *_: queue.progress(signal.SIGTERM))
        while first and any(lock_holder(one.folder) for one in jobs):
            time.sleep(POLL)  # a node that SLURM has given up may work on
        failed = {job.name: reason for job, reason in queue.run().items()}
        if not first and "stopped" in failed.values():
            return {}
        if "stopped" in failed.values():
            self.queue_again(reached)
        if failed and not self.several:  # srun then ends the other ranks, which wait for this one
            raise RuntimeError(*failed.values())
        return failed

    def reasons(self, folder: Path, number: str) -> dict[str, str]:
        """Why jobs failed, by their names, as far as a rank has said it before it ended.

        Args:
            folder: of submitit's files.
            number: SLURM's, of the allocation.
        """
        from submitit.core.utils import JobPaths

        found: dict[str, str] = {}
        for rank in reversed(range(self.ranks)):
            told = JobPaths(folder, number, rank).result_pickle
            if told.exists():
                how, what = pickle.loads(told.read_bytes())
                if how == "error":  # a traceback
                    said = what.strip().splitlines()[-1].removeprefix("RuntimeError: ")
                    what = {job.name: said for job in self.jobs}
                found |= what
        return found

    def reached(self) -> list[int]:
        """What changes whenever a job gets further."""
        kept = [one.folder / name for one in self.jobs for name in (files.RUN, Path(files.CHECKPOINTS, files.LAST))]
        return [path.stat().st_mtime_ns for path in kept if path.exists()]

    def queue_again(self, reached: list[int]) -> None:
        """End, and go on in another allocation; not where another rank has failed, or SLURM has ended the job itself.

        Args:
            reached: by the jobs, before they ran here.

        Raises:
            RuntimeError: too many allocations have brought it no further.
        """
        from submitit import JobEnvironment

        environment = JobEnvironment()
        failed = self.reasons(environment.paths.folder, environment.job_id)
        if not failed and _state(environment.job_id) == "RUNNING":
            count = environment.paths.folder / f"{environment.job_id}_in_vain"
            before = int(count.read_text()) if count.exists() else 0
            in_vain = before + 1 if self.reached() == reached else 0
            files.write(count, str(in_vain))
            if in_vain == PATIENCE:
                raise RuntimeError(f"{PATIENCE} allocations have brought it no further; more hydra.launcher.time")
            subprocess.run(["scontrol", "requeue", environment.job_id], check=True)
        raise SystemExit(1)


class Jobs:
    """The jobs of a sweep that are in SLURM's queue.

    Args:
        sweep: its folder.
    """

    def __init__(self, sweep: Path) -> None:
        self.folder = (sweep / "slurm").absolute()
        self.tasks: dict[str, Task] = {}  # by SLURM's number
        self.gone: dict[str, float] = {}  # when that was first not in the queue

    def states(self) -> dict[str, str]:
        """SLURM's number of every job of the sweep that waits, runs or ends, with its state.

        Raises:
            OSError: SLURM does not answer.
        """
        command = f"squeue --all --array --noheader --user={os.getuid()} --format=%i|%T|%o".split()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
        lines = [line.strip().split("|", 2) for line in done.stdout.splitlines()]
        return {number: state for number, state, script in lines if Path(script).parent == self.folder}

    def take_up(self, jobs: Sequence[Job]) -> list[Job]:
        """Find those that an earlier command has left in the queue; gives the others, which are to be submitted."""
        from submitit.core.utils import DelayedSubmission, JobPaths

        left = {job.folder: job for job in jobs}
        for number in self.states():
            submitted = JobPaths(self.folder, number).submitted_pickle
            if not submitted.exists():  # the command was killed while it submitted: such a job knows of no task
                subprocess.run(["scancel", "--quiet", number], check=False)
                continue
            task: Any = DelayedSubmission.load(submitted).function
            if mine := tuple(left.pop(one.folder) for one in task.jobs if one.folder in left):
                self.tasks[number] = replace(task, jobs=mine)
        return list(left.values())

    def submit(self, jobs: Sequence[Job], options: Slurm) -> None:
        """Put them into the queue: an array for all that take the same."""
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
                teardown=list(AT_ONCE),
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
                numbers = [one.job_id for one in executor.submit_array(tasks)]
                self.tasks |= dict(zip(numbers, tasks, strict=True))

    def ended(self, states: dict[str, str]) -> Iterator[tuple[Task, dict[Job, str]]]:
        """Those that are over, and which of their jobs failed, and why; files say more than a scheduler."""
        for number, task in list(self.tasks.items()):
            if number in states:
                self.gone.pop(number, None)
                continue
            lost = [job for job in task.jobs if not job.finished]
            reasons = task.reasons(self.folder, number)
            late = time.monotonic() - self.gone.setdefault(number, time.monotonic()) > LAG
            if late or all(job.name in reasons for job in lost):
                del self.tasks[number]
                unsaid = f"lost by SLURM: {_state(number)}; {self.folder}/{number}_0_log.err" if late else ""
                yield task, {job: reasons.get(job.name, unsaid) for job in lost}

    def cancel(self) -> None:
        """Take them from the queue, and wait until those that run have saved."""
        while numbers := self.states():
            subprocess.run(["scancel", "--quiet", *{number.partition("_")[0] for number in numbers}], check=False)
            time.sleep(1)


def _chunks(things: list[Any], size: int) -> Iterator[Any]:
    for start in range(0, len(things), size):
        yield things[start : start + size]


def _state(number: str) -> str:
    """Of a job, in SLURM's words."""
    command = ["scontrol", "--oneliner", "show", "job", number]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"JobState=(\S+)", told)
    return found[1] if found else "forgotten"
