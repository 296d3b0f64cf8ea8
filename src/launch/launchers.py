"""Launchers: start the jobs of a sweep as processes, several at a time, here or on a cluster.

``hydra/launcher=local``: several at a time on this machine. ``hydra/launcher=slurm``: as arrays of a cluster, by
submitit. Both start a job as its own command, in Hydra's single-run mode. Their options: ``conf/hydra/launcher``.
"""

import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf, open_dict
from rich.console import Console

from ..common.errors import UserError
from ..common.option_fields import LARGEST
from ..results import files
from ..results.identity import is_by_other_code
from .compose import job_configs
from .jobs import Job, JobScheduler, LiveStatus, ResourcePool, cores, visible_gpus
from .options import OPTIONS, PLUGINS, Local, Slurm
from .slurm import SlurmQueue
from .user_files import quoted

MAY_BE_ZERO = ("gpus", "memory", "gpus_per_job")


def check(master: Any, composed: Iterable[Any]) -> None:
    """Refuse jobs that the launcher of a sweep cannot run, before it starts: an option has a wrong value, they need
    more than the machine has, or jobs of several devices are started by one of Hydra's own launchers, which would go
    wrong.
    """
    given = master.hydra.launcher
    name = given._target_.removeprefix(f"{PLUGINS}.").removesuffix("Launcher").lower()
    trainers = [cfg.trainer for cfg in composed]
    most = max((trainer.devices for trainer in trainers), default=1)
    nodes = max((trainer.num_nodes for trainer in trainers), default=1)
    if name not in OPTIONS:
        if most * nodes > 1:
            raise UserError(
                f"trainer.devices={most}, trainer.num_nodes={nodes} in a sweep started by this launcher goes silently "
                "wrong; add hydra/launcher=local, or hydra/launcher=slurm on a cluster"
            )
        return
    for key, value in given.items():
        least = 0.1 if key == "poll" else 0 if key in MAY_BE_ZERO else 1
        if type(value) in (int, float) and not least <= value < LARGEST:
            raise UserError(f"hydra.launcher.{key}={value}: must be a number of at least {least}")
    if name == "slurm":
        if shutil.which("sbatch") is None:
            raise UserError("hydra/launcher=slurm: there is no sbatch here; hydra/launcher=local runs on this machine")
        if given.jobs_per_allocation > 1 and nodes > 1:
            raise UserError(
                f"hydra.launcher.jobs_per_allocation={given.jobs_per_allocation}: not with trainer.num_nodes"
            )
        return
    if nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes}: hydra/launcher=local has one machine; hydra/launcher=slurm has more"
        )
    if (given.threads or 1) > cores():
        raise UserError(f"hydra.launcher.threads={given.threads}: this machine has {cores()} cores for a job's threads")
    available = gpu_ids(given.gpus)
    for trainer in trainers:
        if available and (wanted := gpus_of(trainer, given.gpus_per_job)) > len(available):
            raise UserError(
                f"trainer.devices={trainer.devices}: a job takes {wanted} GPUs, and there are {len(available)}"
            )


def gpu_ids(gpus: Any) -> list[str]:
    """Ids of the GPUs that ``hydra.launcher.gpus`` names: ids, a number of the visible ones, or null for all;
    ``UserError`` if there are fewer, or it is none of these.
    """
    if OmegaConf.is_list(gpus) or isinstance(gpus, list):
        return [str(gpu) for gpu in gpus]
    visible = visible_gpus()
    if gpus is None:
        return visible
    if not isinstance(gpus, int) or gpus > len(visible):
        raise UserError(
            f"hydra.launcher.gpus={gpus}: {len(visible)} are visible; a number up to that, or a list of ids"
        )
    return visible[:gpus]


def gpus_of(trainer: Any, gpus_per_job: int | None) -> int:
    """Number of GPUs that a job needs on each machine."""
    if trainer.accelerator == "cpu":
        return 0
    return int(trainer.devices if gpus_per_job is None else gpus_per_job)


