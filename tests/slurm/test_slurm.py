"""Sweeps through the real sbatch, with all that takes a job from its machine; and what they end with."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from src.results import files
from src.results.identity import read_config
from src.results.runs import FinishedRun
from src.training.run import run as train
from tests.helpers import ROOT
from tests.slurm.cluster import NODES, Cluster, private_slurm, processes, wait, why_not

pytestmark = [pytest.mark.skipif(why_not() is not None, reason=str(why_not())), pytest.mark.filterwarnings("default")]

TINY = (
    "data=shapes data.image_size=16 data.train_size=256 data.val_size=100 model.depth=2 model.width=4 "
    "wandb.mode=disabled measure.what=[shift] measure.images=40"
).split()
SLURM = "hydra/launcher=slurm hydra.launcher.cpus=1 hydra.launcher.memory=0 hydra.launcher.poll=1".split()
#: a sweep to be disturbed
POOLS = ("max", "avg", "none")
THREE = [f"model.pool={','.join(POOLS)}", "train.epochs=60", "probe.every=1000"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, private_slurm(Path(folder)) as slurm:
        yield slurm


@pytest.fixture
def sweep(cluster: Cluster) -> Iterator[Callable[..., "Sweep"]]:
    begun: list[Sweep] = []

    def begin(folder: Path, *words: str) -> Sweep:
        begun.append(Sweep(folder, cluster, [*TINY, *SLURM, *words]))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.communicate()
    cluster.ask("scancel", "--user=root")
    for pid in [pid for one in begun for pid in one.processes(str(one.folder))]:  # of a test that failed
        os.kill(pid, signal.SIGKILL)


class Sweep:
    """``python -m src.train -m …``, begun."""

    def __init__(self, folder: Path, cluster: Cluster, words: list[str]) -> None:
        self.folder, self.cluster = folder, cluster
        self.process = subprocess.Popen(
            [sys.executable, "-m", "src.train", "-m", *words, f"hydra.sweep.dir={folder}"],
            cwd=ROOT,
            env=cluster.environment | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, what: str, done: Callable[[], bool]) -> None:
        """Until its jobs have come to it."""
        wait(what, lambda: self.process.poll() is not None or done())
        if self.process.poll() is not None:
            self.end(-1)

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
        (found,) = (path for path in self.folder.iterdir() if word in path.name)
        return found

    def log(self, word: str) -> str:
        """What that job printed."""
        return (self.run(word) / files.LOG).read_text()

    def epochs(self, word: str) -> int:
        """How many it has trained."""
        return sum(len(files.read_rows(path / files.HISTORY)) for path in self.folder.glob(f"*{word}*"))

    def ranks(self, word: str) -> list["Rank"]:
        """The processes that train the one job with this word in its name."""
        runs = [str(path) for path in self.folder.glob(f"*{word}*")]
        pids = [pid for run in runs for pid in self.processes(run) if os.getsid(pid) == pid]  # not what they start
        return sorted(map(Rank, pids), key=lambda one: one.number)

    def processes(self, word: str) -> list[int]:
        """Those with this word in their command line."""
        return [pid for pid, words in processes("cmdline") if any(word in one for one in words)]

    def compared(self) -> int:
        """How many variants have a result in its comparison."""
        return sum(row["test_accuracy"] != "" for row in files.read_rows(self.folder / files.COMPARISON))


class Rank:
    """A process that trains, in an allocation."""

    def __init__(self, pid: int) -> None:
        environment = (part.partition("=") for part in Path(f"/proc/{pid}/environ").read_text().split("\0"))
        given = {key: value for key, _, value in environment}
        self.pid, self.number, self.node = pid, int(given["SLURM_PROCID"]), given["SLURMD_NODENAME"]
        self.job = f"{given.get('SLURM_ARRAY_JOB_ID')}_{given.get('SLURM_ARRAY_TASK_ID')}"

    def kill(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def has_pending(self, signum: signal.Signals) -> bool:
        """Whether it has got a signal that it, being stopped, has not seen."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return bool(int(status.partition("ShdPnd:")[2].split()[0], 16) >> (signum - 1) & 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """A run's config, on one device in this process; where two tests have the same run, once."""
    folder, done = tmp_path_factory.mktemp("undisturbed"), dict[str, Path]()

    def alone(run: Path) -> Path:
        if run.name not in done:
            cfg = read_config(run)
            done[run.name] = folder / str(len(done))
            train(replace(cfg, trainer=replace(cfg.trainer, devices=1, num_nodes=1, strategy="auto")), done[run.name])
        return done[run.name]

    return alone


