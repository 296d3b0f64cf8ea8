"""A few kills of what ``python -m tests.faults`` does with many: real processes, killed while they train."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.results import files
from src.results.locks import folder_lock
from tests.faults import Sweep, start
from tests.helpers import ROOT


def test_a_sweep_whose_processes_are_killed_ends_with_the_same_comparison(tmp_path: Path) -> None:
    words = ["jobs=2", "kills=4", "disks=0", f"folder={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    faults = re.search(r"2 jobs, 2 at a time, (\d) faults", done.stdout)
    assert faults and 2 <= int(faults[1]) <= 4, done.stdout  # a job may end before a moment drawn for it
    assert "lost: 0" in done.stdout


@pytest.mark.filterwarnings("default")  # in the processes
def test_a_failing_job_stops_no_other_is_named_and_is_done_again(tmp_path: Path) -> None:
    sweep, log = Sweep(tmp_path / "sweep", 2), tmp_path / "log"
    good, bad = (sweep.folder / f"model.pool={pool},seed=0" for pool in ("max", "avg"))
    files.write(bad / files.CHECKPOINTS, "in the way")
    assert exit_code(sweep.whole(), log) == 1
    assert not (good / files.FAILED).exists() and (good / files.RUN).exists()
    why = (bad / files.FAILED).read_text().splitlines()[-1]
    assert why.startswith(("FileExistsError: ", "NotADirectoryError: "))
    rows = files.read_rows(sweep.folder / files.COMPARISON)
    assert [(row["variant"], row["seeds"], row["missing"]) for row in rows] == [
        ("the run", "1", ""),
        (bad.name, "0", why),
    ]
    assert f"missing: {bad.name}: {why.split(':')[0]}" in log.read_text()
    assert bad.name in (sweep.folder / files.PAGE).read_text()

    kept = (good / files.RUN).stat().st_mtime_ns
    (bad / files.CHECKPOINTS).unlink()
    log.unlink()
    with folder_lock(sweep.folder):
        assert exit_code(sweep.whole(), log) == 2
    (line,) = log.read_text().splitlines()
    assert line.startswith(f"error: {sweep.folder}: process ") and "is using this folder" in line
    assert exit_code(sweep.whole(), log) == 0
    rows = files.read_rows(sweep.folder / files.COMPARISON)
    assert [row["variant"] for row in rows] == ["pool=max", "pool=avg"] and "missing" not in rows[0]
    assert (good / files.RUN).stat().st_mtime_ns == kept, "what was finished was not done again"


def exit_code(words: list[str], log: Path) -> int | None:
    process = start(words, log)
    process.join()
    return process.exitcode
