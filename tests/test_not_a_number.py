"""A net with nan outputs: no measure is a perfect score, and nothing ends in a traceback."""

import math

import pytest
import torch
from torch import Tensor, nn

from src.config import MEASURES
from src.data.splits import split
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.families.velocity import LEE
from src.evaluation.suite import evaluate_families
from src.metrics import Note, Row
from src.metrics.base import layer_measures, pair_measures
from src.metrics.channel_health import dead_share
from src.models.tasks import Scores, Task
from src.stats.bootstrap import bootstrap_weights
from src.training.evaluate_run import measure
from src.training.untrained import untrained
from tests.helpers import tiny

#: counts, nulls that depend on the sizes alone, and what the pixels or the filters say
OF_THE_LAYER_ALONE = {"effective_field", "max_filter_cosine", "max_filter_cosine_null", "participation_ratio_isotropic"}


class Broken(nn.Module):
    """Its layer and its answers are nan, for every image or for one in three."""

    def __init__(self, all_of_them: bool) -> None:
        super().__init__()
        self.all = all_of_them
        self.layer, self.read = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Identity()), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        broken = torch.arange(len(x), device=x.device) % 3 == 0
        x = torch.where(torch.logical_or(broken, torch.tensor(self.all))[:, None, None, None], torch.nan, x)
        return self.read(self.layer(x).relu().mean((2, 3)))


@pytest.mark.parametrize("all_of_them", [True, False])
def test_no_measure_of_nan_outputs_is_a_number(all_of_them):
    net = Broken(all_of_them)
    pixels = torch.randint(0, 256, (48, 1, 14, 14), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    test_set = EvaluationSet(pixels, 2, labels=torch.zeros(48, dtype=torch.long))
    found = list(evaluate_families(ModelAdapter(net, ["layer"], lambda x: x.float() / 255), test_set, MEASURES))
    note = next(one for one in found if isinstance(one, Note) and one.measure == "answers")
    assert note.words.startswith(f"the net's answer is infinite or nan for {48 if all_of_them else 16} of 48 images")
    wrong = [
        row for row in found
        if isinstance(row, Row) and row.layer in ("layer", "output") and not math.isnan(row.estimate.value)
        and row.measure not in OF_THE_LAYER_ALONE and not row.measure.endswith(("_null", "equivariance_floor"))
    ]  # fmt: skip
    assert not [row for row in wrong if "goodfellow" not in row.measure], wrong
    for row in wrong:
        assert row.measure == "goodfellow_dead" or not all_of_them, row


@pytest.mark.parametrize("kind", [LEE])
def test_nan_outputs_have_no_velocity(kind):
    one, outputs = kind(), torch.randn(6, 3)
    outputs[2] = torch.nan
    one.update(outputs, torch.zeros(6, 3))
    assert all(math.isnan(number.item()) for number in one.compute().values())


@pytest.mark.parametrize("kind", pair_measures())
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_pair_with_a_nan_or_an_infinity_has_no_number(kind, bad):
    if kind.on == "layers" and not math.isnan(bad):
        return  # an infinite map's numbers are inf or nan, as its sums come
    x, one = torch.randn(12, 4), kind()
    gx = x.clone()
    gx[3, 1] = bad
    one.update(x, gx, torch.zeros(12, dtype=torch.long))
    for name, estimate in one.estimates(bootstrap_weights(12)):
        if name not in ("cosine_random", "constant_channels"):  # which look at the untouched images alone
            assert all(map(math.isnan, (estimate.value, estimate.low, estimate.high))), name


@pytest.mark.parametrize("kind", [measure for measure in layer_measures() if not measure.of_maps])
def test_a_layer_of_nan_is_neither_alive_nor_dead(kind):
    one = kind()
    one.update(torch.full((30, 4), torch.nan), torch.arange(30) % 3, torch.rand(30, 1, 9, 9))
    for name, estimate in one.estimates(bootstrap_weights(30)):
        assert math.isnan(estimate.value) or name == "participation_ratio_isotropic", name


def test_a_dead_share_of_nan_is_nan():
    assert math.isnan(dead_share(torch.tensor([[1.0, torch.nan]])).item())


def test_scores_of_nan_are_nan():
    task, labels = Task("what", 3), torch.zeros(4, dtype=torch.long)
    outputs = torch.full((4, 3), torch.nan)
    scores = Scores(task, torch.device("cpu"))
    scores.update(outputs, labels, torch.empty(4, 0))
    assert all(math.isnan(number.item()) for _, number in scores.compute())
    assert math.isnan(task.scores_of(task.sums(outputs, labels, torch.empty(4, 0)))["accuracy"].item())


def test_a_run_whose_weights_are_nan_is_measured_as_nan_with_a_note():
    cfg = tiny(measure={"what": ["shift", "layers", "rolls"], "images": 48})
    splits = split(cfg.data)
    net = untrained(cfg, splits, torch.device("cpu"))
    with torch.no_grad():
        next(reversed([*net.parameters()])).fill_(torch.nan)
    found = [one for one in measure(net, cfg, splits) if not one.measure.endswith("_untrained")]
    assert any(isinstance(one, Note) and one.measure == "answers" for one in found)
    output = [one for one in found if isinstance(one, Row) and one.layer == "output"]
    assert {"accuracy", "consistency", "worst_case", "loss"} <= {row.measure for row in output}
    assert all(math.isnan(row.estimate.value) for row in output)
