"""Alarms: a number that is followed over time moves further from its own extreme than in runs where nothing is wrong.

A run is followed at looks; its *change* at a look is how far the number has risen above its own least value so far, or
fallen below its own greatest. The level of a run, and the start from which it learns, drop out of it, so that runs can
be compared. An alarm fires at the first look at which the change is above a threshold.

The threshold is split-conformal: of ``n`` calibration runs it is the ``k``-th largest of their largest changes, ``k =
floor(α (n + 1))``. The largest change of a new run that is exchangeable with them is above it with a probability of at
most ``k / (n + 1) ≤ α``, whatever the distribution and however looks depend on each other (Vovk et al. 2005). It is in
the units of the number: times of alarms stay the same if all runs are scaled and shifted alike.
"""

import math

import numpy as np
from jaxtyping import Float

#: of the change that an alarm waits for
DIRECTIONS = ("rise", "fall")


def changes(values: Float[np.ndarray, " looks"], direction: str) -> Float[np.ndarray, " looks"]:
    """How far each value has risen above the least so far, or fallen below the greatest; 0 or more.

    Looks without a finite value have nan, and are passed over.

    Raises:
        ValueError: the direction is none of ``DIRECTIONS``.

    >>> changes(np.array([3.0, 1.0, 2.0, 4.0]), "rise").tolist()
    [0.0, 0.0, 1.0, 3.0]
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction={direction}: choose one of {', '.join(DIRECTIONS)}")
    signed = np.where(np.isfinite(values), values if direction == "rise" else -values, np.nan)
    return np.asarray(signed - np.fmin.accumulate(signed))


def largest_change(values: Float[np.ndarray, " looks"], direction: str) -> float:
    """The largest change of a run; nan where no look has a value."""
    moved = changes(values, direction)
    return float(np.nanmax(moved)) if np.isfinite(moved).any() else math.nan


def first_alarm(values: Float[np.ndarray, " looks"], direction: str, threshold: float) -> int | None:
    """The look, counted from 0, at which the change is above the threshold for the first time; None: never."""
    above = changes(values, direction) > threshold  # nan is not
    return int(above.argmax()) if above.any() else None


def alarm_step(
    steps: Float[np.ndarray, " looks"], values: Float[np.ndarray, " looks"], direction: str, threshold: float
) -> float:
    """The optimiser step at which an alarm fires.

    One that never fires has the step of a look after the last: it is censored there, so that a difference of two alarms
    of a run is 0 where neither fires, and at least as large as it seems where one does not.
    """
    look = first_alarm(values, direction, threshold)
    if look is not None:
        return float(steps[look])
    return float(steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else steps[-1]))


def least_calibration_runs(alpha: float) -> int:
    """The least number of calibration runs that have a threshold: 1/α − 1.

    >>> least_calibration_runs(0.05), least_calibration_runs(0.1)
    (19, 9)
    """
    return math.ceil(1 / alpha - 1 - 1e-9)


def conformal_threshold(largest: Float[np.ndarray, " runs"], alpha: float) -> float:
    """The threshold that a new exchangeable run exceeds with a probability of at most ``alpha``.

    Args:
        largest: the largest change of each calibration run.
        alpha: in (0, 1).

    Raises:
        ValueError: there are too few runs.
    """
    rank = math.floor(alpha * (len(largest) + 1) + 1e-9)
    if rank < 1:
        raise ValueError(f"{len(largest)} calibration runs: alpha={alpha:g} needs {least_calibration_runs(alpha)}")
    return float(np.sort(largest)[-rank])
