"""A few kills of what ``python -m tests.faults`` does with many: real processes, killed while they train."""

import re
import subprocess
import sys
from pathlib import Path

from src.config import ROOT


def test_a_sweep_whose_processes_are_killed_ends_with_the_same_comparison(tmp_path: Path) -> None:
    words = ["jobs=2", "kills=4", f"folder={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("2 jobs, 2 at a time, 4 faults", done.stdout)
    assert "lost: 0" in done.stdout
