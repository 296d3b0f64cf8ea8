"""Thresholds of a study's alarms, set by its calibration runs (``study.calibrate``)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..config import Contrast, Reading, Study
from ..results.runs import FinishedRun
from ..stats.alarms import conformal_threshold, largest_change, least_calibration_runs
from .readings import history_column, selected

#: the probability with which an alarm may fire in a run that is like the calibration runs
FALSE_ALARMS = 0.05


def calibrated(study: Study, runs: Sequence[FinishedRun]) -> tuple[Study, int]:
    """The study with the thresholds of its alarms, and the number of calibration runs.

    An alarm keeps a threshold that is stated, and has none where too few calibration runs are finished.
    """
    if study.calibrate is None:
        return study, 0
    try:
        clean = selected(runs, study.calibrate)
    except UserError:  # none of them has finished
        clean = []
    claims = [
        replace(claim, contrasts=[_with_thresholds(contrast, clean) for contrast in claim.contrasts])
        for claim in study.claims
    ]
    return replace(study, claims=claims), len(clean)


def _with_thresholds(contrast: Contrast, clean: Sequence[FinishedRun]) -> Contrast:
    sides: dict[str, Any] = {
        side: replace(reading, threshold=threshold(reading, clean))
        for side, reading in contrast.readings().items()
        if reading.alarm and reading.threshold is None
    }
    return replace(contrast, **sides)


def threshold(reading: Reading, clean: Sequence[FinishedRun]) -> float | None:
    """The threshold of an alarm; None where too few of the runs have its column."""
    columns = [history_column(run, str(reading.alarm)) for run in clean]
    largest = np.array([largest_change(column, str(reading.direction)) for column in columns])
    largest = largest[~np.isnan(largest)]
    if len(largest) < least_calibration_runs(FALSE_ALARMS):
        return None
    return conformal_threshold(largest, FALSE_ALARMS)
