"""Damaged run folders: every file of a run and of a sweep × kinds of damage, and then they are compared.

One of two runs is damaged. It is listed as missing with a reason that names the file, or it can do without the file;
the other is compared either way.
"""

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from src.common.errors import UserError
from src.config import Study
from src.config.study import Claim, Contrast, Reading
from src.launch.sweep import Plan, start
from src.reporting.answers import collect, write_answers
from src.reporting.page import build_report
from src.results import files
from src.results.identity import read_config
from tests.fuzz.cases import Case
from tests.helpers import ROOT

#: gives the damaged content of a file
Damage = Callable[[], bytes]
#: of a run; each is damaged in one of two runs
OF_RUN = (
    files.CONFIG, files.RUN, files.HISTORY, files.SHAPES, files.MEASURES, files.NOTES, files.IDENTITY, files.INSIDE,
    files.GRIDS, files.PER_IMAGE, "maps/epoch_001.npz", "maps/scale.json",
)  # fmt: skip
OF_SWEEP = (files.SWEEP, files.VERDICT)
#: without which there is nothing to compare
NEEDED = (files.CONFIG, files.RUN, files.HISTORY, files.SHAPES, files.MEASURES)
OLD = ROOT / "tests" / "old_runs" / "finished"
HUGE = "x" * 5_000_000
#: kinds of damage to any file; None: a folder in its place
WHOLE: dict[str, Callable[[bytes], bytes] | None] = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "garbage": lambda _: bytes(range(256)) * 20,
    "a folder": None,
    "BOM": lambda content: b"\xef\xbb\xbf" + content,
    "NUL": lambda content: content[:20] + b"\0\0" + content[22:],
    "all NUL": lambda content: bytes(len(content)),
    "null": lambda _: b"null",
    "list": lambda _: b"[1, 2]",
    "number": lambda _: b"1e999",
    "deep": lambda _: b"[" * 3000,
    "bits": lambda content: content[:-60] + bytes(byte ^ 90 for byte in content[-60:-30]) + content[-30:],
    "middle": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 90]) + content[len(content) // 2 + 1 :]
    ),
}
#: kinds of damage that every reader of a file must notice
CERTAIN = ("empty", "garbage", "a folder", "all NUL", "null", "list", "deep")
#: values in the place of one in a JSON file or a YAML file
VALUES: dict[str, Any] = {
    "null": None, "inf": float("inf"), "nan": float("nan"), "1e308": 1e308, "-1": -1, "text": "zzz", "empty": "",
    "list": [], "lists": [[1]], "tree": {"a": {"b": 1}}, "true": True, "5 MB": HUGE, "markup": "[/bold][red]</script>",
}  # fmt: skip
FIELDS = {"empty": "", "inf": "inf", "-inf": "-inf", "nan": "nan", "1e308": "1e308", "text": "zzz", "-1": "-1",
          "1.5": "1.5", "5 MB": HUGE, "quote": '"', "markup": "[/bold]"}  # fmt: skip
ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "scalar": lambda array: np.float32(1) + np.zeros(()),
    "empty": lambda array: array[:0],
    "no last side": lambda array: array[..., :0],
    "flat": np.ravel,
    "deeper": lambda array: array[None],
    "shorter": lambda array: array[..., :1] if array.ndim else array,
    "text": lambda array: np.full(array.shape, "zzz"),
    "complex": lambda array: np.full(array.shape, 1j),
    "bool": lambda array: np.zeros(array.shape, bool),
    "bytes": lambda array: np.zeros(array.shape, np.int8),
    "object": lambda array: np.full(array.shape, None, object),
    "nan": lambda array: np.full(array.shape, np.nan),
    "inf": lambda array: np.full(array.shape, np.inf),
    "1e308": lambda array: np.full(array.shape, 1e308),
    "-1": lambda array: np.full(array.shape, -1, np.int64),
    "records": lambda array: np.zeros(array.shape, [("a", float)]),
    "dates": lambda array: np.zeros(array.shape, "M8[s]"),
}


def make_sweep(folder: Path) -> Path:
    """A finished sweep of two small runs, with a claim, heatmaps, notes and a verdict; returns its folder."""
    jobs = {}
    for pool, seed in (("max", 0), ("avg", 1)):
        path = folder / f"pool={pool}"
        shutil.copytree(OLD, path)
        tree = yaml.safe_load((path / files.CONFIG).read_text(encoding="utf-8"))
        tree["model"]["pool"] = pool
        files.write(path / files.CONFIG, yaml.safe_dump(tree))
        files.write_json(path / files.RUN, files.read_json(path / files.RUN, {}) | {"outcome": "trained"})
        grids = np.random.default_rng(seed).random((2, 16, 16), dtype=np.float32)
        files.write_arrays(path / files.GRIDS, {"roll_map/output": grids[0], "roll_map/stage1": grids[1]})
        files.write_json(path / files.NOTES, {"shift": "measured so", "rolls": "all of them"})
        jobs[path] = read_config(path)
    contrast = Contrast(Reading(where="pool=max", measure="accuracy"), Reading(where="pool=avg"), margin=0.1)
    study = Study(number="Q0", claims=[Claim("max is better", [contrast])])
    start(Plan(folder, jobs, True, [], study=study), ["model.pool=max,avg"])
    build_report(folder)
    return folder


