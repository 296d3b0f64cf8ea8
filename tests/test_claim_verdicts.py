"""Verdicts on claims: the rule by hand, against tests of statsmodels, and by simulation with a known truth."""

import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from src.stats.decisions import (
    Expectation,
    Need,
    Verdict,
    claim_levels,
    decide,
    decide_claim,
    p_of_decision,
    spent,
    verdict_of,
)
from src.stats.effects import Effect, MeanEffect, crossed_effect, paired_effect
from src.stats.shares import ShareEffect, chances
from tests.helpers import ROOT
from tests.verdict_rates import CLAIMS, LOOKED_AT

HOLDS, REFUTED, EQUIVALENT, UNDECIDED, INADMISSIBLE = Verdict
EXPECTATIONS: tuple[Expectation, ...] = ("a>b", "a<b", "a=b")


def decision_p(effect: Effect, expect: Expectation, margin: float) -> float:
    return float(p_of_decision(effect.p_above, effect.p_below, expect, margin))


def with_interval(low: float, high: float) -> MeanEffect:
    """At the level of 95%."""
    value = (low + high) / 2
    return MeanEffect(value, (high - low) / 2 / 2.7764451051977987, 4, 5, 1.0)


@pytest.mark.parametrize(
    "low, high, greater, less, equal",
    [
        (0.2, 0.8, HOLDS, REFUTED, REFUTED),
        (0.02, 0.2, HOLDS, REFUTED, REFUTED),
        (0.02, 0.08, EQUIVALENT, EQUIVALENT, HOLDS),
        (-0.02, 0.08, EQUIVALENT, EQUIVALENT, HOLDS),
        (-0.02, 0.2, UNDECIDED, REFUTED, UNDECIDED),
        (-0.2, 0.2, UNDECIDED, UNDECIDED, UNDECIDED),
        (-0.2, 0.05, REFUTED, UNDECIDED, UNDECIDED),
        (-0.2, -0.05, REFUTED, HOLDS, REFUTED),
        (0.05, 0.05, EQUIVALENT, EQUIVALENT, HOLDS),
        (0.5, 0.5, HOLDS, REFUTED, REFUTED),
        (0.0, 0.0, EQUIVALENT, EQUIVALENT, HOLDS),
        (math.nan, math.nan, UNDECIDED, UNDECIDED, UNDECIDED),
    ],
)
def test_the_interval_and_a_margin_decide(
    low: float, high: float, greater: Verdict, less: Verdict, equal: Verdict
) -> None:
    effect = with_interval(low, high)
    for expect, verdict in zip(EXPECTATIONS, (greater, less, equal), strict=True):
        assert decide(effect, expect, 0.1) == verdict
        assert (decision_p(effect, expect, 0.1) <= 0.05) == (verdict != UNDECIDED)


def test_without_a_margin_nothing_is_equivalent() -> None:
    same = with_interval(0.0, 0.0)
    for expect in EXPECTATIONS:
        assert decide(same, expect, 0.0) == UNDECIDED
        assert decision_p(same, expect, 0.0) >= 1


