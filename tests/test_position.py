"""Whether an answer to "where?" moves along: at answers that move by a known share, and in a run."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from src.data.splits import split
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.pairs import pair_rows, settings
from src.training import evaluate_run
from src.training.lightning_module import module
from tests.helpers import only_rows, tiny

SIDE, MARGIN = 12, 4


def pixels(x: Tensor) -> Tensor:
    return x.double() / 255


class Centre(nn.Module):
    """Says how far right and down of the middle the light lies, times a gain."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain).double())

    def forward(self, x: Tensor) -> Tensor:
        places = (torch.arange(x.shape[2]).double() + 0.5) / x.shape[2] - 0.5
        right, down = x.sum((1, 2)) @ places, x.sum((1, 3)) @ places
        return self.gain * torch.stack([right, down], 1) / x.sum((1, 2, 3)).clamp(min=1e-9)[:, None]


def dots(n: int = 40) -> EvaluationSet:
    """One pixel of light each, anywhere in the image, whose canvas is dark."""
    rows, columns = torch.randint(0, SIDE, (2, n), generator=torch.Generator().manual_seed(0))
    canvas = torch.zeros(n, 1, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN, dtype=torch.uint8)
    canvas[torch.arange(n), 0, MARGIN + rows, MARGIN + columns] = 255
    return EvaluationSet(canvas, MARGIN, positions=(torch.stack([columns, rows], 1) + 0.5) / SIDE)


@pytest.mark.parametrize("name", ["shift/roll", "shift/crop", "shift/embed"])
@pytest.mark.parametrize("gain", [1.0, 0.75, 0.0])
def test_an_answer_that_moves_by_a_share_of_the_shift_misses_the_rest(name, gain):
    """Of dots that leave the image, or come back on its other side, the answer cannot move along: they do not count."""
    of = ModelAdapter(Centre(gain), [], pixels, lambda x: x + 0.5, what=False, position=lambda x: x + 0.5)
    on = dots()
    rows = only_rows(pair_rows(of, on, [name]))
    found = {row.amount: row.estimate for row in rows if row.measure == "position_equivariance_error"}
    assert list(found) == [1, 2, 3, 4]
    assert [one.value for one in found.values()] == pytest.approx([1 - gain] * 4, abs=1e-6)
    for setting in settings(on, [name]):
        there = on.positions + setting.parameters.flip(1) / SIDE
        assert found[setting.amount].n == ((there > 0) & (there < 1)).all(1).sum() < len(there)


def test_where_every_object_leaves_there_is_no_number():
    on = replace(dots(2), positions=torch.full((2, 2), 2.0))
    of = ModelAdapter(Centre(1.0), [], pixels, what=False, position=lambda x: x + 0.5)
    assert not [
        row for row in only_rows(pair_rows(of, on, ["shift/crop"])) if row.measure == "position_equivariance_error"
    ]


@pytest.mark.parametrize(("task", "asked"), [("what", False), ("where", True), ("both", True)])
def test_a_run_that_is_asked_where_says_whether_its_answer_moves_along(task, asked):
    cfg = tiny(data={"task": task, "canvas": 40}, measure={"what": ["shift", "flip"], "images": 20})
    splits = split(cfg.data)
    torch.manual_seed(0)
    of = evaluate_run.adapter_of_run(module(cfg, splits.image, len(splits.classes)), splits)
    rows = only_rows(pair_rows(of, evaluate_run.evaluation_set(cfg, splits), ["shift/crop", "flip/mirror"]))
    found = [row for row in rows if row.measure == "position_equivariance_error"]
    places = {(row.layer, row.transform, row.amount) for row in found}
    assert places == ({("output", "shift", 1), ("output", "shift", 2)} if asked else set())
