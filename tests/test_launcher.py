"""hydra/launcher=local for real, data-parallel runs beside single ones, and what is refused."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from src.common.errors import UserError
from src.launch import launchers
from src.launch.jobs import Job
from src.launch.launchers import gpu_ids, gpus_of
from src.launch.sweep import plan
from src.results import files
from src.results.identity import read_config
from src.results.runs import FinishedRun
from src.training.run import run
from tests.helpers import ROOT, tiny

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own

SHORT = (
    "data=shapes data.image_size=16 data.train_size=258 data.val_size=101 model.depth=2 model.width=4 "
    "train.batch_size=64 measure.what=[shift] measure.images=40 wandb.mode=disabled trainer.accelerator=cpu"
).split()


def begin(*words: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def history(folder: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in FinishedRun(folder, {}).history]


def test_two_ranks_learn_what_one_process_learns_also_within_a_sweep(tmp_path: Path) -> None:
    options = "hydra/launcher=local hydra.launcher.jobs=2 hydra.launcher.threads=1 trainer.strategy=ddp".split()
    told = begin("-m", *SHORT, *options, "trainer.devices=1,2", "train.epochs=2", f"hydra.sweep.dir={tmp_path}")
    printed, _ = told.communicate()
    assert told.returncode == 0, printed
    assert "started 2/2: trainer.devices=2" in printed, printed
    one, two = sorted(tmp_path.glob("data*"), key=lambda folder: "devices=2" in folder.name)
    for folder in (one, two):
        assert (folder / files.LOG).read_text().count("test accuracy") == 1, "one process tells, and writes"
        assert not (folder / files.PAGE).exists(), "it is on the sweep's page"
    for mine, other in zip(history(two), history(one), strict=True):
        assert mine["step"] == other["step"], "258 images are four batches of 64 and one of 2"
        for key in ("train/loss", "val/loss", "train/accuracy", "val/accuracy", "grad_norm", "grad_norm_max"):
            assert float(mine[key]) == pytest.approx(float(other[key]), rel=1e-4), key
    found, expected = (FinishedRun(folder, {}).measures for folder in (two, one))
    key = ("output", "crop", 1.0, "output_distance")
    assert found[key][0] == pytest.approx(expected[key][0], rel=1e-3)


def test_an_interrupted_sweep_leaves_no_process_and_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    epochs = 16
    words = [
        "-m",
        *SHORT,
        "hydra/launcher=local",
        "hydra.launcher.threads=1",
        "seed=0",
        f"train.epochs={epochs}",
        "probe.every=1000",
    ]
    first = begin(*words, f"hydra.sweep.dir={tmp_path}")
    (folder,) = plan([*words, f"hydra.sweep.dir={tmp_path}"]).jobs  # type: ignore[union-attr]
    job = Job("", (), folder, epochs)
    until = time.monotonic() + 60
    while len(files.read_rows(folder / files.HISTORY)) < 2:
        assert time.monotonic() < until and first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    printed, _ = first.communicate()
    assert first.returncode == 130, printed
    assert "the same command goes on" in printed
    assert not job.finished
    running = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert running.stdout == "", "a job outlived its sweep"
    before = len(files.read_rows(folder / files.HISTORY))
    assert 2 <= before < epochs
    again = begin(*words, f"hydra.sweep.dir={tmp_path}")
    printed, _ = again.communicate()
    assert again.returncode == 0, printed
    assert f"epoch 1/{epochs}" not in (folder / files.LOG).read_text().rpartition("$ ")[2], "it began anew"
    run(read_config(folder), tmp_path / "undisturbed")
    assert history(folder) == history(tmp_path / "undisturbed")
    assert (folder / files.MEASURES).read_bytes() == (tmp_path / "undisturbed" / files.MEASURES).read_bytes()


#: ``src.train``, whose first rank gets a SIGTERM at a method's first call; at its end it has something to do
TERMINATED = """
import os, signal, time
from src import train
from lightning.pytorch.strategies import DDPStrategy
from src.training.checkpoints import SaveCheckpoints
from src.reporting.wandb_logger import WandbLogger

