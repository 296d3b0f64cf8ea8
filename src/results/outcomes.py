"""How training ended: trained, collapsed or diverged. A diverged run is finished too; its outcome is a result."""

from collections.abc import Iterable

from jaxtyping import Int64
from torch import Tensor

from ..metrics.rows import Row

TRAINED, COLLAPSED, DIVERGED = "trained", "collapsed", "diverged"
#: outcome of a training that failed → its rule
RULES = {
    DIVERGED: "weights or the validation loss were infinite or nan after an epoch; training ended there, and nothing "
    "was measured, however good an earlier epoch was",
    COLLAPSED: "no score on the test set is better than chance: the 95% interval of the accuracy is not above the "
    "share of the largest class, or that of R² not above 0",
}


def outcome_of(rows: Iterable[Row], labels: Int64[Tensor, " n"]) -> str:
    """``collapsed`` or ``trained``, of a run that did not diverge (see ``RULES``).

    A net that answers two questions has collapsed if neither of its scores is better than chance; nan is not better.

    Args:
        rows: what was measured, with the net's scores on the test set.
        labels: of the test set.
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
