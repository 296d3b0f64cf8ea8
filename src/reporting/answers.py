"""The table of all verdicts: one row per claim, from the ``verdict.json`` of every study."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..claims.checks import Checks
from ..claims.judge import ClaimVerdict, ContrastVerdict
from ..claims.record import StudyVerdict, read_verdict
from ..common.naming import natural_order
from ..metrics.quantities import quantities
from ..results import files
from ..stats.decisions import Verdict
from .study_files import header, reading, settings
from .terms import definition
from .verdicts import basis, difference, expected, forest, mark, remarks, short

#: of the answers below ``docs``
FOLDER = "answers"
#: in the README, around its short table
MARKERS = ("<!-- --8<-- [start:answers] -->", "<!-- --8<-- [end:answers] -->")
#: claims that every run checks, and no study
CHECKED = {"Q12": "Shapes can be computed by hand.", "Q13": "The same few images every time."}
INTRO = """# Answers

The lab exists to put claims about CNNs to the test. Those with a number (Q1 to Q13) come from a practitioner's essay on
looking inside nets "with debugging, not hype"; the others from papers, or from questions that the first ones raised.
Each has a study: a file in `sweeps/` that states, before it runs, what is compared, what is expected, and the smallest
difference that matters, its margin. One command runs a study and ends with its verdict; `make answers` runs all but the
long ones, and writes this page.