@pytest.mark.parametrize("margin", [-0.1, math.nan])
def test_a_margin_is_not_negative(margin: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        decide(with_interval(0.1, 0.2), "a>b", margin)


RNG = np.random.default_rng(0)
EFFECTS: list[Effect] = [
    *(paired_effect(RNG.normal(mean, 1, 6)) for mean in (0, 0.3, 1, 3)),
    crossed_effect(RNG.normal(0.3, 1, (5, 1)) + RNG.normal(size=30) + RNG.normal(size=(5, 30))),
    ShareEffect(2, 9, 8, 10),
    ShareEffect(6, 9, 5, 10),
]


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("margin", [0.0, 0.13, 0.9])
def test_the_p_value_of_a_decision_is_where_it_is_decided_from(effect: Effect, margin: float) -> None:
    for expect in EXPECTATIONS:
        p_value = decision_p(effect, expect, margin)
        if p_value > 1e-6:
            assert decide(effect, expect, margin, 1 - p_value * 0.999) == UNDECIDED
        if p_value < 0.99:
            assert decide(effect, expect, margin, 1 - max(p_value * 1.001, 1e-9)) != UNDECIDED


def test_equal_within_a_margin_is_what_two_one_sided_tests_say() -> None:
    rng = np.random.default_rng(1)
    for n, mean in product((4, 10), (0.0, 0.3, 0.8)):
        first, second = rng.normal(mean, 1, n), rng.normal(0, 1, n)
        p_value = ttost_paired(first, second, -1.2, 1.2)[0]
        effect = paired_effect(first - second)
        for p in (p_value * 0.99, p_value * 1.01):
            if 2 * p < 1:
                equal = decide(effect, "a=b", 1.2, 1 - 2 * p) == HOLDS
                assert equal == (p > p_value)
                assert equal == (decide(effect, "a>b", 1.2, 1 - 2 * p) == EQUIVALENT)


@pytest.mark.parametrize(
    "verdicts, of_all, of_any",
    [
        ([HOLDS, HOLDS], HOLDS, HOLDS),
        ([HOLDS, UNDECIDED], UNDECIDED, HOLDS),
        ([HOLDS, REFUTED], REFUTED, HOLDS),
        ([HOLDS, EQUIVALENT], REFUTED, HOLDS),
        ([EQUIVALENT, EQUIVALENT], EQUIVALENT, EQUIVALENT),
        ([EQUIVALENT, REFUTED], REFUTED, REFUTED),
        ([EQUIVALENT, UNDECIDED], REFUTED, UNDECIDED),
        ([REFUTED, REFUTED], REFUTED, REFUTED),
        ([UNDECIDED, INADMISSIBLE], UNDECIDED, UNDECIDED),
    ],
)
def test_the_verdicts_of_tests_make_that_of_a_claim(verdicts: list[Verdict], of_all: Verdict, of_any: Verdict) -> None:
    assert verdict_of(verdicts, "all") == of_all
    assert verdict_of(verdicts, "any") == of_any


def test_a_claim_shows_the_intervals_that_decided_it() -> None:
    expectations: list[Expectation] = ["a>b", "a=b", "a<b", "a>b"]
    effects = [EFFECTS[3], EFFECTS[0], EFFECTS[5], paired_effect(np.array([0.1]))]
    verdict, decisions = decide_claim(effects, expectations, [0.0, 3.0, 0.0, 0.1], "any")
    assert verdict == HOLDS
    assert [decision.level for decision in decisions] == pytest.approx([0.98] * 4)  # 5 ends can be wrong
    assert [decision.verdict for decision in decisions] == [HOLDS, HOLDS, HOLDS, UNDECIDED]
    for effect, decision in zip(effects[:3], decisions, strict=False):
        assert (decision.low, decision.high) == effect.interval(decision.level)
    with pytest.raises(ValueError, match="one test or more"):
        decide_claim([], [], [], "all")


def test_levels_of_contrasts_keep_the_error_probability_of_a_claim() -> None:
    assert claim_levels(["a>b"]) == claim_levels(["a=b"]) == [0.95]
    assert claim_levels(["a>b", "a<b"]) == [0.95] * 2
    assert claim_levels(["a>b"] * 4, 0.1) == pytest.approx([0.95] * 4)
    assert claim_levels(["a=b", "a>b"], 0.03) == pytest.approx([0.98] * 2)


def test_false_verdicts_are_rare_and_true_ones_are_not() -> None:
    """In a process of its own, as it is slow under the type checker of the tests."""
    draws = 2000
    limit = 5 + 300 * math.sqrt(0.05 * 0.95 / draws)  # percent: 5, and what chance adds in so many draws
    command = [sys.executable, "-m", "tests.verdict_rates", f"draws={draws}", "seeds=5,20"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line]
    plain, looks = rows[2 : 2 * len(CLAIMS) + 2], rows[2 * len(CLAIMS) + 4 :]
    assert [row[0] for row in plain[::2]] == list(CLAIMS) and [row[0] for row in looks] == LOOKED_AT
    assert not [row for row in plain if max(float(row[2]), float(row[3])) > limit]
    assert not [row for row in looks if float(row[2]) > limit]
    # so that few false verdicts are not for want of verdicts
    held = {row[0]: float(row[4]) for row in plain[::2]}
    assert held["power, one test: d = 2"] == pytest.approx(100 * TTestPower().power(2, 5, 0.05), abs=2)
    assert held["power, equal: d = 0, margin 2"] > 80
    assert {row[0]: float(row[3]) for row in looks}["power, all of 3: d = 2"] > 95


@pytest.mark.parametrize("need", ["all", "any"])
def test_false_verdicts_on_shares_are_rare(need: Need) -> None:
    """Over all outcomes of equal shares: claims that one side is larger, by one test and by two of independent runs."""
    n = 5
    effects = [ShareEffect(hits, n, other, n) for hits, other in product(range(n + 1), repeat=2)]

    def holds(*tests: ShareEffect) -> bool:
        m = len(tests)
        return decide_claim(tests, ["a>b"] * m, [0.0] * m, need)[0] == HOLDS

    alone = np.array([holds(effect) for effect in effects])
    both = np.array([[holds(first, second) for second in effects] for first in effects])
    assert alone.any() and both.any()
    for share in (0.1, 0.3, 0.5):
        chance = np.outer(chances(share, n), chances(share, n)).ravel()
        assert chance @ alone <= 0.025 and chance @ both @ chance <= 0.05


def test_alpha_is_spent_as_seeds_are_added() -> None:
    assert spent([20], 20) == [0.05]
    assert spent([5, 8], 20, 0.1) == pytest.approx([0.025, 0.015])
    assert sum(spent(range(1, 41), 40)) == pytest.approx(0.05)
    assert spent([], 20) == []
    for looks in ([5, 5], [8, 5], [0, 5], [5, 21]):
        with pytest.raises(ValueError, match="at most 20"):
            spent(looks, 20)
