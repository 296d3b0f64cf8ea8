"""The table of all verdicts: made of the committed JSON and the headers of sweeps; the command that runs all."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from src import answers
from src.claims.checks import Checks
from src.claims.judge import ClaimVerdict, ContrastVerdict
from src.claims.record import StudyVerdict, read_verdict, write_verdict
from src.common import naming
from src.launch.sweep import study_names
from src.launch.user_files import choices
from src.reporting.answers import (
    FOLDER,
    MARKERS,
    answers_page,
    collect,
    collected,
    longest_first,
    progress_line,
    short_table,
    write_answers,
)
from src.reporting.study_files import header, reading, settings
from src.reporting.verdicts import basis, forest
from src.results import files
from src.stats.decisions import Verdict
from tests.helpers import ROOT

DOCS = ROOT / "docs"


def study(folder: Path, name: str, verdict: Verdict = Verdict.HOLDS, checks: Checks = Checks()) -> Path:  # noqa: B008
    """A finished sweep with a verdict of one claim."""
    contrast = ContrastVerdict(
        "max − none",
        "accuracy",
        "a>b",
        0.01,
        verdict,
        a=0.9,
        b=0.8,
        value=0.1,
        low=0.05,
        high=0.15,
        level=0.95,
        pairs=10,
    )
    claim = ClaimVerdict(f"What {name} claims.", "all", verdict, [contrast])
    found = StudyVerdict("Q1", "Why?", "much", "quick", [claim], "abc", "2026-11-29", [], 0, 1, 1, checks=checks)
    files.write_json(folder / name / files.SWEEP, {"jobs": ["run"]})
    files.write_json(folder / name / "run" / files.RUN, {})
    write_verdict(folder / name, found)
    return folder / name


def test_the_committed_tables_are_those_of_the_committed_verdicts() -> None:
    assert (DOCS / "answers.md").read_text() == answers_page(DOCS / FOLDER, study_names(), choices("sweeps"))
    readme = (ROOT / "README.md").read_text()
    assert readme.split(MARKERS[0])[1].split(MARKERS[1])[0] == short_table(DOCS / FOLDER, study_names())
    collected = {path.stem for path in (DOCS / FOLDER).glob("*.json")}
    assert collected and collected <= {*study_names()}
    assert {path.stem for path in (DOCS / FOLDER).glob("*.svg")} == collected
    for name in collected:
        assert (DOCS / FOLDER / f"{name}.svg").read_text() == forest(read_verdict(DOCS / FOLDER / f"{name}.json"))


def test_each_claim_has_a_row_and_each_study_a_section_in_the_order_of_the_questions(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    files.write(tmp_path / "README.md", f"before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n")
    for name, verdict in (("q10_late", Verdict.UNDECIDED), ("q2_early", Verdict.HOLDS), ("other", Verdict.REFUTED)):
        collect(name, study(tmp_path / "outputs", name, verdict), docs)
    page = write_answers(docs, ["q2_early", "q5_waits"]).read_text()
    places = [page.index(f"## {name}") for name in ("q2_early", "q10_late", "other")]
    assert places == sorted(places) and "not run yet: `q5_waits`." in page
    assert "| [Q1](#q2_early) | What q2_early claims. | **✓ holds** | max − none: +0.1 [+0.05, +0.15] | 10 |" in page
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("\nafter\n") and "\nold\n" not in readme
    row = "✓ What q2_early claims. ? What q10_late claims. ✗ What other claims."
    assert f"| [Q1](docs/answers.md#q2_early) | {row} |" in readme
    assert "max − none" in (docs / FOLDER / "q2_early.svg").read_text()


def test_a_study_without_a_number_is_called_by_its_name(tmp_path: Path) -> None:
    """Two of them are two rows."""
    docs = tmp_path / "docs"
    for name in ("mine", "yours"):
        folder = study(tmp_path / "outputs", name)
        write_verdict(folder, replace(read_verdict(folder / files.VERDICT), number=""))
        collect(name, folder, docs)
    page, table = answers_page(docs / FOLDER, []), short_table(docs / FOLDER, [])
    for name in ("mine", "yours"):
        assert f"| [{name}](#{name}) | What {name} claims. |" in page and f"**Why?** ({name})" in page
        assert f"\n| [{name}](docs/answers.md#{name}) | ✓ What {name} claims. |\n" in table


def test_the_floor_of_a_contrast_is_shown_beside_its_side(tmp_path: Path) -> None:
    folder = study(tmp_path / "outputs", "mine")
    found = read_verdict(folder / files.VERDICT)
    claim = found.claims[0]
    for floor, cell in ((math.nan, "| 0.9 | 0.8 |"), (0.25, "| 0.9 (floor 0.25) | 0.8 |")):
        contrasts = [replace(claim.contrasts[0], floor=floor)]
        write_verdict(folder, replace(found, claims=[replace(claim, contrasts=contrasts)]))
        collect("mine", folder, tmp_path / "docs")
        assert cell in answers_page(tmp_path / "docs" / FOLDER, [])


def test_what_every_run_is_checked_for_is_counted_over_all_studies(tmp_path: Path) -> None:
    files.write(tmp_path / "README.md", f"{MARKERS[0]}{MARKERS[1]}")
    for name, checks in (("a", Checks(2, 30, 0, 20, 1, 0)), ("b", Checks(1, 8, 0, 10, 2, 1))):
        collect(name, study(tmp_path / "outputs", name, checks=checks), tmp_path / "docs")
    page = write_answers(tmp_path / "docs", []).read_text()
    assert "| Q12 | Shapes can be computed by hand. | **✓ holds** | 3 nets, 38 layers: " in page
    assert "| Q13 | The same few images every time. | **✗ does not hold** | 30 runs, 3 kinds of images: " in page
    assert "| [Q12](docs/answers.md) | ✓ Shapes can be computed by hand. |" in (tmp_path / "README.md").read_text()


def test_a_study_without_a_verdict_leaves_the_table_as_it_is(tmp_path: Path) -> None:
    collect("q1", tmp_path / "nothing", tmp_path / "docs")
    assert not list(tmp_path.rglob("*.json"))


def test_a_line_of_progress_counts_runs_and_ends_with_the_verdicts(tmp_path: Path) -> None:
    folder = study(tmp_path, "q1")
    assert progress_line(folder) == "1 of 1 runs  holds"
    files.write_json(folder / files.SWEEP, {"jobs": ["run", "other"]})
    assert progress_line(folder) == "1 of 2 runs"
    assert progress_line(tmp_path / "not there") == "0 of 0 runs"


def test_studies_that_took_longest_are_begun_first_and_before_them_those_that_nobody_timed(tmp_path: Path) -> None:
    for name, seconds in (("short", 60.0), ("untimed", 0.0), ("long", 300.0)):
        folder = study(tmp_path / "outputs", name)
        tree = json.loads((folder / files.VERDICT).read_text())
        files.write_json(folder / files.VERDICT, tree | {"seconds": seconds})
        collect(name, folder, tmp_path / "docs")
    order = longest_first(["short", "new", "long", "untimed"], tmp_path / "docs" / FOLDER)
    assert order == ["new", "untimed", "long", "short"]
    page = write_answers(tmp_path / "docs", []).read_text()
    assert "5 minutes of training and measuring" in page and "0 minutes" not in page


def test_studies_run_side_by_side_and_a_failed_one_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stands for its process: it notes when it starts and ends."""
    monkeypatch.chdir(tmp_path)
    code = "import sys, time; t = time.time(); time.sleep(0.3); open(sys.argv[1], 'w').write(f'{t} {time.time()}'); "
    code += "sys.exit(sys.argv[1] == 'b')"

    def start(name: str, options: answers.Options, at_once: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", code, name])

    monkeypatch.setattr(answers, "start_study", start)
    names = ["a", "b", "c", "d"]
    assert answers.run_studies(dict.fromkeys(names, tmp_path), answers.Options(), 2) == ["b"]
    spans = [tuple(map(float, (tmp_path / name).read_text().split())) for name in names]
    assert max(sum(begin < other[1] and other[0] < end for other in spans) for begin, end in spans) <= 3
    assert min(begin for begin, _ in spans[2:]) >= min(end for _, end in spans[:2])


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("preset=fulll", "choose one of quick, full"),
        ("launcher=zzz", "choose one of basic, local, slurm"),
        ("jobs=-1", "must be 1 or more studies side by side"),
        ("jobs=0", "must be 1 or more studies side by side"),
        ("studies=", "choose all, or name some"),
    ],
)
def test_an_option_that_is_none_is_refused_before_anything_is_written(
    word: str, right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["answers", "run=false", f"out={tmp_path / 'out'}", word])
    with pytest.raises(SystemExit):
        answers.main()
    said = capsys.readouterr().err
    assert said.startswith(f"error: {word}: ") and said.endswith(f"{right}\n")
    assert not list(tmp_path.iterdir())


