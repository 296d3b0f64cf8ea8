"""From the command to its first training step, against the bare import of torch and lightning."""

import subprocess
import sys
import tempfile

FIRST_STEP = """
import os, runpy, sys
import src.data.batches as batches
inner = batches.Batches.__iter__
def stop(self):
    if self.seed is not None:  # the training batches
        os._exit(0)
    return inner(self)
batches.Batches.__iter__ = stop
sys.argv = ["src.train", "hydra.run.dir=" + sys.argv[1]]
runpy.run_module("src.train", run_name="__main__")
"""


def to_first_step() -> None:
    """``python -m src.train``, ended when the first batch is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", FIRST_STEP, f"{folder}/run"], check=True, stdout=subprocess.DEVNULL)


def imports() -> None:
    """``import torch, lightning`` (``src`` first: it makes torchvision importable on a CPU)."""
    subprocess.run([sys.executable, "-c", "import src, torch, lightning"], check=True)