class _Processes(Launcher):
    """Shared by both launchers: jobs of a sweep as commands, and their results in the form that Hydra wants."""

    #: GPUs of a job on each machine; None: as many as it has devices there
    gpus_per_job: int | None

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Called by Hydra before ``launch``."""
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs that are not finished; called by Hydra. A ``RuntimeError`` if some failed, when all others have
        run: its text names them with their reasons.
        """
        setup_globals()
        console = Console(highlight=False)
        jobs = list(self._jobs(job_overrides, initial_job_idx))
        unfinished = [job for job in jobs if not job.finished]
        if len(unfinished) < len(jobs):
            by_other_code = sum(job.finished and is_by_other_code(job.folder) for job in jobs)
            other = f" ({by_other_code} by other code; remove their folders to train them again)" * bool(by_other_code)
            console.print(f"  finished before, kept: {len(jobs) - len(unfinished)} of {len(jobs)} jobs{other}")
        failed = self.run(unfinished, LiveStatus(console, len(unfinished))) if unfinished else {}
        if failed:
            reasons = "; ".join(f"{job.name}: {reason}" for job, reason in failed.items())
            raise RuntimeError(f"{len(failed)} of {len(jobs)} jobs: {reasons}")
        return [JobReturn(overrides=list(words), status=JobStatus.COMPLETED) for words in job_overrides]

    def run(self, jobs: list[Job], status: LiveStatus) -> dict[Job, str]:
        """Run the jobs; returns those that failed → the reason."""
        raise NotImplementedError

    def _jobs(self, job_overrides: Sequence[Sequence[str]], first: int) -> Iterator[Job]:
        shared = set.intersection(*map(set, job_overrides))
        configs = job_configs(self.context.config_loader, self.config, job_overrides)
        for number, (overrides, cfg) in enumerate(zip(job_overrides, configs, strict=True), first):
            with open_dict(cfg):
                cfg.hydra.job.id, cfg.hydra.job.num = str(number), number
            HydraConfig.instance().set_config(cfg)  # folders are interpolated from it
            folder = Path(str(cfg.hydra.sweep.dir), str(cfg.hydra.sweep.subdir))
            yield Job(
                name=" ".join(word.removeprefix("model.") for word in overrides if word not in shared) or folder.name,
                arguments=(*overrides, "hydra.mode=RUN", f"hydra.run.dir={quoted(folder)}"),
                folder=folder,
                epochs=cfg.train.epochs,
                devices=cfg.trainer.devices,
                nodes=cfg.trainer.num_nodes,
                gpus=gpus_of(cfg.trainer, self.gpus_per_job),
                steps=cfg.train.steps,
            )


class LocalLauncher(_Processes):
    """Runs several jobs at a time on this machine, each with its own GPUs or its own share of the cores; the arguments
    are as ``conf/hydra/launcher/local.yaml`` says.
    """

    def __init__(self, **options: Any) -> None:
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Local), options))
        assert isinstance(typed, Local)
        self.options, self.ids = typed, gpu_ids(typed.gpus)
        self.at_once = typed.jobs or (len(self.ids) * typed.jobs_per_gpu if self.ids else min(cores(), 8))
        self.gpus_per_job = typed.gpus_per_job if self.ids else 0

    def run(self, jobs: list[Job], status: LiveStatus) -> dict[Job, str]:
        """Run the jobs; Ctrl-C and SIGTERM end them after they have saved."""
        with _interrupted_by(signal.SIGTERM):
            resources = ResourcePool(self.at_once, self.ids, self.options.jobs_per_gpu)
            return JobScheduler(jobs, resources, status, self.options.threads, warm=self.options.warm).run()


@contextmanager
def _interrupted_by(signum: signal.Signals) -> Iterator[None]:
    """Inside the ``with``, a signal raises KeyboardInterrupt, as Ctrl-C does."""
    before = signal.signal(signum, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


class SlurmLauncher(_Processes):
    """Submits jobs as SLURM arrays. A job that is preempted or runs out of time saves, is requeued and continues. The
    options are as ``conf/hydra/launcher/slurm.yaml`` says.
    """

    def __init__(self, **options: Any) -> None:
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Slurm), options))
        assert isinstance(typed, Slurm)
        self.options = typed
        self.gpus_per_job = 0 if typed.gpus == 0 else None

    def run(self, jobs: list[Job], status: LiveStatus) -> dict[Job, str]:
        """Submit jobs and wait for them; Ctrl-C takes them from the queue, after those that run have saved."""
        failed: dict[Job, str] = {}
        queue = SlurmQueue(jobs[0].folder.parent)
        try:
            with status, _interrupted_by(signal.SIGTERM):
                new = queue.reattach(jobs)
                if len(new) < len(jobs):
                    status.console.print(f"  still in SLURM's queue: {len(jobs) - len(new)} jobs, waiting for them")
                queue.submit(new, self.options)
                while queue.tasks:
                    self._poll(queue, status, failed)
                    time.sleep(self.options.poll if queue.tasks else 0)
        except BaseException:
            with suppress(OSError):  # the terminal is gone
                status.console.print("  taking the jobs from SLURM's queue, once they have saved")
            with suppress(OSError):  # SLURM does not answer
                queue.cancel()
            raise
        return failed

    def _poll(self, queue: SlurmQueue, status: LiveStatus, failed: dict[Job, str]) -> None:
        try:
            states = queue.states()
        except OSError:  # SLURM does not answer at the moment
            return
        for task, lost in queue.ended(states):
            failed |= lost
            for job in task.jobs:
                status.ended(job, lost.get(job))
        left = [(states.get(number), job) for number, task in queue.tasks.items() for job in task.jobs]
        begun = [job for state, job in left if state == "RUNNING" and (job.folder / files.LOG).exists()]
        for job in begun:
            status.started(job)
        status.update(begun, len(left) - len(begun))