def test_the_command_of_a_study_is_its_own_with_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "import os, sys; print(sys.argv[1:], os.environ['OMP_NUM_THREADS'])"
    monkeypatch.setattr(naming, "command_words", lambda name: [sys.executable, "-c", code, name])
    answers.start_study("q3_stride", answers.Options(preset="full"), 2).wait()
    words = ["train", "-m", "sweeps=q3_stride", "hydra/launcher=basic", "preset=full"]
    assert Path("outputs/answers/q3_stride.log").read_text() == f"{words} 1\n"


def test_verdicts_are_plain_json_without_nan(tmp_path: Path) -> None:
    folder = study(tmp_path, "q1")
    tree = json.loads((folder / files.VERDICT).read_text(), parse_constant=pytest.fail)
    assert tree["claims"][0]["contrasts"][0]["floor"] is None
    assert read_verdict(folder / files.VERDICT).claims[0].contrasts[0].value == 0.1


@pytest.mark.parametrize("number", [None, 3, ["Q1"]])
def test_a_verdict_of_a_study_whose_number_is_no_text_is_damaged(tmp_path: Path, number: object) -> None:
    """Studies are in the order of their numbers, in the table of the README."""
    folder = study(tmp_path / "outputs", "q1")
    path = folder / files.VERDICT
    files.write_json(path, json.loads(path.read_text()) | {"number": number})
    collect("q1", folder, tmp_path)
    with pytest.raises(files.DamagedFileError, match="number is no string"):
        short_table(tmp_path / FOLDER, ["q1"])


