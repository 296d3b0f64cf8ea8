"""Finished runs as DataFrames, for notebooks and for analyses of one's own."""

import math
from pathlib import Path

import pandas as pd

from ..metrics.rows import COLUMNS
from ..models.tasks import Task
from .measures import number
from .runs import FinishedRun, find_runs


def load_runs(folder: str | Path, where: str | None = None) -> pd.DataFrame:
    """A row a finished run: its settings, the facts of its ``run.json``, its history's end and best, its main numbers.

    Args:
        folder: of a run, a sweep, or any folder above runs.
        where: of these settings alone: ``data=shapes,pool=max,avg,seed=0``.

    Returns:
        The index is the run's folder. Columns:

        - every key of the config (``model.pool``);
        - the facts (``parameters``, ``multiply_adds``, ``steps``, ``seconds``, ``hardware``, ``realised_label_noise``
          …); ``outcome`` is ``trained``, ``collapsed`` or ``diverged``;
        - every column of ``history.csv``, of the last epoch (``last/train/loss``, ``last/grad_norm`` …) and of the best
          one, as ``train.keep=best`` chooses it (``best/epoch``, ``best/val/accuracy`` …);
        - numbers under the keys that W&B gets (``test/accuracy``, ``invariance/crop/1px/output_distance`` …).

        A number that a run lacks is nan.

    Raises:
        UserError: there is no finished run, or none of those settings.
    """
    runs, _ = find_runs(Path(folder), where)
    rows = [run.settings | run.facts | {"outcome": run.outcome} | last_and_best(run) | run.numbers for run in runs]
    return pd.DataFrame(rows, index=pd.Index([str(run.folder) for run in runs], name="run"))


def last_and_best(run: FinishedRun) -> dict[str, float]:
    """The numbers of a run's last epoch, ``last/…``, and of its best by the validation score, ``best/…``; of equal
    epochs the first.
    """
    rows = [{name: number(text) for name, text in row.items()} for row in run.history]
    if not rows:
        return {}
    score, mode = Task(str(run.settings["data.task"]), 1).best
    sign = 1 if mode == "max" else -1

    def rank(row: dict[str, float]) -> float:
        value = sign * row.get(f"val/{score}", math.nan)
        return -math.inf if math.isnan(value) else value

    epochs = {"last": rows[-1], "best": max(rows, key=rank)}
    return {f"{which}/{name}": value for which, row in epochs.items() for name, value in row.items()}


def load_measures(folder: str | Path, where: str | None = None) -> pd.DataFrame:
    """A row a number of every finished run: their ``measures.csv``, one below the other.

    Args:
        folder, where: as of ``load_runs``.

    Returns:
        Columns: run (its folder), the settings in which the runs differ, then layer (``output``: the net's own),
        transform, protocol, amount, measure, value, low and high (95% interval over images), and n, the images.

    Raises:
        UserError: there is no finished run, or none of those settings.
    """
    runs, _ = find_runs(Path(folder), where)
    keys = [key for key in runs[0].settings if len({str(run.settings.get(key)) for run in runs}) > 1]
    frames = []
    for run in runs:
        frame = pd.DataFrame([row.values() for row in run.results], columns=list(COLUMNS))
        labels = {"run": str(run.folder)} | {key: run.settings[key] for key in keys}
        for place, (name, value) in enumerate(labels.items()):
            frame.insert(place, name, [value] * len(frame))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