def numbers(run: Path) -> tuple[list[dict[str, str]], str]:
    """All that does not depend on the machine."""
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in FinishedRun(run, {}).history]
    return history, (run / files.MEASURES).read_text()


def test_a_sweep_survives_preemption_a_killed_job_and_an_interruption(
    sweep: Callable[..., Sweep], cluster: Cluster, undisturbed: Callable[[Path], Path], tmp_path: Path
) -> None:
    words = [*THREE, "hydra.launcher.array_size=2", f"+hydra.launcher.extra.nodelist={NODES[0]}"]
    first = sweep(tmp_path / "sweep", *words)
    # two of the three have a place; then one of them is killed, and what runs has to make room
    first.wait("two jobs to train", lambda: sum(first.epochs(f"pool={pool}") > 1 for pool in POOLS) > 1)
    running = cluster.ask("squeue", "--noheader", "--states=running", "--format=%i").split()
    cluster.ask("scancel", "--signal=KILL", "--full", running[0])
    urgent = f"--partition=urgent --nodelist={NODES[0]} --cpus-per-task=2 --output=/dev/null --wrap=true".split()
    cluster.ask("sbatch", *urgent)
    told = first.end(1)
    assert "1 of 3 jobs" in told, told
    assert "lost by SLURM" in told, told
    assert "stopped by SIG" in first.logs(), "or nothing was preempted"
    assert first.compared() == 2, "what is finished is compared all the same"

    again = sweep(first.folder, *words)
    (killed,) = (pool for pool in POOLS if not (first.run(f"pool={pool}") / files.RUN).exists())
    before = first.epochs(f"pool={killed}")
    again.wait("the killed one to train", lambda: first.epochs(f"pool={killed}") > before)
    again.process.terminate()  # as Ctrl-C, which a shell keeps from what it runs in the background
    assert "the same command goes on" in again.end(130)
    assert cluster.ask("squeue", "--noheader") == ""
    assert first.log(f"pool={killed}").splitlines()[-1].startswith("stopped by SIGTERM"), "it has saved"

    assert "kept: 2 of 3" in sweep(first.folder, *words).end()
    assert first.compared() == 3
    for pool in POOLS:
        run = first.run(f"pool={pool}")
        assert numbers(run) == numbers(undisturbed(run)), pool


def test_a_sweep_survives_the_end_of_its_time_a_requeue_a_lost_node_and_its_own_command(
    sweep: Callable[..., Sweep], cluster: Cluster, undisturbed: Callable[[Path], Path], tmp_path: Path
) -> None:
    words = [*THREE, "hydra.launcher.time=2", "hydra.launcher.grace=10"]
    first = sweep(tmp_path / "sweep", *words)
    first.wait("all to begin", lambda: all(first.ranks(f"pool={pool}") for pool in POOLS))
    ranks = {pool: first.ranks(f"pool={pool}")[0] for pool in POOLS}
    nodes = [rank.node for rank in ranks.values()]
    slow, requeued, lost = sorted(POOLS, key=lambda pool: nodes.count(ranks[pool].node), reverse=True)
    faults: dict[str, Callable[[], object]] = {
        slow: lambda: ranks[slow].kill(signal.SIGSTOP),
        requeued: lambda: cluster.ask("scontrol", "requeue", ranks[requeued].job),
        lost: lambda: cluster.lose(ranks[lost].node),
    }

    def struck() -> bool:
        for pool in [pool for pool in faults if first.epochs(f"pool={pool}") > 1]:
            faults.pop(pool)()
        return not faults

    try:
        first.wait("all to train", struck)
        first.process.kill()
        again = sweep(first.folder, *words)
        again.wait("the end of its time", lambda: ranks[slow].has_pending(signal.SIGUSR2))
        ranks[slow].kill(signal.SIGCONT)
        assert "still in SLURM's queue: 3 jobs" in again.end()
    finally:
        cluster.find(ranks[lost].node)
    assert len(list(first.folder.glob("slurm/*_submission.sh"))) == 1
    assert "stopped by SIGUSR2" in first.log(f"pool={slow}")
    assert "stopped by SIGTERM" in first.log(f"pool={requeued}")
    assert first.compared() == 3
    for pool in POOLS:
        told = cluster.ask("scontrol", "--oneliner", "show", "job", ranks[pool].job)
        assert "Restarts=0" not in told, pool
        assert first.log(f"pool={pool}").count("epoch 1/") == 1, "it went on, and did not begin anew"
        run = first.run(f"pool={pool}")
        assert numbers(run) == numbers(undisturbed(run)), pool


