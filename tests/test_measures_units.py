"""Measures of a layer's units under a transform (NVI, cosine, Goodfellow), probes, and effective fields."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from torch import Tensor, nn

from src.evaluation.families.field import effective_fields, effective_size, gradients
from src.evaluation.families.units import Goodfellow, draw_units, thresholds
from src.evaluation.linear_probes import PENALTIES, TOLERANCE, pooled, probe_rows, reduced
from src.metrics.base import PairMeasure
from src.metrics.cosine import Cosine, cosine
from src.metrics.layer_outputs import LayerOutputs
from src.metrics.nvi import NVI, nvi
from src.metrics.rows import Estimate, Row
from src.stats.bootstrap import bootstrap_weights
from src.summary import summarize


def effective_field(net: nn.Module, layer: str, images: Tensor) -> Tensor:
    return effective_fields(net, [layer], images.split(64))[layer]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def taken(measure: PairMeasure, *batches: tuple[Tensor, Tensor]) -> dict[str, Estimate]:
    for reference, transformed in batches:
        measure.update(reference, transformed)
    return dict(measure.estimates(bootstrap_weights(sum(len(reference) for reference, _ in batches))))


# --- NVI -------------------------------------------------------------------------------------------------------------


def nvi_by_hand(batches: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Of each channel, by NumPy's variances at every position."""
    reference, transformed = (torch.cat(some).numpy() for some in zip(*batches, strict=True))
    above = np.stack([reference, transformed]).var(0, ddof=1).mean((2, 3)).mean(0)
    return np.sqrt(above / reference.var(0, ddof=1).mean((1, 2)))


def test_nvi_by_hand():
    x = normal(19, 4, 3, 2) * torch.tensor([1.0, 5, 0.1, 1])[:, None, None] + 3
    gx = x + normal(19, 4, 3, 2, seed=1) * torch.tensor([1.0, 1, 1, 0])[:, None, None]
    batches = [(x[:12], gx[:12]), (x[12:], gx[12:])]
    found = taken(NVI(), *batches)
    assert found["nvi"].value == pytest.approx(nvi_by_hand(batches).mean())
    assert found["nvi"].low < found["nvi"].value < found["nvi"].high
    assert found["nvi"].n == 19
    np.testing.assert_allclose(nvi(x, gx), nvi_by_hand([(x, gx)]))
    assert nvi(x, gx)[3] == 0


def test_nvi_of_other_images_is_one_whatever_the_scales():
    x = normal(600, 3, 2, 2) * torch.tensor([1.0, 100, 0.01])[:, None, None]
    assert nvi(x, x.roll(1, 0)).tolist() == pytest.approx([1, 1, 1], abs=0.05)


def test_constant_channels_are_left_out_of_nvi():
    x, gx = normal(20, 3, 2, 2).float(), normal(20, 3, 2, 2, seed=1).float()
    with_dead = [torch.cat([one, torch.full((20, 1, 2, 2), 0.1)], 1) for one in (x, gx)]
    found = taken(NVI(), (with_dead[0], with_dead[1]))
    assert found["nvi"].value == pytest.approx(taken(NVI(), (x, gx))["nvi"].value)
    assert found["constant_channels"].value == 0.25
    assert nvi(with_dead[0], with_dead[1] + 1)[3].isnan()  # the same for all images, though it moves


def test_vectors_units_are_channels():
    x, gx = normal(20, 5), normal(20, 5, seed=1)
    maps = taken(NVI(), (x[..., None, None], gx[..., None, None]))
    vectors = taken(NVI(), (x, gx))
    assert vectors["nvi"] == maps["nvi"]
    assert vectors["constant_channels"].value == maps["constant_channels"].value


# --- cosine ----------------------------------------------------------------------------------------------------------


def test_cosines_by_hand():
    x, gx = normal(9, 2, 3).abs(), normal(9, 2, 3, seed=1).abs()
    found = taken(Cosine(), (x[:5], gx[:5]), (x[5:], gx[5:]))
    unit = [one.flatten(1).numpy() / np.linalg.norm(one.flatten(1).numpy(), axis=1, keepdims=True) for one in (x, gx)]
    others = [unit[0][i] @ unit[0][j] for i in range(9) for j in range(9) if i != j]
    assert found["cosine"].value == pytest.approx((unit[0] * unit[1]).sum(1).mean())
    assert found["cosine_random"].value == pytest.approx(np.mean(others))
    np.testing.assert_allclose(cosine(x, gx), (unit[0] * unit[1]).sum(1))