def test_every_section_says_what_ran_what_was_seen_and_what_its_numbers_are() -> None:
    sections = re.split(r"(?m)^## ", answers_page(DOCS / FOLDER, study_names(), choices("sweeps")))[2:]
    assert len(sections) == len(list((DOCS / FOLDER).glob("*.json")))
    for section in sections:
        assert all(f"\n*{label}:* " in section for label in ("Compared", "Expected", "Seen")), section[:20]
        compared = re.findall(r"(?m)^\| . .*? \| (.*?) \|", section)
        defined = re.findall(r"(?m)^- `(\w+)`: ", section)
        assert compared and all(any(word in number for word in defined) for number in compared), section[:20]


@pytest.mark.parametrize("name", sorted(path.stem for path in (DOCS / FOLDER).glob("*.json")))
def test_every_figure_of_what_was_seen_is_one_of_the_verdicts(name: str) -> None:
    """Of a decimal figure, a percentage or a large number in the sentences of a sweep's header: a side, a difference or
    a floor of this study, or of one that the sentences name, rounds to it; or it is a setting that the study's claims
    or variants have.
    """
    file = choices("sweeps")[name]
    parts, known = header(file), collected(DOCS / FOLDER)
    when, words = parts["Seen"].split("\n")[0], reading(parts)
    contrasts = [contrast for claim in known[name].claims for contrast in claim.contrasts]
    assert f"{max(contrast.pairs * contrast.seeds_each for contrast in contrasts)} seeds" in when
    others = [study for study in known if f"`{study}`" in words or f"({known[study].number})" in words]
    claims = [claim for study in {name, *others} for claim in known[study].claims]
    of_studies = [contrast for claim in claims for contrast in claim.contrasts]
    numbers = [number for each in of_studies for number in (each.a, each.b, each.value, each.floor)]
    numbers += [float(number.replace(",", "")) for number in FIGURE.findall(file.read_text().split("\nquestion:")[1])]
    shares = [each.value / each.b for each in of_studies if each.b]  # how large a difference is as a share of ``b``
    for figure in FIGURE.findall(words):
        digits, value = figure.partition(".")[2].removesuffix("%"), float(figure.replace(",", "").removesuffix("%"))
        candidates = [100 * number for number in (*numbers, *shares)] if figure.endswith("%") else numbers
        slack = 0.5 / 10 ** len(digits) + 1e-9
        if digits or figure.endswith("%") or value >= LARGE:
            assert any(abs(abs(number) - value) <= slack for number in candidates), figure


