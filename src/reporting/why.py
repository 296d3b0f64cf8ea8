"""The measured cause that may stand beside the answer: a number that goes along with the outcome over the variants."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..stats.correlation import Correlation, rank_correlations
from .variant import Variant

#: probability of naming a cause where nothing goes along with an outcome
ALPHA = 0.05
#: column → what a larger and a smaller value means, in words
OUTCOMES = {
    "test_accuracy": ("the more accurate it is", "the less accurate it is"),
    "test_r2": ("the more exactly it localizes", "the less exactly it localizes"),
    "crop_1px_output_distance": ("the further a 1-px crop moves its output", "the less a 1-px crop moves its output"),
}


@dataclass(frozen=True)
class Candidate:
    """A measured number of a net that may explain its outcome: the mean over all layers that have it.

    Args:
        name: in words, as it is defined on the page.
        more: what a larger value means.
        protocol, amount, measure: where it stands among a run's measures.
        last: of the last layer that has it, instead of the mean.
    """

    name: str
    more: str
    protocol: str
    amount: float
    measure: str
    last: bool = False

    def of(self, variant: Variant) -> float:
        """Its value, the mean over seeds; nan where a run lacks it."""
        values = []
        for run in variant.measured:
            layers = [
                value
                for (layer, *key), (value, _, _) in run.measures.items()
                if layer not in ("output", "pixels") and tuple(key) == (self.protocol, self.amount, self.measure)
            ]
            values.append((layers[-1] if self.last else statistics.fmean(layers)) if layers else math.nan)
        return statistics.fmean(values)


CANDIDATES = (
    Candidate("aliasing fraction", "the more a net aliases", "subsampling", 0, "aliasing_fraction"),
    Candidate("maximum-sampling bias", "the more often a net's pools give the largest sample of their windows",
        "subsampling", 0, "maximum_sampling_bias"),
    Candidate("effective receptive field", "the larger a net's effective receptive field", "test", 0,
        "effective_field", last=True),
    Candidate("equivariance error", "the less exactly a net's feature maps move with the image", "crop", 1,
        "equivariance_error"),
    Candidate("effective rank", "the more directions a net's last layer uses", "test", 0, "effective_rank", last=True),
    Candidate("dead channels", "the more channels of a net are dead", "test", 0, "dead_share"),
)  # fmt: skip


def why(variants: Sequence[Variant], alpha: float = ALPHA) -> list[str]:
    """A sentence for each outcome that a candidate goes along with, over variants of one data set and task; else none.

    Only candidates that every variant has are tried; ``alpha`` is the probability of naming any by chance. See
    ``rank_correlations`` for the test.
    """
    outcomes = {name: [variant.mean(name) for variant in variants] for name in OUTCOMES if _have(variants, name)}
    tried = {candidate.name: [candidate.of(variant) for variant in variants] for candidate in CANDIDATES}
    pairs = rank_correlations(outcomes, tried)
    strongest = {pair.outcome: pair for pair in reversed(pairs) if pair.p <= alpha}
    return [_sentence(strongest[name], variants, len(pairs)) for name in OUTCOMES if name in strongest]


def _have(variants: Sequence[Variant], column: str) -> bool:
    return all(variant.has(column) for variant in variants)


def _sentence(pair: Correlation, variants: Sequence[Variant], pairs: int) -> str:
    candidate = next(candidate for candidate in CANDIDATES if candidate.name == pair.candidate)
    by_value = sorted(variants, key=candidate.of)
    low, high = (f"{candidate.of(variant):.3g} in {variant.name}" for variant in (by_value[0], by_value[-1]))
    corrected = f", corrected for having tried {pairs} pairs" if pairs > 1 else ""
    return (
        f"{candidate.more[0].upper()}{candidate.more[1:]}, {OUTCOMES[pair.outcome][pair.rho < 0]} ({candidate.name}: "
        f"{low}, {high}). Rank correlation {pair.rho:+.2f} over {len(variants)} variants, p = {pair.p:.2g}{corrected}. "
        "This goes along with the outcome; it does not prove the cause."
    )
