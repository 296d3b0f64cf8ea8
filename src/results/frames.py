"""Finished runs as DataFrames, for notebooks and for analyses of one's own."""

from pathlib import Path

import pandas as pd

from ..metrics.rows import COLUMNS
from .runs import find_runs


def load_runs(folder: str | Path, where: str | None = None) -> pd.DataFrame:
    """A row a finished run: its settings, the facts of its ``run.json``, and its main numbers.

    Args:
        folder: of a run, a sweep, or any folder above runs.
        where: of these settings alone: ``data=shapes,pool=max,avg,seed=0``.

    Returns:
        The index is the run's folder. Columns: every key of the config (``model.pool``), the facts (``parameters``,
        ``multiply_adds``, ``seconds``, ``hardware``, ``outcome`` …), and numbers under the keys that W&B gets
        (``test/accuracy``, ``invariance/crop/1px/output_distance`` …). A number that a run lacks is nan.

    Raises:
        UserError: there is no finished run, or none of those settings.
    """
    runs, _ = find_runs(Path(folder), where)
    rows = [run.settings | run.facts | run.numbers for run in runs]
    return pd.DataFrame(rows, index=pd.Index([str(run.folder) for run in runs], name="run"))


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
