"""``train.steps``: training ends after so many optimiser steps, and all that comes once an epoch still works."""

import json
import signal
from collections.abc import Callable
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import OneCycleLR

from src.common.errors import Interrupted
from src.data import batches as batches_module
from src.data.batches import MOST_EPOCHS, Batches, epochs_of_steps
from src.data.sets import Images
from src.data.splits import normalise
from src.launch.jobs import Job, trained
from src.reporting.maps import epochs_of
from src.reporting.terminal import console
from src.results import files
from src.results.runs import FinishedRun
from src.training.checkpoints import SIGNALS
from src.training.run import run
from tests.faults import contents
from tests.helpers import tiny
from tests.test_outcomes import DIVERGES
from tests.test_reuse import used
from tests.test_run import same_numbers
from tests.test_saving import at_step, until_done

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own
__all__ = ["at_step"]  # a fixture


# --- how many epochs -------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 500))
def test_epochs_are_enough_and_not_one_too_many(steps: int, batches: int) -> None:
    epochs, passes = epochs_of_steps(steps, batches)
    assert (epochs - 1) * passes * batches < steps <= epochs * passes * batches
    assert epochs <= MOST_EPOCHS
    assert passes == 1 or (passes - 1) * batches * MOST_EPOCHS < steps, "as few passes an epoch as that allows"


# --- several passes an epoch -----------------------------------------------------------------------------------------


def loader(passes: int, epoch: int, augment: str = "flip_shift") -> Batches:
    images = torch.arange(22 * 64).remainder(251).to(torch.uint8).view(22, 1, 8, 8)
    part = Images(images, torch.arange(22) % 5)
    made = Batches(
        part, 8, partial(normalise, mean=torch.zeros(1), std=torch.ones(1)), seed=1, augment=augment, passes=passes
    )
    made.set_epoch(epoch)
    return made


def test_an_epoch_of_three_passes_is_three_epochs_of_one() -> None:
    whole = [x for x, _, _ in loader(3, epoch=2)]
    single = [x for x, _, _ in chain(*(loader(1, epoch) for epoch in (6, 7, 8)))]
    assert len(whole) == len(loader(3, 2)) == 9
    assert all(map(torch.equal, whole, single))


@pytest.mark.parametrize("position", range(1, 9))
def test_batches_resume_at_any_position_within_three_passes(position: int) -> None:
    whole = [x for x, _, _ in loader(3, epoch=2)]
    first, again = loader(3, epoch=2), loader(3, epoch=2)
    passed = [x for x, _, _ in islice(first, position)]
    again.load_state_dict(first.state_dict())
    rest = [x for x, _, _ in again]
    assert len(passed) + len(rest) == 9
    assert all(map(torch.equal, whole, [*passed, *rest]))


# --- runs ------------------------------------------------------------------------------------------------------------


def test_steps_of_whole_epochs_are_those_epochs_bit_for_bit(tmp_path: Path) -> None:
    run(tiny(), tmp_path / "epochs")
    run(tiny(train={"epochs": 1, "steps": 8}), tmp_path / "steps")
    assert same_numbers(tmp_path / "epochs", tmp_path / "steps")


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four batches and two of four."""
    folder = tmp_path_factory.mktemp("store") / "outputs" / "cut"
    run(tiny(train={"steps": 6, "keep": "last"}, measure={"every": 2}), folder)
    return folder


def test_the_last_epoch_is_cut_and_has_all_that_an_epoch_has(cut: Path) -> None:
    rows = files.read_rows(cut / files.HISTORY)
    assert [(int(row["epoch"]), int(row["step"])) for row in rows] == [(1, 4), (2, 6)]
    assert all(float(row[name]) > 0 for row in rows for name in ("val/loss", "train/loss", "grad_norm"))
    assert [row["invariance/crop/1px/output_distance"] != "" for row in rows] == [False, True]
    assert epochs_of(cut) == [0, 1, 2]
    facts = json.loads((cut / files.RUN).read_text())
    assert (facts["steps"], facts["outcome"] == "diverged") == (6, False)
    for name in (files.LAST, files.BEST):
        assert torch.load(cut / files.CHECKPOINTS / name, weights_only=True)["global_step"] in (4, 6)
    assert torch.load(cut / files.CHECKPOINTS / files.LAST, weights_only=True)["global_step"] == 6


def test_the_schedule_is_over_the_steps(cut: Path) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.01)
    schedule = OneCycleLR(optimizer, 0.01, total_steps=6, cycle_momentum=False)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(6):
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    logged = [float(row["lr"]) for row in files.read_rows(cut / files.HISTORY)]
    assert logged == pytest.approx([rates[4], rates[6]], rel=1e-5)


def test_it_is_a_run_of_its_own_whatever_its_epochs_are(cut: Path, tmp_path: Path) -> None:
    with console.capture() as shown:
        cfg = tiny(train={"epochs": 3, "steps": 6, "keep": "last"}, measure={"every": 2})
        assert not used(cut, cfg, tmp_path / "longer")
    assert shown.get() == "" and not (tmp_path / "longer").exists(), "it is not a shorter one to be continued"
    assert used(cut, tiny(train={"steps": 6, "keep": "last"}, measure={"every": 2}), tmp_path / "same")


def test_divergence_in_a_cut_epoch_is_detected(tmp_path: Path) -> None:
    run(tiny(**DIVERGES | {"train": {**DIVERGES["train"], "steps": 3}}), tmp_path)
    done = FinishedRun(tmp_path, {})
    assert (done.outcome, done.facts["diverged_in_epoch"], done.facts["steps"]) == ("diverged", 1, 3)


def test_stopped_by_a_signal_at_every_step_it_ends_with_the_same_files(
    tmp_path: Path, at_step: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MOST_EPOCHS", 2)
    cfg = tiny(data={"augment": "flip_shift", "train_size": 100}, train={"steps": 10})
    run(cfg, tmp_path / "undisturbed")  # three passes of two batches, then two
    assert [int(row["step"]) for row in files.read_rows(tmp_path / "undisturbed" / files.HISTORY)] == [6, 10]
    done = at_step(lambda step: signal.raise_signal(SIGNALS[step % len(SIGNALS)]))
    assert until_done(cfg, tmp_path / "stopped", Interrupted) == len(done) == 10, "no batch is trained twice"
    assert contents(tmp_path / "stopped") == contents(tmp_path / "undisturbed")


def test_a_sweeps_table_shows_steps(cut: Path, tmp_path: Path) -> None:
    assert trained(Job("a", (), cut, 2, steps=6)) == "6/6 steps"
    assert trained(Job("a", (), tmp_path, 2, steps=6)) == "0/6 steps"
    assert trained(Job("a", (), cut, 5)) == "2/5"
