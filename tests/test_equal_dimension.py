"""Class probe and kept variance at equal dimension, against scikit-learn's PCA and closed forms."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from src.common.errors import UserError
from src.config import from_dict
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.families.equal_dimension import PIXELS_SIDE, _projected, rebuilt, rows, variance_estimate
from src.evaluation.linear_probes import split
from src.evaluation.suite import ALL, evaluate_families
from src.metrics import Row
from src.results.measures import family_of_row, named_values

N, SIDE, CLASSES = 300, 6, 3
GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, CLASSES, N)
#: a pattern a class, and noise that is correlated over pixels
PATTERNS = GENERATOR.normal(size=(CLASSES, SIDE**2))
MIXING = GENERATOR.normal(size=(SIDE**2, SIDE**2)) / SIDE
IMAGES = PATTERNS[LABELS] + GENERATOR.normal(size=(N, SIDE**2)) @ MIXING
PIXELS = torch.from_numpy(IMAGES).float().view(N, 1, SIDE, SIDE)
TRAIN, TEST = split(N, 0)
DIMENSIONS = (2, 4, 8)


def measured(net: nn.Module, layers: list[str], dimensions: tuple[int, ...] = DIMENSIONS) -> dict[tuple[str, ...], Row]:
    adapter = ModelAdapter(net, layers, lambda pixels: pixels)
    labels = torch.from_numpy(LABELS)
    padded = nn.functional.pad(PIXELS, (1, 1, 1, 1))
    found = rows(adapter, EvaluationSet(padded, 1, labels, dimensions=dimensions))
    return {
        (row.layer, row.protocol, f"{row.amount}", row.measure.removeprefix("equal_dimension_")): row for row in found
    }


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * SIDE**2, 6))


NET = small_net()
FOUND = measured(NET, ["1", "3"])


@pytest.mark.parametrize("d", DIMENSIONS)
def test_pixels_by_pca_keep_the_explained_variance_and_nothing_keeps_more_on_the_training_images(d):
    pca = PCA(d).fit(IMAGES[TRAIN])
    best = pca.explained_variance_ratio_.sum()
    candidates = {
        "pca": _projected(IMAGES, TRAIN, d, "pca", 0),
        "random": _projected(IMAGES, TRAIN, d, "random", 0),
        "relu": np.maximum(_projected(IMAGES, TRAIN, d, "random", 1), 0),
        "supervised": IMAGES @ LinearRegression().fit(IMAGES[TRAIN], IMAGES[TRAIN, :d]).coef_.T,
        "one component less": np.c_[pca.transform(IMAGES)[:, : d - 1], GENERATOR.normal(size=N)],
    }
    kept = {
        name: variance_estimate(IMAGES[TRAIN], rebuilt(x, IMAGES, TRAIN, (1e-6,))[TRAIN]).value
        for name, x in candidates.items()
    }
    assert kept["pca"] == pytest.approx(best, abs=1e-6)
    assert all(0 <= value < best for name, value in kept.items() if name != "pca"), kept


@pytest.mark.parametrize("d", DIMENSIONS)
def test_the_held_out_numbers_of_pixels_are_scikit_learns(d):
    pca = PCA(d).fit(IMAGES[TRAIN])
    scores = pca.transform(IMAGES)
    expected = r2_score(IMAGES[TEST], pca.inverse_transform(scores)[TEST], multioutput="variance_weighted")
    assert FOUND["pixels", "pca", f"{d}", "variance"].estimate.value == pytest.approx(expected, abs=0.005)
    x = StandardScaler().fit(scores[TRAIN]).transform(scores)
    share = LogisticRegression(C=1 / 30).fit(x[TRAIN], LABELS[TRAIN]).score(x[TEST], LABELS[TEST])
    row = FOUND["pixels", "pca", f"{d}", "accuracy"]
    assert row.estimate.value == pytest.approx(share, abs=0.06), "the penalty may be another"
    assert row.estimate.n == len(TEST)


def test_the_first_principal_components_are_those_of_the_training_images_alone():
    moved = IMAGES.copy()
    moved[TEST] += 100
    assert np.allclose(_projected(IMAGES, TRAIN, 4, "pca", 0)[TRAIN], _projected(moved, TRAIN, 4, "pca", 0)[TRAIN])
    ours, theirs = _projected(IMAGES, TRAIN, 4, "pca", 0), PCA(4).fit(IMAGES[TRAIN]).transform(IMAGES)
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert abs(np.corrcoef(a, b)[0, 1]) == pytest.approx(1)


def test_every_layer_has_a_row_at_each_dimension_that_it_has_directions_for():
    expected = {("1", 2), ("1", 4), ("1", 8), ("3", 2), ("3", 4), ("pixels", 2), ("pixels", 4), ("pixels", 8)}
    assert {(layer, int(d)) for layer, how, d, measure in FOUND if how == "pca" and measure == "variance"} == expected
    assert {(layer, int(d)) for layer, how, d, measure in FOUND if how == "random" and measure == "accuracy"} == {
        ("pixels", d) for d in DIMENSIONS
    }
    assert {layer for layer, _, _, measure in FOUND if measure.endswith("_shuffled")} == {"3"}
    for row in FOUND.values():
        assert row.estimate.low <= row.estimate.value <= row.estimate.high <= 1
        assert family_of_row(row) == "equal_dimension"


def test_shuffled_targets_are_at_chance_and_patterns_are_found():
    shuffled = FOUND["3", "pca", "4", "accuracy_shuffled"].estimate
    assert shuffled.low < max(np.bincount(LABELS[TEST])) / len(TEST) and shuffled.value < 0.55
    assert FOUND["3", "pca", "4", "variance_shuffled"].estimate.value < 0.03
    assert FOUND["pixels", "pca", "4", "accuracy"].estimate.value > 0.8


def test_an_identity_layer_is_the_pixels():
    found = measured(nn.Sequential(nn.Flatten(), nn.Identity()), ["1"])
    for d in DIMENSIONS:
        for measure in ("accuracy", "variance"):
            layer, pixels = (found[name, "pca", f"{d}", measure].estimate.value for name in ("1", "pixels"))
            assert layer == pytest.approx(pixels, abs=1e-5)


def test_large_images_are_averaged():
    padded = torch.rand(40, 1, PIXELS_SIDE + 8, PIXELS_SIDE + 8)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    found = list(rows(ModelAdapter(net, ["1"], lambda pixels: pixels), EvaluationSet(padded, 1, dimensions=(2,))))
    assert {row.measure for row in found if row.layer == "pixels"} == {"equal_dimension_variance"}, "no labels"


def test_the_family_is_measured_only_if_it_is_named():
    assert "equal_dimension" not in ALL
    adapter = ModelAdapter(NET, ["1"], lambda pixels: pixels)
    images = EvaluationSet(nn.functional.pad(PIXELS, (1, 1, 1, 1)), 1, torch.from_numpy(LABELS), dimensions=(2,))
    found = [row for row in evaluate_families(adapter, images, ["equal_dimension"]) if isinstance(row, Row)]
    assert {row.amount for row in found} == {2}
    names = named_values(FOUND.values())
    assert len(names) == len(FOUND), "each amount has its own name"
    assert "pca/4/pixels/equal_dimension_variance" in names


@pytest.mark.parametrize("wrong", [[4, 0], [-1]])
def test_a_wrong_number_of_dimensions_is_refused(wrong):
    with pytest.raises(UserError, match=r"^measure\.dimensions=.*: must be whole numbers of at least 1, below "):
        from_dict({"measure": {"dimensions": wrong}})
