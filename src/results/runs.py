"""The folder of a run, read back: its config, whether it is finished, its rows under names that stay."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ..config import NON_IDENTITY_KEYS, Config, flatten, from_dict
from ..data.checksums import files_checksum
from ..data.splits import pictures_of
from ..errors import UserError
from ..metrics.rows import COLUMNS, Estimate, Heatmap, Note, PerImage, Row
from ..naming import command
from . import files
from .locks import lock_holder
from .outcomes import DIVERGED, TRAINED
from .where import matching

#: raised when the same config comes to other numbers, so that runs of before are not taken for runs of now
FORMAT = 1
#: a setting beside those of the config: the checksum of the pictures of ``data=folder``
PICTURES = "data.pictures"


def finished(folder: Path, cfg: Config) -> bool:
    """Whether the folder holds this very run, complete.

    Raises:
        UserError: it holds another run, or one of other pictures.
    """
    if not (folder / files.CONFIG).exists():
        return False
    saved = read_config(folder)
    before, now = flatten(saved), flatten(cfg)
    way = "move that folder away, or choose another with name=, hydra.sweep.dir= or, for a single run, hydra.run.dir="
    if keys := differing(before, now):
        key = keys[0]
        raise UserError(f"{folder} holds a run with {key}={before[key]}, this one has {key}={now[key]}; {way}")
    theirs, ours = recorded(folder, saved), contents(cfg)
    if keys := [key for key in ours if theirs.get(key) != ours[key]]:
        key, none = keys[0], "none, as no pictures are there"
        raise UserError(
            f"{folder} holds a run of other pictures: {key}={before[key]}, checksum {theirs.get(key) or none}; now "
            f"{key}={now[key]}, checksum {ours[key] or none}; {way}"
        )
    return (folder / files.RUN).exists()


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The settings that make two runs different ones; the pictures that they read aside."""
    return [key for key in other if key not in NON_IDENTITY_KEYS and one[key] != other[key]]


def contents(cfg: Config) -> dict[str, str]:
    """The checksums of the pictures that a config names, which are a part of what its run is: key → checksum."""
    found = {"data.root": pictures_of(cfg.data)} if cfg.data.name == "folder" else {}
    if cfg.probe.files:
        found["probe.files"] = files_checksum([Path(path) for path in cfg.probe.files])
    return found


def record(folder: Path, cfg: Config) -> None:
    """Leave in a run's folder what its config does not say of what the run is; before all else."""
    files.write_json(folder / files.IDENTITY, {"format": FORMAT, "contents": contents(cfg)})


def recorded(folder: Path, cfg: Config) -> dict[str, str]:
    """What ``contents`` gave when the run of a folder began. Where that was not recorded yet, what it gives now for
    its config.
    """
    kept = folder / files.IDENTITY
    if kept.exists():
        found: dict[str, str] = json.loads(kept.read_text())["contents"]
        return found
    return contents(cfg)


def read_config(folder: Path) -> Config:
    """The config a run left.

    Raises:
        UserError: it is not one of this project's, or not readable.
    """
    try:
        tree = yaml.safe_load((folder / files.CONFIG).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / files.CONFIG} cannot be read as a run's config ({error})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{folder / files.CONFIG} is not a run's config")
    return from_dict(tree)


