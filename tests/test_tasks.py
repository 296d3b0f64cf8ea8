"""What, where, both: losses and scores against scikit-learn, and a net that learns each."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score
from torch import Tensor, nn

from src.data.names import TASKS
from src.evaluation.accuracy import accuracy_rows, position_estimates
from src.models.tasks import Scores, Task
from src.stats.bootstrap import bootstrap_interval, bootstrap_weights
from src.training.lightning_module import module
from tests.helpers import only_rows, tiny

CLASSES = 4
every_task = pytest.mark.parametrize("name", TASKS)


def answers(task: Task, n: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """(outputs, labels, positions) of a net that is right now and then."""
    labels, positions = torch.randint(CLASSES, (n,)), torch.rand(n, 2)
    logits = torch.randn(n, CLASSES) + 2 * nn.functional.one_hot(labels, CLASSES)
    offsets = positions - 0.5 + 0.2 * torch.randn(n, 2)
    parts = {"what": [logits], "where": [offsets], "both": [logits, offsets]}
    return torch.cat(parts[task.name], 1), labels, positions


def expected(task: Task, outputs: Tensor, labels: Tensor, positions: Tensor) -> dict[str, float]:
    """Loss and scores by scikit-learn."""
    found: dict[str, float] = {"loss": 0.0}
    if task.name != "where":
        chances = outputs[:, :CLASSES].double().softmax(1)
        found["loss"] += log_loss(labels, chances, labels=range(CLASSES))
        found["accuracy"] = accuracy_score(labels, chances.argmax(1))
    if task.name != "what":
        answer = outputs[:, -2:] + 0.5
        found["loss"] += 12 * mean_squared_error(positions, answer)
        found["r2"] = r2_score(positions, answer)
    return found


@every_task
def test_loss_and_scores_are_scikit_learns(name):
    task = Task(name, CLASSES)
    outputs, labels, positions = answers(task)
    assert outputs.shape[1] == task.outputs
    wanted = expected(task, outputs, labels, positions)
    assert task.loss(outputs, labels, positions).item() == pytest.approx(wanted.pop("loss"), rel=1e-5)
    scores = task.scores_of(task.sums(outputs, labels, positions))
    assert {key: score.item() for key, score in scores.items()} == pytest.approx(wanted, rel=1e-4)
    assert list(scores) == task.scores


@every_task
@given(st.integers(1, 59))
def test_scores_do_not_depend_on_how_a_set_is_cut_into_batches(name, cut):
    task = Task(name, CLASSES)
    whole = answers(task)
    batches = list(zip(*(one.split([cut, 60 - cut]) for one in whole), strict=True))
    wanted = expected(task, *whole)
    summed = torch.stack([task.sums(*batch) for batch in batches]).sum(0)
    kept = Scores(task, torch.device("cpu"), distributed=False)
    for batch in batches:
        kept.update(*batch)
    by_metrics = {key: value.item() for key, value in kept.compute()}
    for key, value in task.scores_of(summed).items():
        assert value.item() == pytest.approx(wanted[key], rel=1e-4)
        assert by_metrics[key] == pytest.approx(wanted[key], rel=1e-4)


def test_always_answering_the_middle_has_loss_1_and_r2_0():
    task = Task("where", CLASSES)
    side = (torch.arange(100) + 0.5) / 100
    positions = torch.cartesian_prod(side, side)
    middle = torch.zeros(len(positions), 2)
    labels = torch.zeros(len(positions), dtype=torch.long)
    assert task.loss(middle, labels, positions).item() == pytest.approx(1, abs=1e-3)
    assert task.scores_of(task.sums(middle, labels, positions))["r2"].item() == pytest.approx(0, abs=1e-5)


def test_a_bootstrap_interval_of_r2_is_that_of_resampled_images():
    truths = torch.rand(30, 2)
    found = truths + 0.1 * torch.randn(30, 2)
    estimates = position_estimates(found, truths)
    drawn = [np.repeat(np.arange(30), weights.int()) for weights in bootstrap_weights(30)]
    low, high = bootstrap_interval(torch.tensor([r2_score(truths[i], found[i]) for i in drawn]), 30)
    r2 = estimates["r2"]
    assert (r2.value, r2.low, r2.high) == pytest.approx((r2_score(truths, found), low, high), rel=1e-4)
    distance = np.hypot(*(found - truths).T.numpy())
    low, high = bootstrap_interval(torch.tensor([distance[i].mean() for i in drawn]), 30)
    error = estimates["position_error"]
    assert (error.value, error.low, error.high) == pytest.approx((distance.mean(), low, high), rel=1e-4)


@every_task
def test_the_rows_of_a_net_are_those_of_its_task(name):
    task = Task(name, CLASSES)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, task.outputs))
    batches = [(torch.randn(n, 3, 2, 2), torch.randint(CLASSES, (n,)), torch.rand(n, 2)) for n in (30, 20)]
    rows = {row.measure: row.estimate for row in only_rows(accuracy_rows(net, batches, task, "test"))}
    what, where = {"accuracy", "calibration_error"}, {"r2", "position_error"}
    assert set(rows) == {"loss"} | (what if task.classifies else set()) | (where if task.localizes else set())
    x, labels, positions = (torch.cat(one) for one in zip(*batches, strict=True))
    with torch.no_grad():
        wanted = expected(task, net(x), labels, positions)
    assert {key: rows[key].value for key in wanted} == pytest.approx(wanted, rel=1e-4)


def test_the_best_epoch_is_chosen_by_the_one_score_or_by_the_loss_of_both():
    assert [Task(name, CLASSES).best for name in TASKS] == [("accuracy", "max"), ("r2", "max"), ("loss", "min")]


@every_task
def test_the_outputs_of_a_net_are_those_of_its_task(name):
    cfg = tiny(data={"task": name})
    net = module(cfg, (1, 16, 16), 8)
    assert net(torch.zeros(2, 1, 16, 16)).shape == (2, {"what": 8, "where": 2, "both": 10}[name])


@every_task
def test_measures_see_the_logits_or_else_the_position(name):
    task = Task(name, CLASSES)
    outputs: Any = answers(task)[0]
    wanted = outputs[:, :CLASSES] if name != "where" else outputs + 0.5
    assert torch.equal(task.answer(outputs), wanted)
