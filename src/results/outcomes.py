"""How training ended: trained, collapsed or diverged. A diverged run is finished too; its outcome is a result."""

from collections.abc import Iterable

from jaxtyping import Int64
from torch import Tensor

from ..metrics.rows import Row

TRAINED, COLLAPSED, DIVERGED = "trained", "collapsed", "diverged"
#: score → what it is when it is no better than chance
CHANCE = {
    "accuracy": "the 95% interval of the accuracy is not above the share of the largest class",
    "r2": "the 95% interval of R² is not above 0",
}


def rule_of(failure: str, scores: Iterable[str] = ()) -> str:
    """The rule by which a training counts as ``diverged`` or ``collapsed``; ``scores`` are those of ``CHANCE`` that the
    net has, none: all of them.
    """
    if failure == DIVERGED:
        return (
            "weights or the validation loss were infinite or nan after an epoch; training ended there, and nothing was "
            "measured, however good an earlier epoch was"
        )
    chance = " and ".join(CHANCE[score] for score in CHANCE if score in (list(scores) or CHANCE))
    return f"no score on the test set is better than chance: {chance}"


def outcome_of(rows: Iterable[Row], labels: Int64[Tensor, " n"]) -> str:
    """``collapsed`` or ``trained``, of a run that did not diverge (see ``rule_of``).

    A net that answers two questions has collapsed if neither of its scores is better than chance; nan is not better.
    ``labels`` are those of the test set, on which ``rows`` have the net's scores.
    """
    chance = {"accuracy": labels.bincount().max().item() / len(labels), "r2": 0.0}
    scores = {
        row.measure: row.estimate
        for row in rows
        if (row.layer, row.transform, row.protocol) == ("output", "none", "test") and row.measure in chance
    }
    return (
        COLLAPSED if scores and not any(interval.low > chance[name] for name, interval in scores.items()) else TRAINED
    )