def cases(sweep: Path) -> Iterator[Case]:
    """Every file × kinds of damage, in copies of a sweep."""
    special = {".json": _json, ".csv": _csv, ".npz": _npz, ".yaml": _yaml}
    for name in (*OF_RUN, *OF_SWEEP):
        path = sorted(sweep.glob("pool=*"))[0] / name if name in OF_RUN else sweep / name
        content = path.read_bytes()
        whole = ((how, partial(damage, content) if damage else None) for how, damage in WHOLE.items())
        for how, damage in (*whole, *special[path.suffix](content)):
            certain = how in CERTAIN and not (how == "empty" and path.suffix == ".yaml")
            call = partial(_compare, sweep, path.relative_to(sweep), damage, certain)
            yield Case(f"folder: {name}", how, call, writes=True)


def _compare(sweep: Path, name: Path, damage: Damage | None, certain: bool) -> None:
    """Damage a file in a copy of the sweep in the working directory, and compare the runs."""
    copy = Path("sweep")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sweep, copy)
    path = copy / name
    if damage is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(damage())
    if path.name == files.VERDICT:
        collect("q0", copy, copy / "docs")
        write_answers(copy / "docs", ["q0"])
        assert not certain, f"{path} was read"
        return
    if path.name == files.SWEEP:  # it belongs to all runs: nothing can be compared as it was asked
        build_report(copy)
        assert not certain, f"{path} was read"
        return
    try:
        build_report(copy)
    except UserError as error:
        raise AssertionError(f"the others are not compared: {error}") from error
    rows = files.read_rows(copy / files.COMPARISON)
    missing = {row["variant"]: row.get("missing", "") for row in rows if row["seeds"] == "0"}
    assert any(row["seeds"] != "0" for row in rows), rows
    assert all(str(path) in reason for reason in missing.values()), missing
    assert missing or not certain, f"{path} was read"


def _json(content: bytes) -> Iterator[tuple[str, Damage]]:
    return _tree(json.loads(content), json.dumps)


def _yaml(content: bytes) -> Iterator[tuple[str, Damage]]:
    yield from _tree(yaml.safe_load(content), yaml.safe_dump)
    bomb = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (i + 1, i + 1, i, i) for i in range(97, 120))
    yield "bomb", lambda: bomb


def _tree(tree: Any, dump: Callable[[Any], str]) -> Iterator[tuple[str, Damage]]:
    def changed(keys: tuple[Any, ...], value: Any) -> bytes:
        return dump(_with(tree, keys, value)).encode()

    for keys in _places(tree):
        name = ".".join(map(str, keys))
        for how, value in (VALUES | {"left out": KeyError}).items():
            yield f"{name} {how}", partial(changed, keys, value)


def _places(tree: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*keys, key)
        yield from _places(value, (*keys, key))


def _with(tree: Any, keys: tuple[Any, ...], value: Any) -> Any:
    """A copy of a tree with another value at a place; ``KeyError``: without it."""
    copy: Any = json.loads(json.dumps(tree))
    branch = copy
    for key in keys[:-1]:
        branch = branch[key]
    if value is KeyError:
        del branch[keys[-1]]
    else:
        branch[keys[-1]] = value
    return copy


def _csv(content: bytes) -> Iterator[tuple[str, Damage]]:
    head, row, *more = csv.reader(io.StringIO(content.decode()))

    def packed(*rows: list[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()

    for i, name in enumerate(head):
        for how, value in FIELDS.items():
            yield f"{name} {how}", partial(packed, head, [*row[:i], value, *row[i + 1 :]], *more)
        yield f"{name} left out", partial(packed, *([*line[:i], *line[i + 1 :]] for line in (head, row, *more)))
        yield f"{name} twice", partial(packed, *([*line, line[i]] for line in (head, row, *more)))
    yield "header alone", partial(packed, head)
    yield "a field more", partial(packed, head, [*row, "1"], *more)
    yield "a row twice", partial(packed, head, row, row, *more)


def _npz(content: bytes) -> Iterator[tuple[str, Damage]]:
    arrays = dict(np.load(io.BytesIO(content)))

    def packed(tree: dict[str, np.ndarray]) -> bytes:
        file = io.BytesIO()
        np.savez(file, **tree)  # type: ignore[arg-type]
        return file.getvalue()

    def changed(name: str, array: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
        return packed(arrays | {name: change(array)})

    for name, array in arrays.items():
        for how, change in ARRAYS.items():
            yield f"{name} {how}", partial(changed, name, array, change)
        yield f"{name} left out", partial(packed, {key: value for key, value in arrays.items() if key != name})
    yield "an array more", partial(packed, arrays | {"zzz": np.zeros(3), "zzz/facts": np.zeros(3)})
    yield "none", partial(packed, {})
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("images.npy", "zzz")
    yield "a zip of text", other.getvalue
