"""The README is short, its examples run as written, its links lead somewhere, its numbers are those of the sweeps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.reporting.verdicts import mark
from src.stats.decisions import Verdict
from tests.documents import check_command, command_lines, make_targets, python_blocks, run_python
from tests.helpers import ROOT

PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
README = PAGES["README.md"]
USAGE = [  # of the entry points' docstrings; what follows several spaces says what a command does
    re.split(r"\s{2,}", line.strip())[0]
    for path in sorted((ROOT / "src").glob("*.py"))
    for line in path.read_text().split('"""')[1].splitlines()
]
COMMANDS = [*command_lines(README), *command_lines("\n".join(["```", *USAGE, "```"]))]


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("code", python_blocks(README))
def test_python_runs_as_it_is_written(code: str, tmp_path: Path) -> None:
    run_python(code, tmp_path)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_command(line, monkeypatch, tmp_path)


def test_all_examples_are_found() -> None:
    assert len(python_blocks(README)) >= 1
    assert len(COMMANDS) >= 20
    assert {re.split(r"[ .]", line.removeprefix("python -m "))[1] for line in COMMANDS} >= {
        *"train shapes measure report".split()
    }


@pytest.mark.parametrize("name", PAGES)
def test_links_and_make_targets_exist(name: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", PAGES[name])
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert make_targets(PAGES[name]) <= {*targets}


def test_every_question_has_a_verdict() -> None:
    """That verdicts are those of the runs: ``test_answers``."""
    rows = re.findall(r"^\| \[(Q\d+)\]\(docs/answers\.md.*?\) \| (.*) \|$", README, re.MULTILINE)
    assert list(dict(rows)) == [f"Q{number}" for number in range(1, 14)]
    assert all(cell[0] in {mark(verdict) for verdict in Verdict} for _, cell in rows)


DOCSTRINGS = """
import doctest, importlib, sys
failed = tried = 0
for name in sys.argv[1:]:
    found = doctest.testmod(importlib.import_module(name))
    failed, tried = failed + found.failed, tried + found.attempted
print(tried)
sys.exit(failed > 0)
"""


def test_examples_in_docstrings_run_as_they_are_written_without_pytest() -> None:
    """In one fresh process, as one a file would take minutes; pytest, which runs them too, has hooks of its own."""
    with_examples = [path for path in sorted((ROOT / "src").rglob("*.py")) if ">>>" in path.read_text()]
    places = [path.relative_to(ROOT).with_suffix("").parts for path in with_examples]
    names = [".".join(parts).removesuffix(".__init__") for parts in places]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DOCSTRINGS, *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 100