def write_measures(
    path: Path, found: Iterable[Row | Heatmap | Note | PerImage], families: Collection[str] | None = None
) -> list[Row]:
    """The tidy table of a run, a row a number; and beside it the grids, the notes and what is kept of every image, if
    there are any. Gives the rows.

    Args:
        path: of the table.
        found: what was measured.
        families: what was asked for, as ``measure.what`` names it: these, and what is always measured, are replaced
            as a whole; what the table holds of other families stays. None: all of it is replaced.
    """
    found = list(found)
    rows = [one for one in found if isinstance(one, Row)]
    grids = {f"{one.measure}/{one.layer}": one.plane for one in found if isinstance(one, Heatmap)}
    notes = {one.measure: one.words for one in found if isinstance(one, Note)}
    per_image = {
        per_image_name(one.layer, one.protocol, one.amount, one.measure): one.values
        for one in found
        if isinstance(one, PerImage)
    }
    lines: Iterable[Sequence[Any]] = [row.values() for row in rows]
    if families is not None:
        before, gone = FinishedRun(path.parent, {}, path), {*families, ALWAYS}
        lines = _in_place(before.rows, rows, gone)
        grids = {name: plane for name, plane in before.grids.items() if family_of(name) not in gone} | grids
        notes = {name: words for name, words in before.notes.items() if family_of(name) not in gone} | notes
        per_image = before.per_image | per_image
    files.write_table(path, COLUMNS, lines)
    for name in (files.GRIDS, files.NOTES, files.PER_IMAGE):
        files.beside(path, name).unlink(missing_ok=True)
    for name, arrays in ((files.GRIDS, grids), (files.PER_IMAGE, per_image)):
        if arrays:
            files.write_arrays(files.beside(path, name), arrays)
    if notes:
        files.write_json(files.beside(path, files.NOTES), notes)
    return rows


def per_image_name(layer: str, protocol: str, amount: float, measure: str) -> str:
    """Of a number of which every image's statistics are kept: ``output,crop,1,output_distance``."""
    return f"{layer},{protocol},{amount:g},{measure}"


def _in_place(before: list[dict[str, str]], rows: list[Row], gone: Collection[str]) -> Iterator[Sequence[Any]]:
    """The lines of a table in their order, those of some families replaced by new ones; what it had none of comes last.

    Written again, a table is the same byte for byte where nothing has changed.
    """
    new: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        new.setdefault((family(row), row.measure.endswith(UNTRAINED)), []).append(row)
    for line in before:
        old = _row(line)
        if family(old) in gone:
            group = new.pop((family(old), old.measure.endswith(UNTRAINED)), [])
            yield from (row.values() for row in group)
        else:
            yield [line[column] for column in COLUMNS]
    yield from (row.values() for group in new.values() for row in group)


#: end of the measures' names of an untrained twin
UNTRAINED = "_untrained"
#: stands for the family of what is measured whatever is asked for: the scores on images in place
ALWAYS = ""
#: what a measure, a grid or a note belongs to, where its name says so: beginning of the name → family
NAMED_FAMILIES = {
    "goodfellow": "units",
    "effective_field": "field",
    "aliasing": "aliasing",
    "roll": "rolls",
    "crop": "crops",
    "velocity": "velocity",
    "answers": ALWAYS,
}


def family(row: Row) -> str:
    """The entry of ``measure.what`` that a row comes from; ``ALWAYS`` for what needs none."""
    if row.transform not in ("none", "shift"):
        return row.transform
    if named := family_of(row.measure):
        return named
    if row.transform == "none":
        return ALWAYS if row.layer == "output" else "layers"
    kind = row.protocol.rpartition("_")[2]  # of all_rolls, sampled_rolls …
    return kind if kind in ("rolls", "crops", "embed") else "shift"


def family_of(name: str) -> str | None:
    """The family of a grid or a note; of a measure, where its name alone says it.

    >>> family_of("roll_map_untrained/stage1"), family_of("rolls"), family_of("invariance_error")
    ('rolls', 'rolls', None)
    """
    return next((one for start, one in NAMED_FAMILIES.items() if name.startswith(start)), None)


def families_in(table: Path) -> Counter[str]:
    """How many numbers of each family a table holds."""
    return Counter(family(_row(line)) for line in files.read_rows(table))


def named_values(rows: Iterable[Row]) -> dict[str, float]:
    """The rows under names that stay: ``test/accuracy``, ``invariance/crop/1px/output_distance`` …"""
    names = {}
    for row in rows:
        if row.transform == "none":
            layer = "" if row.layer == "output" else f"{row.layer}/"
            names[f"{row.protocol}/{layer}{row.measure}"] = row.estimate.value
        elif row.transform == "shift" or row.layer == "output":
            layer = "" if row.layer == "output" else f"{row.layer}/"
            names[f"invariance/{setting(row)}/{layer}{row.measure}"] = row.estimate.value
    return names


