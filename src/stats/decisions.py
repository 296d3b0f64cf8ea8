"""Verdicts on claims about differences: from intervals, for several tests at once, and while seeds are being added."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from .effects import Effect

#: what a claim says of the true numbers of two sides
Expectation = Literal["a<b", "a>b", "a=b"]
#: how many of the tests of a claim must hold for the claim to hold
Need = Literal["all", "any"]
PValues = float | Float[np.ndarray, "..."]

#: The least number of pairs that a mean is judged by. Student's interval is exact for normal differences. It errs on
#: the safe side for symmetric ones with heavier tails, such as those of two sides that are distributed alike but for a
#: shift. Of skewed ones, an end errs too often (exponential: 11% rather than 2.5% with 5 pairs, 8% with 20). Fewer than
#: five cannot show that they are skewed, so that a verdict would rest on the assumption: by their signs alone, which
#: assume nothing but symmetry, four pairs have no p-value below 0.125. Where a side fails in some runs, compare shares
#: (for these, see ``shares.least_runs``).
MINIMUM_SEEDS = 5


class Verdict(StrEnum):
    """What runs say of a claim. "Equivalent": any difference is too small to matter. "Inadmissible": none can say."""

    HOLDS = "holds"
    REFUTED = "does not hold"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    INADMISSIBLE = "inadmissible"


class Decision(NamedTuple):
    """The verdict of one test of a claim, with the interval (low, high) at the level that it was decided at."""

    verdict: Verdict
    level: float
    low: float
    high: float


def decide(effect: Effect, expect: Expectation, margin: float, level: float = 0.95) -> Verdict:
    """The verdict of the interval (low, high) of a − b at a level.

    ``margin`` ≥ 0 is the smallest difference that matters. For "a>b", and for "a<b" with the sides swapped:

    - equivalent: −margin < low and high < margin: any difference is too small to matter;
    - holds: 0 < low: a is larger;
    - does not hold: high < margin: a is not larger by as much as matters;
    - undecided otherwise, and where the interval is nan.

    For "a=b":

    - holds: −margin < low and high < margin;
    - does not hold: 0 < low or high < 0: they differ;
    - undecided otherwise, and where the interval is nan.

    A verdict is false only where the interval misses the true difference. True differences between zero and the margin
    may get either verdict, and both are then true.

    Raises:
        ValueError: the margin is negative or nan, or the level is not between 0 and 1.
    """
    _check_margin(margin)
    low, high = effect.interval(level)
    if expect == "a<b":
        low, high = -high, -low
    if -margin < low and high < margin:
        return Verdict.HOLDS if expect == "a=b" else Verdict.EQUIVALENT
    if expect == "a=b":
        return Verdict.REFUTED if low > 0 or high < 0 else Verdict.UNDECIDED
    if low > 0:
        return Verdict.HOLDS
    return Verdict.REFUTED if high < margin else Verdict.UNDECIDED


def p_of_decision(
    above: Callable[[float], PValues], below: Callable[[float], PValues], expect: Expectation, margin: float
) -> Float[np.ndarray, "..."]:
    """The α from which on ``decide`` at level 1 − α is not undecided, of one effect or of many at once.

    Above 1 where it always is, nan where it is unknown.

    Args:
        above: bound → one-sided p-values that the difference is above it (see ``Effect.p_above``).
        below: as above, below it.
        expect: see ``decide``.
        margin: see ``decide``.
    """
    match expect:
        case "a>b":
            one_sided = np.minimum(above(0.0), below(margin))
        case "a<b":
            one_sided = np.minimum(below(0.0), above(-margin))
        case "a=b":
            equal = np.maximum(above(-margin), below(margin))
            one_sided = np.minimum(equal, np.minimum(above(0.0), below(0.0)))
    return np.asarray(2 * one_sided)


def claim_levels(expectations: Sequence[Expectation], alpha: float = 0.05) -> list[float]:
    """The level of the interval of each test of a claim, so that all verdicts are true with a probability of 1 − α.

    A verdict on "a>b" or "a<b" can be false at one end of the interval only: whatever the true difference is, the other
    end gives a true one. A verdict on "a=b" can be false at both ends where the sides are equal. The probabilities add
    up to α at most (Bonferroni), for any margins, and however the tests depend on each other; no level is below 1 − α.

    Holm's levels would be higher, and wrong with margins: a test that is decided at one end of its interval raises the
    α of the others, and may still be wrong at its other end. Of three independent tests of "a=b" with equal sides, one
    verdict or more would be false in up to 12%.

    >>> [round(level, 3) for level in claim_levels(["a>b"] * 3)], claim_levels(["a=b"] * 2)
    ([0.967, 0.967, 0.967], [0.975, 0.975])
    """
    ends = sum(2 if expect == "a=b" else 1 for expect in expectations)
    return [1 - min(alpha, 2 * alpha / ends)] * len(expectations)


def decide_claim(
    effects: Sequence[Effect],
    expectations: Sequence[Expectation],
    margins: Sequence[float],
    need: Need,
    alpha: float = 0.05,
) -> tuple[Verdict, list[Decision]]:
    """The verdict of a claim that makes one or more tests, and the decision of each test at its level in the claim.

    One verdict or more, of the claim or of a test, is false with a probability of α at most (see ``claim_levels``).

    The claim holds where all tests do, or any, as it needs. It is equivalent where all tests are. It does not hold
    where, for "all", a test is refuted or equivalent, or, for "any", every test is. Otherwise, it is undecided.

    Raises:
        ValueError: there is no test, the sequences differ in length, or a margin is negative or nan.
    """
    if not effects:
        raise ValueError("a claim makes one test or more")
    tests = list(zip(effects, expectations, margins, strict=True))
    decisions = [
        Decision(decide(*test, level), level, *test[0].interval(level))
        for test, level in zip(tests, claim_levels(expectations, alpha), strict=True)
    ]
    return verdict_of([decision.verdict for decision in decisions], need), decisions


def verdict_of(verdicts: Sequence[Verdict], need: Need) -> Verdict:
    """The verdict of a claim whose tests have these verdicts; see ``decide_claim``."""
    hold = [verdict == Verdict.HOLDS for verdict in verdicts]
    equivalent = [verdict == Verdict.EQUIVALENT for verdict in verdicts]
    fail = [verdict in (Verdict.REFUTED, Verdict.EQUIVALENT) for verdict in verdicts]
    if all(hold) if need == "all" else any(hold):
        return Verdict.HOLDS
    if all(equivalent):
        return Verdict.EQUIVALENT
    if any(fail) if need == "all" else all(fail):
        return Verdict.REFUTED
    return Verdict.UNDECIDED


def spent(looks: Sequence[int], most: int, alpha: float = 0.05) -> list[float]:
    """The α of each look at the runs, where seeds are added until a claim is decided.

    Args:
        looks: number of seeds at each look, rising.
        most: number of seeds at which adding ends, at least that of the last look.
        alpha: of all looks together.

    Each look spends α in proportion to the seeds added since the one before, so that the sum is at most α, and exactly
    α where the last look has all seeds. With each look decided at the level 1 − α of that look, all of its verdicts are
    right with that probability, and those of all looks with 1 − α (Bonferroni). Spending by Bonferroni rather than by
    the correlation of looks (Pocock, O'Brien & Fleming) costs some power, but it holds for any verdict, for means and
    for shares. The looks need not be known in advance, as the α of one depends on no later one; but when they are must
    not depend on results.

    Raises:
        ValueError: the looks do not rise from 1 or more to at most ``most``.

    >>> spent([5, 10, 20], most=20)
    [0.0125, 0.0125, 0.025]
    """
    added = np.diff([0, *looks]).tolist()
    if any(seeds < 1 for seeds in added) or sum(added) > most:
        raise ValueError(f"each look has more seeds than the one before, the last at most {most}, not {list(looks)}")
    return [alpha * seeds / most for seeds in added]


def _check_margin(margin: float) -> None:
    if not margin >= 0:
        raise ValueError(f"a margin is 0 or more, not {margin}")
