"""Accuracy by the size of objects, and data sets that say or take sizes."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from src.common.errors import UserError
from src.config import MEASURES, Config, from_dict
from src.data.sets import load
from src.data.sets.shapes import CLASSES, render
from src.data.splits import split
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.families.object_size import rows
from src.metrics.rows import Note, Row
from src.training.evaluate_run import evaluation_set, measure
from src.training.lightning_module import module
from tests.helpers import tiny


class SaysWhatThePixelSays(nn.Module):
    """The class is the value of the first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x[:, 0, 0, 0].long(), 4).float()


def toy(count: int, low: float, high: float) -> EvaluationSet:
    """Images whose class a net gets wrong the more often, the smaller the object."""
    sizes = low + (high - low) * torch.rand(count, dtype=torch.float64).float()
    labels = torch.arange(count) % 4
    right = torch.rand(count) < (sizes - low) / (high - low)
    pixels = torch.where(right, labels, (labels + 1) % 4).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 6, 6)
    return EvaluationSet(pixels, 1, labels, sizes=sizes, size_range=(low, high))


def test_each_third_has_its_accuracy_and_wilsons_interval() -> None:
    images = toy(500, 0.12, 0.25)
    adapter = ModelAdapter(SaysWhatThePixelSays(), [], lambda x: x.float())
    found = {row.measure: row.estimate for row in rows(adapter, images) if isinstance(row, Row)}
    assert images.sizes is not None and images.labels is not None
    sizes, correct = images.sizes.double().numpy(), (images.padded[:, 0, 0, 0] == images.labels).numpy()
    for name, low, high in (("small", 0.12, 0.49 / 3), ("medium", 0.49 / 3, 0.62 / 3), ("large", 0.62 / 3, 0.25)):
        hits = correct[(sizes >= low) & (sizes < high)]
        interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
        estimate = found[f"accuracy_{name}"]
        assert (estimate.value, estimate.n) == (pytest.approx(hits.mean()), len(hits))
        assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), rel=1e-3)
    assert found["accuracy_small"].value < found["accuracy_medium"].value < found["accuracy_large"].value


def test_edges_are_those_of_the_range_not_of_the_sample() -> None:
    images = toy(400, 0.1, 0.4)
    assert images.sizes is not None
    large = images.take((images.sizes > 0.3).nonzero()[:, 0])
    adapter = ModelAdapter(SaysWhatThePixelSays(), [], lambda x: x.float())
    found = {row.measure: row.estimate for row in rows(adapter, large) if isinstance(row, Row)}
    assert {name: estimate.n for name, estimate in found.items()} == {"accuracy_large": len(large.padded)}


def test_without_sizes_a_note_says_so() -> None:
    images = EvaluationSet(torch.zeros(4, 1, 6, 6, dtype=torch.uint8), 1, torch.zeros(4, dtype=torch.long))
    (note,) = rows(ModelAdapter(SaysWhatThePixelSays(), [], lambda x: x.float()), images)
    assert isinstance(note, Note) and "not measured" in note.words


def measured(cfg: Config) -> dict[str, Row]:
    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes)).eval()
    return {row.measure: row for row in measure(net, cfg, splits) if isinstance(row, Row) and row.protocol == "test"}


@pytest.mark.parametrize("canvas", [None, 24])
def test_a_run_measures_it_where_it_is_asked_for(canvas: int | None) -> None:
    data = {"canvas": canvas, "object_size": [0.1, 0.3]}
    cfg = tiny(data=data, measure={"what": ["object_size"], "images": 200})
    found = measured(cfg)
    by_third = [found[f"accuracy_{name}"].estimate for name in ("small", "medium", "large")]
    assert sum(each.n for each in by_third) == 200 and min(each.n for each in by_third) > 40
    assert sum(found[f"accuracy_{name}_untrained"].estimate.n for name in ("small", "medium", "large")) == 125
    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes)).eval()
    images = evaluation_set(cfg, splits)
    with torch.no_grad():
        answers = net(splits.normalise(images.padded[..., 2:-2, 2:-2])).argmax(1)
    overall = (answers == images.labels).double().mean().item()
    assert sum(each.value * each.n for each in by_third) / 200 == pytest.approx(overall)
    assert "object_size" not in MEASURES
    assert "accuracy_small" not in measured(tiny(data=data, measure={"what": []}))


# --- the sizes of shapes ---------------------------------------------------------------------------------------------


def test_shapes_have_the_sizes_that_are_asked_for() -> None:
    padded, labels, factors = render(800, 48, 0, seed=5, radii=(0.06, 0.12))
    assert 0.06 <= factors[:, 2].min() < 0.062 and 0.118 < factors[:, 2].max() <= 0.12
    disks = labels == list(CLASSES).index("disk")
    x = padded[disks, 0].double().flatten(1)
    bright = x > ((x.median(1).values + x.quantile(0.998, 1)) / 2)[:, None]
    area = math.pi * factors[disks, 2].double().square()
    np.testing.assert_allclose(bright.double().mean(1), area, rtol=0.25)


def test_a_set_says_the_range_of_its_sizes() -> None:
    plain, small = load("shapes", "", 8), load("shapes", "", 8, None, (0.06, 0.12))
    assert (plain.object_size, small.object_size) == ((0.12, 0.25), (0.06, 0.12))
    for source in (plain, small, load("shapes", "", 8, 16, (0.06, 0.12))):
        sizes = source.test.sizes
        assert source.object_size is not None and sizes is not None
        low, high = source.object_size
        assert low <= sizes.min() < low + 0.01 * high and high - 0.01 * high < sizes.max() <= high
    assert load("red_green", "", 32).object_size is None


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("fashion_mnist", [0.1, 0.2], "data=fashion_mnist has its own; choose data=shapes"),
        ("shapes", [0.1], "must be the least and the largest radius, above 0 and at most 0.5"),
        ("shapes", [0.2, 0.1], "must be the least"),
        ("shapes", [0.0, 0.1], "must be the least"),
        ("shapes", [0.1, 0.6], "must be the least"),
    ],
)
def test_other_sizes_are_refused_in_one_line(name: str, sizes: list[float], said: str) -> None:
    with pytest.raises(UserError) as refusal:
        from_dict({"data": {"name": name, "object_size": sizes}})
    assert str(refusal.value).startswith(f"data.object_size={sizes}: ") and said in str(refusal.value)
    assert "\n" not in str(refusal.value)
