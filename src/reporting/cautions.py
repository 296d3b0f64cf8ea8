"""What a reader must know before trusting a comparison: nets near chance, undertrained nets, nets that are unlike."""

import statistics
from collections.abc import Iterator, Sequence

from ..common.naming import si_prefix
from ..config import format_override
from ..results.measures import number
from ..results.runs import FinishedRun
from .columns import MEASURED
from .comparison import short
from .variant import Variant

#: a score is near chance if it is less than this share of the way from chance to perfect
NEAR_CHANCE = 0.1
#: a validation score still rises if it is best in the last epoch, and this much higher than before the last fifth
STILL_RISING = 0.01
#: numbers of parameters are unlike from this factor on
UNLIKE_SIZE = 1.2
#: how many variants a warning names
NAMED = 4


def cautions(variants: Sequence[Variant]) -> list[str]:
    """The warnings of a comparison, a sentence or two each; of a single variant, those that concern it."""
    return [*_near_chance(variants), *_undertrained(variants), *_unlike(variants)]


def listed(names: Sequence[str]) -> str:
    """Some names in a sentence, at most ``NAMED`` of them.

    >>> listed(["a"]), listed(["a", "b"]), listed(list("abcdef")), listed(["a, b", "c, d"])
    ('a', 'a and b', 'a, b, c, d and 2 more', 'a, b; c, d')
    """
    if any("," in name for name in names):  # as in "pool=max, depth=4"
        return "; ".join([*names[:NAMED], *([f"and {len(names) - NAMED} more"] if len(names) > NAMED else [])])
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _near_chance(variants: Sequence[Variant]) -> Iterator[str]:
    names = [variant.name for variant in variants if is_near_chance(variant)]
    if names:
        yield (
            f"Near chance: {listed(names)}. The score is less than {NEAR_CHANCE:.0%} of the way from chance to "
            "perfect, so how far such a net's output moves says little."
        )


def is_near_chance(variant: Variant) -> bool:
    """Whether its score is hardly better than that of guessing: 1/classes, or the mean position."""
    if not variant.has(variant.score):
        return False
    classes = len(variant.measured[0].facts.get("classes") or ())
    if variant.score == "test_accuracy" and classes < 2:
        return False
    chance = 1 / classes if variant.score == "test_accuracy" else 0
    return (variant.mean(variant.score) - chance) / (1 - chance) < NEAR_CHANCE


def _undertrained(variants: Sequence[Variant]) -> Iterator[str]:
    names = [variant.name for variant in variants if still_rises(variant)]
    if names:
        yield (
            f"Undertrained: {listed(names)}. The validation score was best in the last epoch in more than half of the "
            f"runs, and rose by more than {STILL_RISING} over the last fifth of the epochs; with more epochs the order "
            "may change."
        )


def still_rises(variant: Variant) -> bool:
    """Whether training ended while the validation score was rising, by the rule of ``STILL_RISING``."""
    curves = [curve for run in variant.measured if len(curve := validation_scores(run, variant.score)) > 1]
    if not curves:
        return False
    gains = [curve[-1] - curve[-1 - max(1, round(len(curve) / 5))] for curve in curves]
    best_last = sum(curve[-1] >= max(curve) for curve in curves)
    return best_last > len(curves) / 2 and statistics.fmean(gains) > STILL_RISING


def validation_scores(run: FinishedRun, score: str) -> list[float]:
    """The validation score of a run, accuracy or R², by epoch."""
    name = f"val/{MEASURED[score][-1]}"
    return [number(row[name]) for row in run.history if row.get(name)]


def _unlike(variants: Sequence[Variant]) -> Iterator[str]:
    data = [key for key in variants[0].settings if key.startswith("data.")]
    for key in data:
        values = dict.fromkeys(format_override(variant.settings[key]) for variant in variants)
        yield f"Unlike data: the variants differ in {short(key)} ({listed(list(values))})."
    sizes = facts(variants, "parameters")
    if sizes and (factor := max(sizes.values()) / max(min(sizes.values()), 1)) > UNLIKE_SIZE:
        ends = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        least, most = (f"{name} has {si_prefix(sizes[name])} parameters" for name in ends)
        yield f"Unlike sizes: {least}, {most} ({factor:.2g} times as many); a difference may come from size alone."


def facts(variants: Sequence[Variant], column: str) -> dict[str, float]:
    """Name → a cost, of the variants whose runs have it; a net that was measured alone has none."""
    return {v.name: v.mean(column) for v in variants if all(column in run.facts for run in v.measured)}