def test_cosine_at_its_nulls():
    x = normal(400, 30)
    same = taken(Cosine(), (x, 2 * x))
    assert same["cosine"].value == pytest.approx(1)
    assert same["cosine_random"].value == pytest.approx(0, abs=0.01)
    relu = taken(Cosine(), (x.relu(), x.roll(1, 0).relu()))
    assert relu["cosine"].value == pytest.approx(relu["cosine_random"].value, abs=0.03)
    assert relu["cosine_random"].value == pytest.approx(1 / math.pi, abs=0.03)  # far from 0


def test_outputs_of_zeros_have_no_direction():
    x = torch.tensor([[0.0, 0], [1e-10, 0], [2, 0]])
    assert cosine(x, x).tolist() == [0, 1, 1]
    assert LayerOutputs(x).cosine.mean().item() == pytest.approx(1 / 3), "of the three pairs one is alike"


# --- Goodfellow ------------------------------------------------------------------------------------------------------


def test_units_are_drawn_by_the_seed():
    units = draw_units(5000, 1000, seed=3)
    assert len(units.unique()) == 1000
    assert units.max() < 5000
    assert torch.equal(units, draw_units(5000, 1000, seed=3))
    assert not torch.equal(units, draw_units(5000, 1000, seed=4))
    assert draw_units(7).tolist() == list(range(7))


def test_a_threshold_is_exceeded_at_the_rate():
    x, units = normal(1000, 3, 4, 4), draw_units(48, 20)
    found = thresholds(x, 0.05, units)
    np.testing.assert_allclose(found, np.quantile(x.flatten(1).numpy()[:, units], 0.95, axis=0))
    assert (x.flatten(1)[:, units] > found).double().mean(0).tolist() == pytest.approx([0.05] * 20)
    assert torch.equal(thresholds(x, 0.05)[units], found)


def goodfellow_by_hand(x: np.ndarray, gx: np.ndarray, limit: np.ndarray, rate: float) -> tuple[float, float]:
    found = []
    for i, t in enumerate(limit):
        fires = [k for k in range(len(x)) if x[k, i] > t]
        if fires:
            found.append(sum(gx[k, i] > t for k in fires) / len(fires) / rate)
    best = sorted(found)[-math.ceil(0.2 * len(found)) :]
    return float(np.mean(best)), 1 - len(found) / len(limit)


def test_goodfellow_by_hand():
    x, transformed, difference = normal(80, 4, 3, 3), normal(80, 4, 3, 3, seed=1), normal(100, 4, 3, 3, seed=2)
    x[:, 0] = 0  # dead
    gx, units = x + 2 * transformed, draw_units(36, 30)
    limit = thresholds(difference, 0.05, units)
    found = taken(Goodfellow(limit, units, rate=0.05), (x[:50], gx[:50]), (x[50:], gx[50:]))
    flat = [one.flatten(1)[:, units].numpy() for one in (x, gx)]
    score, dead = goodfellow_by_hand(*flat, limit.numpy(), 0.05)
    assert found["goodfellow"].value == pytest.approx(score)
    assert found["goodfellow_dead"].value == pytest.approx(dead)
    assert 0 < dead < 0.6
    assert math.isnan(found["goodfellow"].low), "the best of a sample look better than they are"
    bits = [torch.from_numpy(one) > limit for one in flat]
    each = Goodfellow.local(torch.cat([bits[0], bits[0] & bits[1]], 1).double().mean(0)) / 0.05
    assert each[~each.isnan()].sort().values[-math.ceil(0.2 * (30 * (1 - dead))) :].mean().item() == pytest.approx(
        score
    )


