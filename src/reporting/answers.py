"""The table of all verdicts: one row per claim, from the ``verdict.json`` of every study."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..claims.checks import Checks
from ..claims.judge import ClaimVerdict, ContrastVerdict
from ..claims.record import StudyVerdict, read_verdict
from ..naming import natural_order
from ..results import files
from ..stats.decisions import Verdict
from .verdicts import basis, difference, expected, forest, mark, remarks, short

#: of the answers below ``docs``
FOLDER = "answers"
#: in the README, around its short table
MARKERS = ("<!-- --8<-- [start:answers] -->", "<!-- --8<-- [end:answers] -->")
#: claims that every run checks, and no study
CHECKED = {"Q12": "Shapes can be computed by hand.", "Q13": "The same few images every time."}
INTRO = """# Answers

The lab exists to put claims about CNNs to the test. They come from a practitioner's essay on looking inside nets "with
debugging, not hype". Each has a study: a file in `sweeps/` that states, before it runs, what is compared, what is
expected, and the smallest difference that matters. One command runs a study and ends with its verdict; `make answers`
runs them all and writes this page.

**Read a row** as: what was claimed; the verdict; the difference that decided it, with its interval, over the seeds of
the same nets. *Holds*: the difference has the sign that was claimed. *Does not hold*: it has not, or is too small to
matter. *Equivalent*: it is too small to matter, whatever its sign. *Undecided*: more seeds are needed. *Inadmissible*:
the runs cannot say. What would have refuted a claim is its margin: a difference on the wrong side of it.

Two claims of the essay are checks that every run makes (Q12, Q13).
"""


def collect(name: str, folder: Path, out: Path) -> None:
    """Copy the verdicts of a study's sweep, if it has any, to the folder of answers."""
    if (verdict := folder / files.VERDICT).exists():
        with files.reading(verdict):
            content = verdict.read_text(encoding="utf-8")
        files.write(out / FOLDER / f"{name}.json", content)


def write_answers(out: Path, names: Sequence[str]) -> Path:
    """Write ``answers.md`` and a picture for each study from the collected verdicts, and the short table of the README.

    Args:
        out: folder of ``answers.md``; the verdicts are collected in a folder below.
        names: of all studies; those without verdicts are listed as not run.

    Returns:
        the path of ``answers.md``.
    """
    page, readme = out / "answers.md", out.parent / "README.md"
    files.write(page, answers_page(out / FOLDER, names))
    for name, study in collected(out / FOLDER).items():
        files.write(out / FOLDER / f"{name}.svg", forest(study))
    if readme.exists() and all(mark in (text := readme.read_text(encoding="utf-8")) for mark in MARKERS):
        head, rest = text.split(MARKERS[0], 1)
        files.write(
            readme, head + MARKERS[0] + short_table(out / FOLDER, names) + MARKERS[1] + rest.split(MARKERS[1], 1)[1]
        )
    return page


def short_table(folder: Path, names: Sequence[str]) -> str:
    """Markdown: one row per question, with all its claims and a mark for the verdict on each."""
    rows: dict[str, list[str]] = {}
    for name, study in collected(folder).items():
        cells = rows.setdefault(study.number, [f"[{study.number}](docs/answers.md#{name})"])
        cells += [f"{mark(claim.verdict)} {claim.text}" for claim in study.claims]
    for question, verdict, _ in check_rows(collected(folder)):
        rows[question] = [f"[{question}](docs/answers.md)", f"{mark(verdict)} {CHECKED[question]}"]
    legend = ", ".join(f"{mark(verdict)} {verdict}" for verdict in Verdict)
    lines = [
        f"| {first} | {' '.join(claims)} |" for first, *claims in (rows[key] for key in sorted(rows, key=natural_order))
    ]
    return "\n".join([f"\n| | {legend} |", "|-|-|", *lines, *_not_run(folder, names)]) + "\n"


def _not_run(folder: Path, names: Sequence[str]) -> list[str]:
    """A line that names the studies without verdicts; none where all have theirs."""
    waiting = [f"`{name}`" for name in names if not (folder / f"{name}.json").exists()]
    return ["", f"Written, and not run yet: {', '.join(waiting)}."] if waiting else []


