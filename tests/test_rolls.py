"""All rolls of an image: the phase tree and single forward passes give the same rows, which NumPy confirms."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from src.evaluation import all_rolls
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.all_rolls import (
    Rolls,
    all_shifts,
    correlations_by_fft,
    correlations_by_products,
    one_by_one_rolls,
    prepare,
    rolls_of,
)
from src.evaluation.families import rolls
from src.evaluation.families.rolls import REFERENCE_FORWARDS, sample
from src.evaluation.families.rolls import rows as roll_rows
from src.evaluation.worst_case import ShiftOutputs
from src.metrics import Heatmap, Note, Row
from tests.helpers import network

SIDE, MARGIN = 8, 2
LAYERS = ["stage1", "stage2", "features"]
STEPS = st.tuples(st.integers(1, 4), st.integers(1, 4))


def pixels(x: Tensor) -> Tensor:
    return x.double() / 255 - 0.5


def evaluation_set(n: int = 6, labels: bool = True, batch: int = 4, side: int = SIDE) -> EvaluationSet:
    whole = side + 2 * MARGIN
    canvas = torch.randint(0, 256, (n, 1, whole, whole), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return EvaluationSet(canvas, MARGIN, torch.arange(n) % 5 if labels else None, batch=batch)


def adapter(layers: list[str] | None = None, what: bool = True, **axes: object) -> ModelAdapter:
    net = network((1, SIDE, SIDE), **{"padding": "circular", "pool": "max"} | axes).double().eval()
    return ModelAdapter(net, LAYERS if layers is None else layers, pixels, classifies=what)


def images(of: EvaluationSet) -> Tensor:
    return pixels(of.padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN])


def answers(of: ModelAdapter, x: Tensor) -> np.ndarray:
    """(n, rolls, d), roll by roll."""
    size = x.shape[2:]
    with torch.no_grad():
        transformed = [of.net(x.roll((a, b), (2, 3))) for a in range(size[0]) for b in range(size[1])]
    return torch.stack(transformed, 1).numpy()


def table(found: list[Row | Heatmap], layer: str = "output") -> dict[str, Row]:
    return {row.measure: row for row in found if isinstance(row, Row) and row.layer == layer}


def without_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every roll a forward pass."""

    def alone(of: ModelAdapter, x: Tensor) -> Rolls:
        every = all_shifts((x.shape[2], x.shape[3]))
        return Rolls(of, None, (SIDE, SIDE), "asked for", every, len(every))

    monkeypatch.setattr(rolls, "prepare", alone)


