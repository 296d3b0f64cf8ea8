"""How a training ended: a run that diverged or collapsed is finished, and takes nothing of its sweep away."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from src.common.errors import Interrupted
from src.config import Config
from src.data.splits import split
from src.metrics.rows import Estimate, Row
from src.reporting.comparison import group_into_variants
from src.reporting.page import build_report
from src.reporting.plots import training_curves
from src.reporting.tables import comparison_rows, shown_columns, shown_rows
from src.reporting.terminal import console
from src.reporting.variant import Variant
from src.results import files
from src.results.identity import settings_of
from src.results.measures import write_measures
from src.results.outcomes import COLLAPSED, DIVERGED, TRAINED, outcome_of
from src.results.runs import FinishedRun, find_runs
from src.training.evaluate_run import measure
from src.training.lightning_module import Training
from src.training.run import run
from src.training.untrained import untrained
from tests.helpers import tiny
from tests.test_comparison import leave_run

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own
DIVERGES: dict[str, Any] = {"train": {"lr": 1e30, "optimizer": "sgd"}, "model": {"norm": "none"}}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one a training step."""
    done: list[int] = []
    step = Training.training_step

    def stepped(self: Training, batch: Any, index: int) -> torch.Tensor:
        done.append(index)
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", stepped)
    return done


# --- diverged --------------------------------------------------------------------------------------------------------


def test_a_training_that_diverges_ends_there_and_is_finished(tmp_path: Path, steps: list[int]) -> None:
    cfg = tiny(**DIVERGES)
    with console.capture() as said:
        run(cfg, tmp_path)
    assert "diverged in epoch 1: weights or the validation loss were infinite or nan" in said.get()
    assert steps == [0, 1, 2, 3], "one epoch of two"
    done = FinishedRun(tmp_path, settings_of(tmp_path))
    assert (done.outcome, done.facts["diverged_in_epoch"]) == (DIVERGED, 1)
    assert done.results == [] and len(done.history) == 1
    (tmp_path / files.RUN).unlink()  # killed before it was finished: it goes on, and trains no more
    run(cfg, tmp_path)
    assert len(steps) == 4 and FinishedRun(tmp_path, {}).facts["diverged_in_epoch"] == 1
    run(cfg, tmp_path)
    assert len(steps) == 4, "finished, so not tried again"


def test_an_infinite_validation_loss_is_divergence_though_weights_are_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Training.validation_step

    def infinite(self: Training, batch: Any, index: int) -> None:
        validate(self, batch, index)
        if self.current_epoch == 1:
            self._val_loss.update(math.inf, 1)

    monkeypatch.setattr(Training, "validation_step", infinite)
    run(tiny(train={"epochs": 4}), tmp_path)
    done = FinishedRun(tmp_path, settings_of(tmp_path))
    assert done.failure == "diverged in epoch 2" and len(done.history) == 2
    figure = training_curves(group_into_variants([done]))
    lines = {line.line.dash: line.y for line in figure.data if line.xaxis == "x"}
    assert lines["solid"][1] is None and lines["solid"][0] > 0, "a gap"
    assert all(value > 0 for value in lines["dot"])
    json.loads(figure.to_json())


