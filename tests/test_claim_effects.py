"""Effects that claims are judged by: against SciPy, statsmodels, every outcome, and simulation with a known truth."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import xlog1py, xlogy
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import confint_proportions_2indep

from src.stats.decisions import MINIMUM_SEEDS
from src.stats.effects import Effect, MeanEffect, crossed_effect, paired_effect, slope, unpaired_effect
from src.stats.intervals import value_and_influences
from src.stats.power import MOST_EXACT, decision_power, detectable, seeds_needed
from src.stats.shares import ShareEffect, chances, least_runs, p_values_above, p_values_at, p_values_below
from tests.verdict_rates import Claim, simulate

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.normal(0.3, 1, 7), RNG.normal(0, 2, 7)
#: with seeds, images and the rest of about the same part in the error of the mean
CROSSED = RNG.normal(size=(6, 1)) + RNG.normal(size=40) + RNG.normal(size=(6, 40))


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_means_have_the_intervals_of_scipy(level: float) -> None:
    for effect, test in (
        (paired_effect(FIRST - SECOND), stats.ttest_rel(FIRST, SECOND)),
        (unpaired_effect(FIRST, SECOND[:4]), stats.ttest_ind(FIRST, SECOND[:4], equal_var=False)),
    ):
        oracle = test.confidence_interval(level)
        assert effect.interval(level) == pytest.approx((oracle.low, oracle.high))


@pytest.mark.parametrize("bound", [-1.0, 0.0, 0.4, 3.0])
def test_means_have_the_p_values_of_scipy(bound: float) -> None:
    paired, welch = paired_effect(FIRST - SECOND), unpaired_effect(FIRST, SECOND[:4])
    for p_value, welch_p, alternative in (
        (paired.p_above(bound), welch.p_above(bound), "greater"),
        (paired.p_below(bound), welch.p_below(bound), "less"),
    ):
        assert p_value == pytest.approx(stats.ttest_rel(FIRST, SECOND + bound, alternative=alternative).pvalue)
        oracle = stats.ttest_ind(FIRST, SECOND[:4] + bound, equal_var=False, alternative=alternative)
        assert welch_p == pytest.approx(oracle.pvalue)


EFFECTS: list[Effect] = [
    paired_effect(FIRST - SECOND),
    crossed_effect(CROSSED),
    ShareEffect(3, 10, 8, 10),
    ShareEffect(0, 5, 4, 6),
    ShareEffect(5, 5, 5, 5),
]


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_interval_ends_where_the_p_value_is_its_tail(effect: Effect) -> None:
    before = (effect.value, effect.value)
    for level in (0.2, 0.8, 0.95, 0.99):
        low, high = effect.interval(level)
        assert low <= before[0] <= before[1] <= high
        before = low, high
        for end, p_value, outwards in ((low, effect.p_above, -1), (high, effect.p_below, 1)):
            if abs(end) < 1 or isinstance(effect, MeanEffect):
                assert p_value(end + 1e-5 * outwards) <= (1 - level) / 2 + 1e-9
            if end != effect.value:
                assert p_value(end - 1e-5 * outwards) >= (1 - level) / 2 - 1e-9


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
def test_a_level_is_between_0_and_1(level: float) -> None:
    for effect in EFFECTS:
        with pytest.raises(ValueError, match="level is between 0 and 1"):
            effect.interval(level)


def test_without_a_standard_error_there_is_no_interval() -> None:
    unknown = [
        paired_effect(np.array([0.1])),
        paired_effect(np.array([0.1, math.nan, 0.2])),
        paired_effect(np.array([0.1, math.inf, 0.2])),
        unpaired_effect(FIRST, SECOND[:1]),
        unpaired_effect(FIRST, np.array([math.nan, 1.0])),
        crossed_effect(CROSSED[:1]),
        crossed_effect(CROSSED[:, :1]),
        crossed_effect(np.where(CROSSED[0, 0] == CROSSED, math.nan, CROSSED)),
    ]
    for effect in unknown:
        numbers = [*effect.interval(0.95), effect.p_above(0.0), effect.p_below(0.0), detectable(effect, 0.95)]
        assert np.isnan(numbers).all(), effect
        assert seeds_needed(effect, "a>b", 0.0, 0.95) is None
    assert unknown[0].value == 0.1 and unknown[5].value == pytest.approx(CROSSED[0].mean())


def test_no_values_are_refused() -> None:
    nothing = np.array([])
    for estimate in (
        lambda: paired_effect(nothing),
        lambda: unpaired_effect(FIRST, nothing),
        lambda: crossed_effect(CROSSED[:0]),
        lambda: crossed_effect(CROSSED[:, :0]),
        lambda: ShareEffect(0, 0, 1, 2),
        lambda: ShareEffect(3, 2, 1, 2),
        lambda: slope(np.array([1.0, 1.0]), np.array([0.0, 1.0])),
    ):
        with pytest.raises(ValueError, match=r"no values|no images|no share|two different levels"):
            estimate()


def test_equal_differences_give_an_interval_of_no_width() -> None:
    for effect in (paired_effect(np.full(5, 0.25)), crossed_effect(np.full((3, 4), 0.25))):
        assert effect.interval(0.99) == (0.25, 0.25)
        assert (effect.p_above(0.0), effect.p_above(0.25), effect.p_below(0.5), effect.p_below(0.0)) == (0, 1, 0, 1)
    assert unpaired_effect(np.full(3, 0.5), np.full(4, 0.25)).interval(0.95) == (0.25, 0.25)


def test_a_slope_is_that_of_scipy() -> None:
    axis = np.array([1.0, 2.0, 4.0, 8.0])
    assert slope(axis, FIRST[:4]) == pytest.approx(stats.linregress(axis, FIRST[:4]).slope)


def test_the_crossed_error_is_that_of_the_analysis_of_variance() -> None:
    seeds, images = CROSSED.shape
    seed, image = np.indices(CROSSED.shape)
    table = pd.DataFrame({"y": CROSSED.ravel(), "seed": seed.ravel(), "image": image.ravel()})
    fitted = anova_lm(ols("y ~ C(seed) + C(image)", table).fit())
    squares, freedoms = fitted["mean_sq"].to_numpy(), fitted["df"].to_numpy()
    effect = crossed_effect(CROSSED)
    assert effect.standard_error**2 == pytest.approx((squares[0] + squares[1] - squares[2]) / CROSSED.size)
    assert effect.seed_error**2 == pytest.approx(squares[0] / CROSSED.size)
    assert (effect.freedom, effect.image_freedom) == (freedoms[0], freedoms[1]) == (seeds - 1, images - 1)
    assert (effect.n, effect.value) == (seeds, pytest.approx(CROSSED.mean()))
    assert effect.spread == pytest.approx(CROSSED.mean(1).std(ddof=1))


@pytest.mark.parametrize(("images", "share"), [(100, 0.01), (100, 0.03), (300, 0.01), (1000, 0.01)])
def test_the_crossed_interval_covers_where_few_images_differ(images: int, share: float) -> None:
    """All nets err on the same few images: of 100, none may be among them by chance."""
    generator = np.random.default_rng(0)
    misses = 0
    for _ in range(1000):
        low, high = crossed_effect(np.tile(generator.random(images) < share, (5, 1)).astype(float)).interval(0.95)
        misses += not low <= share <= high
    assert misses <= stats.binom.ppf(0.999, 1000, 0.05)


def test_without_variance_of_images_or_of_seeds_the_crossed_interval_is_students() -> None:
    rows, columns = CROSSED.mean(1), CROSSED.mean(0)
    of_seeds = crossed_effect(np.tile(rows[:, None], 40))
    assert of_seeds.interval(0.9) == pytest.approx(paired_effect(rows).interval(0.9))
    of_images = crossed_effect(np.tile(columns, (6, 1)))
    assert of_images.interval(0.9) == pytest.approx(paired_effect(columns).interval(0.9))
    assert of_images.p_above(0.1) == pytest.approx(paired_effect(columns).p_above(0.1), rel=1e-6)


@pytest.mark.parametrize(
    "seed_sd, image_sd, rest_sd", [(0, 1, 1), (1, 0, 1), (0.1, 0.5, 1), (0.3, 1, 1), (0, 0, 1), (1, 1, 0)]
)
def test_the_crossed_interval_covers(seed_sd: float, image_sd: float, rest_sd: float) -> None:
    """Each repetition draws new seeds and images; in every second one the numbers are ratios of means."""
    rng, draws, (seeds, images), missed = np.random.default_rng(1), 1000, (5, 50), 0
    for i in range(draws):
        by_image = rng.normal(1, image_sd, images) + rng.normal(0, rest_sd, (seeds, images))
        drawn = by_image + rng.normal(0, seed_sd, (seeds, 1))
        if i % 2:
            weights = rng.uniform(1, 2, images)
            ratios = [value_and_influences(np.stack([weights * row, weights], 1)) for row in drawn]
            drawn = np.stack([value + influences for value, influences in ratios])
        low, high = crossed_effect(drawn).interval(0.95)
        missed += not low < 1 < high
    assert missed / draws < 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize("n, other_n", [(5, 5), (10, 10), (12, 7)])
def test_p_values_of_equal_shares_are_barnards(n: int, other_n: int) -> None:
    for hits, other in ((0, other_n - 1), (1, 4), (n // 2, other_n), (n - 1, 2)):
        table = [[hits, other], [n - hits, other_n - other]]
        effect = ShareEffect(hits, n, other, other_n)
        for alternative, p_value in (("greater", effect.p_above(0.0)), ("less", effect.p_below(0.0))):
            oracle = stats.barnard_exact(table, alternative=alternative, n=64).pvalue
            if oracle < 0.1:
                assert p_value == pytest.approx(oracle, rel=2e-3)
            assert p_value >= oracle * 0.998


def test_the_score_orders_outcomes_by_the_likelihood() -> None:
    """p-values of a difference other than zero: with the most likely shares sought on a fine grid."""
    n, other_n, difference = 5, 6, 0.3
    other_share = np.linspace(0, 1 - difference, 20_001)
    share = other_share + difference
    statistic = np.empty((n + 1, other_n + 1))
    for hits, other in np.ndindex(statistic.shape):
        likelihood = xlogy(hits, share) + xlog1py(n - hits, -share)
        likelihood += xlogy(other, other_share) + xlog1py(other_n - other, -other_share)
        p, q = share[likelihood.argmax()], other_share[likelihood.argmax()]
        error = math.sqrt(max(p * (1 - p) / n + q * (1 - q) / other_n, 1e-12))
        statistic[hits, other] = (hits / n - other / other_n - difference) / error
    at = [
        (stats.binom.pmf(range(n + 1), n, q + difference), stats.binom.pmf(range(other_n + 1), other_n, q))
        for q in np.linspace(0, 1 - difference, 101)
    ]
    p_values = p_values_at(difference, n, other_n)
    for hits, other in np.ndindex(statistic.shape):
        region = statistic >= statistic[hits, other] - 1e-3
        assert p_values[hits, other] == pytest.approx(max(first @ region @ second for first, second in at), abs=1e-6)


@pytest.mark.parametrize("n, other_n", [(5, 5), (8, 8), (12, 4)])
def test_the_exact_interval_of_shares_covers_whatever_the_shares_are(n: int, other_n: int) -> None:
    """Over all outcomes: each end errs with 2.5% at most, also between the points that are searched for the largest."""
    for share in np.linspace(0.003, 0.997, 29):
        for other_share in np.linspace(0.011, 0.989, 23):
            first, second = chances(share, n), chances(other_share, other_n)
            for p_values in (p_values_above, p_values_below):
                wrong = p_values(float(share - other_share), n, other_n) <= 0.025
                assert first @ wrong @ second <= 0.0251


def test_with_many_runs_the_interval_of_shares_is_near_newcombes() -> None:
    for hits, other in ((5, 14), (30, 30), (50, 12)):
        approximate = confint_proportions_2indep(hits, 60, other, 60, method="newcomb")
        assert ShareEffect(hits, 60, other, 60).interval(0.95) == pytest.approx(approximate, abs=0.02)


def test_an_interval_of_shares_is_that_of_the_sides_swapped_and_of_misses() -> None:
    low, high = ShareEffect(2, 9, 5, 7).interval(0.9)
    assert ShareEffect(5, 7, 2, 9).interval(0.9) == pytest.approx((-high, -low), abs=1e-5)
    assert ShareEffect(2, 7, 7, 9).interval(0.9) == pytest.approx((low, high), abs=1e-5)
    assert ShareEffect(0, 9, 7, 7).interval(0.9)[0] == -1


def test_shares_can_differ_from_this_number_of_runs_on() -> None:
    """The most different outcome has the p-value (1/4)ⁿ."""
    for level in (0.9, 0.95, 0.99):
        n = least_runs(level)
        assert 0.25**n <= (1 - level) / 2 < 0.25 ** (n - 1)
        assert ShareEffect(0, n, n, n).interval(level)[1] < 0 <= ShareEffect(0, n - 1, n - 1, n - 1).interval(level)[1]


@pytest.mark.parametrize("n", [3, 5, 20])
def test_a_detectable_mean_is_that_of_statsmodels(n: int) -> None:
    effect = MeanEffect(0.1, 0.2 / math.sqrt(n), n - 1, n, 0.2)
    for level, power in ((0.95, 0.8), (0.9, 0.5)):
        oracle = TTestPower().solve_power(nobs=n, alpha=1 - level, power=power)
        assert detectable(effect, level, power) / 0.2 == pytest.approx(oracle, rel=3e-3)


@pytest.mark.parametrize("size", [0.4, 0.7, 1.3])
def test_seeds_needed_are_those_of_statsmodels(size: float) -> None:
    effect = MeanEffect(-size, 1 / math.sqrt(6), 5, 6, 1.0)
    oracle = math.ceil(TTestPower().solve_power(effect_size=size, alpha=0.05, power=0.8))
    assert seeds_needed(effect, "a<b", 0.0, 0.95) == max(oracle, MINIMUM_SEEDS)
    assert seeds_needed(effect, "a<b", 0.0, 0.95, most=oracle - 1) is None
    assert seeds_needed(effect, "a>b", 10.0, 0.95) == MINIMUM_SEEDS


@pytest.mark.parametrize("value", [0.0, 0.8])
@pytest.mark.parametrize("expect", ["a>b", "a<b", "a=b"])
def test_seeds_needed_decide_as_often_as_stated(expect: str, value: float) -> None:
    n = seeds_needed(MeanEffect(value, 0.4, 4, 5, 1.0), expect, 0.9, 0.95)
    assert n is not None
    stated = decision_power(MeanEffect(value, 1 / math.sqrt(n), n - 1, n, 1.0), expect, 0.9, 0.95)
    rates = simulate(Claim((value,), expect, 0.9), n, 2000, np.random.default_rng(2))
    assert stated >= 0.8
    assert 1 - rates.verdicts["undecided"] == pytest.approx(stated, abs=0.03)


def test_more_seeds_do_not_help_where_images_are_too_few() -> None:
    effect = crossed_effect(CROSSED + 1 - CROSSED.mean())
    assert effect.image_error > 0
    assert seeds_needed(effect, "a>b", 0.0, 0.95) is not None
    few = MeanEffect(0.1, math.hypot(0.1, 0.1), 4, 5, 0.1 * math.sqrt(5), 0.1, 99)
    assert seeds_needed(few, "a>b", 0.0, 0.95) is None
    assert few.with_pairs(5).interval(0.9) == pytest.approx(few.interval(0.9))


def test_a_detectable_difference_of_shares_is_detected_as_often_as_stated() -> None:
    """Over all outcomes, by their intervals."""
    for effect, sign in ((ShareEffect(1, 10, 2, 10), 1), (ShareEffect(3, 8, 5, 6), -1)):
        n, other_n = effect.runs, effect.other_runs
        other_share = effect.other_hits / other_n
        share = other_share + sign * detectable(effect, 0.95)
        power = 0.0
        for hits, other in np.ndindex(n + 1, other_n + 1):
            low, high = ShareEffect(hits, n, other, other_n).interval(0.95)
            detected = low > 0 if sign > 0 else high < 0
            power += detected * chances(share, n)[hits] * chances(other_share, other_n)[other]
        assert power == pytest.approx(0.8, abs=1e-3)
    assert detectable(ShareEffect(0, 3, 1, 3), 0.95) == math.inf


def test_runs_needed_decide_as_often_as_stated() -> None:
    n = seeds_needed(ShareEffect(1, 10, 6, 10), "a<b", 0.0, 0.95)
    assert n is not None
    for runs, enough in ((n, True), (n - 1, False)):
        low = p_values_below(0.0, runs, runs) <= 0.025
        high = p_values_above(0.0, runs, runs) <= 0.025
        assert (chances(0.1, runs) @ (low | high) @ chances(0.6, runs) >= 0.8) == enough
    # by the formula of Fleiss for the normal approximation
    n = seeds_needed(ShareEffect(30, 100, 40, 100), "a<b", 0.0, 0.95)
    z = stats.norm.ppf([0.975, 0.8]).sum()
    assert n == pytest.approx(z**2 * (0.3 * 0.7 + 0.4 * 0.6) / 0.1**2, abs=1.5) and n > MOST_EXACT
    assert seeds_needed(ShareEffect(3, 10, 3, 10), "a<b", 0.0, 0.95) is None
