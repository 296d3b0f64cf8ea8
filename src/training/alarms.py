"""``alarm=true``: says in a line, while a net trains, that it seems to learn label noise."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from ..results.measures import number
from ..stats.alarms import changes, first_alarm
from .callbacks import History

#: thresholds of the study's last run, by its calibration runs; a test holds them to its published verdict
TABLE = Path(__file__).with_name("alarm_thresholds.csv")
STUDY = "q11_alarm"


@dataclass(frozen=True)
class Alarm:
    """A column of ``history.csv``, and the change of it that no clean run of the study has exceeded.

    Attributes:
        column, direction, threshold: as in ``stats.alarms``.
        runs: clean runs that set the threshold.
    """

    column: str
    direction: str
    threshold: float
    runs: int


def alarms() -> list[Alarm]:
    """Those of the study."""
    with TABLE.open(encoding="utf-8") as file:
        return [
            Alarm(row["column"], row["direction"], float(row["threshold"]), int(row["runs"]))
            for row in csv.DictReader(file)
        ]


class SayAlarms(Callback):
    """Prints a line in the epoch in which an alarm fires first; training goes on as it would without.

    It reads what ``history`` holds, so that an alarm waits for the columns that are followed (``measure.follow``);
    validation scores are there in every run. Its place in the list of callbacks is after ``history``.

    Args:
        history: of the run.
        say: called with the line.
    """

    def __init__(self, history: History, say: Callable[[str], None]) -> None:
        self.history, self.say, self.alarms = history, say, alarms()

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look."""
        self.look()

    def look(self) -> None:
        """Compare the columns with the thresholds, up to the last epoch of ``history``."""
        for alarm in self.alarms:
            values = np.array([number(str(row.get(alarm.column, ""))) for row in self.history.rows])
            if first_alarm(values, alarm.direction, alarm.threshold) == len(values) - 1:
                moved = changes(values, alarm.direction)[-1]
                self.say(
                    f"epoch {len(values)}: this net may be learning label noise, by the {alarm.direction} of "
                    f"{alarm.column}: {moved:.3g}; in {alarm.runs} clean runs (sweeps={STUDY}) it was at most "
                    f"{alarm.threshold:.3g}"
                )
