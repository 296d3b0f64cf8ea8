"""Rankings where the truth is known: equal variants are rarely called different, and the interval of the best covers
it although it was picked.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from src.config import flatten, from_dict
from src.metrics.base import pair_measures
from src.metrics.quantities import range_of
from src.metrics.rows import Estimate, PerImage, Row
from src.reporting.comparison import difference, ranking
from src.reporting.headline import headline
from src.reporting.variant import Variant
from src.results import files
from src.results.measures import write_measures
from src.results.runs import FinishedRun
from src.stats.bootstrap import bootstrap_weights
from src.stats.intervals import bonferroni_level, paired_difference, t_interval, value_and_influences

TIMES, IMAGES = 300, 400
SETTINGS = flatten(from_dict({}))
DISTANCE, ACCURACY = "crop_1px_output_distance", "test_accuracy"


def run(distances: np.ndarray, scales: np.ndarray, right: np.ndarray, seed: int = 0, kept: bool = True) -> FinishedRun:
    """A run in memory, measured on ``len(distances)`` images."""
    ratio, adds = value_and_influences(np.stack([distances, scales], 1))
    half = 1.96 * adds.std() / math.sqrt(len(adds))
    share = float(right.mean())
    error = 1.96 * math.sqrt(share * (1 - share) / len(right)) + 1e-9
    one = FinishedRun(Path("nowhere"), SETTINGS | {"seed": seed})
    one.__dict__["measures"] = {
        ("output", "crop", 1, "output_distance"): (ratio, ratio - half, ratio + half),
        ("output", "test", 0, "accuracy"): (share, share - error, share + error),
    }
    one.__dict__["facts"] = {"split_checksum": "same", "seconds": 1, "parameters": 1, "multiply_adds": 1}
    one.__dict__["per_image"] = {
        "output,crop,1,output_distance": np.stack([distances, scales], 1).astype(np.float32),
        "output,test,0,accuracy": right[:, None],
    } if kept else {}  # fmt: skip
    return one


def drawn(count: int, seeds: int, rng: np.random.Generator, kept: bool = True) -> list[Variant]:
    """Equal variants measured on the same images, whose effects are mostly common to all."""
    common, hard = rng.gamma(2, 1, IMAGES), rng.random(IMAGES)

    def one(seed: int) -> FinishedRun:
        distances = common * rng.gamma(8, 1 / 8, IMAGES) * math.exp(0.05 * rng.standard_normal() * (seeds > 1))
        right = hard + 0.2 * rng.standard_normal(IMAGES) < 0.9
        return run(distances, 5 + common + rng.random(IMAGES), right, seed, kept)

    return [Variant(f"v{i}", {}, [one(seed) for seed in range(seeds)]) for i in range(count)]


@pytest.mark.parametrize("kept", [True, False], ids=["paired", "kept-nothing"])
@pytest.mark.parametrize(("count", "seeds"), [(2, 1), (5, 1), (20, 1), (2, 5), (5, 5), (20, 5), (2, 2)])
def test_equal_variants_are_called_different_5_times_in_100_at_most(count, seeds, kept):
    rng = np.random.default_rng(count * 100 + seeds)
    times = TIMES if count < 20 else 60
    told = 0
    for _ in range(times):
        ranked = ranking(drawn(count, seeds, rng, kept), DISTANCE, smallest=True)
        told += len(ranked.tied) < count - 1
    assert told / times <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / times), "5 % and the sampling error of so few trials"


@pytest.mark.parametrize(("count", "seeds"), [(20, 1), (20, 5), (2, 2)])
def test_the_interval_of_the_best_covers_it_although_it_was_picked(count, seeds):
    rng = np.random.default_rng(7)
    big = np.random.default_rng(0)
    common = big.gamma(2, 1, 10**6)
    truth = float(common.mean() / (5.5 + common.mean()))
    truth *= math.exp(0.05**2 / 2) if seeds > 1 else 1
    times = 100
    ranked = [ranking(drawn(count, seeds, rng), DISTANCE, smallest=True) for _ in range(times)]
    held = sum(one.interval[1] <= truth <= one.interval[2] for one in ranked) / times
    assert held >= 0.92


def test_a_real_difference_is_seen_image_by_image_where_two_intervals_overlap():
    rng = np.random.default_rng(0)
    common = rng.gamma(2, 1, IMAGES)
    first = run(common * 0.95, 5 + common, common > 1)
    second = run(common, 5 + common, common > 1)
    for kept in (True, False):
        found = [Variant(name, {}, [one]) for name, one in (("a", first), ("b", second))]
        if not kept:
            for one in (first, second):
                one.__dict__["per_image"] = {}
        assert bool(ranking(found, DISTANCE, smallest=True).tied) is not kept


def test_a_difference_of_accuracies_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 200)) < np.array([[0.9], [0.8]])
    found = paired_difference(one[:, None], other[:, None])
    oracle = stats.ttest_rel(one.astype(float), other.astype(float)).confidence_interval(0.95)
    assert found == pytest.approx((one.mean() - other.mean(), oracle.low, oracle.high))


def test_the_standard_error_of_a_ratio_is_that_of_a_bootstrap():
    rng = np.random.default_rng(0)
    above = rng.gamma(2, 1, 500)
    both = np.stack([above, 3 + above * rng.random(500)], 1)
    ratio, adds = value_and_influences(both)
    means = bootstrap_weights(500, draws=4000).numpy() @ both
    assert ratio == pytest.approx(above.mean() / both[:, 1].mean())
    assert adds.std() / math.sqrt(500) == pytest.approx((means[:, 0] / means[:, 1]).std(), rel=0.05)


def test_runs_of_other_images_are_not_compared_image_by_image():
    rng = np.random.default_rng(0)
    first, second = (Variant(name, {}, [one.runs[0]]) for name, one in zip("ab", drawn(2, 1, rng), strict=True))
    assert difference(first, second, DISTANCE).images == IMAGES
    second.runs[0].facts["split_checksum"] = "another"
    second.runs[0].settings["data.label_noise"] = 0.4
    assert difference(first, second, DISTANCE).images == IMAGES, "label noise does not change test labels"
    second.runs[0].settings["data.split_seed"] = 1
    assert difference(first, second, DISTANCE).images == 0
    second.runs[0].settings["data.split_seed"] = 0
    second.runs[0].settings["measure.seed"] = 1
    assert math.isnan(difference(first, second, DISTANCE).low)


def test_bounds_stay_within_the_range_of_the_measure():
    found = t_interval([0.01, 0.03], within=range_of("output_distance"))
    assert found[1] == 0 < t_interval([0.01, 0.03])[2]
    rng = np.random.default_rng(0)
    one = drawn(1, 2, rng)[0]
    for key in (DISTANCE, ACCURACY):
        low, high = one.interval(key, bonferroni_level(20))[1:]
        assert low >= 0 and (key == DISTANCE or high <= 1)
    apart = difference(*drawn(2, 2, rng), ACCURACY, bonferroni_level(190))
    assert -1 <= apart.low <= apart.value <= apart.high <= 1


@pytest.mark.parametrize("kind", pair_measures())
def test_every_measure_has_its_range(kind):
    one = kind()
    one.update(torch.randn(12, 4), torch.randn(12, 4), torch.zeros(12, dtype=torch.long))
    for name in one.compute():
        assert range_of(name) != (-math.inf, math.inf), name


def test_the_headline_names_those_that_cannot_be_distinguished(monkeypatch):
    rng = np.random.default_rng(1)
    words = headline(drawn(6, 1, rng))
    assert "not distinguishable from v" in words and ", nor from v" in words and " and 1 more" in words
    assert "These intervals are corrected for picking the best of 6 and for comparing all pairs" in words


def test_per_image_statistics_are_read_back(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    rows = [Row("output", "shift", "crop", 1, "output_distance", Estimate(1, 1, 1, 3))]
    write_measures(tmp_path / files.MEASURES, [*rows, PerImage("output", "crop", 1.0, "output_distance", values)])
    kept = FinishedRun(tmp_path, {}).per_image
    assert list(kept) == ["output,crop,1,output_distance"]
    np.testing.assert_array_equal(kept["output,crop,1,output_distance"], values)
    write_measures(tmp_path / files.MEASURES, rows)
    assert not FinishedRun(tmp_path, {}).per_image, "the old ones are removed"
