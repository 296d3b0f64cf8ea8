"""The commands and the blocks of Python in README and docs, as they are written there."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from src import answers, pools, report
from src.config import from_command_line
from src.launch.compose import compose_one
from src.launch.sweep import plan, study_names
from src.measuring.options import Options, check_options
from tests.helpers import ROOT

DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:python -m src\.|whatwhere )(train|shapes|pools|measure|report|answers)\b")
#: what stands for something else: the command is no whole one
PLACEHOLDER = re.compile(r"…|NAME|LIBRARY")


def python_blocks(text: str) -> list[str]:
    """Every block of Python of a page."""
    return [block for language, block in FENCE.findall(text) if language == "python"]


def command_lines(text: str) -> list[str]:
    """Every command of a page that has all its words: in blocks without a language, and within a line."""
    lines = [line for language, block in FENCE.findall(text) if not language for line in block.splitlines()]
    inline = [code for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)) if not PLACEHOLDER.search(code)]
    return [line for line in dict.fromkeys((*lines, *inline)) if COMMAND.match(line)]


def make_targets(text: str) -> set[str]:
    """Every ``make TARGET`` of a page."""
    return set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))


def run_python(code: str, folder: Path) -> None:
    """Run a block of Python in a fresh process.

    Args:
        code: the block.
        folder: an empty one, where the package gets the name that it is installed by, if it is not installed.
    """
    paths = [str(ROOT)]
    if find_spec("whatwhere") is None:
        (folder / "whatwhere").symlink_to(ROOT / "src", target_is_directory=True)
        paths.append(str(folder))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def check_command(line: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Understand a command's keys, values and what goes together, without running it.

    Args:
        line: the command, with its comment.
        monkeypatch: undoes what stands in for data, devices and SLURM, which need not be here.
        folder: an empty one, to be in.
    """
    monkeypatch.setattr("src.launch.sweep.split", lambda data: SimpleNamespace(train=range(10**5)))
    monkeypatch.setattr("src.launch.sweep.check_trainer", lambda options: None)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.chdir(folder)
    match = COMMAND.match(line)
    assert match is not None
    words = shlex.split(line[match.end() :], comments=True)
    if match[1] == "train":
        named = [word.removeprefix("sweeps=") for word in words if word.startswith("sweeps=")]
        texts = "".join((ROOT / f"sweeps/{name}.yaml").read_text() for name in named)
        own_seeds = "seed=range" in texts  # of its variants
        if named and not own_seeds and not any(word.startswith(("seed=", "seeds=")) for word in words):
            # few of a named sweep's seeds: the others compose alike, and take their time; a claim needs five, or pairs
            few = "seed=range(10)" if "pairs:" in texts else "seed=0,1,2,3,4"
            words.append(few if {*named} & {*study_names()} else "seed=0")
        placed = "--cfg" in words or any(word.startswith("name=") for word in words)
        plan(words if placed else [*words, "hydra.sweep.dir=there", "hydra.run.dir=there"])
    elif match[1] == "shapes":
        compose_one(words)
    elif match[1] == "measure":
        check_options(from_command_line(Options, words, ""))
    elif words:
        schema = {"pools": pools.Options, "report": report.Options, "answers": answers.Options}[match[1]]
        from_command_line(schema, words, "")