#: a number without its sign, of thousands with commas
FIGURE = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?|\.\d+)%?")
#: whole numbers from here on are results; smaller ones may be counts of a sentence
LARGE = 100


def test_a_header_is_read_and_settings_with_those_of_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(
        "# @package _global_\n#\n# Cost      2 runs: one,\n#           two\n# Seen      today:\n"
        "#           What it\n#           means.\nquestion: Why?\n"
        "defaults:\n  - override /data: shapes\nstudy:\n  presets:\n    full: {model.width: 32, seed: range(9)}\n"
        "model: {width: 8, bias: false}\ntrain: {steps: null}\nhydra:\n  sweeper:\n    params: {seed: range(5)}\n"
    )
    assert reading(header(path)) == "What it means." and header(path)["Cost"].split() == "2 runs: one, two".split()
    quick = ["data=shapes", "model.width=8", "model.bias=false", "train.steps=null"]
    assert settings(path) == quick
    assert settings(path, "full") == [quick[0], "model.width=32", *quick[2:]]


def test_long_words_of_a_picture_are_broken_and_rows_lie_below_each_other(tmp_path: Path) -> None:
    found = read_verdict(study(tmp_path, "q1") / files.VERDICT)
    long = replace(
        found.claims[0].contrasts[0],
        name="depth=3,pool=avg − " * 4,
        value=float("nan"),
        low=float("nan"),
        reason="as it says nothing " * 6,
    )
    picture = forest(
        replace(found, claims=[replace(found.claims[0], text="Many words. " * 30, contrasts=[long, long])])
    )
    texts = re.findall(r'<text x="[\d.]+" y="(\d+)"[^>]*>([^<]*)</text>', picture)
    assert max(len(text) for _, text in texts) <= 120 and len(texts) > 20
    first, second = (int(y) for y in re.findall(r"translate\(0 (\d+)\)", picture))
    bottom = int(re.findall(r'viewBox="0 0 \d+ (\d+)"', picture)[0])
    of_row = max(int(y) for y, _ in re.findall(r'<text x="\d+" y="(\d+)" text-anchor="end"([^>]*)>', picture))
    assert first + of_row < second and second + of_row < bottom


def test_seeds_that_a_contrast_has_do_not_count_as_what_would_decide_it() -> None:
    """Where another contrast makes the claim inadmissible, one that is left undecided needs no more seeds."""
    one = ContrastVerdict("a − b", "accuracy", "a>b", 0.01, Verdict.UNDECIDED, value=0.1, low=0.0, high=0.2, pairs=5)
    assert basis(replace(one, needed=5)) == "n = 5"
    assert basis(replace(one, needed=6)) == "n = 5; 6 seeds would decide"
