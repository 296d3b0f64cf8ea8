"""Finished runs as tables for analyses of one's own."""

import math
from pathlib import Path

import pytest
import torch

import src as whatwhere
from src.results import files
from src.results.frames import load_runs
from src.training.run import run
from tests.helpers import tiny
from tests.test_comparison import leave_run
from tests.test_outcomes import leave_diverged

SCORES = [("0.5", "1.0"), ("0.8", "0.9"), ("0.8", "0.2"), ("0.6", "")]  # validation accuracy and loss, by epoch


def leave_history(run: Path, task: str) -> None:
    """A run of four epochs."""
    leave_run(run, 0.9, 0.1, data={"name": "shapes", "task": task})
    rows = [
        {"epoch": epoch, "step": 10 * epoch, "train/loss": 1 / epoch, "val/loss": loss, "val/accuracy": accuracy,
         "val/r2": accuracy, "grad_norm": epoch, "seconds": 1.0}
        for epoch, (accuracy, loss) in enumerate(SCORES, 1)
    ]  # fmt: skip
    files.write_rows(run / files.HISTORY, rows)


@pytest.mark.parametrize(("task", "best"), [("what", 2), ("where", 2), ("both", 3)])
def test_the_last_and_the_best_epoch_are_columns(task: str, best: int, tmp_path: Path) -> None:
    """The best by accuracy or R², the first of equal ones; of both questions, by the loss."""
    leave_history(tmp_path / "run", task)
    (row,) = load_runs(tmp_path).to_dict("records")
    assert (row["last/epoch"], row["last/step"], row["last/grad_norm"], row["last/train/loss"]) == (4, 40, 4, 0.25)
    assert (row["last/val/accuracy"], math.isnan(row["last/val/loss"])) == (0.6, True)
    assert (row["best/epoch"], row["best/step"], row["best/grad_norm"]) == (best, 10 * best, best)


def test_every_run_has_its_outcome(tmp_path: Path) -> None:
    leave_run(tmp_path / "old", 0.9, 0.1)  # from before there were outcomes
    leave_diverged(tmp_path / "diverged", 3)
    found = whatwhere.load_runs(tmp_path)["outcome"]
    assert {Path(folder).name: outcome for folder, outcome in found.items()} == {
        "old": "trained",
        "diverged": "diverged",
    }


@pytest.mark.filterwarnings("default")  # Lightning's own
def test_of_a_real_run_they_are_those_that_were_kept(tmp_path: Path) -> None:
    noise = {"label_noise": 0.5, "label_noise_kind": "random"}
    run(tiny(data=noise, train={"epochs": 3}, measure={"what": []}), tmp_path / "run")
    (row,) = load_runs(tmp_path).to_dict("records")
    for name, which in (("best", "best"), ("last", "last")):
        saved = torch.load(tmp_path / "run" / files.CHECKPOINTS / f"{name}.ckpt", weights_only=True)
        assert (row[f"{which}/epoch"], row[f"{which}/step"]) == (saved["epoch"] + 1, saved["global_step"])
    assert 0.3 < row["realised_label_noise"] < 0.5, "half are drawn among 8 classes: 7 of 16 become wrong"
    assert row["last/grad_norm_max"] >= row["last/grad_norm"] > 0
    assert row["outcome"] in ("trained", "collapsed") and row["steps"] == row["last/step"] == 12
