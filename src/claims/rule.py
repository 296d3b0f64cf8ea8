"""The rule of all verdicts, in words, and the hash that shows whether it or a claim was changed after the runs."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from ..config import Study
from ..stats.decisions import MINIMUM_SEEDS
from .calibrate import FALSE_ALARMS
from .judge import ALPHA, MOST_FAILED

#: changed whenever the rule is
RULE = f"""\
A contrast is a difference a - b with a margin, the smallest difference that matters. Its interval is Student's over
seeds, paired where both sides have the same seeds, and over seeds and test images (crossed) where runs keep a value for
each image; of shares of runs, exact. The error probability of a claim is {ALPHA}, shared out over the ends of its
contrasts' intervals that can be wrong: one of a > b and a < b, both of a = b; no interval is below {1 - ALPHA:.0%}.
Expected a > b: equivalent if the interval lies within the margin on both sides; holds if it lies above 0; does not hold
if it lies below the margin; else undecided. Expected a < b: mirrored. Expected a = b: holds if the interval lies within
the margin; does not hold if it does not contain 0; else undecided.
A claim that needs all contrasts holds if all hold, is equivalent if all are, does not hold if one does not or is
equivalent; one that needs any holds if one does, is equivalent if all are, does not hold if none can; else undecided.
A seed counts if it has all variants that are averaged. Inadmissible: fewer than {MINIMUM_SEEDS} seeds, more than
{MOST_FAILED:.0%} of the runs of a side failed to train or lack the number, the same difference for every seed, or no
side above its floor.
"""
#: of studies that read alarms; changed whenever it is
ALARM_RULE = f"""\
An alarm fires at the first look at which its column has risen above its own least value so far (or fallen below its own
greatest) by more than its threshold: the k-th largest of the largest changes of n calibration runs,
k = floor({FALSE_ALARMS} (n + 1)). One that never fires has the step of a look after the last.
"""

#: of studies that read numbers of pairs of runs; changed whenever it is
PAIR_RULE = """\
A number of two nets is of runs that differ in the seed alone: of seeds 0 and 1, 2 and 3, …, each run in one pair. A
pair of seeds counts as a seed does above; where a run of it failed or is missing, the other lacks the number. The nets
are compared on the maps of the example images, before training or after its last epoch.
"""


def study_hash(study: Study) -> str:
    """The checksum of a study's claims and of the rule that decides them."""
    rule = RULE + ALARM_RULE * bool(study.alarms()) + PAIR_RULE * study.of_pairs
    return hashlib.sha256((rule + json.dumps(statement(study), sort_keys=True)).encode()).hexdigest()[:16]


def statement(study: Study) -> dict[str, Any]:
    """What a study states before its runs: claims and calibration runs, without the fields that they leave out."""
    claims = [asdict(claim) for claim in study.claims]
    return dict(_given({"number": study.number, "claims": claims, "calibrate": study.calibrate}))


def _given(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _given(value) for key, value in tree.items() if value is not None}
    return [_given(value) for value in tree] if isinstance(tree, list) else tree