def terminated(*given):
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return method(*given)

method = {place}
{place} = terminated
WandbLogger.finish = lambda *_: time.sleep(6)
train.main()
"""


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("DDPStrategy.setup_environment", -signal.SIGTERM),  # the other rank has just been started
        ("SaveCheckpoints.on_train_start", -signal.SIGTERM),  # Lightning had a handler of its own by then
        (
            "SaveCheckpoints.on_train_batch_end",
            128 + signal.SIGTERM,
        ),  # saved; Lightning looks every 5 s how the others ended
    ],
)
def test_a_rank_that_is_told_to_stop_leaves_no_other_behind(place: str, code: int, tmp_path: Path) -> None:
    script = tmp_path / "terminated.py"
    script.write_text(TERMINATED.format(place=place))
    words = [*SHORT, "trainer.devices=2", "trainer.strategy=ddp", f"hydra.run.dir={tmp_path / 'run'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (tmp_path / "told").open("w") as told:
        first = subprocess.Popen(
            [sys.executable, script, *words], env=environment, stdout=told, stderr=told, start_new_session=True
        )
    try:
        assert first.wait(120) == code, (tmp_path / "told").read_text()
        until = time.monotonic() + 120  # for the other to come to the point at which it notices
        while subprocess.run(["pgrep", "-f", str(script)], stdout=subprocess.DEVNULL, check=False).returncode == 0:
            assert time.monotonic() < until, "a rank waits for ever"
            time.sleep(0.2)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.devices=2"], r"^trainer\.devices=2, .*goes silently wrong; add hydra/launcher=local"),
        (["trainer.devices=1,2"], r"add hydra/launcher=local"),
        (["trainer.num_nodes=2"], r"add hydra/launcher=local, or hydra/launcher=slurm"),
        (["hydra/launcher=local", "trainer.num_nodes=2"], r"local has one machine; hydra/launcher=slurm has more"),
        (["hydra/launcher=local", "hydra.launcher.jobs=0"], r"hydra\.launcher\.jobs=0: must be a number of at least 1"),
        (["hydra/launcher=local", "hydra.launcher.jobs=two"], r"hydra\.launcher\.jobs: Value 'two'"),
        (["hydra/launcher=local", "hydra.launcher.job=2"], r"hydra\.launcher\.job: no such key; did you mean"),
        (["hydra/launcher=local", "hydra.launcher.gpus=9"], r"hydra\.launcher\.gpus=9: 2 are visible"),
        (["hydra/launcher=local", "trainer.devices=3"], r"trainer\.devices=3: a job takes 3 GPUs, and there are 2"),
        (["hydra/launcher=slurm"], r"there is no sbatch here; hydra/launcher=local"),
        (["hydra/launcher=slrum"], r"hydra/launcher=slrum: did you mean slurm"),
    ],
)
def test_what_would_go_wrong_is_refused_before_anything_starts(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(launchers.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=message) as caught:
        plan(["-m", "data=shapes", *words])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_slurm_takes_further_options_of_sbatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers.shutil, "which", lambda name: name)
    assert plan(["-m", "data=shapes", "hydra/launcher=slurm", "+hydra.launcher.extra.reservation=mine"]) is not None


def test_gpus_are_a_number_or_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert gpu_ids(None) == ["4", "5", "6"]
    assert gpu_ids(2) == ["4", "5"]
    assert gpu_ids(0) == []
    assert gpu_ids([1, "GPU-8f"]) == ["1", "GPU-8f"]


def test_a_job_takes_a_gpu_for_each_device_unless_told_otherwise() -> None:
    trainer = tiny(trainer={"devices": 4}).trainer
    assert [gpus_of(trainer, of) for of in (None, 1, 0)] == [4, 1, 0]
    assert gpus_of(tiny(trainer={"devices": 4, "accelerator": "cpu"}).trainer, None) == 0