def setting(row: Row) -> str:
    """``crop/1px``, ``all_rolls``, ``rotate-disc/15`` …: what was done, and how much of it."""
    if row.transform == "shift":
        return row.protocol if row.protocol.endswith("rolls") else f"{row.protocol}/{row.amount:g}px"
    return f"{row.transform}-{row.protocol}" + f"/{row.amount:g}" * bool(row.amount)


def settings_of(folder: Path) -> dict[str, Any]:
    """The config of a run, flat, and what else tells it from others: its ``PICTURES``, where it has some."""
    cfg = read_config(folder)
    found = recorded(folder, cfg).get("data.root") or cfg.data.root
    return flatten(cfg) | {PICTURES: found if cfg.data.name == "folder" else None}


def read_checkpoint(path: Path) -> tuple[Config, dict[str, torch.Tensor]]:
    """The config and the weights in a checkpoint, read as data only.

    Raises:
        UserError: no such file, or not a checkpoint of this project.
    """
    if not path.is_file():
        raise UserError(f"checkpoint={path}: no such file")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise UserError(f"checkpoint={path} cannot be read as a checkpoint of plain data") from error
    if not isinstance(tree, dict) or not {"config", "state_dict"} <= tree.keys():
        raise UserError(f"checkpoint={path} holds no config: it was not written by {command('train')}")
    return from_dict(tree["config"]), tree["state_dict"]


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left, read when it is asked for.

    Attributes:
        folder: where it lies.
        settings: its config, flat: ``{"model.pool": "max", …}``.
        table: where its measures lie; null: in its folder. The grids lie beside them.
    """

    folder: Path
    settings: dict[str, Any]
    table: Path | None = None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Seconds, parameters, multiply-adds, hardware, checksums, outcome."""
        facts: dict[str, Any] = json.loads((self.folder / files.RUN).read_text())
        return facts

    @property
    def outcome(self) -> str:
        """How its training ended (``src.results.outcomes``); ``trained`` where that was not recorded yet."""
        recorded = (self.folder / files.RUN).exists()  # a table that was measured alone has no facts
        return str(self.facts.get("outcome", TRAINED)) if recorded else TRAINED

    @property
    def failure(self) -> str:
        """How its training failed, in words; empty where it did not."""
        if self.outcome == DIVERGED:
            return f"{DIVERGED} in epoch {self.facts['diverged_in_epoch']}"
        return "" if self.outcome == TRAINED else self.outcome

    @cached_property
    def earlier(self) -> bool:
        """Whether it lies there from a version whose numbers are not of this ``FORMAT``: other floors and intervals."""
        kept = self.folder / files.IDENTITY
        return self.folder.exists() and (not kept.exists() or json.loads(kept.read_text())["format"] != FORMAT)

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """A row an epoch."""
        return files.read_rows(self.folder / files.HISTORY)

    @cached_property
    def shapes(self) -> list[dict[str, str]]:
        """A row a layer."""
        return files.read_rows(self.folder / files.SHAPES)

    @cached_property
    def measures(self) -> dict[tuple[str, str, float, str], tuple[float, float, float]]:
        """(layer, protocol, amount, measure) → value, low, high; nan where there is none. The protocol of what is not a
        shift has the transform before it: ``rotate/disc``.
        """
        return {_key(row): (number(row["value"]), number(row["low"]), number(row["high"])) for row in self.rows}

    @cached_property
    def counts(self) -> dict[tuple[str, str, float, str], int]:
        """Of every measure, how many images it comes from."""
        return {_key(row): int(row["n"]) for row in self.rows}

    @property
    def numbers(self) -> dict[str, float]:
        """Its measures under the names that stay, as ``summary`` gives them."""
        return named_values(self.found)

    @property
    def found(self) -> list[Row]:
        """Its measures as they were found."""
        return [_row(row) for row in self.rows]

    @cached_property
    def grids(self) -> dict[str, np.ndarray]:
        """``measure/layer`` → a number for each place of a plane."""
        return files.read_arrays(files.beside(self._table, files.GRIDS))

    @cached_property
    def per_image(self) -> dict[str, np.ndarray]:
        """``per_image_name`` → the statistics of every image that the number is made of; none in a run before them."""
        return files.read_arrays(files.beside(self._table, files.PER_IMAGE))

    @cached_property
    def inside(self) -> dict[str, np.ndarray]:
        """What the net looks like inside: the arrays of ``inspection.feature_analysis``; none in a run before it."""
        return files.read_arrays(self.folder / files.INSIDE)

    @cached_property
    def notes(self) -> dict[str, str]:
        """How what was measured was had: family → a line; those of the untrained twin have its suffix."""
        path = files.beside(self._table, files.NOTES)
        notes: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return notes

    def estimate(self, layer: str, protocol: str, amount: float, measure: str) -> tuple[float, float, float]:
        """Value, low, high; nan where it was not measured."""
        nothing = float("nan")
        return self.measures.get((layer, protocol, amount, measure), (nothing, nothing, nothing))

    @property
    def _table(self) -> Path:
        return self.table or self.folder / files.MEASURES

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """Its table of measures as it stands."""
        return files.read_rows(self._table)


