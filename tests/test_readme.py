"""The README's examples as they are written: each block of Python in a fresh process, each command up to its start."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from src import measure, pools, report
from src.config import ROOT, from_command_line, from_hydra, one_message
from src.sweep import plan

TEXT = (ROOT / "README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
BLOCKS = [text for language, text in FENCED if language == "python"]
LINES = [line for language, text in FENCED if not language for line in text.splitlines()]
INLINE = [one for one in re.findall(r"`(python [^`\n]+)`", TEXT) if not re.search("…|NAME", one)]
COMMANDS = [one for one in (*LINES, *INLINE) if one.startswith("python -m src.")]


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.split("import ")[-1].split()[0])
def test_python_runs_as_it_is_written(code: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys, values and what goes together; whether they do what they say stands in the tests of each."""
    monkeypatch.setattr("src.sweep.split", lambda data: SimpleNamespace(train=range(1000)))  # the data need not be here
    monkeypatch.setattr("shutil.which", lambda name: name)  # nor SLURM
    monkeypatch.chdir(tmp_path)
    _, _, module, *words = shlex.split(line, comments=True)
    if module == "src.train":
        plan([*words, "hydra.sweep.dir=there", "hydra.run.dir=there"] if "--cfg" not in words else words)
    elif module == "src.shapes":
        with one_message(), initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            from_hydra(compose("config", words))
    elif module == "src.measure":
        measure.check_options(from_command_line(measure.Options, words, ""))
    elif words:
        schema = {"src.pools": pools.Options, "src.report": report.Options}[module]
        from_command_line(schema, words, "")


def test_all_are_found() -> None:
    assert len(BLOCKS) >= 3
    assert len(COMMANDS) >= 25
    assert {one.split()[2] for one in COMMANDS} >= {
        f"src.{name}" for name in "train shapes pools measure report".split()
    }
