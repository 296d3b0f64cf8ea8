"""A seeded sample of the fuzzer's cases; all of them: ``make test-fuzz``."""

import subprocess
import sys

from tests.helpers import ROOT


def test_bad_input_is_refused_in_one_line_or_does_no_harm() -> None:
    """In a process of its own, as users have it: without the type checker that tests have, and with its own limits."""
    words = [sys.executable, "-m", "tests.fuzz", "seed=0", "cases=45"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("45 cases, 0 faults\n")
