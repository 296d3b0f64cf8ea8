"""Names of the files in the folders of runs and sweeps, and atomic writes."""

import csv
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from ..errors import UserError

if TYPE_CHECKING:
    import numpy as np

CONFIG, RUN, HISTORY, SHAPES, MEASURES = "config.yaml", "run.json", "history.csv", "shapes.csv", "measures.csv"
GRIDS, NOTES, INSIDE, PER_IMAGE = "grids.npz", "notes.json", "inside.npz", "per_image.npz"
PICTURES, METAMERS = "pictures.npz", "metamers.svg"
MEASURED = "measured.json"  # how a table was measured that is not a run's own
IDENTITY = "identity.json"  # format and checksums of image files
CHECKPOINTS, MAPS, FAILED, WANDB_ID = "checkpoints", "maps", "failed.txt", "wandb.id"
SWEEP, COMPARISON, DIFFERENCES, RUNS = "sweep.json", "comparison.csv", "differences.csv", "runs.csv"
PAGE, REPORT = "report.html", "report.json"
VERDICT = "verdict.json"  # of a study's claims
LOG = "log.txt"  # output of a run in a process of its own
LAST, NEXT, PREVIOUS, BEST = "last.ckpt", "next.ckpt", "previous.ckpt", "best.ckpt"
LOCK, PART = ".lock", ".part"


def beside(table: Path, name: str) -> Path:
    """The path of a file that belongs to a table of measures; several tables in a folder have their own.

    >>> beside(Path("run/measures.csv"), GRIDS).name, beside(Path("run/again.csv"), GRIDS).name
    ('grids.npz', 'again.grids.npz')
    """
    return table.with_name(name if table.name == MEASURES else f"{table.stem}.{name}")


def write(path: Path, content: "str | bytes | memoryview") -> None:
    """Replace a file atomically: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_parts(folder: Path, deep: bool = True) -> None:
    """Remove temporary files of a process that was killed while it wrote; only under the folder's lock."""
    for part in folder.glob(f"{'**/' * deep}.*{PART}"):
        part.unlink(missing_ok=True)


def write_json(path: Path, tree: Any) -> None:
    """Plain data as indented JSON."""
    write(path, json.dumps(tree, indent=2) + "\n")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside the ``with``, a file whose content is not what it should be is a ``UserError`` that names it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile, csv.Error) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}, {str(error) or 'no content'}") from error


def read_json(path: Path, missing: Any) -> Any:
    """A JSON object, or ``missing`` where there is no such file; ``UserError`` if it is damaged."""
    if not path.exists():
        return missing
    with reading(path):
        tree = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError("no object in it")
    return tree


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Dicts as CSV, a column a key; missing keys are empty fields."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_table(path, columns, [[row.get(column) for column in columns] for row in rows])


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A header and rows as CSV; missing numbers are empty fields."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        missing = (value is None or (isinstance(value, float) and math.isnan(value)) for value in row)
        writer.writerow(["" if empty else value for empty, value in zip(missing, row, strict=True)])
    write(path, text.getvalue())


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]") -> None:
    """Named arrays as a compressed ``.npz``."""
    import numpy as np

    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    write(path, packed.getvalue())


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """The arrays of an ``.npz``, by name; none where it is missing; ``UserError`` if it is damaged."""
    import numpy as np

    if not path.exists():
        return {}
    with reading(path), path.open("rb") as file, np.load(file) as kept:
        return dict(kept)


def last_line(path: Path) -> str:
    """The last line of a log or a traceback; empty where there is none."""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
    return re.sub(r"^\w+\.errors\.(UserError|Refusal): ", "", lines[-1].strip()) if lines else ""


def read_rows(path: Path, columns: Iterable[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file, as text; none where it is missing; ``UserError`` if it is damaged: its header lacks some
    of ``columns``, or a row has more or fewer fields.
    """
    if not path.exists():
        return []
    with reading(path), path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        names = reader.fieldnames or ()
        if not names or not {*columns} <= {*names}:
            raise ValueError("it has another header")
        for row in rows:
            if None in row or None in row.values():
                raise ValueError(f"a row does not have {len(names)} fields")
    return rows
