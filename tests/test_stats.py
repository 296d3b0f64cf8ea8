"""Statistics on plain arrays: paired differences, rankings and shares of variance against SciPy and sums by hand."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from src.stats.factorial import REST, SEED, block_interval, cell_means, combinations_of, is_balanced, variance_shares
from src.stats.ranking import Sample, difference, rank

SHARE = (0.0, 1.0)


def sample(*values: float) -> Sample:
    return Sample(dict(enumerate(values)))


def test_seeds_are_paired_as_by_scipy() -> None:
    ours, theirs = [0.71, 0.82, 0.91], [0.70, 0.80, 0.90]
    apart = difference(sample(*ours), sample(*theirs))
    oracle = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (apart.low, apart.high) == pytest.approx((oracle.low, oracle.high))
    assert (apart.pairs, apart.images) == (3, 0)


def test_images_are_paired_only_where_both_saw_the_same() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = (rng.random((200, 1)) < p for p in (0.9, 0.8))

    def single(values: np.ndarray, image_set: str) -> Sample:
        mean = float(values.mean())
        return Sample({0: mean}, (mean, mean - 0.05, mean + 0.05), values, frozenset({image_set}))

    apart = difference(single(ours, "a"), single(theirs, "a"))
    oracle = stats.ttest_rel(ours[:, 0].astype(float), theirs[:, 0].astype(float)).confidence_interval(0.95)
    assert (apart.low, apart.high) == pytest.approx((oracle.low, oracle.high)) and apart.images == 200
    for other in (single(theirs, "b"), single(theirs[:100], "a")):
        assert difference(single(ours, "a"), other).images == 0


def test_intervals_end_at_the_range() -> None:
    best, other = sample(0.99, 0.80), sample(0.01, 0.30)
    assert best.interval(within=SHARE)[2] == 1
    assert difference(best, other, within=SHARE).high == 1
    assert difference(other, best, within=SHARE).low == -1


@pytest.mark.parametrize("smallest", [True, False])
def test_the_best_comes_first_and_close_ones_are_tied(smallest: bool) -> None:
    samples = [sample(0.50, 0.52, 0.51), sample(0.10, 0.12, 0.11), sample(0.12, 0.10, 0.11), sample(0.9, 0.92, 0.91)]
    ranked = rank(samples, smallest, SHARE)
    assert ranked.order == ([1, 2, 0, 3] if smallest else [3, 0, 1, 2])
    assert ranked.tied == ([2] if smallest else [])
    assert all(behind.value >= 0 for behind in ranked.behind)


def test_without_a_common_seed_both_intervals_decide() -> None:
    first, second = Sample({0: 0.50, 1: 0.51}), Sample({2: 0.55, 3: 0.56})
    ranked = rank([first, second], smallest=True)
    assert math.isnan(ranked.behind[0].low) and ranked.tied == [1]
    many = [Sample({seed + 10 * i: mean + 0.001 * seed for seed in range(5)}) for i, mean in enumerate((0.5, 0.6))]
    assert rank(many, smallest=True).tied == []


LEVELS = np.array(list(product(range(3), range(2))))


def test_shares_of_an_additive_table_have_no_interaction() -> None:
    values = (LEVELS @ [0.1, 0.4])[:, None] + np.array([0.0, 0.02])
    assert is_balanced(LEVELS) and combinations_of(LEVELS) == 6
    shares = {share.source: share for share in variance_shares(values, LEVELS)}
    assert list(shares) == [(0,), (1,), (0, 1), SEED, REST]
    squares = {(0,): 4 * 2 * 0.1**2, (1,): 12 * 0.2**2, (0, 1): 0, SEED: 12 * 0.01**2, REST: 0}
    total = sum(squares.values())
    assert {source: share.share for source, share in shares.items()} == pytest.approx(
        {source: square / total for source, square in squares.items()}
    )
    assert [share.expected * 11 for share in shares.values()] == pytest.approx([2, 1, 2, 1, 5])


def test_equal_values_have_no_shares_and_missing_cells_no_balance() -> None:
    assert variance_shares(np.ones((6, 2)), LEVELS) == []
    assert not is_balanced(LEVELS[:-1])


def test_an_interval_of_a_cell_is_over_seeds_of_its_distance_from_the_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((6, 4)) + 10 * rng.random(4)
    means = cell_means(values, LEVELS, [1])
    np.testing.assert_allclose(means[1,], values[LEVELS[:, 1] == 1].mean(0))
    value, low, high = block_interval(means[1,], values.mean(0))
    oracle = stats.ttest_1samp(means[1,] - values.mean(0), 0).confidence_interval(0.95)
    assert value == pytest.approx(means[1,].mean())
    assert (low, high) == pytest.approx((oracle.low + values.mean(), oracle.high + values.mean()))