def test_goodfellow_at_its_ends():
    x, difference = normal(2000, 40), normal(2000, 40, seed=1)
    limit = thresholds(difference)
    assert taken(Goodfellow(limit), (x, x))["goodfellow"].value == pytest.approx(100)
    assert taken(Goodfellow(limit), (x, -x.abs() - 9))["goodfellow"].value == 0
    chance = taken(Goodfellow(limit, top=1.0), (x, normal(2000, 40, seed=2)))["goodfellow"]
    assert chance.value == pytest.approx(1, abs=0.7)
    dead = taken(Goodfellow(thresholds(torch.zeros(10, 3))), (torch.zeros(20, 3), torch.zeros(20, 3)))
    assert math.isnan(dead["goodfellow"].value)
    assert dead["goodfellow_dead"].value == 1


def test_goodfellow_keeps_bits():
    one = Goodfellow(torch.zeros(5))
    one.update(normal(6, 5), normal(6, 5))
    assert one.batches[0].dtype == torch.uint8
    assert one.batches[0].shape == (6, 10)


# --- probes ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Tensor]:
    """(images (400, 1, 16, 16), labels, positions): digits put somewhere on a canvas."""
    found = load_digits()
    where = torch.randint(0, 9, (400, 2), generator=torch.Generator().manual_seed(0))
    canvas = torch.zeros(400, 1, 16, 16)
    for one, image, (row, column) in zip(canvas, found.images / 16, where.tolist(), strict=False):
        one[0, row : row + 8, column : column + 8] = torch.from_numpy(image)
    return canvas, torch.from_numpy(found.target[:400]).long(), (where.flip(1) + 4) / 16


def numbers(rows: list[Row]) -> dict[tuple[str, str], Estimate]:
    return {(row.layer, row.measure): row.estimate for row in rows}


def test_maps_are_averaged_to_four_by_four_and_keep_their_places():
    x = normal(5, 2, 8, 8)
    expected = x.numpy().reshape(5, 2, 4, 2, 4, 2).mean((3, 5)).reshape(5, -1)
    np.testing.assert_allclose(pooled(x), expected)
    assert pooled(normal(5, 3, 2, 7)).shape == (5, 3 * 2 * 4)
    assert torch.equal(pooled(normal(5, 9)), normal(5, 9))


def reduced_by_hand(x: np.ndarray, train: np.ndarray, dim: int) -> np.ndarray:
    """Scaled by, and whitened in the first axes of, the training images; within their range."""
    x = np.clip(x, x[train].min(0), x[train].max(0))
    x = (x - x[train].mean(0)) / x[train].std(0)
    found = PCA(dim, svd_solver="full").fit(x[train]).transform(x)
    return np.clip(found, found[train].min(0), found[train].max(0)) / found[train].std(0)


def test_an_outlier_feature_in_the_test_images_does_not_dominate():
    positions = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).double()
    test, train = np.split(np.random.default_rng(0).permutation(200), [60])
    features = torch.cat([positions + 0.01 * normal(200, 2), torch.zeros(200, 1)], 1)
    features[train[::2], 2] = 1e-3 * positions[train[::2], 0]
    features[test[:3], 2] = 1
    found = numbers(list(probe_rows({"layer": features}, positions=positions)))
    assert found["layer", "probe_r2"].value > 0.95


@pytest.mark.parametrize("images", [40, 20], ids=["more images than features", "fewer"])
def test_features_are_reduced_by_statistics_of_the_training_images(images):
    x, train = normal(60, 7) @ normal(7, 30, seed=1) + 0.1 * normal(60, 30, seed=2) + 5, np.arange(images)
    np.testing.assert_allclose(abs(reduced(x, train, 6)), abs(reduced_by_hand(x.numpy(), train, 6)), atol=1e-6)
    small = x[:, [0, 1, 2, 3, 3]]  # smaller than asked for, and one feature twice
    found = reduced(torch.cat([small, torch.ones(60, 2)], 1), train, 6)
    assert found.shape == (60, 4)
    np.testing.assert_allclose(found[train].T @ found[train] / images, np.eye(4), atol=1e-9)
    assert reduced(torch.ones(60, 100), train, 6).shape == (60, 1)


def chosen(kind: type, key: str, x: np.ndarray, y: np.ndarray) -> tuple[object, float]:
    """The model and its strength that an inner split chooses, by hand."""
    inner, best = round(0.25 * len(x)), (-math.inf, 0.0)
    for strength in PENALTIES:
        option = {"C": 1 / strength, "tol": TOLERANCE} if key == "C" else {"alpha": strength}
        best = max(best, (kind(**option).fit(x[inner:], y[inner:]).score(x[:inner], y[:inner]), -strength))
    option = {"C": -1 / best[1], "tol": TOLERANCE} if key == "C" else {"alpha": -best[1]}
    return kind(**option).fit(x, y), -best[1]


