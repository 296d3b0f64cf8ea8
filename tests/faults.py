"""Real processes of a sweep, killed at random moments; its comparison has to be the undisturbed one's all the same.

    python -m tests.faults kills=30                     single jobs, two at a time, each killed and started again
    python -m tests.faults kills=30 launcher=basic      one command with this launcher; any of its processes is killed

options: jobs=24  parallel=2 (without a launcher)  kills=30  disks=3 (that fill up; as root)  launcher=NAME  seed=0
         folder=FOLDER (a new one)

Ends with a table, a line a fault: how often it was injected, and how many runs it lost.
"""

import json
import multiprocessing
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch

import src.launch.sweep
import src.reporting.page
import src.training.checkpoints
import src.training.run
from src.config import cli_errors, from_command_line
from src.results import files
from src.results.locks import lock_holder
from tests.helpers import ROOT

FORK = multiprocessing.get_context("fork")

#: a job of about three seconds beside its start, most of them training; saved all the time
JOB = (
    "data=shapes data.image_size=16 data.train_size=1600 data.val_size=100 model.depth=2 model.width=4 model.convs=1 "
    "model.dropout=0.2 train.epochs=3 train.batch_size=16 measure.what=[shift] measure.images=40 measure.max_shift=1 "
    "probe.images=2 probe.channels=4 wandb.mode=disabled trainer.save_minutes=0.002"
).split()
#: the folder of a job is named by its axes alone
NAMED = "hydra.sweep.subdir='model.pool=${model.pool},seed=${seed}'"
KILLED, TRUNCATED, FULL = "kill -9", "kill -9, then half of last.ckpt is gone", "the disk is full"
FAULTS = {KILLED: signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGUSR2": signal.SIGUSR2, TRUNCATED: signal.SIGKILL}
#: kB of the disks that fill up; a job needs 300
DISKS = (110, 40, 180, 75, 145, 210)
#: no process that nobody touched may end badly, but one whose jobs others still hold
PATIENCE = 20


@dataclass
class Options:
    """Of the command line."""

    jobs: int = 24
    parallel: int = 2
    kills: int = 30
    launcher: str | None = None
    disks: int = 3
    seed: int = 0
    folder: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep of small jobs in a folder, and the commands that do it."""

    folder: Path
    jobs: int

    def axes(self) -> dict[str, list[str]]:
        return {"model.pool": ["max", "avg"], "seed": [str(seed) for seed in range((self.jobs + 1) // 2)]}

    def whole(self, *words: str) -> list[str]:
        """One command for all of it."""
        axes = [f"{key}={','.join(values)}" for key, values in self.axes().items()]
        return ["src.train", "-m", *axes, *JOB, NAMED, f"hydra.sweep.dir='{self.folder}'", *words]

    def singly(self, names: Sequence[str]) -> list[list[str]]:
        """A command a job, with the folders that the whole sweep would give them."""
        jobs = [[f"{key}={value}" for key, value in zip(self.axes(), one, strict=True)] for one in self.product()]
        return [
            ["src.train", *job, *JOB, f"hydra.run.dir='{self.folder / name}'"]
            for job, name in zip(jobs, names, strict=True)
        ]

    def product(self) -> list[tuple[str, ...]]:
        return list(product(*self.axes().values()))

    def names(self) -> list[str]:
        """Of the jobs' folders, once the sweep has begun."""
        names: list[str] = json.loads((self.folder / files.SWEEP).read_text())["jobs"]
        return names

    def runs(self) -> list[Path]:
        """The folders of the runs that have begun."""
        return [config.parent for config in sorted(self.folder.glob(f"*/{files.CONFIG}"))]


def start(words: Sequence[str], log: Path) -> ForkProcess:
    """``python -m`` in a process of its own, but for the imports, which take longer than a job; says it to the log."""
    process = FORK.Process(target=_command, args=(words, log))
    process.start()
    return process


def _command(words: Sequence[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = log.open("a", buffering=1)
    os.dup2(file.fileno(), 1)  # of what it starts
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    sys.argv = [*words]
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def family(process: ForkProcess) -> list[int]:
    """The process and all below it."""
    assert process.pid
    found = [process.pid]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


@dataclass
class Killer:
    """Starts what has to be done until it is done, and kills it at random moments, by every fault in turn.

    Whoever takes up a run is given a few seconds, drawn at random. So is one in five of the commands, whatever they are
    at then.

    Attributes:
        kills: after so many the rest is let live.
        longest: seconds that are given; of what the sweep takes, a share for each kill.
        injected: fault → how often.
    """

    sweep: Sweep
    kills: int
    chance: random.Random
    longest: float = 0
    injected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.log = self.sweep.folder.with_name(f"{self.sweep.folder.name}.log")
        self.ends: dict[tuple[int, Path | None], float] = {}  # (process, run it is at) → when it is killed
        self.touched: set[int] = set()
        self.patience = PATIENCE

    def until_done(self, commands: Sequence[Sequence[str]], parallel: int = 1) -> None:
        """Do all commands, so many at a time, each again until it ends well.

        Raises:
            RuntimeError: one ended badly that nobody had touched.
        """
        waiting, running = list(commands), list[tuple[Sequence[str], ForkProcess]]()
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    command = waiting.pop(0)
                    process = start(command, self.log)
                    running.append((command, process))
                    if self.chance.random() < 0.2:
                        self._give(process.pid or 0, None)
                time.sleep(0.02)
                for _, process in running:
                    self._perhaps_kill(process)
                for one in [one for one in running if one[1].exitcode is not None]:
                    running.remove(one)
                    if one[1].exitcode:
                        self._once_more(one[1])
                        waiting.insert(self.chance.randrange(len(waiting) + 1), one[0])
        finally:
            for _, process in running:
                process.kill()

    def _give(self, pid: int, run: Path | None) -> None:
        self.ends[pid, run] = time.monotonic() + self.chance.uniform(0, self.longest)

    def _once_more(self, process: ForkProcess) -> None:
        if process.pid not in self.touched:  # its jobs' processes may live on for a moment
            self.patience -= 1
            time.sleep(0.5)
            if not self.patience or not self.injected:
                raise RuntimeError(f"exit code {process.exitcode}, untouched:\n{self.log.read_text()[-3000:]}")

    def _perhaps_kill(self, process: ForkProcess) -> None:
        """The process or one below it, if its time has come."""
        pids = family(process)
        for run in self.sweep.runs():
            holder = re.match(r"process (\d+)", lock_holder(run) or "")
            if holder and (pid := int(holder[1])) in pids and (pid, run) not in self.ends and _trains(run):
                self._give(pid, run)
        due = [key for key, end in self.ends.items() if key[0] in pids and end < time.monotonic()]
        for pid, run in due:
            self.ends[pid, run] = float("inf")
            if self.injected.total() == self.kills or (run and not lock_holder(run)):
                continue
            fault = list(FAULTS)[self.injected.total() % len(FAULTS)]
            with suppress(ProcessLookupError):
                os.kill(pid, FAULTS[fault])
                self.touched.add(process.pid)
                if fault == TRUNCATED and not self._truncate():
                    fault = KILLED
                self.injected[fault] += 1

    def _truncate(self) -> bool:
        """Cut ``last.ckpt`` of every run that was interrupted; whether there was any."""
        time.sleep(0.2)  # for the kernel to take the process away
        idle = [run for run in self.sweep.runs() if not lock_holder(run) and not (run / files.RUN).exists()]
        kept = [last for run in idle if (last := run / files.CHECKPOINTS / files.LAST).exists()]
        for last in kept:
            os.truncate(last, last.stat().st_size // 2)
        return bool(kept)


def _trains(run: Path) -> bool:
    """Whether whoever is at work on a run has come to its training."""
    summarize = run / files.SHAPES
    return summarize.exists() and summarize.stat().st_mtime > (run / files.LOCK).stat().st_mtime


def contents(run: Path) -> dict[str, object]:
    """All numbers and pictures that a run left, but those of the clock."""
    kept: dict[str, object] = {files.HISTORY: timeless(run / files.HISTORY)}
    for path in (run / files.MEASURES, run / files.SHAPES, *sorted((run / files.MAPS).glob("*"))):
        kept[path.name] = path.read_bytes() if path.exists() else None
    return kept


def timeless(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV file without what the clock says, as text."""
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in files.read_rows(table)]


def lost(undisturbed: Path, disturbed: Path) -> list[str]:
    """Runs that did not end with the same numbers and pictures, and ``comparison.csv`` where that differs."""
    runs = [config.parent.name for config in sorted(undisturbed.glob(f"*/{files.CONFIG}"))]
    found = [name for name in runs if contents(undisturbed / name) != contents(disturbed / name)]
    same = timeless(undisturbed / files.COMPARISON) == timeless(disturbed / files.COMPARISON)
    return found + [files.COMPARISON] * (not same)


def fill(undisturbed: Sweep, folder: Path, sizes: Sequence[int]) -> tuple[int, list[str]]:
    """Do the sweep's first job on a disk of so many kB, then of enough; on a real one, in memory, which takes root.

    Returns:
        How often the disk was full, and what was lost.
    """
    name, full, gone = undisturbed.names()[0], 0, []
    for size in sizes:
        disk = folder / f"disk-{size}"
        disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
        try:
            sweep = Sweep(disk, undisturbed.jobs)
            command = sweep.singly(undisturbed.names())[0]
            process = start(command, folder / "disk.log")
            process.join()
            full += bool(process.exitcode)
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            Killer(sweep, 0, random.Random()).until_done([command])
            if contents(disk / name) != contents(undisturbed.folder / name):
                gone.append(str(disk))
        finally:
            subprocess.run(["umount", disk], check=True)
    return full, gone


def disturb(options: Options, folder: Path) -> tuple[Counter[str], list[str]]:
    """Do a sweep undisturbed, and again with kills.

    Returns:
        Fault → how often it was injected; and what was lost.
    """
    undisturbed, disturbed = (Sweep(folder / name, options.jobs) for name in ("undisturbed", "disturbed"))
    src.launch.sweep.plan(undisturbed.whole()[1:])  # what all processes need is read once, before they fork
    Killer(undisturbed, 0, random.Random()).until_done([undisturbed.whole()])
    # of the seconds of training alone: what comes before and after it may be quicker the next time
    seconds = sum(float(row["seconds"]) for run in undisturbed.runs() for row in files.read_rows(run / files.HISTORY))
    longest = seconds / max(options.kills, options.jobs)
    killer = Killer(disturbed, options.kills, random.Random(options.seed), longest)
    if options.launcher:
        killer.until_done([disturbed.whole(f"hydra/launcher={options.launcher}")])
    else:
        names = undisturbed.names()
        files.write(disturbed.folder / files.SWEEP, (undisturbed.folder / files.SWEEP).read_bytes())  # its order
        killer.until_done(disturbed.singly(names), options.parallel)
        killer.until_done([["src.report", f"runs={disturbed.folder}"]])
    gone = lost(undisturbed.folder, disturbed.folder)
    if options.disks and os.geteuid() == 0:
        killer.injected[FULL], more = fill(undisturbed, folder, DISKS[: options.disks])
        gone += more
    return killer.injected, gone


def main() -> None:
    """Do it, and print the table."""
    with cli_errors():
        options = from_command_line(Options, sys.argv[1:] or ["seed=0"], __doc__ or "")
    folder = Path(options.folder or tempfile.mkdtemp(prefix="faults-"))
    begin = time.monotonic()
    os.chdir(ROOT)
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    injected, gone = disturb(options, folder)
    how = f"launcher {options.launcher}" if options.launcher else f"{options.parallel} at a time"
    print(f"{options.jobs} jobs, {how}, {injected.total()} faults, {time.monotonic() - begin:.0f} s, in {folder}")
    for fault, times in injected.items():
        print(f"  {fault}: {times}")
    print(f"lost: {len(gone)} {' '.join(gone)}")
    raise SystemExit(bool(gone))


if __name__ == "__main__":
    main()
