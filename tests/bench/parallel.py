"""What two jobs at a time give over one at a time, on two cores: jobs an hour."""

import subprocess
import sys
import tempfile
import time

JOBS = 4
SWEEP = (
    f"data=shapes data.train_size=6000 train.epochs=1 measure.what=[shift] wandb.mode=disabled seed=range({JOBS}) "
    "trainer.accelerator=cpu hydra/launcher=local"
).split()


def jobs(at_a_time: int) -> float:
    """Seconds of a sweep of ``JOBS`` jobs, from the command to its comparison."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"hydra.launcher.jobs={at_a_time}", f"hydra.sweep.dir={folder}/sweep"]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "src.train", "-m", *SWEEP, *options], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start


def one_at_a_time() -> float:
    """Each has all cores to itself."""
    return jobs(1)


def two_at_a_time() -> float:
    """Each has half of them."""
    return jobs(2)
