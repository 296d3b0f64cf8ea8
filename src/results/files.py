"""Names of the files in the folders of runs and sweeps, and atomic writes."""

import csv
import errno
import io
import json
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from ..common.errors import UserError

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
#: bytes of a file's or a folder's name, as file systems limit it
LONGEST_NAME = 255


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


def refuse_unwritable(key: str, path: Path) -> None:
    """``UserError`` where ``key=path``, a folder that may be missing, is none that files can be written into."""
    there = next((part for part in (path.absolute(), *path.absolute().parents) if os.path.lexists(part)), Path("/"))
    if there.exists() and not there.is_dir():
        raise UserError(f"{path}: {there} is a file, where a folder is needed: choose another {key}")
    try:
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
            raise OSError(errno.ENAMETOOLONG, f"a name has more than {LONGEST_NAME} bytes")
        with tempfile.TemporaryFile(dir=there):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{key}={path}: nothing can be written in {there}: {reason}") from error


def remove_parts(folder: Path, deep: bool = True) -> None:
    """Remove temporary files of a process that was killed while it wrote; only under the folder's lock."""
    for part in folder.glob(f"{'**/' * deep}.*{PART}"):
        part.unlink(missing_ok=True)


def write_json(path: Path, tree: Any) -> None:
    """Plain data as indented JSON."""
    write(path, json.dumps(tree, indent=2) + "\n")


class DamagedFileError(UserError):
    """A file in a folder of a run or a sweep does not hold what it should."""

    def __init__(self, path: Path, words: str) -> None:
        super().__init__(f"{path} is damaged: {words}")
        self.path = path


#: what readers raise for content that is not what they expect
UNEXPECTED = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, EOFError, OSError, RecursionError,
    NotImplementedError, BadZipFile, zlib.error, csv.Error,
)  # fmt: skip


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside the ``with``, a file whose content is not what it should be is a ``DamagedFileError`` that names it."""
    try:
        yield
    except UserError:
        raise
    except UNEXPECTED as error:
        words = " ".join(str(error).split())
        raise DamagedFileError(path, f"{type(error).__name__}, {words[:200] or 'no content'}") from error


def read_json(path: Path, missing: Any) -> Any:
    """A JSON object, or ``missing`` where there is no such file; ``UserError`` if it is damaged."""
    if not path.exists():
        return missing
    with reading(path):
        tree = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError("no object in it")
    return tree


def read_sweep(folder: Path) -> dict[str, Any]:
    """The ``sweep.json`` of a folder: its jobs, command, question and study; empty where there is none."""
    tree: dict[str, Any] = read_json(path := folder / SWEEP, {})
    with reading(path):
        for key, kind in {"jobs": list, "command": str, "question": str, "study": dict}.items():
            if not isinstance(tree.get(key, kind()), kind):
                raise TypeError(f"{key} is no {kind.__name__}")
        if not all(isinstance(name, str) for name in tree.get("jobs", ())):
            raise TypeError("jobs holds what is no name")
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


def read_arrays(path: Path, sides: "Mapping[str, int] | int | None" = None) -> "dict[str, np.ndarray]":
    """The arrays of an ``.npz``, by name; none where it is missing; ``UserError`` if it is damaged: an array holds no
    real numbers, or infinite ones, or has another number of dimensions than ``sides`` says, for all or by the last part
    of the name.
    """
    import numpy as np

    if not path.exists():
        return {}
    with reading(path), path.open("rb") as file, np.load(file) as kept:
        arrays = dict(kept)
        for name, array in arrays.items():
            known = sides if isinstance(sides, int) else (sides or {}).get(name.rpartition("/")[2], array.ndim)
            if array.dtype.kind not in "buif" or array.ndim != known or not array.size or np.isinf(array).any():
                raise ValueError(f"{name} of shape {array.shape}, {array.dtype}, or with infinite numbers")
    return arrays


def last_line(path: Path) -> str:
    """The last line of a log or a traceback; empty where there is none."""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.is_file() else []
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
