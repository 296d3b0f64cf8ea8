"""Measures against NumPy by hand, SciPy and scikit-learn, and at their nulls: invariant, blind, constant, shuffled."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn

from src.evaluation.accuracy import accuracy_rows
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.families.crops import rows as crop_rows
from src.evaluation.pairs import pair_rows
from src.metrics import COLUMNS, Note, Row
from src.metrics.base import Measure, pair_measures
from src.metrics.consistency import Consistency, chance_corrected
from src.metrics.invariance_error import InvarianceError
from src.metrics.output_distance import OutputDistance
from src.metrics.quantities import range_of
from src.metrics.rows import Estimate
from src.models.tasks import Task
from src.stats.bootstrap import bootstrap_interval, bootstrap_weights, wilson_interval
from src.transforms import SHIFTS
from tests.helpers import network, only_rows

RATIOS = {"output_distance": OutputDistance, "invariance_error": InvarianceError}
every_measure = pytest.mark.parametrize("measure", pair_measures())
every_ratio = pytest.mark.parametrize("name", RATIOS)


def taken(measure: type, *batches: tuple[Tensor, Tensor]) -> dict[str, Estimate]:
    """The estimates of a metric, from batches of (outputs, outputs for the transformed images)."""
    one = measure()
    for reference, transformed in batches:
        one.update(reference, transformed, torch.where(reference[:, 0] > 0, reference.argmax(1), 0))
    return dict(one.estimates(bootstrap_weights(sum(len(reference) for reference, _ in batches))))


def pairs(n: int = 40, d: int = 6, change: float = 0.3) -> tuple[Tensor, Tensor]:
    reference = torch.randn(n, d, dtype=torch.float64)
    return reference, reference + change * torch.randn(n, d, dtype=torch.float64)


# --- by hand ---------------------------------------------------------------------------------------------------------


def by_hand(batches: list[tuple[Tensor, Tensor]], power: int) -> float:
    """``E‖f(x) - f(gx)‖^p / E‖f(x) - f(x')‖^p``, x' all other images of all batches."""
    above, below = [], []
    reference, transformed = (torch.cat(some).numpy() for some in zip(*batches, strict=True))
    for i in range(len(reference)):
        above.append(np.linalg.norm(reference[i] - transformed[i]) ** power)
        others = [np.linalg.norm(reference[i] - reference[j]) ** power for j in range(len(reference)) if j != i]
        below.append(np.mean(others))
    return float(np.mean(above) / np.mean(below))


@pytest.mark.parametrize(("name", "power"), [("output_distance", 1), ("invariance_error", 2)])
def test_ratios_by_hand(name, power):
    batches = [pairs(12), pairs(7, change=2.0)]
    estimate = taken(RATIOS[name], *batches)[name]
    assert estimate.value == pytest.approx(by_hand(batches, power), rel=1e-9)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 19


def test_consistency_by_hand():
    reference, transformed = pairs(50, 4, change=1.0)
    a, b = reference.numpy().argmax(1), transformed.numpy().argmax(1)
    agreement = np.mean(a == b)
    chance = sum((np.mean(np.concatenate([a, b]) == k)) ** 2 for k in range(4))
    found = taken(Consistency, (reference[:30], transformed[:30]), (reference[30:], transformed[30:]))
    assert found["consistency"].value == pytest.approx(agreement)
    assert found["consistency_corrected"].value == pytest.approx((agreement - chance) / (1 - chance))
    assert 0 < found["consistency_corrected"].value < found["consistency"].value < 1


@pytest.mark.parametrize(
    ("agreement", "shares", "expected"),
    [(1.0, [0.9, 0.1], 1.0), (0.5, [0.25] * 4, 1 / 3), (0.0, [0.5, 0.5], -1.0), (0.68, [0.8, 0.2], 0.0)],
)
def test_consistency_is_corrected_for_chance(agreement, shares, expected):
    found = chance_corrected(torch.tensor(agreement, dtype=torch.float64), torch.tensor(shares, dtype=torch.float64))
    assert found.item() == pytest.approx(expected, abs=1e-12)


# --- nulls -----------------------------------------------------------------------------------------------------------


@every_ratio
def test_an_invariant_layer_has_error_zero(name):
    reference, _ = pairs()
    assert taken(RATIOS[name], (reference, reference))[name] == Estimate(0, 0, 0, len(reference))


@every_ratio
def test_other_images_instead_of_transformed_ones_have_error_1(name):
    reference, _ = pairs(n=400)
    estimate = taken(RATIOS[name], (reference, reference.roll(1, 0)))[name]
    assert estimate.low < 1 < estimate.high
    assert estimate.value == pytest.approx(1, abs=0.05)


@every_ratio
def test_dead_and_constant_channels_change_nothing(name):
    reference, transformed = pairs()
    dead = torch.tensor([0.0, 3.0, -1.0], dtype=torch.float64).expand(len(reference), 3)
    found = taken(RATIOS[name], (torch.cat([reference, dead], 1), torch.cat([transformed, dead], 1)))[name]
    assert found.value == pytest.approx(taken(RATIOS[name], (reference, transformed))[name].value, rel=1e-9)


@every_ratio
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_an_offset_of_all_outputs_changes_nothing_in_float32(name, offset):
    reference, transformed = pairs()
    found = taken(RATIOS[name], (reference.float() + offset, transformed.float() + offset))[name]
    assert found.value == pytest.approx(taken(RATIOS[name], (reference, transformed))[name].value, rel=1e-3)


@every_ratio
def test_scale_changes_nothing(name):
    reference, transformed = pairs()
    found = taken(RATIOS[name], (100 * reference, 100 * transformed))[name]
    assert found.value == pytest.approx(taken(RATIOS[name], (reference, transformed))[name].value, rel=1e-9)


def test_a_constant_classifier_is_consistent_and_says_nothing():
    reference, transformed = (pair + torch.tensor([100.0, 0, 0, 0, 0, 0]) for pair in pairs())
    found = taken(Consistency, (reference, transformed))
    assert (found["consistency"].value, found["consistency"].high) == (1, 1)
    assert found["consistency"].low == pytest.approx(0.912, abs=1e-3), "40 of 40 do not show that all agree"
    assert math.isnan(found["consistency_corrected"].value)


def test_nothing_to_compare_with_is_nan():
    same = torch.ones(5, 3)
    assert math.isnan(taken(OutputDistance, (same, same))["output_distance"].value)


@every_measure
def test_a_metric_declares_where_it_is_measured_and_its_names(measure):
    assert measure.on in ("output", "layers")
    found = taken(measure, pairs())
    assert found
    assert all(e.n == 40 and (math.isnan(e.low) or e.low <= e.value <= e.high) for e in found.values())


@every_measure
def test_measures_do_not_depend_on_the_order_of_images(measure):
    reference, transformed = pairs()
    order = torch.randperm(len(reference))
    values = [e.value for e in taken(measure, (reference, transformed)).values()]
    assert [e.value for e in taken(measure, (reference[order], transformed[order])).values()] == pytest.approx(values)


# --- intervals -------------------------------------------------------------------------------------------------------


def test_bootstrap_samples_have_as_many_images_as_the_set():
    weights = bootstrap_weights(30, seed=1, draws=400)
    assert weights.shape == (400, 30)
    assert (weights.sum(1) == 30).all()
    assert weights.mean() == 1
    assert weights.var(0).mean().item() == pytest.approx(29 / 30, abs=0.1)
    assert torch.equal(weights, bootstrap_weights(30, seed=1, draws=400))
    assert not torch.equal(weights, bootstrap_weights(30, seed=2, draws=400))


def test_the_interval_is_scipys():
    above, below = torch.rand(60).double(), 1 + torch.rand(60).double()

    class Ratio(Measure):
        def of_images(self, above: Tensor, below: Tensor) -> Tensor:
            return torch.stack([above, below], 1)

        def of_means(self, means: Tensor) -> dict[str, Tensor]:
            return {"ratio": means[..., 0] / means[..., 1]}

    ratio = Ratio()
    ratio.update(above, below)
    ((_, ours),) = ratio.estimates(bootstrap_weights(60, draws=4000))
    assert ratio.compute()["ratio"].item() == ours.value
    theirs = bootstrap(
        (above.numpy(), below.numpy()), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True,
        method="percentile", n_resamples=4000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx((above.mean() / below.mean()).item())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.08 * width)


def test_the_interval_is_the_middle_95_per_cent_of_many_images():
    assert bootstrap_interval(torch.arange(1001.0), 10**6) == pytest.approx((25, 975), abs=0.1)


@pytest.mark.parametrize("n", [4, 8, 30])
def test_the_interval_of_a_mean_of_few_images_is_as_wide_as_students(n):
    drawn = torch.from_numpy(stats.norm.ppf(np.linspace(0, 1, 200001)[1:-1], scale=math.sqrt((n - 1) / n / n)))
    low, high = bootstrap_interval(drawn, n)
    assert high == pytest.approx(stats.t.ppf(0.975, n - 1) / math.sqrt(n), rel=5e-3)
    assert low == pytest.approx(-high, rel=1e-3)


def test_one_image_and_none_defined_have_no_interval():
    assert all(map(math.isnan, bootstrap_interval(torch.zeros(10), 1)))
    assert all(map(math.isnan, bootstrap_interval(torch.full((10,), math.nan), 9)))


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (3, 20), (999, 1000)])
def test_wilsons_interval_is_statsmodels_and_scipys(right, n):
    oracle = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right / n, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@every_measure
@pytest.mark.parametrize("n", [3, 4, 8])
def test_intervals_stay_in_the_range_of_the_measure(measure, n):
    """A resample of three images may hold one of them three times: they lie apart by nothing then, or by less."""
    for seed in range(30):
        x = torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        x[0] *= 9
        for name, one in taken(measure, (x, x.roll(1, 1))).items():
            low, high = range_of(name)
            assert math.isnan(one.low) or low <= one.low <= one.high <= high, name


# --- accuracy --------------------------------------------------------------------------------------------------------


def test_accuracy_and_loss_are_those_of_scikit_learn():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4))
    x = torch.randn(90, 3, 2, 2)
    y = torch.where(torch.rand(90) < 0.5, net.eval()(x).argmax(1), torch.randint(0, 4, (90,)))
    with torch.no_grad():
        chances = net(x).softmax(1).double()
    net.train()
    batches = [(*one, torch.empty(len(one[0]), 0)) for one in zip(x.split(32), y.split(32), strict=True)]
    rows = {row.measure: row for row in only_rows(accuracy_rows(net, batches, Task("what", 4), "test"))}
    share = accuracy_score(y, chances.argmax(1))
    accuracy = rows["accuracy"].estimate
    assert accuracy.value == pytest.approx(share)
    assert (accuracy.low, accuracy.high) == pytest.approx(wilson_interval(share, 90))
    assert rows["loss"].estimate.value == pytest.approx(log_loss(y, chances / chances.sum(1, keepdim=True)), rel=1e-5)
    assert rows["calibration_error"].estimate.value == pytest.approx(calibration_error(chances, y), rel=1e-5)
    assert {row.values()[:4] for row in rows.values()} == {("output", "none", "test", 0)}
    assert {row.estimate.n for row in rows.values()} == {90}
    assert net.training


def calibration_error(chances: Tensor, y: Tensor) -> float:
    """Mean of |accuracy - confidence| over 15 equal bins of confidence, weighted by their images."""
    confidence, answer = (one.numpy() for one in chances.max(1))
    right, bins = answer == y.numpy(), np.ceil(confidence * 15)
    gaps = [(bins == b).mean() * abs(right[bins == b].mean() - confidence[bins == b].mean()) for b in np.unique(bins)]
    return float(sum(gaps))


# --- shifts: the whole pass ------------------------------------------------------------------------------------------

MARGIN, N = 2, 9


def rows(net: nn.Module, layers: list[str], seed: int = 0, batch: int = 125) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(0, 256, (N, 1, 8 + 2 * MARGIN, 8 + 2 * MARGIN), generator=generator).to(torch.uint8)
    test_set = EvaluationSet(canvas, MARGIN, torch.arange(N) % 5, seed=seed, batch=batch)
    return only_rows(
        pair_rows(ModelAdapter(net, layers, lambda x: x.double() / 255), test_set, ["shift/roll", "shift/crop"])
    )


def value(found: list[Row], layer: str, protocol: str, measure: str) -> list[float]:
    chosen = [row for row in found if (row.layer, row.protocol, row.measure) == (layer, protocol, measure)]
    return [row.estimate.value for row in chosen]


def blind(**axes: object) -> nn.Module:
    """A net that cannot see rolls: circular convolutions, stride 1, a global average."""
    return network((1, 8, 8), **{"padding": "circular", "stride": 1, "pool": "max", "depth": 1} | axes).double()


def test_an_invariant_net_is_insensitive_to_rolls_but_not_to_crops():
    found = rows(blind(), ["stage1", "features"])
    assert value(found, "output", "roll", "output_distance") == pytest.approx([0, 0], abs=1e-9)
    assert value(found, "output", "roll", "consistency") == [1, 1]
    assert value(found, "features", "roll", "invariance_error") == pytest.approx([0, 0], abs=1e-9)
    assert min(value(found, "stage1", "roll", "invariance_error")) > 0.1
    assert min(value(found, "output", "crop", "output_distance")) > 0.01


def test_a_net_that_keeps_positions_is_sensitive_to_rolls():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).double()
    assert min(value(rows(linear, []), "output", "roll", "output_distance")) > 0.1


MAPS = {"stage1": {"equivariance_error", "equivariance_floor"}}


def test_every_layer_protocol_and_amount_has_its_rows():
    found = rows(blind(), ["stage1", "features"])
    names = {"output": set(), "layers": set()}
    for measure in pair_measures():
        names[measure.on] |= set(taken(measure, pairs()))
    expected = [
        (layer, "shift", protocol, amount, name)
        for protocol in SHIFTS
        for amount in range(1, MARGIN + 1)
        for layer in ("stage1", "features", "output")
        for name in names["output" if layer == "output" else "layers"] | MAPS.get(layer, set())
    ]
    assert sorted(row.values()[:5] for row in found) == sorted(expected)
    assert {row.estimate.n for row in found} == {N}
    assert all(len(row.values()) == len(COLUMNS) for row in found)


def test_rows_are_those_of_the_seed():
    net = blind(head="flatten")
    one, same, other = ([row.values() for row in rows(net, ["stage1"], seed)] for seed in (0, 0, 1))
    np.testing.assert_equal(one, same)
    assert str(one) != str(other)


@pytest.mark.parametrize("batch", [3, 4, N])
def test_no_batch_has_a_single_image(batch):
    found = rows(blind(head="flatten"), ["stage1"], batch=batch)
    assert all(math.isfinite(row.estimate.value) for row in found if "corrected" not in row.measure)
    assert {row.estimate.n for row in found} == {N}


def test_the_columns_are_the_fields_of_a_row():
    row = Row("stage1", "shift", "roll", 2, "invariance_error", Estimate(0.5, 0.4, 0.6, 10))
    assert dict(zip(COLUMNS, row.values(), strict=True)) == {
        "layer": "stage1", "transform": "shift", "protocol": "roll", "amount": 2, "measure": "invariance_error",
        "value": 0.5, "low": 0.4, "high": 0.6, "n": 10,
    }  # fmt: skip


# --- all crops -------------------------------------------------------------------------------------------------------


def test_the_worst_case_over_all_crops_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    canvas = torch.randint(0, 256, (20, 1, 10, 10), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    labels = torch.arange(20) % 3
    adapter = ModelAdapter(net, [], lambda x: x.double() / 255)
    note, *rows = crop_rows(adapter, EvaluationSet(canvas, 2, labels), forwards=26 * 20)
    assert isinstance(note, Note)
    found = {row.measure: row for row in rows}
    with torch.no_grad():
        answers = torch.stack(
            [net(canvas[..., a : a + 6, b : b + 6].double() / 255).argmax(1) for a in range(5) for b in range(5)], 1
        )
    right = answers == labels[:, None]
    shares = torch.stack([(answers == k).double().mean(1) for k in range(3)], 1)
    assert found["worst_case"].estimate.value == pytest.approx(right.all(1).double().mean().item())
    assert found["accuracy"].estimate.value == pytest.approx(right.double().mean().item())
    assert found["consistency"].estimate.value == pytest.approx(shares.square().sum(1).mean().item())
    assert {(row.protocol, row.amount, row.estimate.n) for row in found.values()} == {("all_crops", 25, 20)}
    _, *some = crop_rows(adapter, EvaluationSet(canvas, 2, labels), forwards=5 * 20)
    assert {(row.protocol, row.amount) for row in some} == {("sampled_crops", 100 // 8 - 1)}