**Read a row** as: what was claimed; the verdict; the differences that decided it, with their intervals, over the seeds
of the same nets. *Holds*: the difference has the sign that was claimed. *Does not hold*: refuted, as the difference has
the other sign or is smaller than the margin (of two that were claimed to be equal: they differ). *Equivalent*: smaller
than the margin, whatever its sign. *Undecided*: more seeds are needed. *Inadmissible*: the runs cannot say.
[How to read it](#how-to-read-it) has the details; the first column leads to the study and its command.

Two claims of the essay are checks that every run makes (Q12, Q13).
"""
READING = """## How to read it

**The nets** are small, trained on a CPU. If a study does not say otherwise: three stages, each of two 3 × 3
convolutions with batch norm and ReLU and one downsampler that halves the maps; 16, 32 and 64 channels (`model.width=8`:
half as many); a linear head on the means of the maps. The data are Fashion-MNIST, or rendered shapes (`data=shapes`)
whose position and size are known. `pool` is the downsampler: `max`, `avg`, `blur` (a low-pass filter before samples
are left out), `conv` (a further convolution, with stride 2), or `none`: no pool, as the stage's last convolution has
the stride ("strided"). So all shrink their maps alike. `crop 1` is a shift by 1 pixel that lets new pixels in at the
edge, `roll 1` a circular one; `stage3` is the output of the third stage. Accuracies are those of all 10,000 test images
(2,000 shapes), other numbers of nets those of 1,000 of them, or `measure.images`.

**A contrast** is a difference *a − b* with an interval over seeds, and over test images too where it says "n = 10 ×
1,000 images" (nets × images). Where it says "n = 10 pairs of seeds", a number is of two nets that differ in the seed
alone, and each net is in one pair. *a* and *b* are means over seeds; of a contrast that is named a rise, fall, gap or
loss, they are differences themselves (a fall is negative). A *floor* is what *a* would be by chance: where neither side
lies above its own, the claim is inadmissible. *Detectable* is the smallest difference that as many seeds show with a
probability of 80%. "45 seeds would decide" says so with that probability, if the true difference is the one seen, and
counts all seeds, two for each pair; there is no such number where more seeds alone would not decide. In a picture, the
grey band is the margin, as wide in every row.

| verdict | claimed: *a* is larger (smaller: mirrored) | claimed: *a* and *b* are equal |
|-|-|-|
| ✓ holds | the interval is above 0; the difference may be smaller than the margin | it is within the margin |
| ✗ does not hold | it is below the margin: *a* is not larger by what matters | it is above or below 0: they differ |
| = equivalent | it is within the margin on both sides of 0 | |
| ? undecided | otherwise: this is not "no difference" | otherwise |
| ! inadmissible | the runs cannot say: few, or failed, or the same difference for every seed | the same |

**A claim** holds where all its contrasts do, or any if it says so. It is equivalent where all are. Otherwise, it does
not hold where one does not or is equivalent (any: where all are such). Where one contrast is inadmissible the claim is,
and its others are left undecided. The verdicts of a claim are false in 5% of studies at most, however many contrasts it
has. The rule in full:
[Put a claim of your own to the test](howto/own-study.md#the-rule).
"""
#: numbers that a study may compare and that no measure declares
NUMBERS = {
    "failed": "share of runs whose training diverged, or ended no better than chance",
    "matched_correlation": "correlation of the channels of two nets over images and positions, matched one-to-one: the "
    "match is chosen on half of the example images and judged on the other, both ways, averaged over channels. From "
    "-1 to 1. 1: the same channels in another order; 0: chance, and channels that are constant",
    "matched_correlation_shuffled": "its floor: each image compared with the others, what all have in common by place",
    "grad_norm": "l2 norm of the gradient of all parameters, the mean over the steps of training",
    "alarm": "a column of the history, looked at once an epoch, that rises above its least (or falls below its "
    "greatest) value so far by more than clean runs do; one that never fires has the step of a look after the last",
}


def collect(name: str, folder: Path, out: Path) -> None:
    """Copy the verdicts of a study's sweep, if it has any, to the folder of answers."""
    if (verdict := folder / files.VERDICT).exists():
        with files.reading(verdict):
            content = verdict.read_text(encoding="utf-8")
        files.write(out / FOLDER / f"{name}.json", content)


def write_answers(out: Path, names: Sequence[str], sweeps: Mapping[str, Path] | None = None) -> Path:
    """Write ``answers.md`` and a picture for each study from the collected verdicts, and the short table of the README.

    Args:
        out: folder of ``answers.md``; the verdicts are collected in a folder below.
        names: of all studies; those without verdicts are listed as not run.
        sweeps: name → the file of a study, whose header its section tells.

    Returns:
        the path of ``answers.md``.
    """
    page, readme = out / "answers.md", out.parent / "README.md"
    files.write(page, answers_page(out / FOLDER, names, sweeps))
    for name, study in collected(out / FOLDER).items():
        files.write(out / FOLDER / f"{name}.svg", forest(study))
    if readme.exists() and all(mark in (text := readme.read_text(encoding="utf-8")) for mark in MARKERS):
        (head, rest), table = text.split(MARKERS[0], 1), short_table(out / FOLDER, names)
        files.write(readme, head + MARKERS[0] + table + MARKERS[1] + rest.split(MARKERS[1], 1)[1])
    return page


def short_table(folder: Path, names: Sequence[str]) -> str:
    """Markdown: one row per question, with all its claims and a mark for the verdict on each."""
    rows: dict[str, list[str]] = {}
    for name, study in collected(folder).items():
        label = study.number or name
        cells = rows.setdefault(label, [f"[{label}](docs/answers.md#{name})"])
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
            _ = _section(name, study, None), forest(study), verdict_table({name: study})
    return studies


def longest_first(names: Iterable[str], folder: Path) -> list[str]:
    """Studies by the time that their runs took when last collected, so that no long one is left for the end; those
    of an unknown time first.
    """
    known = {name: study.seconds for name, study in collected(folder).items()}
    return sorted(names, key=lambda name: -(known.get(name) or math.inf))


def answers_page(folder: Path, names: Sequence[str], sweeps: Mapping[str, Path] | None = None) -> str:
    """Markdown: the table of all claims, then a section for each study, with the header of its file in ``sweeps``."""
    studies = collected(folder)
    table = [INTRO, verdict_table(studies), *_not_run(folder, names)[1:], "", READING]
    return "\n".join([*table, *(_section(name, study, (sweeps or {}).get(name)) for name, study in studies.items())])


def verdict_table(studies: Mapping[str, StudyVerdict]) -> str:
    """One row per claim: number, with a link to its study, claim, verdict, the differences that decided it, seeds."""
    lines = ["| study | claim | verdict | difference [interval] | seeds |", "|-|-|-|-|-|"]
    for name, study in studies.items():
        for claim in study.claims:
            differences = "<br>".join(f"{contrast.name}: {difference(contrast)}" for contrast in claim.contrasts)
            verdict = f"**{mark(claim.verdict)} {claim.verdict}**"
            cells = (f"[{study.number or name}](#{name})", claim.text, verdict, differences, _seeds(claim))
            lines.append(f"| {' | '.join(cells)} |")
    for question, found, words in check_rows(studies):
        lines.append(f"| {question} | {CHECKED[question]} | **{mark(found)} {found}** | {words} | |")
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
    """The least and the most of its contrasts; pairs of seeds are called so."""
    counts = sorted({(contrast.pairs, " pairs" * (contrast.seeds_each > 1)) for contrast in claim.contrasts})
    return "–".join(dict.fromkeys(f"{count}{of_pairs}" for count, of_pairs in (counts[0], counts[-1])))


def _section(name: str, study: StudyVerdict, file: Path | None) -> str:
    """A study's question, what ran, what was read from it, its picture, contrasts, and what they rest on."""
    lines = [f"## {name}", "", f"**{study.question}** ({study.number or name})", "", *_story(file, study.preset)]
    lines += [f"![differences and their intervals](answers/{name}.svg)", ""]
    for claim in study.claims:
        needs = " *(needs any of these)*" if claim.need == "any" else ""
        lines += [f"**{mark(claim.verdict)} {claim.verdict}**: {claim.text}{needs}", ""]
        lines += ["| contrast | number | expected | a | b | difference [interval] | rests on |", "|-|-|-|-|-|-|-|"]
        lines += [_row(contrast) for contrast in claim.contrasts] + [""]
    lines += [*_numbers(study), *(f"{remark}\n" for remark in remarks(study))]
    return "\n".join([*lines, _runs(study), "", f"`{study.command}`", ""])


def _story(file: Path | None, preset: str) -> list[str]:
    """From the header of the study's file, where there is one: what ran, what was expected, what the numbers say."""
    if file is None:
        return []
    parts = header(file)
    told = {"Compared": parts.get("Cost", ""), "Expected": parts.get("Expect", ""), "Seen": reading(parts)}
    lines = [f"*{label}:* {' '.join(words.split())}\n" for label, words in told.items() if words]
    same = " ".join(settings(file, preset))
    return [*lines[:1], *([f"*In all runs:* `{same}`\n"] if same else []), *lines[1:]]


def _numbers(study: StudyVerdict) -> list[str]:
    """A line for each number that is compared: its definition."""
    compared = [contrast.number for claim in study.claims for contrast in claim.contrasts]
    words = dict.fromkeys(word for number in compared for word in re.findall(r"\w+", number))
    known = NUMBERS | {name: definition(quantity) for name, quantity in quantities().items()}
    lines = [f"- `{word}`: {known[word].removesuffix('.')}." for word in words if word in known]
    return ["The numbers ([notation](reference/measures.md)):", "", *lines, ""] if lines else []


def _row(contrast: ContrastVerdict) -> str:
    floor = f" (floor {short(contrast.floor)})" * (not math.isnan(contrast.floor))
    cells = (
        f"{mark(contrast.verdict)} {contrast.name}", contrast.number, expected(contrast), short(contrast.a) + floor,
        short(contrast.b), difference(contrast), basis(contrast),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _runs(study: StudyVerdict) -> str:
    """What runs the verdicts rest on."""
    counts = f"{study.finished} of {study.jobs} runs finished{', none failed to train' * (not study.failed)}"
    where = f"data: {', '.join(study.data)}; {', '.join(study.hardware)}"
    if study.seconds:
        where += f", {study.seconds / 60:.0f} minutes of training and measuring"
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