# --- both ways -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [{}, {"head": "flatten"}, {"pool": "aps"}, {"stride": 3}])
@pytest.mark.parametrize("few", [0, 64], ids=["fft", "products"])
def test_the_tree_and_enumeration_give_the_same_rows(axes, few, monkeypatch):
    monkeypatch.setattr(all_rolls, "SMALL_MAP", few)
    of, on = adapter(**axes), evaluation_set()
    assert prepare(of, images(on)).tree is not None
    shared = list(roll_rows(of, on))
    without_tree(monkeypatch)
    plain = list(roll_rows(of, on))
    assert len(shared) == len(plain) > 8
    for one, other in zip(shared, plain, strict=True):
        if isinstance(one, Row):
            assert one.values()[:5] == other.values()[:5]
            numbers, right = (np.array(row.values()[5:]) for row in (one, other))
            np.testing.assert_allclose(numbers, right, rtol=1e-9, atol=1e-12)
        elif isinstance(one, Heatmap):
            assert (one.layer, one.measure) == (other.layer, other.measure)
            np.testing.assert_allclose(one.values, other.values, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("way", [correlations_by_fft, correlations_by_products])
@given(
    n=st.integers(1, 3), steps=STEPS, c=st.integers(1, 4), h=st.integers(1, 9), w=st.integers(1, 9), last=st.booleans()
)
def test_phases_are_correlated_as_by_hand(way, n, steps, c, h, w, last):
    maps = torch.randn(n, *steps, c, h, w, dtype=torch.float64)
    expected = torch.empty(n, *steps, h, w, dtype=torch.float64)
    for down, right in itertools.product(range(h), range(w)):
        expected[..., down, right] = (maps[:, :1, :1] * maps.roll((down, right), (4, 5))).sum((3, 4, 5))
    flat = maps.flatten(0, 2)
    found = way(flat.to(memory_format=torch.channels_last) if last else flat, steps)
    torch.testing.assert_close(found, expected)


@given(steps=STEPS, turns=STEPS)
def test_each_roll_is_a_rolled_phase(steps, turns):
    size = steps[0] * turns[0], steps[1] * turns[1]
    for a, b in itertools.product(range(size[0]), range(size[1])):
        phase, turn = (int(one[a, b]) for one in rolls_of(size, steps))
        (oy, ox), (down, right) = divmod(phase, steps[1]), divmod(turn, turns[1])
        assert ((down * steps[0] - oy) % size[0], (right * steps[1] - ox) % size[1]) == (a, b)


def test_enumeration_is_roll_by_roll():
    of, on = adapter(pool="blur", padding="zeros"), evaluation_set(3)
    x = images(on)
    some = torch.tensor([[0, 0], [1, 0], [0, 7], [5, 3]])
    found = one_by_one_rolls(of, x, some)
    for g, (a, b) in enumerate(some.tolist()):
        with torch.no_grad():
            maps = of.net.stage1(x.roll((a, b), (2, 3)))
            np.testing.assert_allclose(found.outputs[:, g], of.net(x.roll((a, b), (2, 3))), rtol=1e-10)
            difference = (maps - of.net.stage1(x)).square().sum((1, 2, 3))
        np.testing.assert_allclose(found.squared_difference["stage1"][:, g], difference, rtol=1e-10)
    assert found.reference["stage1"].shape == (3, maps[0].numel())


# --- the numbers by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [{"head": "flatten"}, {"padding": "zeros"}], ids=["tree", "enumerated"])
def test_outputs_by_hand(axes):
    of, on = adapter([], **axes), evaluation_set(batch=125)
    found = table(list(roll_rows(of, on)))
    y, labels = answers(of, images(on)), on.labels.numpy()
    told = y.argmax(2)
    same = [
        np.mean([one == other for one, other in itertools.product(row, repeat=2)]) for row in told
    ]  # all pairs of rolls
    chance = sum(np.mean(told == k) ** 2 for k in range(5))
    transformed = np.linalg.norm(y - y[:, :1], axis=2).mean()
    others = [np.linalg.norm(a - b) for a, b in itertools.permutations(y[:, 0], 2)]
    right = told == labels[:, None]
    expected = {
        "output_distance": transformed / np.mean(others),
        "consistency": np.mean(same),
        "consistency_corrected": (np.mean(same) - chance) / (1 - chance),
        "accuracy": right.mean(),
        "worst_case": right.all(1).mean(),
        "accuracy_in_place": right[:, 0].mean(),
    }
    assert {name: row.estimate.value for name, row in found.items()} == pytest.approx(expected, abs=1e-10)
    assert 0 < expected["consistency"] < 1  # there is something to see
    assert 0 < expected["accuracy"] < 1
    assert {row.values()[1:4] for row in found.values()} == {("shift", "all_rolls", SIDE**2)}
    assert {row.estimate.n for row in found.values()} == {6}
    for row in found.values():
        assert row.estimate.low <= row.estimate.value <= row.estimate.high


def test_the_worst_case_is_right_for_every_roll():
    outputs = torch.zeros(3, 4, 2)
    outputs[..., 0] = 1
    outputs[1, 2] = torch.tensor([0.0, 1.0])  # one roll in four is answered otherwise
    measure = ShiftOutputs()
    measure.update(outputs + 0.01 * torch.arange(3)[:, None, None] * torch.tensor([1.0, 0]), torch.tensor([0, 0, 1]))
    found = {name: value.item() for name, value in measure.compute().items()}
    assert found["worst_case"] == pytest.approx(1 / 3)
    assert found["accuracy"] == pytest.approx((1 + 3 / 4 + 0) / 3)
    assert found["consistency"] == pytest.approx((1 + (9 + 1) / 16 + 1) / 3)


@pytest.mark.parametrize("axes", [{}, {"padding": "zeros"}], ids=["tree", "enumerated"])
def test_heatmaps_match_numpy(axes):
    of, on = adapter(**axes), evaluation_set(batch=125)
    found = list(roll_rows(of, on))
    grids = {(one.layer, one.measure): one.values for one in found if isinstance(one, Heatmap)}
    assert list(grids) == [(layer, measure) for layer in LAYERS for measure in ("roll_map", "roll_cosine")]
    x = images(on)
    for layer in LAYERS:
        rolls = [x.roll((a, b), (2, 3)) for a in range(SIDE) for b in range(SIDE)]
        with torch.no_grad():
            maps = np.stack([through(of.net, layer, roll).flatten(1).numpy() for roll in rolls], 1)
        error, cosine, random = by_shift(maps)
        np.testing.assert_allclose(grids[layer, "roll_map"].ravel(), error, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(grids[layer, "roll_cosine"].ravel(), cosine, rtol=1e-5)
        assert grids[layer, "roll_map"].shape == grids[layer, "roll_cosine"].shape == (SIDE, SIDE)
        assert grids[layer, "roll_map"][0, 0] == 0
        values = {name: row.estimate.value for name, row in table(found, layer).items()}
        expected = {"invariance_error": error.mean(), "cosine": cosine.mean(), "cosine_random": random}
        assert values == pytest.approx(expected, abs=1e-9)


def by_shift(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Of outputs (images, shifts, numbers), the first shift being none: error and cosine by shift, random cosine."""
    squared = ((maps - maps[:, :1]) ** 2).sum(2)
    others = np.mean([((a - b) ** 2).sum() for a, b in itertools.permutations(maps[:, 0], 2)])
    unit = maps / np.linalg.norm(maps, axis=2, keepdims=True)
    random = np.mean([a @ b for a, b in itertools.permutations(unit[:, 0], 2)])
    return squared.mean(0) / others, (unit * unit[:, :1]).sum(2).mean(0), random


def through(net: nn.Module, layer: str, x: Tensor) -> Tensor:
    for name in net.order[: net.order.index(layer) + 1]:
        x = getattr(net, name)(x)
    return x


# --- what must come out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["aps", "lps"])
def test_an_exactly_invariant_net_has_error_0(pool):
    found = table(list(roll_rows(adapter([], pool=pool), evaluation_set())))
    value = {name: row.estimate.value for name, row in found.items()}
    assert value["consistency"] == 1
    assert value["worst_case"] == value["accuracy"]
    assert value["output_distance"] < 1e-10


def test_a_head_that_keeps_positions_is_sensitive_to_rolls():
    found = list(roll_rows(adapter(head="flatten", pool="aps"), evaluation_set()))
    assert table(found)["output_distance"].estimate.value > 0.1
    assert table(found)["worst_case"].estimate.value <= table(found)["accuracy"].estimate.value
    assert table(found)["consistency"].estimate.value < 1
    assert table(found, "features")["invariance_error"].estimate.value > 0.1


def test_without_labels_there_is_no_accuracy():
    assert set(table(list(roll_rows(adapter([]), evaluation_set(labels=False))))) == {
        "output_distance", "consistency", "consistency_corrected",
    }  # fmt: skip
    assert set(table(list(roll_rows(adapter([], what=False), evaluation_set(labels=False))))) == {"output_distance"}


# --- the budget ------------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    """Counts the images it is given, and shrinks nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(SIDE**2, 3).double()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x) if torch.is_tensor(x) and not isinstance(x, torch.fx.Proxy) else 0
        return self.read(x.flatten(1))


@pytest.mark.parametrize("forwards", [64 * 3, 64 * 20, 16 * 10, 10_000])
def test_no_more_forward_passes_than_allowed(forwards):
    net, on = Counted(), evaluation_set(40)
    of = ModelAdapter(net, ["read"], pixels)
    prepare(of, images(on)[:2])
    preparing = net.seen
    net.seen = 0
    rows = [row for row in roll_rows(of, on, forwards) if isinstance(row, Row)]
    assert net.seen - preparing <= max(forwards, 16)
    each = 64 + REFERENCE_FORWARDS
    if forwards >= each * 8:
        assert {row.protocol for row in rows} == {"all_rolls"}
        assert {row.amount for row in rows} == {64}
        assert {row.estimate.n for row in rows} == {min(40, forwards // each)}
    else:
        assert {row.protocol for row in rows} == {"sampled_rolls"}
        assert {row.amount for row in rows} == {forwards // 8 - REFERENCE_FORWARDS}
        assert {row.estimate.n for row in rows} == {8}


def test_a_sample_has_289_shifts_for_as_many_images_as_affordable():
    every = all_shifts((28, 28))
    for forwards, images, *expected in ((5000, 1000, 17, 289), (2320, 125, 8, 289), (100, 50, 8, 11), (100, 3, 3, 32)):
        count, some = sample(every, forwards, images, seed=0)
        assert [count, len(some)] == expected
        assert some[0].tolist() == [0, 0] and len(some.unique(dim=0)) == len(some)


def test_sampled_rolls_depend_on_the_seed_and_have_no_heatmap():
    of, on = adapter(padding="zeros"), evaluation_set(20)
    found, again = (list(roll_rows(of, on, 200)) for _ in range(2))
    one, same = ([row.values() for row in rows if isinstance(row, Row)] for rows in (found, again))
    np.testing.assert_equal(one, same)
    assert {values[2:4] for values in one} == {("sampled_rolls", 200 // 8 - REFERENCE_FORWARDS)}
    assert not [one for one in found if isinstance(one, Heatmap)]


@pytest.mark.parametrize(
    ("padding", "forwards", "words"),
    [
        ("circular", 10_000, "all 64 rolls by the phase tree, which cost {} forward passes per image (20 images)"),
        ("zeros", 10_000, "all 64 rolls, one by one: {} pads with zeros, so it is not equivariant"),
        ("zeros", 200, "24 of 64 rolls, drawn at random, one by one: {} pads with zeros"),
    ],
)
def test_a_note_gives_the_method_its_cost_and_the_reason(padding, forwards, words):
    of, on = adapter(padding=padding), evaluation_set(20)
    (note,) = (row for row in roll_rows(of, on, forwards) if isinstance(row, Note))
    rolls = prepare(of, images(on)[:2])
    value = f"{rolls.forwards:.3g}" if rolls.tree else "stage1.conv1"
    assert note.measure == "rolls" and note.words.startswith(words.format(value)), note.words


def test_few_images_are_all_measured():
    rows = [row for row in roll_rows(adapter([], padding="zeros"), evaluation_set(3), 64 * 2) if isinstance(row, Row)]
    assert {row.protocol for row in rows} == {"all_rolls"}
    assert {row.estimate.n for row in rows} == {2}


def test_images_that_are_not_square():
    canvas = torch.randint(0, 256, (3, 1, 12, 16)).to(torch.uint8)
    net = network((1, 8, 12), padding="circular").double()
    found = list(roll_rows(ModelAdapter(net, ["stage1"], pixels), EvaluationSet(canvas, MARGIN)))
    assert {one.values.shape for one in found if isinstance(one, Heatmap)} == {(8, 12)}
    assert {one.amount for one in found if isinstance(one, Row)} == {96}


def test_a_net_of_vectors_runs_one_by_one():
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 6), nn.ReLU(), nn.Linear(6, 5)).double()
    found = list(roll_rows(ModelAdapter(net, ["1", "2"], pixels), evaluation_set()))
    assert table(found)["output_distance"].estimate.value > 0.1
    assert all(math.isfinite(row.estimate.value) for row in table(found, "2").values())
