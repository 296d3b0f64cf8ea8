"""The README's examples as they are written: each block of Python in a fresh process, each command up to its start."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from src import pools, report
from src.config import from_command_line
from src.launch.compose import compose_one
from src.launch.sweep import plan
from src.measuring.options import Options, check_options
from tests.helpers import ROOT

TEXT = (ROOT / "README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
BLOCKS = [text for language, text in FENCED if language == "python"]
LINES = [line for language, text in FENCED if not language for line in text.splitlines()]
INLINE = [one for one in re.findall(r"`(python [^`\n]+)`", TEXT) if not re.search("…|NAME", one)]
USAGE = [  # of the entry points' docstrings; what follows several spaces says what a command does
    re.split(r"\s{2,}", line.strip())[0]
    for path in sorted((ROOT / "src").glob("*.py"))
    for line in path.read_text().split('"""')[1].splitlines()
]
COMMANDS = [one for one in dict.fromkeys((*LINES, *INLINE, *USAGE)) if one.startswith("python -m src.")]


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.split("import ")[-1].split()[0])
def test_python_runs_as_it_is_written(code: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys, values and what goes together; whether they do what they say stands in the tests of each."""
    monkeypatch.setattr(
        "src.launch.sweep.split", lambda data: SimpleNamespace(train=range(1000))
    )  # the data need not be here
    monkeypatch.setattr("shutil.which", lambda name: name)  # nor SLURM
    monkeypatch.chdir(tmp_path)
    _, _, module, *words = shlex.split(line, comments=True)
    if module == "src.train":
        placed = "--cfg" in words or any(word.startswith("name=") for word in words)
        plan(words if placed else [*words, "hydra.sweep.dir=there", "hydra.run.dir=there"])
    elif module == "src.shapes":
        compose_one(words)
    elif module == "src.measure":
        check_options(from_command_line(Options, words, ""))
    elif words:
        schema = {"src.pools": pools.Options, "src.report": report.Options}[module]
        from_command_line(schema, words, "")


def test_all_are_found() -> None:
    assert len(BLOCKS) >= 3
    assert len(COMMANDS) >= 25
    assert {one.split()[2] for one in COMMANDS} >= {
        f"src.{name}" for name in "train shapes pools measure report".split()
    }