def losses(run: Path) -> list[float]:
    return [float(row[key]) for row in FinishedRun(run, {}).history for key in ("step", "train/loss", "val/loss")]


TOGETHER = "trainer.strategy=ddp hydra.launcher.gpus=0 train.epochs=2".split()


def test_ranks_of_slurm_train_one_net_together(
    sweep: Callable[..., Sweep], undisturbed: Callable[[Path], Path], tmp_path: Path
) -> None:
    together = sweep(tmp_path / "ddp", *TOGETHER, "trainer.devices=2")
    together.end()
    run = together.run("data=shapes")
    assert losses(run) == pytest.approx(losses(undisturbed(run)), rel=1e-4)


def test_two_nodes_train_one_net_and_none_waits_for_one_that_is_gone(
    sweep: Callable[..., Sweep], undisturbed: Callable[[Path], Path], tmp_path: Path
) -> None:
    words = [*TOGETHER, "trainer.num_nodes=2"]
    first = sweep(tmp_path / "ddp", *words)
    first.wait("both ranks to begin", lambda: len(first.ranks("data=shapes")) == 2)
    ranks = first.ranks("data=shapes")
    assert ranks[0].node != ranks[1].node
    ranks[1].kill(signal.SIGKILL)
    told = first.end(1)
    assert "ended by SIGKILL" in told, told
    sweep(first.folder, *words).end()
    run = first.run("data=shapes")
    assert first.log("data=shapes").count("test accuracy") == 1, "one of them tells, and writes"
    assert losses(run) == pytest.approx(losses(undisturbed(run)), rel=1e-4)


def test_several_jobs_share_an_allocation_each_with_its_gpu_also_when_told_to_stop_at_once(
    sweep: Callable[..., Sweep], cluster: Cluster, tmp_path: Path
) -> None:
    options = {"jobs_per_allocation": 2, "jobs_at_once": 2, "setup": "[echo the allocation]"}
    words = [f"hydra.launcher.{key}={value}" for key, value in options.items()]
    packed = sweep(tmp_path / "packed", "model.pool=max,avg", "train.epochs=1", "trainer.accelerator=auto", *words)

    def submitted() -> set[str]:
        return {path.name.partition("_")[0] for path in packed.folder.glob("slurm/*_submitted.pkl")}

    def started() -> bool:
        """A step of this job: on a busy machine those of an earlier test are listed a while after its end."""
        steps = cluster.ask("squeue", "--noheader", "--steps", "--format=%i %j").splitlines()
        return any(step.split(".")[0].strip() in submitted() and "python" in step for step in steps)

    packed.wait("SLURM to start it", started)
    cluster.ask("scancel", "--signal=USR2", *submitted())
    packed.end()
    assert packed.logs().count("the allocation") == 2
    logs = [path.read_text().splitlines()[0] for path in packed.folder.glob(f"*/{files.LOG}")]
    assert sorted(line.split()[1] for line in logs) == [f"CUDA_VISIBLE_DEVICES={i}" for i in range(2)]
