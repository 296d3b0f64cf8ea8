"""The groups that the sections of a page are folded into, each with a line that says what came out."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..common.naming import si_prefix
from ..results.runs import Key
from .cautions import facts, listed, validation_scores
from .columns import HEADINGS, one_line
from .effects import factorial_of
from .measure_figures import merge_layers
from .variant import Variant

Values = Mapping[str, float]


@dataclass(frozen=True)
class Group:
    """A part of the page that is folded until it is asked for.

    Args:
        key: its anchor.
        title: its heading.
        answer: variants → what came out, in a line; empty where nothing of it was measured.
        part: template of what it shows beside its sections, if anything.
    """

    key: str
    title: str
    answer: Callable[[Sequence[Variant]], str]
    part: str = ""


def extremes(values: Values) -> str:
    """The least and the largest of some values, with their names.

    >>> extremes({"blur": 0.113, "none": 0.302}), extremes({"a": 0.5}), extremes({"a": 0.5, "b": 0.5})
    ('0.113 (blur) to 0.302 (none)', '0.500', '0.500 in all')
    """
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    least, largest = _short(values[low]), _short(values[high])
    if len(values) == 1:
        return least
    return f"{least} in all" if least == largest else f"{least} ({low}) to {largest} ({high})"


def _short(value: float) -> str:
    """Three decimals, or three digits of a number from 10 on."""
    return "0" if value == 0 else f"{value:z.3f}" if abs(value) < 10 else f"{value:.3g}"


def measured_at(variant: Variant, key: Key) -> float:
    """A measure's mean over the runs in which it is a number; nan where it is in none."""
    values = [run.measures[key][0] for run in variant.measured if key in run.measures]
    values = [value for value in values if not math.isnan(value)]
    return statistics.fmean(values) if values else math.nan


def by_variant(variants: Sequence[Variant], key: Key) -> Values:
    """Name → value, of the variants that have it."""
    values = {variant.name: measured_at(variant, key) for variant in variants}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def invariance(variants: Sequence[Variant]) -> str:
    """How far a shift moves the output, or the predicted position away from where it should be."""
    classifiers = [variant for variant in variants if variant.has("test_accuracy")]
    if moved := by_variant(classifiers or variants, ("output", "crop", 1, "output_distance")):
        if len(moved) > 1:
            low, high = min(moved, key=moved.__getitem__), max(moved, key=moved.__getitem__)
            return (
                f"A 1-px crop moves {low} least: {moved[low]:z.3f}; {high} most: {moved[high]:z.3f} (output distance)."
            )
        return f"A 1-px crop moves the output by {extremes(moved)} (output distance)."
    if errors := by_variant(variants, ("output", "crop", 1, "position_equivariance_error")):
        return f"Position equivariance error for a 1-px crop: {extremes(errors)}."
    return ""


def layers(variants: Sequence[Variant]) -> str:
    """How a shift moves the layers, and where equivariance is lost, on average over the nets."""
    texts = []
    if changes := _by_layer(variants, "invariance_error"):
        ends = (f"{changes[name]:z.3f} in {name}" for name in (next(iter(changes)), [*changes][-1]))
        texts.append(f"invariance error for a 1-px crop: {', '.join(ends)}")
    errors = _by_layer(variants, "equivariance_error")
    if len(errors) > 1:
        before, lost = max(pairwise(errors), key=lambda pair: errors[pair[1]] - errors[pair[0]])
        at = [f"{name} ({errors[name]:z.3f})" for name in (before, lost)]
        texts.append(f"equivariance error grows most from {at[0]} to {at[1]}")
    over = f", mean over {len(variants)} variants" * (len(variants) > 1)
    text = "; ".join(texts) + over
    return f"{text[0].upper()}{text[1:]}." if texts else ""


def _by_layer(variants: Sequence[Variant], measure: str) -> Values:
    """Layer → mean over the variants for a 1-px crop, of the layers that all variants have."""
    names = merge_layers([name for name in variant.layers(measure) if name != "output"] for variant in variants)
    values = {name: by_variant(variants, (name, "crop", 1, measure)) for name in names}
    return {name: statistics.fmean(v.values()) for name, v in values.items() if v and len(v) == len(variants)}