def collected(folder: Path) -> dict[str, StudyVerdict]:
    """Study → its verdicts, in the order of the questions."""
    names = sorted((path.stem for path in folder.glob("*.json")), key=natural_order)
    studies = {name: read_verdict(folder / f"{name}.json") for name in names}
    for name, study in studies.items():
        with files.reading(folder / f"{name}.json"):  # its texts and numbers are read as they are written
            _ = _section(name, study), forest(study), verdict_table({name: study})
    return studies


def answers_page(folder: Path, names: Sequence[str]) -> str:
    """Markdown: the table of all claims, then a section for each study."""
    studies = collected(folder)
    table = [INTRO, verdict_table(studies), *_not_run(folder, names)[1:], ""]
    return "\n".join([*table, *(_section(name, study) for name, study in studies.items())])


def verdict_table(studies: Mapping[str, StudyVerdict]) -> str:
    """One row per claim: number, claim, verdict, the differences that decided it, seeds, and the study's name."""
    lines = ["| | claim | verdict | difference [interval] | seeds | study |", "|-|-|-|-|-|-|"]
    for name, study in studies.items():
        for claim in study.claims:
            differences = "<br>".join(f"{contrast.name}: {difference(contrast)}" for contrast in claim.contrasts)
            cells = (study.number, claim.text, f"**{mark(claim.verdict)} {claim.verdict}**", differences, _seeds(claim))
            lines.append(f"| {' | '.join(cells)} | [`{name}`](#{name}) |")
    for question, verdict, words in check_rows(studies):
        lines.append(f"| {question} | {CHECKED[question]} | **{mark(verdict)} {verdict}** | {words} | | every study |")
    return "\n".join(lines) + "\n"


def check_rows(studies: Mapping[str, StudyVerdict]) -> list[tuple[str, Verdict, str]]:
    """Question, verdict, and what was counted over all studies, of the claims that every run checks; none without."""
    checks = sum((study.checks for study in studies.values()), Checks())
    if not checks.nets:
        return []
    shapes = (
        f"{checks.nets} nets, {checks.layers} layers: shapes and parameters by arithmetic and of the running net; "
        f"{checks.refused or 'none'} differed"
    )
    images = (
        f"{checks.runs} runs, {checks.views} kinds of images: checksums of the example images; "
        f"{checks.changed or 'none'} changed within a study"
    )
    return [("Q12", checks.of_shapes, shapes), ("Q13", checks.of_images, images)]


def _seeds(claim: ClaimVerdict) -> str:
    counts = sorted({contrast.pairs for contrast in claim.contrasts})
    return "–".join(dict.fromkeys(str(count) for count in (counts[0], counts[-1])))


def _section(name: str, study: StudyVerdict) -> str:
    """A study's question, picture, contrasts, and what they rest on."""
    lines = [f"## {name}", "", f"**{study.question}** ({study.number})", ""]
    lines += [f"![differences and their intervals](answers/{name}.svg)", ""]
    for claim in study.claims:
        lines += [f"**{mark(claim.verdict)} {claim.verdict}**: {claim.text}", ""]
        lines += ["| contrast | number | expected | a | b | difference [interval] | rests on |", "|-|-|-|-|-|-|-|"]
        lines += [_row(contrast) for contrast in claim.contrasts] + [""]
    lines += [*(f"{remark}\n" for remark in remarks(study)), _runs(study), "", f"`{study.command}`", ""]
    return "\n".join(lines)


def _row(contrast: ContrastVerdict) -> str:
    cells = (
        f"{mark(contrast.verdict)} {contrast.name}", contrast.number, expected(contrast), short(contrast.a),
        short(contrast.b), difference(contrast), basis(contrast),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _runs(study: StudyVerdict) -> str:
    """What runs the verdicts rest on."""
    counts = f"{study.finished} of {study.jobs} runs finished, {len(study.failed)} failed to train"
    where = f"data: {', '.join(study.data)}; {', '.join(study.hardware)}"
    return f"{counts}. Preset {study.preset}; {where}; claims stated {study.stated[:10]}, code {study.code}."


def progress_line(folder: Path) -> str:
    """``12 of 30 runs``, and the verdicts once they are there."""
    jobs = files.read_sweep(folder).get("jobs", [])
    finished = sum((folder / job / files.RUN).exists() for job in jobs)
    line = f"{finished} of {len(jobs)} runs"
    verdict = folder / files.VERDICT
    if finished == len(jobs) and jobs and verdict.exists():
        line += f"  {', '.join(claim.verdict for claim in read_verdict(verdict).claims)}"
    return line
