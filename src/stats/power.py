"""What a number of seeds can show: the smallest detectable difference, and how many seeds decide a claim."""

import math
from bisect import bisect_left

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, stdtrit

from .decisions import MINIMUM_SEEDS, Expectation, Verdict, decide, p_of_decision
from .effects import MeanEffect, tail_of
from .shares import ShareEffect, chances, least_runs, p_values_at

#: points of the distribution of an estimated standard deviation over which power is averaged
STEPS = 400
#: the most runs a side for which ``seeds_needed`` computes the power of the exact test of shares
MOST_EXACT = 100


def detectable(effect: MeanEffect | ShareEffect, level: float, power: float = 0.8) -> float:
    """The smallest true difference whose interval lies on its side of zero with this probability, with as many seeds.

    Of a mean: if the standard error is the true one; nan where it is not known. Of shares: from the probabilities of
    all outcomes, if the other side's true share is the one observed, and the difference is towards the farther of 0 and
    1; infinite where no difference is large enough.
    """
    if isinstance(effect, ShareEffect):
        return _detectable_share(effect, level, power)
    if not effect.standard_error > 0:
        return effect.standard_error
    half_widths, error = _half_widths(effect, level), effect.standard_error

    def excess_power(difference: float) -> float:
        return float(ndtr((difference - half_widths) / error).mean()) - power

    return float(brentq(excess_power, -40 * error, half_widths.max() + 40 * error))


def decision_power(effect: MeanEffect | ShareEffect, expect: Expectation, margin: float, level: float) -> float:
    """The probability that as many new seeds decide (see ``decisions.decide``), if the effect is the true one.

    nan where the standard error is not known.
    """
    if isinstance(effect, ShareEffect):
        return _share_power(_shares(effect), (effect.runs, effect.other_runs), expect, margin, level)
    value, error = effect.value, effect.standard_error
    if error == 0:
        return float(decide(effect, expect, margin, level) != Verdict.UNDECIDED)
    half = _half_widths(effect, level)
    match expect:  # estimates that are undecided, by half-width
        case "a>b":
            undecided = [(margin - half, half)]
        case "a<b":
            undecided = [(-half, half - margin)]
        case "a=b":
            inner = np.maximum(margin - half, 0)
            undecided = [(-half, -inner), (inner, half)]
    chance = sum(np.maximum(ndtr((high - value) / error) - ndtr((low - value) / error), 0) for low, high in undecided)
    return 1 - float(np.mean(chance))


def seeds_needed(
    effect: MeanEffect | ShareEffect, expect: Expectation, margin: float, level: float, power: float = 0.8,
    most: int = 10_000,
) -> int | None:  # fmt: skip
    """The number of pairs, or of runs a side, that decide with this probability, if the effect is the true one.

    An effect that was estimated from few seeds is often larger than the true one, or its spread smaller: then more
    seeds are needed than this says. It is at least the number that a verdict takes (``MINIMUM_SEEDS``, ``least_runs``).
    For shares, it is exact up to 100 runs a side, and by the normal approximation beyond.

    None: more than ``most``, or not known, as the spread is nan.
    """
    if isinstance(effect, ShareEffect):
        return _runs_needed(effect, expect, margin, level, power, most)
    if math.isnan(effect.standard_error):
        return None
    counts = range(MINIMUM_SEEDS, most + 1)
    i = bisect_left(counts, power, key=lambda n: decision_power(effect.with_pairs(n), expect, margin, level))
    return counts[i] if i < len(counts) else None


def _half_widths(effect: MeanEffect, level: float) -> Float[np.ndarray, " steps"]:
    """Equally probable half-widths of the interval that as many new seeds would have: their spread varies by chance."""
    quantiles = (np.arange(STEPS) + 0.5) / STEPS
    variance_ratios = np.ones(STEPS)
    if math.isfinite(effect.freedom):
        variance_ratios = gammaincinv(effect.freedom / 2, quantiles) * 2 / effect.freedom  # chi-squared
    tail = tail_of(level)
    of_seeds = stdtrit(effect.freedom, tail) * effect.seed_error * np.sqrt(variance_ratios)
    return np.asarray(np.hypot(of_seeds, stdtrit(effect.image_freedom, tail) * effect.image_error))


def _shares(effect: ShareEffect) -> tuple[float, float]:
    return effect.hits / effect.runs, effect.other_hits / effect.other_runs


def _share_power(
    shares: tuple[float, float], runs: tuple[int, int], expect: Expectation, margin: float, level: float
) -> float:
    """The probability of a decision with these true shares, and so many runs, of either side."""
    p_values = p_of_decision(
        lambda bound: p_values_at(bound, *runs), lambda bound: p_values_at(-bound, *runs[::-1]).T, expect, margin
    )
    decided = (p_values <= 1 - level).astype(np.float64)
    return float(chances(shares[0], runs[0]) @ decided @ chances(shares[1], runs[1]))


def _detectable_share(effect: ShareEffect, level: float, power: float) -> float:
    other_share, towards = _shares(effect)[1], 1
    p_values = p_values_at(0.0, effect.runs, effect.other_runs)
    if other_share > 0.5:
        p_values, towards = p_values_at(0.0, effect.other_runs, effect.runs).T, -1
    chance = (p_values <= tail_of(level)) @ chances(other_share, effect.other_runs)  # by hits of the first side

    def excess_power(difference: float) -> float:
        return float(chances(other_share + towards * difference, effect.runs) @ chance) - power

    farthest = max(other_share, 1 - other_share)
    return float(brentq(excess_power, 0.0, farthest)) if excess_power(farthest) >= 0 else math.inf


def _runs_needed(
    effect: ShareEffect, expect: Expectation, margin: float, level: float, power: float, most: int
) -> int | None:
    spread = math.sqrt(sum(share * (1 - share) for share in _shares(effect)))
    normal = MeanEffect(effect.value, spread / math.sqrt(2), math.inf, 2, spread)
    approximate = seeds_needed(normal, expect, margin, level, power, most)
    if approximate is None or approximate > MOST_EXACT:
        return approximate
    for runs in range(max(least_runs(level), approximate * 3 // 4), min(MOST_EXACT, most) + 1):
        if _share_power(_shares(effect), (runs, runs), expect, margin, level) >= power:
            return runs
    return MOST_EXACT + 1 if most > MOST_EXACT else None