def inside(variants: Sequence[Variant]) -> str:
    """Directions, dead channels, receptive field of the last layer that has them."""
    titles = {"effective_rank": "effective rank", "dead_share": "dead channels", "effective_field": "effective field"}
    texts = []
    for measure, title in titles.items():
        names = [(variant, variant.layers(measure)) for variant in variants]
        values = {v.name: measured_at(v, (n[-1], "test", 0, measure)) for v, n in names if n}
        if values := {name: value for name, value in values.items() if not math.isnan(value)}:
            texts.append(f"{title} {extremes(values)}")
    return f"In the last layer: {'; '.join(texts[:2])}." if texts else "Of the saved nets, stage by stage."


def training(variants: Sequence[Variant]) -> str:
    """The end of the validation curves, and the gap."""
    ends = {v.name: [c[-1] for run in v.measured if (c := validation_scores(run, v.score))] for v in variants}
    values = {name: statistics.fmean(scores) for name, scores in ends.items() if scores}
    if not values:
        return ""
    gaps = {variant.name: variant.mean("gap") for variant in variants if variant.has("gap")}
    text = f"Validation score in the last epoch: {extremes(values)}"
    return text + (f"; training minus test score: {extremes(gaps)}." if gaps else ".")


def costs(variants: Sequence[Variant]) -> str:
    """Multiply-adds and parameters."""
    texts = []
    for column, title in (("multiply_adds", "multiply-adds per image"), ("parameters", "parameters")):
        if values := facts(variants, column):
            names = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
            low, high = (si_prefix(values[name]) for name in names)
            texts.append(f"{low} {title}" if low == high else f"{low} ({names[0]}) to {high} ({names[1]}) {title}")
    return f"{'; '.join(texts)}." if texts else ""


def compared(variants: Sequence[Variant]) -> str:
    """The spread of the score, and which axis explains it."""
    score = variants[0].score
    values = {variant.name: variant.mean(score) for variant in variants if variant.has(score)}
    texts = [f"{one_line(HEADINGS[score])} from {extremes(values)}".capitalize()] if values else []
    design = factorial_of(variants)
    if design is not None and score in design.columns and (shares := design.variance_shares(score)):
        axes = {name: share.share for name, share in shares.items() if not isinstance(share.source, str)}
        if axes:  # beside seeds and the rest
            most = max(axes, key=axes.__getitem__)
            texts.append(f"{most} explains {axes[most]:.0%} of its variance")
    return f"{'; '.join(texts)}." if texts else ""


def reproduce(variants: Sequence[Variant]) -> str:
    """How many runs one command makes."""
    runs = [run for variant in variants for run in variant.runs]
    seeds = sorted({int(run.settings["seed"]) for run in runs if "seed" in run.settings})
    many = len(seeds) > 2 and seeds == [*range(seeds[0], seeds[-1] + 1)]
    names = f"{seeds[0]} to {seeds[-1]}" if many else listed([str(seed) for seed in seeds])
    count = f"{len(runs)} {'runs' if len(runs) > 1 else 'run'}"
    return f"One command; {count}, {'seeds' if len(seeds) > 1 else 'seed'} {names}."


COMPARED = Group("effects", "Differences and effects", compared, "differences.html.j2")
INVARIANCE = Group("invariance", "Invariance", invariance)
LAYERS = Group("layers", "Layer by layer", layers)
INSIDE = Group("inside", "Inside the nets", inside, "analysis.html.j2")
TRAINING = Group("training", "Training", training)
COSTS = Group("costs", "Costs and summaries", costs, "summaries.html.j2")
OTHERS = Group("others", "Other measures", lambda _: "Measures that no figure above shows, each on a scale of its own.")
REPRODUCE = Group("reproduce", "How to reproduce", reproduce, "reproduce.html.j2")
#: in the order of a page
GROUPS = (COMPARED, INVARIANCE, LAYERS, INSIDE, TRAINING, COSTS, OTHERS, REPRODUCE)
