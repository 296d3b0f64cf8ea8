"""Sweeps through the real sbatch: as they are, preempted, killed, packed, over two ranks; and what they end with."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from src import files
from src.config import ROOT
from src.run import run as train
from src.runs import FinishedRun, read_config
from tests.slurm.cluster import private_slurm, wait, why_not

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.filterwarnings("default"),
]

TINY = (
    "data=shapes data.image_size=16 data.train_size=256 data.val_size=100 model.depth=2 model.width=4 "
    "wandb.mode=disabled measure.what=[shift] measure.images=40"
).split()
SLURM = "hydra/launcher=slurm hydra.launcher.cpus=1 hydra.launcher.memory=0 hydra.launcher.poll=1".split()


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, private_slurm(Path(folder)) as environment:
        yield environment | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture
def sweep(slurm: dict[str, str]) -> Iterator[Callable[..., "Sweep"]]:
    begun: list[Sweep] = []

    def begin(folder: Path, *words: str) -> Sweep:
        begun.append(Sweep(folder, slurm, [*TINY, *SLURM, *words]))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.terminate()
        one.process.communicate()
    subprocess.run(["scancel", "--user=root"], env=slurm, check=True)


class Sweep:
    """``python -m src.train -m …``, begun."""

    def __init__(self, folder: Path, environment: dict[str, str], words: list[str]) -> None:
        self.folder, self.environment = folder, environment
        command = [sys.executable, "-m", "src.train", "-m", *words, f"hydra.sweep.dir={folder}"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def end(self, code: int = 0) -> str:
        """What it printed, once it is over."""
        told, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == code, told + self.logs()
        return told

    def logs(self) -> str:
        """What its jobs left, for whoever reads of a failed test."""
        paths = [*self.folder.glob("*/log.txt"), *self.folder.glob("slurm/*.err"), *self.folder.glob("slurm/*.out")]
        return "".join(f"\n--- {path.name}\n{path.read_text()[-2000:]}" for path in paths)

    def run(self, word: str) -> Path:
        """The folder of the one job with this word in its name."""
        (found,) = (one for one in self.folder.iterdir() if word in one.name)
        return found

    def epochs(self, word: str) -> int:
        """How many it has trained."""
        return sum(len(files.read_rows(one / files.HISTORY)) for one in self.folder.glob(f"*{word}*"))

    def compared(self) -> int:
        """How many variants have a result in its comparison."""
        return sum(row["test_accuracy"] != "" for row in files.read_rows(self.folder / files.COMPARISON))


def same_alone(run: Path, folder: Path) -> Path:
    """The run's config, undisturbed on one device in this process."""
    cfg = read_config(run)
    train(replace(cfg, trainer=replace(cfg.trainer, devices=1, strategy="auto")), folder)
    return folder


def numbers(run: Path) -> tuple[list[dict[str, str]], str]:
    """All that does not depend on the machine."""
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in FinishedRun(run, {}).history]
    return history, (run / files.MEASURES).read_text()


def ask(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_sweep_survives_preemption_and_a_killed_job(
    sweep: Callable[..., Sweep], slurm: dict[str, str], tmp_path: Path
) -> None:
    words = ["model.pool=max,avg,none", "train.epochs=60", "probe.every=1000", "hydra.launcher.array_size=2"]
    first = sweep(tmp_path / "sweep", *words)
    # two of the three have a place; then one of them is killed, and what runs has to make room
    wait("two jobs to train", lambda: sum(first.epochs(f"pool={pool}") > 1 for pool in ("max", "avg", "none")) > 1)
    running = ask(slurm, "squeue", "--noheader", "--states=running", "--format=%i").split()
    ask(slurm, "scancel", "--signal=KILL", "--full", running[0])
    ask(slurm, "sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 1")
    told = first.end(1)
    assert "1 of 3 jobs" in told, told
    assert "lost by SLURM" in told, told
    assert "Requeued job" in first.logs(), "or nothing was preempted"
    assert first.compared() == 2, "what is finished is compared all the same"
    again = sweep(first.folder, *words)
    assert "kept: 2 of 3" in again.end()
    assert first.compared() == 3
    for pool in ("max", "avg", "none"):
        run = first.run(f"pool={pool}")
        assert numbers(run) == numbers(same_alone(run, tmp_path / pool)), pool


def test_ranks_of_slurm_train_one_net_together(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    together = sweep(
        tmp_path / "ddp", "trainer.devices=2", "trainer.strategy=ddp", "hydra.launcher.gpus=0", "train.epochs=2"
    )
    together.end()
    run = together.run("data=shapes")
    losses = [
        [float(row[key]) for row in FinishedRun(one, {}).history for key in ("step", "train/loss", "val/loss")]
        for one in (run, same_alone(run, tmp_path / "alone"))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_several_jobs_share_an_allocation_each_with_its_gpu(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    options = {"jobs_per_allocation": 2, "jobs_at_once": 2, "setup": "[echo the allocation]"}
    words = [f"hydra.launcher.{key}={value}" for key, value in options.items()]
    packed = sweep(tmp_path / "packed", "model.pool=max,avg", "train.epochs=1", "trainer.accelerator=auto", *words)
    packed.end()
    assert packed.logs().count("the allocation") == 1
    logs = [path.read_text().splitlines()[0] for path in packed.folder.glob(f"*/{files.LOG}")]
    assert sorted(line.split()[1] for line in logs) == [f"CUDA_VISIBLE_DEVICES={i}" for i in range(2)]
