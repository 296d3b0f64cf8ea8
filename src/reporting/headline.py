"""The comparison in a few sentences: which variant is best, by how much, and how far to trust it."""

import math
from collections.abc import Sequence

from ..claims.judge import MOST_FAILED
from .comparison import group_by_task, ranking
from .variant import Variant

#: how many variants a sentence names of those that cannot be distinguished from the best
NAMED = 3
#: seeds per variant from which a comparison counts as evidence
ENOUGH_SEEDS = 5


def headline(variants: Sequence[Variant]) -> str:
    """The result of a comparison, ranked within each data set and task."""
    groups = group_by_task(variants)
    if len(variants) < 2:
        return f"{_values_of(variants[0])} There is no other variant to compare it with."
    sentences = [_best_of(group) for group in groups.values()]
    if len(groups) > 1:
        sentences = [f"{name}: {text}" for name, text in zip(groups, sentences, strict=True)]
        sentences.insert(0, f"{len(groups)} data sets or tasks, ranked within each, not with each other.")
    largest = max(sum(map(is_ranked, group)) for group in groups.values())
    if largest > 2:
        sentences.append(
            f"These intervals are corrected for picking the best of {largest} and for comparing all pairs, so they are "
            "wider than those in the tables."
        )
    runs = [run for variant in variants for run in variant.runs]
    if earlier := sum(run.earlier for run in runs):
        sentences.append(
            f"{earlier} of {len(runs)} runs were measured by an earlier version, with other baselines and intervals; "
            "to measure one again: python -m src.measure checkpoint=RUN/checkpoints/best.ckpt."
        )
    seeds = min(len(variant.measured) for variant in variants)
    if seeds < ENOUGH_SEEDS:
        sentences.append(
            f"With {seeds} {'seed' if seeds == 1 else 'seeds'} per variant this is preliminary: "
            f"use at least {ENOUGH_SEEDS} seeds."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def _best_of(variants: Sequence[Variant]) -> str:
    """The best variants of one data set and task."""
    if len(variants) < 2:
        return _values_of(variants[0])
    failed = ", ".join(_name(variant) for variant in variants if not is_ranked(variant))
    left_out = f"Not ranked, as more than {MOST_FAILED:.0%} of the runs failed to train: {failed}." if failed else ""
    variants = [variant for variant in variants if is_ranked(variant)]
    # of nets that localize, an output that does not move is no merit
    classifiers = [variant for variant in variants if variant.has("test_accuracy")]
    most_invariant = "{} is the most invariant to a 1-px crop (output distance)"
    sentences = [
        _winner(classifiers, "crop_1px_output_distance", most_invariant, smallest=True),
        _winner(classifiers, "test_accuracy", "{} is the most accurate", smallest=False),
        _winner(variants, "test_r2", "{} localizes best (R²)", smallest=False),
    ]
    if not any(sentences):  # fewer than two have values, as where the others diverged
        scored = [variant for variant in variants if variant.has("test_accuracy") or variant.has("test_r2")]
        why = "trained" if failed else "has values"
        sentences = [f"Only {variant.name} {why}: {_values_of(variant)}" for variant in scored]
    return " ".join(sentence for sentence in (*sentences, left_out) if sentence)


def is_ranked(variant: Variant) -> bool:
    """Whether enough of its runs trained: nets that give every image the same output are invariant, and no winners."""
    return _failed(variant) <= MOST_FAILED * len(variant.runs)


def _failed(variant: Variant) -> int:
    return sum(bool(run.failure) for run in variant.runs)


def _name(variant: Variant) -> str:
    """Its name, with the number of its runs that failed to train, if any did."""
    return variant.name + _of_failed(variant)


def _of_failed(variant: Variant) -> str:
    return f" ({_failed(variant)} of {len(variant.runs)} runs failed to train)" * bool(_failed(variant))


def _values_of(variant: Variant) -> str:
    """The main values of a variant by itself, with their 95% intervals over images or over seeds."""
    names = {
        "test_accuracy": "test accuracy",
        "test_r2": "R² of the position",
        "crop_1px_output_distance": "output distance for a 1-px crop (0 = invariant, 1 = as far as another image)",
        "crop_1px_output_distance_untrained": "untrained",
    }
    intervals = {name: variant.interval(column) for column, name in names.items() if variant.has(column)}
    over = _over_seeds(variant)
    values = [f"{name} {value:.3f} [{low:.3f}, {high:.3f}]{over}" for name, (value, low, high) in intervals.items()]
    text = "; ".join(values) or "nothing was measured"
    text += _of_failed(variant)
    return f"{text[0].upper()}{text[1:]}."


def _over_seeds(variant: Variant) -> str:
    return f" over {len(variant.measured)} seeds" * (len(variant.measured) > 1)


def _winner(variants: Sequence[Variant], column: str, sentence: str, smallest: bool) -> str:
    """Which variant is best in a column, and which cannot be distinguished from it; empty for fewer than two."""
    variants = [variant for variant in variants if variant.has(column)]
    if len(variants) < 2:
        return ""
    ranked = ranking(variants, column, smallest)
    best, second = (variants[i] for i in ranked.order[:2])
    value, low, high = ranked.interval
    gap = ranked.behind[0]
    behind = f", behind by {gap.value:.3f}"
    if not math.isnan(gap.low):
        paired = "image by image" if gap.images else "seed by seed"
        behind += f" [{gap.low:.3f}, {gap.high:.3f}] {paired}"
    next_best = f"{_name(second)} with {second.mean(column):.3f}{behind}"
    names = [_name(variants[i]) for i in ranked.tied if variants[i] is not second]
    tied = ", ".join(names[:NAMED]) + f" and {len(names) - NAMED} more" * (len(names) > NAMED)
    if ranked.order[1] in ranked.tied:
        rest = f"not distinguishable from {next_best}" + f", nor from {tied}" * bool(names)
    else:
        rest = f"next is {next_best}" + f"; not distinguishable from {tied}" * bool(names)
    return f"{sentence.format(_name(best))}: {value:.3f} [{low:.3f}, {high:.3f}]{_over_seeds(best)}; {rest}."
