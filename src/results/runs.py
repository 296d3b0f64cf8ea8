"""Finished runs: what their folders hold, read on first use; and all runs below a folder."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..metrics.rows import Row
from . import files
from .identity import FORMAT, settings_of
from .locks import lock_holder
from .measures import finite, named_values, number, read_beside, read_notes, read_results
from .outcomes import COLLAPSED, DIVERGED, TRAINED
from .where import matching

#: layer, protocol, amount, measure
Key = tuple[str, str, float, str]
#: numbers of run.json that a comparison computes with
NUMBERS = ("seconds", "parameters", "multiply_adds")
#: dimensions of the arrays of inside.npz, by the last part of their names
INSIDE_SIDES = {
    "images": 4, "labels": 1, "shift": 1, "filters": 4, "answers": 1, "cam": 3, "facts": 2, "order": 1, "field": 1,
    "patch_channels": 1, "patches": 5, "moved": 4, "back": 4,
}  # fmt: skip


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left, read on first use."""

    folder: Path
    settings: dict[str, Any]  # its config, flat: {"model.pool": "max", …}
    table: Path | None = None  # of its measures, with other files beside it; None: measures.csv in the folder

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Seconds, parameters, multiply-adds, hardware, checksums, outcome."""
        facts = dict(files.read_json(path := self.folder / files.RUN, {}))
        with files.reading(path):
            for name in NUMBERS:
                finite(name, float(facts.get(name, 0)))
            if facts.get("outcome", TRAINED) not in (TRAINED, COLLAPSED, DIVERGED):
                raise ValueError("no such outcome")
            if not isinstance(facts.get("classes", []), list):
                raise TypeError("classes is no list")
        return facts

    @property
    def outcome(self) -> str:
        """How training ended, see ``results.outcomes``; ``trained`` for older runs, which do not say."""
        has_facts = (self.folder / files.RUN).exists()  # a net that was measured alone has none
        return str(self.facts.get("outcome", TRAINED)) if has_facts else TRAINED

    @property
    def failure(self) -> str:
        """How training failed, in words; empty where it did not."""
        if self.outcome == DIVERGED:
            return f"{DIVERGED} in epoch {self.facts.get('diverged_in_epoch', '?')}"
        return "" if self.outcome == TRAINED else self.outcome

    @cached_property
    def earlier(self) -> bool:
        """Whether an earlier version wrote it, whose floors and intervals differ (another ``FORMAT``)."""
        path = self.folder / files.IDENTITY
        return self.folder.exists() and files.read_json(path, {}).get("format") != FORMAT

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """The rows of ``history.csv``: one per epoch."""
        return self._rows(files.HISTORY, "epoch", texts=())

    @cached_property
    def shapes(self) -> list[dict[str, str]]:
        """The rows of ``shapes.csv``: one per layer."""
        return self._rows(files.SHAPES, "layer", texts=("layer", "kind"))

    def _rows(self, name: str, needed: str, texts: Collection[str]) -> list[dict[str, str]]:
        """The rows of a table with the column ``needed``, whose columns but ``texts`` hold numbers."""
        rows = files.read_rows(path := self.folder / name, [needed])
        with files.reading(path):
            for row in rows:
                int(row.get("epoch", 0))
                for column in row.keys() - texts:
                    number(row[column])
        return rows

    @cached_property
    def results(self) -> list[Row]:
        """The rows of its ``measures.csv``."""
        return read_results(self._table)

    @cached_property
    def measures(self) -> dict[Key, tuple[float, float, float]]:
        """(layer, protocol, amount, measure) → value, low, high; nan where there is none. The protocol of transforms
        other than shifts has the transform before it: ``rotate/disc``.
        """
        return {_key(row): (row.estimate.value, row.estimate.low, row.estimate.high) for row in self.results}

    @cached_property
    def counts(self) -> dict[Key, int]:
        """The number of images of every measure."""
        return {_key(row): row.estimate.n for row in self.results}

    @property
    def numbers(self) -> dict[str, float]:
        """Its measures under the keys that W&B gets."""
        return named_values(self.results)

    @cached_property
    def grids(self) -> dict[str, np.ndarray]:
        """Heatmaps: ``measure/layer`` → a number for each place."""
        return read_beside(self._table, files.GRIDS)

    @cached_property
    def pictures(self) -> dict[str, np.ndarray]:
        """Images that measuring made: ``measure/layer`` → (rows, columns, c, h, w), bytes; ``measure/layer/distance``
        → (rows, columns), how far each is from what it should be.
        """
        return read_beside(self._table, files.PICTURES)

    @cached_property
    def per_image(self) -> dict[str, np.ndarray]:
        """Statistics of every image, by ``measures.per_image_name``; none in older runs."""
        return read_beside(self._table, files.PER_IMAGE)

    @cached_property
    def inside(self) -> dict[str, np.ndarray]:
        """The arrays of ``inspection.feature_analysis``; none in older runs."""
        return files.read_arrays(self.folder / files.INSIDE, INSIDE_SIDES)

    @cached_property
    def notes(self) -> dict[str, str]:
        """How families were measured: family → a line; of the untrained twin, with its suffix."""
        return read_notes(self._table)

    def estimate(self, layer: str, protocol: str, amount: float, measure: str) -> tuple[float, float, float]:
        """Value, low, high; nan where it was not measured."""
        nan = float("nan")
        return self.measures.get((layer, protocol, amount, measure), (nan, nan, nan))

    @property
    def _table(self) -> Path:
        return self.table or self.folder / files.MEASURES


def _key(row: Row) -> Key:
    protocol = row.protocol if row.transform in ("none", "shift") else f"{row.transform}/{row.protocol}"
    return row.layer, protocol, row.amount, row.measure


def find_runs(folder: Path, where: str | None = None) -> tuple[list[FinishedRun], dict[str, str]]:
    """Every finished run below a folder, and the unfinished ones: name → reason.

    The order is that of the sweep's jobs, else by name.

    Args:
        folder: of a run, a sweep, or above runs.
        where: only those with these settings, see ``where.matching``.

    A run whose files are damaged is one of the unfinished.

    Raises:
        UserError: there is no finished run, or none with those settings.
    """
    if not folder.is_dir():
        raise UserError(f"runs={folder}: no such folder")
    configs = [path.parent for path in sorted(folder.glob(f"**/{files.CONFIG}"))]
    names = Counter(run.name for run in configs)
    runs, damaged = [], dict[Path, str]()

    def label(run: Path) -> str:  # runs of several sweeps can have one name
        return run.name if names[run.name] == 1 else run.relative_to(folder).as_posix()

    for run in configs:
        if "wandb" not in run.relative_to(folder).parts:
            try:
                needed = where is not None or (run / files.RUN).exists()
                runs.append(FinishedRun(run, settings_of(run) if needed else {}))
            except UserError as error:
                damaged[run] = str(error)
    if where is not None and runs:
        kept = matching(where, [run.settings for run in runs])
        runs = [run for run, keep in zip(runs, kept, strict=True) if keep]
    finished = [run for run in runs if (run.folder / files.RUN).exists()]
    damaged |= {run.folder: words for run in finished if (words := _damage(run))}
    done = [run for run in finished if run.folder not in damaged]
    missing = {label(run.folder): _reason(run.folder) for run in runs if run not in finished}
    missing |= {label(run): words for run, words in damaged.items()}
    jobs: Collection[str] = files.read_sweep(folder).get("jobs", ())
    order = {name: i for i, name in enumerate(jobs)}
    if jobs:
        done.sort(key=lambda run: order.get(run.folder.name, len(order)))
    if where is None:  # the settings of jobs that have not started are unknown
        missing |= {name: "not started" for name in jobs if name not in names}
    if not done:
        reasons = f" ({'; '.join(f'{name}: {reason}' for name, reason in missing.items())})" if missing else ""
        raise UserError(f"runs={folder}: no finished run in it{reasons}")
    return done, missing


def _damage(run: FinishedRun) -> str:
    """Which of a run's files cannot be read; empty if all can that every view needs."""
    try:
        _ = run.facts, run.earlier, run.history, run.shapes, run.results, run.notes
    except UserError as error:
        return str(error)
    return ""


def _reason(run: Path) -> str:
    """Why a run is not finished: the process that uses its folder, or the last line of its ``failed.txt``."""
    if holder := lock_holder(run):
        return f"{holder} is using this folder; wait until it finishes"
    return files.last_line(run / files.FAILED) or "not finished"
