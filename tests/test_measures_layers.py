"""Measures of a layer as it is (CKA, dimension, selectivity, health, Moran's I): by hand, at nulls, in batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import Tensor

from src.metrics import cka as of_cka
from src.metrics.base import LayerMeasure
from src.metrics.channel_health import (
    ChannelCorrelation,
    Health,
    clusters,
    dead_share,
    duplicate_share,
    is_constant,
    max_cosine,
    max_cosine_null,
)
from src.metrics.cka import CKA, CKAMatrix, cka, gram, unbiased_hsic
from src.metrics.class_selectivity import Selectivity, class_selectivity
from src.metrics.dimension import Dimension, effective_rank, eigenvalues, isotropic, participation_ratio
from src.metrics.morans_i import Moran, morans_i
from src.metrics.rows import Estimate
from src.stats.bootstrap import bootstrap_weights

LAYER_MEASURES = [Dimension, Selectivity, Health, Moran]
every_layer_measure = pytest.mark.parametrize("measure", LAYER_MEASURES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def taken(
    measure: LayerMeasure, x: Tensor, batch: int, labels: Tensor | None = None, images: Tensor | None = None
) -> dict[str, Estimate]:
    labels = torch.zeros(len(x), dtype=torch.long) if labels is None else labels
    images = torch.zeros(len(x), 1, 1, 1) if images is None else images
    for part in zip(x.split(batch), labels.split(batch), images.split(batch), strict=True):
        measure.update(*part)
    return dict(measure.estimates(bootstrap_weights(len(x), draws=200)))


def same(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=1e-9, nan_ok=True)


# --- what all have in common -----------------------------------------------------------------------------------------


@every_layer_measure
def test_batches_change_nothing_and_estimates_are_what_compute_gives(measure):
    x, labels, images = normal(30, 5, 9, 8), torch.arange(30) % 3, normal(30, 1, 12, 12, seed=1).cumsum(2)
    one, several = measure(), measure()
    whole, parts = taken(one, x, 30, labels, images), taken(several, x, 7, labels, images)
    assert whole.keys() == parts.keys() == one.compute().keys()
    for name, estimate in parts.items():
        assert same(estimate.value, whole[name].value)
        assert same(estimate.value, several.compute()[name].item())
        assert estimate.n == 30
        assert math.isnan(estimate.low) or estimate.low <= estimate.value <= estimate.high


@every_layer_measure
def test_a_metric_can_be_reset(measure):
    x, labels, images = normal(30, 5, 9, 8), torch.arange(30) % 3, normal(30, 1, 12, 12, seed=1).cumsum(2)
    used = measure()
    taken(used, 3 - x.abs(), 30, labels, images)
    used.reset()
    found, expected = taken(used, x, 30, labels, images), taken(measure(), x, 30, labels, images)
    assert found.keys() == expected.keys()
    assert all(same(found[name].value, expected[name].value) for name in found)


@pytest.mark.parametrize("measure", [measure for measure in LAYER_MEASURES if not measure.of_maps])
def test_vectors_are_channels_of_one_position(measure):
    x, labels, images = normal(30, 5), torch.arange(30) % 3, normal(30, 1, 12, 12)
    vectors, maps = taken(measure(), x, 30, labels, images), taken(measure(), x[..., None, None], 30, labels, images)
    assert {name: one.value for name, one in vectors.items()} == {name: one.value for name, one in maps.items()}


# --- CKA -------------------------------------------------------------------------------------------------------------


def hsic_by_hand(x: Tensor, y: Tensor) -> float:
    """HSIC₁, term by term."""
    n, one = len(x), np.ones(len(x))
    k, l = (np.asarray(z.flatten(1) @ z.flatten(1).T) for z in (x, y))  # noqa: E741
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ l) + middle - 2 / (n - 2) * one @ k @ l @ one) / (n * (n - 3)))


def biased_cka(x: Tensor, y: Tensor) -> float:
    k, l = ((z - z.mean(0)) @ (z - z.mean(0)).T for z in (x, y))  # noqa: E741
    return ((k * l).sum() / k.norm() / l.norm()).item()


@given(st.integers(4, 9), st.integers(1, 6), st.integers(1, 6))
def test_hsic_is_the_formula(n, p, q):
    x, y = normal(n, p) + 3, normal(n, q, seed=1) - 1
    assert unbiased_hsic(gram(x), gram(y)).item() == pytest.approx(hsic_by_hand(x, y), rel=1e-8, abs=1e-10)


def test_hsic_of_independent_outputs_is_0_on_average():
    found = [unbiased_hsic(gram(normal(6, 3, seed=i)), gram(normal(6, 2, seed=-i))).item() for i in range(1, 801)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))
    assert np.mean(np.array(found) < 0) > 0.2


def test_only_unbiased_cka_is_0_for_wide_independent_outputs():
    x, y = normal(64, 8192), normal(64, 8192, seed=1)
    assert biased_cka(x, y) == pytest.approx(0.992, abs=0.001)
    assert abs(cka(x, y).item()) < 0.1
    assert cka(x, x).item() == pytest.approx(1)


def test_cka_is_invariant_to_rotation_scale_offset_and_shape():
    x, y = normal(20, 6), normal(20, 6, seed=1)
    y = y + x
    turned = -2 * x @ torch.linalg.qr(normal(6, 6, seed=2)).Q + 7
    assert 0.1 < cka(x, y).item() < 0.9
    assert cka(turned.unflatten(1, (2, 3, 1)), y).item() == pytest.approx(cka(x, y).item())
    assert cka(x, turned).item() == pytest.approx(1)
    assert cka(x * torch.tensor([1.0, 1, 1, 1, 1, 9]), x).item() < 0.95


def test_an_offset_of_all_outputs_costs_no_precision():
    x, y = normal(20, 6), normal(20, 6, seed=1)
    assert cka(x.float() + 1000, (x + y).float() + 1000).item() == pytest.approx(cka(x, x + y).item(), rel=1e-3)


def test_a_matrix_sums_over_batches_and_divides_once():
    xs, ys = [normal(23, 5), normal(23, 2, 3, 3, seed=1)], [normal(23, 4, seed=2)]
    ys += [xs[0][:, :3] + 0.3 * normal(23, 3, seed=3), xs[1] * 2]
    matrix = CKAMatrix()
    parts = torch.arange(23).split([8, 8, 7])
    for part in parts:
        matrix.update([x[part] for x in xs], [y[part] for y in ys])

    def total(a: Tensor, b: Tensor) -> float:
        return sum(hsic_by_hand(a[part], b[part]) for part in parts)

    expected = [[total(x, y) / math.sqrt(total(x, x) * total(y, y)) for y in ys] for x in xs]
    np.testing.assert_allclose(matrix.compute(), expected, rtol=1e-8)
    for i, x in enumerate(xs):
        pair = CKA()
        for part in parts:
            pair.update(x[part], ys[1][part])
        assert pair.compute().item() == pytest.approx(expected[i][1])
        assert pair.estimate().n == 23


def test_a_net_with_itself_has_ones_on_the_diagonal():
    outputs = [normal(12, 5), normal(12, 3, seed=1), torch.ones(12, 4, dtype=torch.float64) * 0.1]
    matrix = CKAMatrix()
    matrix.update(outputs)
    found = matrix.compute()
    np.testing.assert_allclose(found.diagonal()[:2], 1)
    np.testing.assert_allclose(found, found.T)
    assert found[2].isnan().all()  # constant: nothing to compare
    assert not found[:2, :2].isnan().any()


def test_cka_intervals_cover_95_per_cent_and_need_five_batches():
    # two outputs that share 3 of their 6 independent units: ‖Σxy‖² / (‖Σxx‖ ‖Σyy‖) is 3 / 6
    def run(seed: int, batches: int) -> CKA:
        one = CKA()
        for part in normal(batches, 16, 9, seed=seed):
            one.update(part[:, :6], part[:, 3:])
        return one

    found = [run(seed, 6).estimate() for seed in range(2, 202)]
    assert 0.9 < np.mean([one.low < 0.5 < one.high for one in found]) < 0.99
    assert math.isnan(run(1, of_cka.MIN_BATCHES - 1).estimate().low)
    assert math.isfinite(run(1, of_cka.MIN_BATCHES).estimate().low)


def test_cka_refuses_too_small_batches_and_can_be_reset():
    with pytest.raises(ValueError, match="4 images per batch, not 3"):
        cka(normal(3, 2), normal(3, 2))
    one = CKA()
    one.update(normal(8, 2), normal(8, 2, seed=1))
    one.reset()
    one.update(normal(8, 2), normal(8, 2))
    assert one.compute().item() == pytest.approx(1)
    assert one.estimate().n == 8


# --- dimension -------------------------------------------------------------------------------------------------------


@given(st.integers(3, 12), st.integers(2, 12))
def test_dimension_by_hand(n, d):
    x = normal(n, d) * torch.arange(1, d + 1) + 4
    singular = np.linalg.svd(x.numpy() - x.numpy().mean(0), compute_uv=False)
    theirs = np.linalg.eigvalsh(np.cov(x.numpy().T)) if d > 1 else np.ones(1)
    spectrum = eigenvalues(x)
    assert effective_rank(spectrum).item() == pytest.approx(np.exp(entropy(singular)), rel=1e-4)
    assert participation_ratio(spectrum).item() == pytest.approx(theirs.sum() ** 2 / (theirs**2).sum())


@pytest.mark.parametrize(("n", "d"), [(50, 400), (200, 200), (1000, 30)])
def test_isotropic_outputs_have_the_dimension_that_n_allows(n, d):
    assert participation_ratio(eigenvalues(normal(n, d))).item() == pytest.approx(isotropic(n, d), rel=0.03)


def test_dimension_of_maps_is_that_of_their_channels_means():
    x = normal(40, 6, 4, 4)
    x[:, 3:] = x[:, :3]  # half the channels are copies
    found = taken(Dimension(), x, 40)
    theirs = np.linalg.eigvalsh(np.cov(x.mean((2, 3)).numpy().T))
    assert found["participation_ratio"].value == pytest.approx(theirs.sum() ** 2 / (theirs**2).sum())
    assert 2 < found["effective_rank"].value < 3.001
    assert found["participation_ratio_isotropic"].value == pytest.approx(1 / (1 / 6 + 1 / 39))


def test_no_variance_has_no_dimension():
    found = taken(Dimension(), torch.ones(10, 3), 10)
    assert math.isnan(found["effective_rank"].value)
    assert math.isnan(found["participation_ratio"].value)


# --- selectivity -----------------------------------------------------------------------------------------------------


def selectivity_by_hand(pooled: np.ndarray, labels: np.ndarray) -> list[float]:
    found = []
    for channel in pooled.T:
        means = sorted(channel[labels == k].mean() for k in np.unique(labels))
        best, other = means[-1], np.mean(means[:-1])
        found.append((best - other) / (best + other))
    return found


def test_selectivity_by_hand():
    x, labels = normal(40, 7, 3, 3), torch.arange(40) % 4
    labels[:5] = 0  # classes of different sizes
    x[labels == 2, 1] += 2
    pooled = x.relu().mean((2, 3))
    expected = selectivity_by_hand(pooled.numpy(), labels.numpy())
    np.testing.assert_allclose(class_selectivity(pooled, labels), expected)
    assert np.argmax(expected) == 1
    found = taken(Selectivity(), torch.cat([x, -x[:, :1].abs()], 1), 9, labels)  # the last one is dead
    assert found["class_selectivity"].value == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(("each", "expected"), [(10, 0.32), (1000, 0.04)])
def test_noise_is_as_selective_as_its_null(each, expected):
    x, labels = normal(10 * each, 50), torch.arange(10 * each) % 10
    found = class_selectivity(x.relu(), labels).mean().item()
    assert found == pytest.approx(expected, abs=0.015)
    if each == 10:
        both = taken(Selectivity(), x, 100, labels)
        null = both["class_selectivity_null"]
        assert null.low < both["class_selectivity"].value < null.high
        assert null.value == pytest.approx(found, abs=0.02)


def test_a_selective_layer_lies_above_its_null_and_has_no_interval():
    labels = torch.arange(100) % 10
    x = normal(100, 20) + 3 * torch.nn.functional.one_hot(labels, 20)
    found = taken(Selectivity(), x, 100, labels)
    assert found["class_selectivity"].value > found["class_selectivity_null"].high
    assert math.isnan(found["class_selectivity"].low)


# --- health ----------------------------------------------------------------------------------------------------------


def test_dead_and_constant_channels_are_counted():
    x = normal(20, 6, 4, 4).float()
    x[:, 0], x[:, 1], x[:, 2] = 0, -x[:, 1].abs(), 0.1
    x[:, 3] = -x[:, 3].abs()
    x[19, 3, 2, 2] = 0.01  # fires once, in the last batch
    x[:, 4], x[:, 5] = 1, 1
    x[0, 4], x[0, 5] = 0.5, 2  # vary once, in the first batch
    assert dead_share(x[:10]).item() == pytest.approx(3 / 6)
    found = taken(Health(), x, 6)
    assert found["dead_share"].value == pytest.approx(2 / 6)
    assert found["constant_share"].value == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(3, 3 + 1e-6, True), (3, 3.01, False), (-1, 1, False), (0, 0, True)]
)
def test_rounding_does_not_count_as_variation(low, high, expected):
    assert is_constant(torch.tensor(float(low)), torch.tensor(float(high))).item() is expected


def test_channel_correlation_is_numpys():
    x = normal(30, 4, 3, 3) + 5
    x[:, 1] += x[:, 0]
    x[:, 3] = 0.1
    correlation = ChannelCorrelation()
    for part in x.split(8):
        correlation.update(part)
    found = correlation.compute()
    np.testing.assert_allclose(found[:3, :3], np.corrcoef(x[:, :3].transpose(0, 1).flatten(1).numpy()), atol=1e-12)
    assert found[3].isnan().all()


def test_duplicates_are_similar_in_weights_and_in_activations():
    a, b, c = torch.linalg.qr(normal(9, 9)).Q[:3]
    near = a + 0.2 * b
    nearer = a + 0.4 * b  # 0.93 with a, 0.98 with near: a chain
    filters = torch.stack([a, b, near, 3 * nearer, -a, c, c, 5 * c]).reshape(8, 1, 3, 3)
    correlation = torch.ones(8, 8)
    correlation[7] = correlation[:, 7] = 0.5  # works alike on paper only
    found = clusters(filters, correlation).tolist()
    assert found[0] == found[2] == found[3]
    assert found[5] == found[6]
    assert len(set(found)) == 5
    assert duplicate_share(filters, correlation) == pytest.approx(3 / 8)
    assert duplicate_share(filters, correlation, t=0.99) == pytest.approx(1 / 8)
    assert duplicate_share(filters, torch.full((8, 8), torch.nan)) == 0


@pytest.mark.parametrize(("count", "size"), [(32, 27), (64, 576), (8, 9)])
def test_the_largest_cosine_of_random_filters(count, size):
    found = [max_cosine(normal(count, size, seed=seed)) for seed in range(200)]
    assert max_cosine_null(count, size) == pytest.approx(np.median(found), abs=0.015)


# --- Moran's I -------------------------------------------------------------------------------------------------------


def morans_i_by_hand(x: np.ndarray) -> float:
    """By the whole matrix of weights."""
    h, w = x.shape
    place = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), -1).reshape(-1, 2)
    weights = (np.abs(place[:, None] - place).sum(-1) == 1).astype(float)
    z = x.ravel() - x.mean()
    return float(len(z) / weights.sum() * (z @ weights @ z) / (z @ z))


@given(st.integers(2, 7), st.integers(2, 7))
def test_morans_i_by_hand(h, w):
    x = normal(2, 3, h, w) + 10
    expected = [[morans_i_by_hand(channel) for channel in channels] for channels in x.numpy()]
    np.testing.assert_allclose(morans_i(x), expected, rtol=1e-9)


def test_morans_i_of_a_chessboard_a_slope_and_noise():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    board = ((rows + columns) % 2)[None, None]
    assert morans_i(board).item() == pytest.approx(-1)
    assert morans_i(rows[None, None]).item() > 0.95
    assert morans_i(normal(2000, 1, 8, 8)).mean().item() == pytest.approx(-1 / 63, abs=0.005)
    assert morans_i(torch.full((1, 1, 8, 8), 0.1)).isnan().all()


def test_morans_i_is_relative_to_the_images():
    images = normal(20, 1, 16, 16).cumsum(2).cumsum(3)
    found = taken(Moran(), torch.cat([images, torch.zeros_like(images)], 1), 6, images=images)
    assert found["morans_i_relative"].value == pytest.approx(1)  # the constant channel is left out
    assert found["morans_i"].value == pytest.approx(np.mean([morans_i_by_hand(x[0]) for x in images.numpy()]))
    noise = taken(Moran(), normal(20, 1, 16, 16, seed=1), 6, images=images)["morans_i_relative"]
    assert noise.low < noise.value < noise.high < 0.1


def test_small_maps_have_no_morans_i():
    found = taken(Moran(), normal(6, 2, 7, 9), 6, images=normal(6, 1, 16, 16))
    assert all(math.isnan(one.value) and math.isnan(one.low) for one in found.values())