def test_probes_are_those_of_scikit_learn(digits):
    images, labels, positions = digits
    features = pooled(images.double() @ normal(16, 16))
    found = numbers(list(probe_rows({"layer": features}, labels, positions, seed=3)))
    test, train = np.split(np.random.default_rng(3).permutation(400), [120])
    x = reduced_by_hand(features.numpy(), train, 16)
    what, _ = chosen(LogisticRegression, "C", x[train], labels.numpy()[train])
    where, _ = chosen(Ridge, "alpha", x[train], positions.double().numpy()[train])
    right = int((what.predict(x[test]) == labels.numpy()[test]).sum())
    wilson = binomtest(right, 120).proportion_ci(method="wilson")
    accuracy, r2 = found["layer", "probe_accuracy"], found["layer", "probe_r2"]
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx((right / 120, wilson.low, wilson.high))
    assert r2.value == pytest.approx(r2_score(positions.numpy()[test], where.predict(x[test])), abs=1e-6)
    assert r2.low < r2.value < r2.high
    assert found["layer", "probe_dimension"].value == 16


def test_class_and_position_are_decoded_from_the_same_features(digits):
    images, labels, positions = digits
    one_hot = nn.functional.one_hot(labels, 10).float()
    noise = normal(400, 80).float()
    told = {"what": one_hot, "where": positions, "noise": noise, "image": pooled(images)}
    found = numbers(list(probe_rows(told, labels, positions)))
    assert found["what", "probe_accuracy"].value == 1
    assert found["what", "probe_r2"].value < 0.1
    assert found["where", "probe_r2"].value > 0.99
    assert found["where", "probe_accuracy"].value < 0.3
    assert found["image", "probe_r2"].value > 0.8
    assert found["noise", "probe_accuracy"].low < 0.1 < found["noise", "probe_accuracy"].high
    assert found["noise", "probe_r2"].value < 0.05
    assert found["noise", "probe_dimension"].value == 64
    assert found["where", "probe_dimension"].value == 2


def test_shuffled_labels_are_at_chance(digits):
    _, labels, positions = digits
    found = numbers(list(probe_rows({"what": nn.functional.one_hot(labels, 10).float()}, labels, shuffled=True)))
    assert found["what", "probe_accuracy_shuffled"].value < 0.25
    assert ("what", "probe_r2_shuffled") not in found
    found = numbers(list(probe_rows({"where": positions}, positions=positions, shuffled=True)))
    assert found["where", "probe_r2_shuffled"].value < 0.05
    assert ("where", "probe_accuracy_shuffled") not in found


def test_rows_are_those_of_the_seed(digits):
    images, labels, positions = digits
    features = {"pixels": images.flatten(1)}
    one, same, other = (list(probe_rows(features, labels, positions, seed=seed)) for seed in (0, 0, 1))
    assert one[1:] == same[1:]  # the first says nan
    assert one[1:] != other[1:]
    assert {row.values()[:4] for row in one} == {("pixels", "none", "test", 0)}


def test_ill_conditioned_features_raise_no_warning(digits):
    _, labels, positions = digits
    one_hot = nn.functional.one_hot(labels, 10).float()
    features = {
        "dead": torch.zeros(400, 100),
        "easy": 1000 * one_hot,
        "alike": one_hot[:, :2].repeat(1, 30) + 0.01 * normal(400, 60).float(),
        "sparse": (normal(400, 60).float() - 3).relu() + one_hot[:, :1],
    }
    found = numbers(list(probe_rows(features, labels, positions)))
    assert found["dead", "probe_r2"].value == pytest.approx(0, abs=0.05)
    assert found["easy", "probe_accuracy"].value == 1


# --- effective field -------------------------------------------------------------------------------------------------


