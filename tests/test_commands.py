"""The commands of the README, run as a user runs them, on data that need no files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.reporting.wandb_logger import shorten_name
from src.results import files
from tests.helpers import ROOT, Command, wandb_records

TINY = (
    "data=shapes data.image_size=16 data.train_size=256 data.val_size=100 model.depth=2 model.width=4 train.epochs=1 "
    "train.batch_size=64 measure.images=40 measure.max_shift=2 probe.images=2 probe.channels=4 wandb.mode=disabled"
).split()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "pools, of = all"
    done = command("src.train", "-m", "model.pool=max,avg,none", *TINY, f"hydra.sweep.dir='{folder}'")
    assert done.returncode == 0, done.stderr
    for text in ("epoch 1/1", "stage1.pool", "pool=none", str(folder / files.PAGE)):
        assert text in done.stdout
    return folder


def test_a_sweep_ends_with_a_comparison_and_a_page(sweep: Path) -> None:
    rows = files.read_rows(sweep / files.COMPARISON)
    assert [row["variant"] for row in rows] == ["pool=max", "pool=avg", "pool=none"]
    assert float(rows[2]["multiply_adds"]) < float(rows[0]["multiply_adds"])
    page = (sweep / files.PAGE).read_text()
    atlas = json.loads(re.findall(r'id="maps-data">(.*?)</script>', page)[0])
    assert [net["name"] for net in atlas["nets"]] == ["pool=max", "pool=avg", "pool=none"]
    for net in atlas["nets"]:
        kept = {stage: sorted(one["epochs"]) for stage, one in net["stages"].items()}
        assert kept == {"stage1": ["0", "1"], "stage2": ["0", "1"]}
        assert net["analysis"]["stages"].keys() == net["stages"].keys()


def test_the_same_command_keeps_what_is_finished(sweep: Path) -> None:
    before = [path.stat().st_mtime_ns for path in sorted(sweep.glob(f"*/{files.RUN}"))]
    done = command("src.train", "-m", "model.pool=max,avg,none", *TINY, f"hydra.sweep.dir='{sweep}'")
    assert done.returncode == 0
    assert done.stdout.count("finished before, kept") == 3
    assert [path.stat().st_mtime_ns for path in sorted(sweep.glob(f"*/{files.RUN}"))] == before


def test_a_checkpoint_is_measured_again_to_the_same_numbers(sweep: Path, tmp_path: Path) -> None:
    run = next(sweep.glob("*avg*"))
    again = tmp_path / "again.csv"
    done = command("src.measure", f"checkpoint={run / 'checkpoints/best.ckpt'}", f"out={again}", "wandb.mode=offline")
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == (run / files.MEASURES).read_bytes()
    started = next(record["run"] for record in wandb_records(tmp_path) if record["type"] == "run")
    assert (started["display_name"], started["run_group"]) == (shorten_name(run.name), "measure")
    assert started["config"]["update"]["model"]["pool"] == "avg"


def test_two_runs_are_held_against_each_other(sweep: Path, tmp_path: Path, in_process: Command) -> None:
    one, other = (next(sweep.glob(f"*{pool}*")) / "checkpoints/best.ckpt" for pool in ("avg", "max"))
    out = tmp_path / "alike.csv"
    done = in_process("src.measure", f"checkpoint={one}", f"against={other}", f"out={out}")
    assert done.returncode == 0, done.stderr
    found = {row["measure"]: row for row in files.read_rows(out)}
    assert set(found) == {"cka_against", "cka_against_untrained"}
    assert "Similarity of layers of two nets (CKA)" in out.with_suffix(".html").read_text()


def test_a_report_is_built_again(sweep: Path, tmp_path: Path, in_process: Command) -> None:
    done = in_process("src.report", f"runs={sweep}", f"out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / files.COMPARISON).read_bytes() == (sweep / files.COMPARISON).read_bytes()


def test_shapes_prints_the_ledger_without_lightning_or_data() -> None:
    script = "import sys, runpy; sys.argv = ['src.shapes', 'model.depth=4', 'model.pool=blur']; "
    script += "runpy.run_module('src.shapes', run_name='__main__'); "
    script += "print([m for m in ('lightning', 'torchmetrics', 'torchvision', 'wandb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "stage4.pool" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["src.train", "model.pool=avgg"], "model.pool=avgg: did you mean avg? choose one of none, max"),
        (["src.measure", "checkpoint=x", "against=y", "what=shift"], "leave out net= and what="),
        (["src.report", "runs=src"], "runs=src: no finished run in it"),
        (["src.shapes", "model.dept=3"], "did you mean model.depth?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], message: str) -> None:
    is_one_line(command(*words), message)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("checkpoint=nothing.ckpt", "checkpoint=nothing.ckpt: no such file"),
        ("checkpoint=README.md", "cannot be read as a checkpoint"),
        ("check=x", "valid here: checkpoint"),
    ],
)
def test_bad_input_to_measure_is_one_line(word: str, message: str, in_process: Command) -> None:
    is_one_line(in_process("src.measure", word), message)


def is_one_line(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_checkpoint_of_another_architecture_is_refused(sweep: Path, tmp_path: Path, in_process: Command) -> None:
    tree = torch.load(next(sweep.glob("*avg*")) / "checkpoints/best.ckpt", weights_only=True)
    tree["config"]["model"]["name"] = "resnet"
    torch.save(tree, tmp_path / "other.ckpt")
    done = in_process("src.measure", f"checkpoint={tmp_path / 'other.ckpt'}")
    assert done.returncode == 2
    assert "does not hold the weights of its own config, a resnet" in done.stderr
    torch.save({"state_dict": tree["state_dict"]}, tmp_path / "foreign.ckpt")
    done = in_process("src.measure", f"checkpoint={tmp_path / 'foreign.ckpt'}")
    assert done.returncode == 2
    assert "holds no config" in done.stderr
