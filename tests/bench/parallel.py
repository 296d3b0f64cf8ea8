"""What two jobs at a time give over one process that runs them one after the other, on two cores: jobs an hour."""

import subprocess
import sys
import tempfile
import time

JOBS = 12
SWEEP = (
    f"model.width=8 data.train_size=3000 train.epochs=1 measure.what=[shift] seed=range({JOBS}) trainer.accelerator=cpu"
).split()


def jobs(*options: str) -> float:
    """Seconds of a sweep of ``JOBS`` jobs, from the command to its comparison."""
    with tempfile.TemporaryDirectory() as folder:
        options = (*options, f"hydra.sweep.dir={folder}/sweep")
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "src.train", "-m", *SWEEP, *options], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start


def in_one_process() -> float:
    """Each has all cores to itself."""
    return jobs("hydra/launcher=basic")


def two_at_a_time() -> float:
    """Each has half of them, and is a process of its own."""
    return jobs("hydra/launcher=local", "hydra.launcher.jobs=2")
