"""The answer of a comparison in one sentence, as a person would say it; ``headline`` has the intervals."""

from collections.abc import Sequence

from .cautions import is_near_chance, listed
from .comparison import group_by_task, ranking
from .headline import NAMED, is_ranked
from .variant import Variant
from .why import ALPHA, why

#: column → what its best variant is, with a place for its value
BEST = {
    "test_accuracy": "is the most accurate ({:.3f})",
    "crop_1px_output_distance": "is moved least by a 1-px crop (output distance {:.3f})",
    "test_r2": "localizes best (R² {:.3f})",
}
#: variants that all pairs of outcomes and candidates can be tried on: 2 / 6! is below 5% by 12, 2 / 5! is not
ENOUGH_VARIANTS = 6
#: columns in which the smallest value is the best
SMALLEST = ("crop_1px_output_distance",)


def answer(variants: Sequence[Variant]) -> str:
    """Which variant is best in what, of each data set and task; the values of a variant that is alone."""
    sentences = {name: _best_of(group) for name, group in group_by_task(variants).items()}
    named = [f"{name}: {text}" if len(sentences) > 1 else text for name, text in sentences.items() if text]
    return " ".join(named)


def causes(variants: Sequence[Variant]) -> list[str]:
    """What goes along with the outcome, in each data set and task, over the variants that learned it."""
    groups = group_by_task(variants)
    learned = {name: [v for v in group if is_ranked(v) and not is_near_chance(v)] for name, group in groups.items()}
    sentences = {name: why(group, ALPHA / len(groups)) for name, group in learned.items() if group}
    return [f"{name}: {text}" if len(groups) > 1 else text for name, texts in sentences.items() for text in texts]


def no_cause(variants: Sequence[Variant]) -> str:
    """Why a comparison of few variants names no cause; empty where it does, or where they are enough."""
    if not 1 < len(variants) < ENOUGH_VARIANTS or causes(variants):
        return ""
    return (
        f"Why? {len(variants)} variants are too few to say which measured number goes along with the answer; "
        f"{ENOUGH_VARIANTS} or more can show it."
    )


def _best_of(group: Sequence[Variant]) -> str:
    ranked = [variant for variant in group if is_ranked(variant)]
    if len(ranked) < 2:
        return " ".join(_alone(variant) for variant in ranked or group)
    best, tied = dict[str, Variant](), dict[str, list[str]]()
    for column in BEST:
        # of nets that localize, an output that does not move is no merit
        having = [v for v in ranked if v.has(column) and (column == "test_r2" or v.has("test_accuracy"))]
        if len(having) > 1:
            order = ranking(having, column, column in SMALLEST)
            best[column] = having[order.order[0]]
            tied[column] = [having[i].name for i in order.tied]
    if not best:
        return " ".join(_alone(variant) for variant in ranked if _alone(variant))
    clauses = {column: BEST[column].format(variant.mean(column)) for column, variant in best.items()}
    if len({variant.name for variant in best.values()}) == 1:
        (first, *_), words = best.values(), " and ".join(clauses.values())
        text = f"{first.name} {words}"
    else:
        text = ", and ".join(f"{best[column].name} {clause}" for column, clause in clauses.items())
        text = f"No variant wins everything: {text}"
    return f"{text}.{_not_distinguishable(best, tied)}"


def _not_distinguishable(best: dict[str, Variant], tied: dict[str, list[str]]) -> str:
    """Which winners are not alone, as a sentence."""
    titles = {"test_accuracy": "accuracy", "crop_1px_output_distance": "output distance", "test_r2": "R²"}
    some = {c: listed(names) if len(names) <= NAMED else f"{len(names)} others" for c, names in tied.items() if names}
    parts = [f"{names} from {best[c].name} in {titles[c]}" for c, names in some.items()]
    return f" These runs cannot tell {'; nor '.join(parts)}." if parts else ""


def _alone(variant: Variant) -> str:
    """What a person would say of one net."""
    parts = []
    if variant.has("test_accuracy"):
        parts.append(f"is right on {variant.mean('test_accuracy'):.1%} of the test images")
    if variant.has("test_r2"):
        parts.append(f"localizes with an R² of {variant.mean('test_r2'):.3f} (1: exact, 0: always the mean)")
    if variant.has("crop_1px_output_distance"):
        moved = f"is moved by a 1-px crop by {variant.mean('crop_1px_output_distance'):.3f} of the way to another image"
        untrained = "crop_1px_output_distance_untrained"
        parts.append(moved + (f" (untrained {variant.mean(untrained):.3f})" if variant.has(untrained) else ""))
    name = "The net" if variant.name == "the run" else variant.name
    return f"{name} {', and '.join(parts)}." if parts else ""