def _row(row: Mapping[str, str]) -> Row:
    estimate = Estimate(number(row["value"]), number(row["low"]), number(row["high"]), int(row["n"]))
    where = row["layer"], row["transform"], row["protocol"], float(row["amount"]), row["measure"]
    return Row(*where, estimate)


def _why_not(run: Path) -> str:
    """Why a run is not finished: who is at work on it, or the last line of its ``failed.txt``."""
    if holder := lock_holder(run):
        return f"{holder} is at work on it"
    return files.last_line(run / files.FAILED) or "not finished"


def _key(row: Mapping[str, str]) -> tuple[str, str, float, str]:
    return row["layer"], _protocol(row), float(row["amount"]), row["measure"]


def _protocol(row: Mapping[str, str]) -> str:
    plain = row["transform"] in ("none", "shift")
    return row["protocol"] if plain else f"{row['transform']}/{row['protocol']}"


def number(text: str) -> float:
    """A field of a CSV file; an empty one is nan."""
    return float(text) if text else float("nan")


def find_runs(folder: Path, where: str | None = None) -> tuple[list[FinishedRun], dict[str, str]]:
    """Every finished run below a folder, and those that are not: name → why.

    The order is that of the sweep's list of jobs, else that of the names.

    Args:
        folder: of a sweep, or of any set of runs.
        where: those of these settings alone, as ``where.matching`` reads it.

    Raises:
        UserError: there is no finished run, or none of those settings.
    """
    if not folder.is_dir():
        raise UserError(f"runs={folder}: no such folder")
    configs = [path.parent for path in sorted(folder.glob(f"**/{files.CONFIG}"))]
    runs = [
        FinishedRun(run, settings_of(run) if where is not None or (run / files.RUN).exists() else {})
        for run in configs
        if "wandb" not in run.relative_to(folder).parts
    ]
    there = {run.folder.name for run in runs}
    if where is not None and runs:
        kept = matching(where, [run.settings for run in runs])
        runs = [run for run, keep in zip(runs, kept, strict=True) if keep]
    done = [run for run in runs if (run.folder / files.RUN).exists()]
    others = {run.folder.name: _why_not(run.folder) for run in runs if run not in done}
    manifest = folder / files.SWEEP
    if manifest.exists():
        jobs: list[str] = json.loads(manifest.read_text())["jobs"]
        place = {name: i for i, name in enumerate(jobs)}
        done.sort(key=lambda one: place.get(one.folder.name, len(place)))
        if where is None:  # of what has not begun, nobody knows its settings
            others |= {name: "not started" for name in jobs if name not in there}
    if not done:
        more = f" ({'; '.join(f'{name}: {why}' for name, why in others.items())})" if others else ""
        raise UserError(f"runs={folder}: no finished run in it{more}")
    return done, others