def ones(depth: int, side: int = 3, **options: object) -> nn.Sequential:
    """A stack of convolutions with weights of 1."""
    net = nn.Sequential(*(nn.Conv2d(1, 1, side, padding=side // 2, bias=False, **options) for _ in range(depth)))
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    return net


def box(depth: int, side: int) -> np.ndarray:
    """The field of such a stack: a box, convolved with itself again and again."""
    one = np.ones(1)
    for _ in range(depth):
        one = np.convolve(one, np.ones(side))
    return np.outer(one, one)


@given(st.integers(1, 5), st.sampled_from([3, 5]))
def test_the_field_of_ones_is_a_repeated_box(depth, side):
    size = 2 * depth * (side - 1) + 3
    net = ones(depth, side)
    found = effective_field(net, str(depth - 1), torch.randn(3, 1, size, size))
    expected = np.zeros((size, size))
    theirs = box(depth, side)
    at = size // 2 - len(theirs) // 2
    expected[at : at + len(theirs), at : at + len(theirs)] = theirs
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    reach = int(summarize(net, (1, size, size))[str(depth - 1)].rows.receptive_field)
    assert len(theirs) == reach
    assert 1 < effective_size(found) <= reach


def test_the_size_grows_like_the_root_of_the_depth():
    sizes = [effective_size(torch.from_numpy(box(depth, 3))) for depth in (8, 32)]
    assert sizes[1] / sizes[0] == pytest.approx(2, abs=0.1)
    # of a round normal distribution, the circle with 95.45%: radius sqrt(-2 ln .0455) standard deviations
    assert sizes[1] == pytest.approx(math.sqrt(-2 * math.pi * math.log(1 - 0.9545) * 32 * 2 / 3), rel=0.02)


def test_the_effective_field_lies_within_the_theoretical_one():
    net = nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1))
    found, axis = effective_field(net, "3", torch.randn(6, 2, 21, 21)), summarize(net, (2, 21, 21))["3"].rows
    hit = found.sum(1).nonzero().flatten()
    centre = axis.offset + axis.jump * (axis.size // 2)
    assert axis.receptive_field == 7
    assert [hit.min().item(), hit.max().item() + 1] == [
        centre - axis.receptive_field / 2,
        centre + axis.receptive_field / 2,
    ]


def test_the_net_is_not_changed():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3), nn.Dropout(0.9), nn.BatchNorm2d(2), nn.Flatten())
    net[1].weight.requires_grad_(False)
    net[1].bias.grad = torch.full((2,), 5.0)
    images = torch.randn(4, 1, 9, 9)
    before, copy = {name: value.clone() for name, value in net.state_dict().items()}, images.clone()
    with torch.no_grad():
        found = effective_field(net, "1", images)
    assert torch.equal(found, effective_field(net, "1", images))  # no dropout
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net[1].weight.grad is None
    assert not net[1].weight.requires_grad
    assert net[1].bias.grad.tolist() == [5, 5]
    assert torch.equal(images, copy)
    assert not images.requires_grad
    assert net.training
    assert not found.requires_grad
    assert effective_field(net, "4", images).count_nonzero() > found.count_nonzero()  # all units of a vector


def test_batches_of_images_are_averaged():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh()).double()
    images = normal(130, 1, 7, 7)
    x = images.clone().requires_grad_()
    whole = gradients(net(x), x).mean(0)
    np.testing.assert_allclose(effective_field(net, "1", images), whole)
    np.testing.assert_allclose(effective_fields(net, ["1"], [images[:30], images[30:]])["1"], whole)


def test_the_field_is_the_mean_of_absolute_gradients():
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Tanh()).double()
    images = normal(5, 2, 4, 6)
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x)[:, :, 2, 3].sum(1), images)  # (5, 5, 2, 4, 6)
    expected = torch.stack([jacobian[i, i].abs().sum(0) for i in range(5)]).mean(0)
    np.testing.assert_allclose(effective_field(net, "1", images), expected)


@pytest.mark.parametrize(
    ("field", "share", "expected"),
    [
        (torch.ones(6, 6), 1.0, 6),
        (torch.ones(6, 6), 0.5, math.sqrt(18)),
        (torch.eye(4)[:1], 0.9545, 1),
        (torch.tensor([[9.0, 1]]), 0.9, 1),
        (torch.zeros(3, 3), 0.9, math.nan),
    ],
)
def test_the_size_counts_the_strongest_pixels(field, share, expected):
    assert effective_size(field, share) == pytest.approx(expected, nan_ok=True)