def test_a_sweep_with_a_run_that_diverges_ends_with_its_comparison(tmp_path: Path) -> None:
    words = "data=shapes data.image_size=16 data.train_size=256 data.val_size=100 model.depth=2 model.width=4 "
    words += "model.convs=1 train.batch_size=64 train.epochs=1 train.optimizer=sgd train.lr=0.1,1e12 "
    words += "measure.what=[shift] measure.images=40 measure.max_shift=2 wandb.mode=disabled"
    command = [sys.executable, "-m", "src.train", "-m", *words.split(), f"hydra.sweep.dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ends = [line for line in done.stdout.splitlines() if "diverged in epoch 1: " in line and "train.lr=1" in line]
    assert len(ends) == 1
    rows = files.read_rows(tmp_path / files.COMPARISON)
    assert [(row["seeds"], row["diverged"], row["test_accuracy"] != "") for row in rows] == [
        ("1", "0", True),
        ("1", "1", False),
    ]
    assert [row["outcome"] == DIVERGED for row in files.read_rows(tmp_path / files.RUNS)] == [False, True]
    assert "Training failed" in (tmp_path / files.PAGE).read_text()


def leave_diverged(folder: Path, epoch: int, **settings: object) -> None:
    """One that diverged, as it lies on disk."""
    leave_run(folder, 0.5, 0.5, **settings)
    write_measures(folder / files.MEASURES, [])
    row = {"epoch": 1, "step": 10, "train/loss": 3.0, "val/loss": math.inf, "train/accuracy": 0.5, "seconds": 1.0}
    files.write_rows(folder / files.HISTORY, [row])
    facts = json.loads((folder / files.RUN).read_text())
    told = {"outcome": DIVERGED, "diverged_in_epoch": epoch, "seconds": 0.5}
    files.write_json(folder / files.RUN, facts | told)


@pytest.mark.parametrize("first", [True, False], ids=["first seed", "last seed"])
def test_means_are_over_the_seeds_that_did_not_diverge(tmp_path: Path, first: bool) -> None:
    seeds = [1, 2, 3] if first else [0, 1, 2]
    for seed, accuracy in zip(seeds, (0.90, 0.92, 0.94), strict=True):
        leave_run(tmp_path / f"max{seed}", accuracy, 0.2, seed=seed)
        leave_run(tmp_path / f"avg{seed}", accuracy - 0.1, 0.1, seed=seed, model={"pool": "avg"})
    gone = ({0, 1, 2, 3} - {*seeds}).pop()
    leave_diverged(tmp_path / f"max{gone}", 3, seed=gone)
    with console.capture() as said:
        page = build_report(tmp_path).read_text()
    found = {variant.name: variant for variant in group_into_variants(find_runs(tmp_path)[0])}
    rows = {row["variant"]: row for row in comparison_rows(list(found.values()))}
    assert rows["pool=max"]["test_accuracy"] == pytest.approx(0.92)
    assert rows["pool=max"]["test_accuracy_sd"] == pytest.approx(0.02)
    assert rows["pool=max"]["seconds"] == 3.0
    assert (rows["pool=max"]["seeds"], rows["pool=max"]["diverged"], rows["pool=avg"]["diverged"]) == (4, 1, 0)
    shown = {row["variant"]: row for row in shown_rows(list(found.values()))}
    assert shown["pool=max"]["diverged"] == "1 of 4" and shown["pool=max"]["test_accuracy"] == "0.920 ± 0.050"
    assert "collapsed" not in shown_columns(list(found.values())), "none did"
    assert f"diverged in epoch 3: max{gone}" in said.get() and f"max{gone}: diverged in epoch 3" in page
    differences = {row["measure"]: row for row in files.read_rows(tmp_path / files.DIFFERENCES)}
    assert differences["test_accuracy"]["pairs"] == "3"
    assert abs(float(differences["test_accuracy"]["difference"])) == pytest.approx(0.1)


def test_a_sweep_of_which_every_run_diverged_has_its_page(tmp_path: Path) -> None:
    for pool in ("max", "avg"):
        for seed in (0, 1):
            leave_diverged(tmp_path / f"{pool}{seed}", 1, seed=seed, model={"pool": pool})
    assert build_report(tmp_path).exists()
    assert [row["diverged"] for row in files.read_rows(tmp_path / files.COMPARISON)] == ["2", "2"]


# --- collapsed -------------------------------------------------------------------------------------------------------

#: of 100 test images 40 have the first class: who always answers it is right for these
LABELS = torch.tensor([0] * 40 + [1] * 30 + [2] * 30)


def score(measure: str, value: float, low: float, part: str = "test") -> Row:
    return Row("output", "none", part, 0, measure, Estimate(value, low, value + 0.1, 100))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([score("accuracy", 0.40, 0.31)], COLLAPSED),
        ([score("accuracy", 0.45, 0.36)], COLLAPSED),
        ([score("accuracy", 0.10, 0.05)], COLLAPSED),
        ([score("accuracy", math.nan, math.nan)], COLLAPSED),
        ([score("accuracy", 0.60, 0.50)], TRAINED),
        ([score("accuracy", 0.60, 0.50, "train"), score("accuracy", 0.4, 0.31)], COLLAPSED),
        ([score("r2", 0.02, -0.1)], COLLAPSED),
        ([score("r2", 0.2, 0.1)], TRAINED),
        ([score("accuracy", 0.4, 0.31), score("r2", 0.2, 0.1)], TRAINED),
        ([score("accuracy", 0.4, 0.31), score("r2", -0.2, -0.3)], COLLAPSED),
    ],
)
def test_a_run_has_collapsed_if_no_score_is_better_than_chance(rows: list[Row], expected: str) -> None:
    assert outcome_of(rows, LABELS) == expected


