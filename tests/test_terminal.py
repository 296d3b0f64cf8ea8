"""Tables and text in a terminal of any width: no number is cut, no name is lost, no word is broken."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from src.__main__ import COMMANDS
from src.config import Config, flatten
from src.launch.help import help_text
from src.metrics.rows import Estimate, Row
from src.reporting import terminal
from src.reporting.columns import FAILURES, HEADINGS, legend, one_line
from src.reporting.comparison import group_into_variants
from src.reporting.headline import headline
from src.reporting.terminal import print_text, show_closing, show_comparison, show_measured, show_summary, shown_path
from src.results import files
from src.results.outcomes import COLLAPSED, DIVERGED, TRAINED
from src.results.runs import FinishedRun
from src.summary import summarize
from tests.helpers import ROOT, network

NAMES = ("pool=maxblur, padding=circular, activation=leaky_relu", "pool=none, data.root=/a/path/to/pictures/of/cats")


def in_console(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "console", terminal.Console(width=width, highlight=False))


@pytest.mark.parametrize("width", [40, 60, 80, 120, 300])
def test_every_number_of_the_comparison_is_whole_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [f"0.{100 * row + column} ± 0.0{column + 10}" for row in (1, 2) for column in range(len(HEADINGS))]
    rows = [dict(zip(HEADINGS, whole[i * len(HEADINGS) :], strict=False)) for i in range(2)]
    rows = [
        row | {"variant": name, "seeds": "5", "parameters": "1.23 M"} for row, name in zip(rows, NAMES, strict=True)
    ]
    in_console(width, monkeypatch)
    shown = show_comparison(rows, "15 runs", HEADINGS)
    text = capsys.readouterr().out
    table = text.partition("not shown")[0]
    assert shown[:1] == ["variant"] and "test_accuracy" in shown and ("seconds" in shown) == (width == 300)
    assert sorted(re.findall(r"\d\.\d+ ± \d\.\d+", table)) == sorted(
        row[column] for row in rows for column in shown if "±" in row[column]
    )
    assert "…" not in table
    assert all(word in table for word in ("variant", "pool=maxblur,", "padding=circular,", "pool=none,"))
    assert all(len(line) <= width and line == line.rstrip() for line in text.splitlines())
    left_out = " ".join(text.partition("not shown")[2].split())
    assert [key for key in HEADINGS if key not in shown and one_line(HEADINGS[key]) not in left_out] == []


@pytest.mark.parametrize("width", [60, 80])
def test_other_tables_keep_their_numbers_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_console(width, monkeypatch)
    summary = summarize(network((3, 224, 224), width=64, depth=4, max_width=512), (3, 224, 224))
    show_summary(summary, "a net")
    text = capsys.readouterr().out
    for layer in summary.layers:
        assert not layer.parameters or f"{layer.parameters:,}" in text.split()
    rows = [
        Row(layer, "shift", protocol, amount, f"{measure}{suffix}", Estimate(0.123, 0.1, 0.2, 9))
        for layer, measure in (("features.denseblock1.conv1", "invariance_error"), ("output", "output_distance"))
        for protocol in ("roll", "crop") for amount in (1, 8) for suffix in ("", "_untrained")
    ]  # fmt: skip
    show_measured(rows, Path("measures.csv"))
    found = re.findall(r"\b0\.\d*", capsys.readouterr().out)
    assert {*found} == {"0.123"} and len(found) >= 8
    assert all(len(line) <= width and line == line.rstrip() for line in text.splitlines())


def test_text_is_broken_between_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    in_console(60, monkeypatch)
    words = (
        "rolls: 289 of 784 rolls, drawn at random, one by one: stage1.conv1 pads with zeros, so it is not equivariant"
    )
    print_text(words)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(line.strip() for line in lines) == words and max(map(len, lines)) <= 60
    assert [len(line) - len(line.lstrip()) for line in lines] == [2, 4]


@pytest.mark.parametrize("columns", ["0", "3"])
def test_a_terminal_without_columns_still_shows_every_word(columns: str) -> None:
    code = "from src.reporting.terminal import print_text; print_text('a word after a word', 2)"
    environment = {**os.environ, "COLUMNS": columns, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode and done.stdout.split() == "a word after a word".split(), done.stderr[-500:]


def test_paths_below_the_working_directory_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "outputs" / "x.csv") == shown_path(Path("outputs/x.csv")) == "outputs/x.csv"
    assert shown_path(tmp_path.parent / "x.csv") == str(tmp_path.parent / "x.csv")


def test_a_failed_training_is_explained_by_the_scores_that_the_net_has(capsys: pytest.CaptureFixture[str]) -> None:
    show_closing({"test/accuracy": 0.1}, Path("here"), COLLAPSED)
    said = " ".join(capsys.readouterr().out.split())
    assert "largest class" in said and "R²" not in said
    show_closing({"test/r2": -0.1}, Path("here"), COLLAPSED)
    said = " ".join(capsys.readouterr().out.split())
    assert "largest class" not in said and "95% interval of R² is not above 0" in said
    assert "R²" not in legend(["test_accuracy", "collapsed"]) and "R²" in legend(
        ["test_accuracy", "test_r2", "collapsed"]
    )


def finished(folder: Path, pool: str, seed: int, accuracy: float, distance: float, outcome: str) -> FinishedRun:
    """A run with three measures."""
    run = FinishedRun(folder / f"{pool}{seed}", {"model.name": "ladder", "seed": seed, "model.pool": pool})
    values = {("output", "test", 0.0, "accuracy"): accuracy, ("output", "crop", 1.0, "output_distance"): distance}
    values[("output", "train", 0.0, "accuracy")] = accuracy
    facts = {"seconds": 1.0, "parameters": 4, "multiply_adds": 4, "outcome": outcome, "diverged_in_epoch": 1}
    files.write_json(run.folder / files.RUN, facts)
    vars(run).update(measures={key: (value, value, value) for key, value in values.items()})
    return run


def test_nets_that_failed_to_train_win_nothing(tmp_path: Path) -> None:
    run = partial(finished, tmp_path)
    runs = [run("max", seed, 0.9 + seed / 100, 0.3 + seed / 100, TRAINED) for seed in range(10)]
    runs += [run("blur", seed, 0.8 + seed / 100, 0.2 + seed / 100, TRAINED) for seed in range(9)]
    runs += [run("blur", 9, 0.1, 0.2, DIVERGED)]
    runs += [run("avg", seed, 0.1 + seed / 100, 0.01, COLLAPSED if seed < 7 else TRAINED) for seed in range(10)]
    words = headline(group_into_variants(runs))
    assert words.startswith("pool=blur (1 of 10 runs failed to train) is the most invariant")
    assert "Not ranked, as more than 20% of the runs failed to train: pool=avg (7 of 10 runs failed to train)." in words
    assert words.count("pool=avg") == 1
    alone = headline(group_into_variants(runs[:10] + runs[20:]))
    assert alone.startswith("Only pool=max trained: Test accuracy 0.945")
    assert set(FAILURES) == {DIVERGED, COLLAPSED}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"src.{command}")
    with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
        patch.setattr(sys, "argv", [command, "--help"])
        module.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5 and max(map(len, lines)) <= 80


def test_help_of_train_has_every_key_sweep_and_launcher_with_what_it_is() -> None:
    text = help_text("usage")
    missing = [key for key in flatten(Config()) if f"  {key}=" not in text]
    for launcher in ("local", "slurm"):
        options = yaml.safe_load((ROOT / f"conf/hydra/launcher/{launcher}.yaml").read_text())
        missing += [key for key in options if key != "defaults" and f"  hydra.launcher.{key}=" not in text]
        assert f"hydra/launcher={launcher}: Runs each job" in text
    words = " ".join(text.split())
    missing += [path.stem for path in ROOT.glob("conf/data/*.yaml") if path.stem not in words]
    for path in ROOT.glob("sweeps/*.yaml"):
        question = " ".join(yaml.safe_load(path.read_text())["question"].split())
        missing += [path.stem] if f" {path.stem} " not in words or len(question) < 10 else []
    assert missing == []
    assert "model.stride=2 [a whole number of at least 1] downsampling factor of a stage; 1: none" in words
    assert "pool_at Does pooling too early remove detail that the net still needs?" in words
