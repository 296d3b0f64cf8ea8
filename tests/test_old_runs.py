"""Runs that an earlier version left (format 1, written 2026-11-28) are read, resumed and measured by this one."""

import csv
import shutil
from pathlib import Path

import pytest

from src.measuring.checkpoint import measure_again
from src.measuring.options import Options
from src.reporting.page import build_report
from src.results import files
from src.results.identity import is_finished, read_config
from src.results.runs import FinishedRun, find_runs
from src.training.run import run

OLD = Path(__file__).parent / "old_runs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "runs")
    return tmp_path / "runs"


def numbers(table: Path) -> dict[tuple[str, ...], float]:
    """Every row of a table by its first five columns."""
    with table.open(newline="") as file:
        return {tuple(row[:5]): float(row[5] or "nan") for row in list(csv.reader(file))[1:]}


def close(path: Path) -> object:
    """Equal up to what another processor rounds differently."""
    return pytest.approx(numbers(path), rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.filterwarnings("default")  # Lightning's own
def test_an_interrupted_run_resumes_to_the_numbers_of_the_uninterrupted_one(folder: Path) -> None:
    old, expected = folder / "interrupted", OLD / "finished"
    before = (old / files.HISTORY).read_text()
    run(read_config(old), old)
    assert (old / files.HISTORY).read_text().startswith(before), "epochs that were finished are not trained again"
    rows = files.read_rows(old / files.HISTORY)
    for row, other in zip(rows, files.read_rows(expected / files.HISTORY), strict=True):
        assert {k: float(v) for k, v in row.items() if k != "seconds"} == pytest.approx(
            {k: float(v) for k, v in other.items() if k != "seconds"}, rel=1e-3, abs=1e-4
        )
    assert numbers(old / files.MEASURES) == close(expected / files.MEASURES)


def test_a_finished_run_is_known_reported_and_measured_again(folder: Path) -> None:
    old = folder / "finished"
    assert is_finished(old, read_config(old))
    (found,), missing = find_runs(folder)
    assert found.folder == old and set(missing) == {"interrupted"}
    assert not FinishedRun(old, {}).earlier
    assert build_report(folder).exists()
    measure_again(Options(checkpoint=str(old / "checkpoints" / "best.ckpt")))
    assert numbers(old / files.MEASURES) == close(OLD / "finished" / files.MEASURES)