def test_a_net_that_always_says_the_same_collapsed_and_one_that_learned_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(data={"train_size": 2000}, train={"epochs": 6})
    run(cfg, tmp_path / "learned")
    loss = Training.training_step

    def constant(self: Training, batch: Any, index: int) -> torch.Tensor:
        with torch.no_grad():
            last = [module for module in self.modules() if isinstance(module, nn.Linear)][-1]
            last.weight.zero_()
        return loss(self, batch, index) * 0

    monkeypatch.setattr(Training, "training_step", constant)
    run(replace(cfg, seed=1), tmp_path / "constant")
    found = {name: FinishedRun(tmp_path / name, settings_of(tmp_path / name)) for name in ("learned", "constant")}
    assert found["learned"].outcome == TRAINED and found["learned"].numbers["test/accuracy"] > 0.2
    assert found["constant"].outcome == COLLAPSED
    (row,) = comparison_rows(group_into_variants([*found.values()]))
    assert (row["seeds"], row["collapsed"]) == (2, 1) and "diverged" not in row
    accuracies = [one.numbers["test/accuracy"] for one in found.values()]
    assert row["test_accuracy"] == pytest.approx(np.mean(accuracies)), "a collapsed run was measured, and counts"
    distance = found["learned"].numbers["invariance/crop/1px/output_distance"]
    assert math.isnan(found["constant"].numbers["invariance/crop/1px/output_distance"])
    assert row["crop_1px_output_distance"] == distance, "where it has a number"


