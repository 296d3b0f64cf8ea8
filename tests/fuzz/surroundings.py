"""Odd surroundings: real processes of small runs, whose environment, output or signals are not what they expect."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from src.results import files
from tests.fuzz.cases import Case
from tests.helpers import ROOT

RUN = (
    "data=shapes data.image_size=16 data.train_size=256 data.val_size=100 model.depth=2 model.width=4 "
    "measure.what=[shift] measure.images=40 measure.max_shift=1 train.batch_size=64 wandb.mode=disabled "
    "probe.images=2 trainer.accelerator=cpu"
)
ALLOCATION = "SLURM_JOB_ID=3 SLURM_NTASKS=4 SLURM_PROCID=1 SLURM_LOCALID=1 SLURM_JOB_NAME=mine SLURM_NODELIST=node1"
#: shell commands that end well: name → command, of which {train} and {report} are a small run, and its comparison
FINISHED = {
    "ranks of another program": "env RANK=1 LOCAL_RANK=1 WORLD_SIZE=4 {train}",
    "an interactive allocation": f"env {ALLOCATION} {{train}}",
    "ASCII, 40 columns": "env PYTHONIOENCODING=ascii COLUMNS=40 {train}",
    "no columns": "env COLUMNS=0 {train}",
    "a key and an address that W&B cannot use": "env WANDB_API_KEY=abc WANDB_BASE_URL=zzz {train} wandb.mode=auto",
    "Latin-1": "env PYTHONIOENCODING=latin-1 LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {train}",
    "standard output is full": "{train} > /dev/full",
    "a closed pipe": "{train} | head -1",
    "no output at all": "{train} >&- 2>&-",
    "a comparison: ASCII": "{train} > /dev/null && env PYTHONIOENCODING=ascii COLUMNS=40 {report}",
    "a comparison: standard output is full": "{train} > /dev/null && {report} > /dev/full",
    "a comparison: a closed pipe": "{train} > /dev/null && {report} | head -1",
}
#: seconds that a case may take, of which a busy machine takes most
LIMIT = 240
#: most seconds between the start of a command and Ctrl-C, and to the next one
BEFORE, BETWEEN = 14, 2
COMMANDS = {
    "a run": f"{RUN} train.epochs=40",
    "a sweep": f"-m seed=0,1 {RUN} train.epochs=20",
    "two at a time": f"-m seed=0,1,2 hydra/launcher=local hydra.launcher.threads=1 {RUN} train.epochs=20",
}


def cases() -> Iterator[Case]:
    """Every surrounding, Ctrl-C twice at random moments of every kind of command, and a rank that is killed."""
    for name, command in FINISHED.items():
        yield Case("surroundings", name, partial(finishes, command), writes=True, limit=LIMIT)
    for seed in range(12):
        for name, words in COMMANDS.items():
            yield Case(
                "surroundings",
                f"Ctrl-C twice: {name}, {seed}",
                partial(interrupted, words, seed),
                writes=True,
                limit=LIMIT,
            )
    yield Case("surroundings", "a rank is killed", loses_a_rank, writes=True, limit=LIMIT)


def finishes(command: str) -> None:
    """The command ends well, says at most one line on standard error, and leaves a finished run."""
    folder = Path("run")
    subprocess.run(["rm", "-rf", folder], check=True)
    python = f"env PYTHONPATH={ROOT} {sys.executable} -m"
    train, report = f"{python} src.train {RUN} hydra.run.dir={folder}", f"{python} src.report runs={folder}"
    done = subprocess.run(
        ["bash", "-c", command.format(train=train, report=report)],
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert len(done.stderr.splitlines()) <= 1, done.stderr[:500]
    assert (folder / files.RUN).exists(), done.stderr


def _begin(words: str, error: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with error.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "src.train", *words.split()], env=environment, stdout=subprocess.DEVNULL,
            stderr=stream, start_new_session=True, preexec_fn=_interruptible,  # noqa: PLW1509 (one system call)
        )  # fmt: skip


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(words: str, seed: int) -> None:
    """Interrupted twice at random moments, the command ends soon, as by Ctrl-C, with at most one line."""
    chance, error = random.Random(f"{words} {seed}"), Path("error.txt")
    place = "hydra.sweep.dir=sweep" if words.startswith("-m") else "hydra.run.dir=alone"  # neither takes the other's
    process = _begin(f"{words} {place}", error)
    try:
        for most in (BEFORE, BETWEEN):
            time.sleep(chance.uniform(0.2, most))  # until Python has started
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        code = process.wait(120)
    finally:
        process.kill()
    said = error.read_text(encoding="utf-8")
    assert code in (0, 130, -signal.SIGINT), f"exit code {code}: {said[-500:]}"
    assert len(said.splitlines()) <= 1, said[-1500:]


def loses_a_rank() -> None:
    """The other rank ends soon, with one line that says so."""
    error = Path("error.txt")
    process = _begin(f"{RUN} train.epochs=1000 trainer.devices=2 trainer.strategy=ddp hydra.run.dir=ranks", error)
    try:
        until = time.monotonic() + 150
        while not files.read_rows(Path("ranks") / files.HISTORY) and time.monotonic() < until:
            time.sleep(0.2)
        (rank,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        os.kill(int(rank), signal.SIGKILL)
        code = process.wait(8)
    finally:
        process.kill()
    said = error.read_text(encoding="utf-8")
    assert code == 1 and "rank 1 was lost (SIGKILL)" in said, f"exit code {code}: {said[-500:]}"
    assert len(said.splitlines()) == 1, said[:1000]