def test_a_run_from_before_outcomes_is_read(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", 0.9, 0.1)
    (one,) = find_runs(tmp_path)[0]
    assert (one.outcome, one.failure) == (TRAINED, "")


# --- gradients -------------------------------------------------------------------------------------------------------


def by_hand(net: nn.Module) -> float:
    squares = [parameter.grad.double().numpy().ravel() for parameter in net.parameters() if parameter.grad is not None]
    return float(np.sqrt(np.square(np.concatenate(squares)).sum()))


def test_gradient_norms_of_the_history_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: dict[int, list[float]] = {}
    before = Training.on_before_optimizer_step

    def listening(self: Training, optimizer: torch.optim.Optimizer) -> None:
        norms.setdefault(self.current_epoch + 1, []).append(by_hand(self))
        before(self, optimizer)

    monkeypatch.setattr(Training, "on_before_optimizer_step", listening)
    run(tiny(), tmp_path)
    rows = files.read_rows(tmp_path / files.HISTORY)
    assert len(rows) == 2 and {len(norm) for norm in norms.values()} == {4}
    for row in rows:
        expected = norms[int(row["epoch"])]
        assert float(row["grad_norm"]) == pytest.approx(np.mean(expected), rel=1e-5)
        assert float(row["grad_norm_max"]) == pytest.approx(max(expected), rel=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_gradient_norms_under_a_loss_scale_are_those_without_it(fused: bool) -> None:
    weights = nn.Parameter(torch.zeros(2))
    scaler = SimpleNamespace(get_scale=lambda: 1024.0)
    net: Any = SimpleNamespace(parameters=lambda: [weights], _norms=torch.zeros(3))
    net.trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    optimizer = torch.optim.SGD([weights], lr=0.1, fused=fused)  # not fused: Lightning has taken the scale out by now
    for gradient in ([3.0, 4.0], [math.inf, 0.0], [6.0, 8.0]):  # the second overflows, and its step is not taken
        weights.grad = torch.tensor(gradient) * (1024 if fused else 1)
        Training.on_before_optimizer_step(net, optimizer)
    assert net._norms.tolist() == [15, 10, 2]


def test_a_checkpoint_within_an_epoch_from_before_gradient_norms_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save: Callable[..., None] = Training.on_save_checkpoint
    step = Training.training_step

    def as_before(self: Training, checkpoint: dict[str, Any]) -> None:
        save(self, checkpoint)
        for one in checkpoint["within"]:
            del one["norms"]

    def stopped(self: Training, batch: Any, index: int) -> torch.Tensor:
        if index == 1 and not self.current_epoch:
            (saving,) = self.trainer.checkpoint_callbacks
            saving.signum = 15  # type: ignore[attr-defined]
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_save_checkpoint", as_before)
        patch.setattr(Training, "training_step", stopped)
        with pytest.raises(Interrupted):
            run(tiny(), tmp_path)
    run(tiny(), tmp_path)
    rows = files.read_rows(tmp_path / files.HISTORY)
    assert [row["grad_norm"] != "" for row in rows] == [False, True], "of the first epoch not all steps are known"
    assert all(row["train/loss"] for row in rows)


# --- label noise -----------------------------------------------------------------------------------------------------


def noisy() -> Config:
    return tiny(data={"label_noise": 0.5}, measure={"what": []})


def test_training_images_are_scored_by_the_labels_trained_with_and_by_true_ones() -> None:
    splits, clean = split(noisy().data), split(tiny().data)
    net = untrained(noisy(), splits, torch.device("cpu"))
    with torch.no_grad():
        answers = net.eval()(splits.normalise(splits.train.images)).argmax(1)
    found = {
        row.protocol: row.estimate
        for row in measure(net, noisy(), splits)
        if isinstance(row, Row) and row.measure == "accuracy"
    }
    assert torch.equal(splits.true_labels, clean.train.labels) and splits.noise_rate == 0.5
    assert found["train_clean"].value == pytest.approx((answers == clean.train.labels).double().mean().item())
    assert found["train"].value == pytest.approx((answers == splits.train.labels).double().mean().item())
    assert found["train"] != found["train_clean"], "or this shows nothing"
    quiet = [one.protocol for one in measure(net, tiny(measure={"what": []}), clean) if isinstance(one, Row)]
    assert "train_clean" not in quiet


def test_the_gap_is_of_true_labels_and_that_of_the_others_stands_beside_it(tmp_path: Path) -> None:
    for name, parts in {
        "now": {"test": 0.80, "train": 0.55, "train_clean": 0.83},
        "before": {"test": 0.80, "train": 0.55},  # measured when there was no train_clean
    }.items():
        leave_run(tmp_path / name, 0.5, 0.5, data={"label_noise": 0.3}, model={"width": 4 + len(parts)})
        rows = [Row("output", "none", part, 0, "accuracy", Estimate(v, v, v, 9)) for part, v in parts.items()]
        write_measures(tmp_path / name / files.MEASURES, rows)
    found: dict[str, Variant] = {
        variant.runs[0].folder.name: variant for variant in group_into_variants(find_runs(tmp_path)[0])
    }
    assert found["now"].mean("gap") == pytest.approx(0.03)
    assert found["now"].mean("gap_trained_labels") == pytest.approx(-0.25)
    assert math.isnan(found["before"].mean("gap")), "like is not had with like"
    assert found["before"].mean("gap_trained_labels") == pytest.approx(-0.25)
    assert "gap_trained_labels" in comparison_rows(list(found.values()))[0]
    leave_run(tmp_path / "quiet" / "run", 0.9, 0.1)
    quiet = group_into_variants(find_runs(tmp_path / "quiet")[0])
    assert quiet[0].mean("gap") == pytest.approx(0.05) and "gap_trained_labels" not in comparison_rows(quiet)[0]
    assert "gap_trained_labels" not in shown_columns(quiet)
