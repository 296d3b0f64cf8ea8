"""A W&B Report of a sweep: question, headline, panels over the runs of its group, and how to reproduce it.

A key that no run logs would make an empty panel, so panels show only keys that the runs left on disk.
"""

import shlex
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

from wandb_workspaces.reports import v2 as wr

from ..claims.record import StudyVerdict, judge_sweep
from ..common.errors import UserError
from ..results import files
from ..results.runs import FinishedRun, find_runs
from .columns import legend, one_line
from .comparison import group_into_variants
from .headline import headline
from .story import causes
from .tables import run_facts, shown_columns, shown_rows
from .terminal import console, shown_path
from .verdicts import basis, difference, expected, remarks
from .wandb_logger import default_entity, has_unsynced_logs, logged_in, shorten_name
from .wandb_panels import Panels


def write_wandb_report(folder: Path, out: Path | None = None, where: str | None = None) -> Path:
    """Write the W&B Report of the finished runs below a folder; its definition goes to ``report.json``.

    Without a login nothing else happens. With one the report is saved at W&B and its id is kept in that file, so that
    the same command updates the same report. It is written to ``out``, by default the same folder.

    Raises:
        UserError: there is no finished run, none was logged, or W&B refuses the report.
    """
    runs, unfinished = find_runs(folder, where)
    logged = [run for run in runs if str(run.settings["wandb.mode"]) != "disabled"]
    if not logged:
        raise UserError(f"wandb=true: no run below {folder} was logged to W&B, all have wandb.mode=disabled")
    path = (out or folder) / files.REPORT
    report_id = files.read_json(path, {}).get("id", "")
    definition = compose(folder, runs, logged, unfinished)
    _write(definition, report_id, path)
    if waiting := sum(has_unsynced_logs(run.folder) for run in logged):
        message = f"  {waiting} of its {_counted(logged, 'run')} are not synced yet: {sync_command(folder)}"
        console.print(message, markup=False, soft_wrap=True)
    where = f"the report's definition is in {shown_path(path)}"
    message = f"not logged in to W&B; {where}. To save it: `wandb login`, then repeat this"
    if logged_in():
        try:
            entity = str(logged[0].settings["wandb.entity"] or default_entity())
            report = compose(folder, runs, logged, unfinished, entity)
            report.id = report_id
            report.save()
        except Exception as error:  # the network, the server and the library raise many kinds
            hint = f"; to write a new one, remove {path}" if report_id else ""
            raise UserError(f"W&B refused the report: {' '.join(str(error).split())}{hint}") from error
        _write(definition, report.id, path)
        message = report.url
    console.print(f"  {message}", markup=False, soft_wrap=True)
    return path


def sync_command(folder: Path) -> str:
    """The command that sends a sweep's offline runs to W&B."""
    return f"wandb sync {shlex.quote(str(folder))}/*/wandb/offline-run-*"


def _write(report: wr.Report, report_id: str, path: Path) -> None:
    """Write a report's definition, with its id at W&B."""
    report.id = report_id
    files.write(path, definition_of(report) + "\n")


def definition_of(report: wr.Report) -> str:
    """A report as W&B stores it, in JSON. The library has no public way to get it (``tests/test_private_api.py``)."""
    return str(report._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2))


def compose(
    folder: Path, runs: list[FinishedRun], logged: list[FinishedRun], unfinished: dict[str, str], entity: str = ""
) -> wr.Report:
    """The whole report.

    Args:
        logged: the runs that W&B has, or will have once they are synced.
        unfinished: name of a run → why it is not finished.
        entity: owner of the report and the run sets. With one, the library looks the project up at the server; without
            one, run sets are those of the report's own project.
    """
    variants = group_into_variants(runs)
    panels = Panels(logged, variants, entity)
    manifest = folder / files.SWEEP
    sweep: dict[str, str] = files.read_json(manifest, {})
    question = sweep.get("question") or str(runs[0].settings["question"])
    seeds = {run.settings["seed"] for run in runs}
    missing = "; ".join(f"{name}: {reason}" for name, reason in unfinished.items())
    report = f"python -m src.report runs={shlex.quote(str(folder))} wandb=true"
    commands = [*filter(None, [sweep.get("command")]), sync_command(folder), report]
    columns = shown_columns(variants)
    table = markdown_table(list(columns.values()), [[row[key] for key in columns] for row in shown_rows(variants)])
    blocks: list[Any] = [
        wr.P(question),
        *_verdicts(judge_sweep(folder, runs, unfinished)),
        wr.CalloutBlock(" ".join([headline(variants), *(f"Why? {cause}" for cause in causes(variants))])),
        wr.P(f"{_counted(runs, 'run')}, {_counted(variants, 'variant')}, {_counted(seeds, 'seed')}."),
        wr.P(f"Missing: {missing}" * bool(missing)),
        wr.TableOfContents(),
        wr.H1("Comparison"),
        wr.MarkdownBlock(table),
        wr.P(f"{legend(columns)}. Bars and curves: mean, minimum and maximum over seeds."),
        *panels.comparison(),
        *_section("Training", "First line of each variant: validation; second: training.", panels.training()),
        *_section("Invariance over training",
            "Output distance and invariance error of each layer for a 1-px crop, by epoch: 0 = no change, 1 = as much "
            "as to another image.", panels.invariance()),
        *_section("Parallel coordinates", "A line per run; drag along an axis to filter.", panels.axes()),
        *_section("Feature maps",
            "The same test images in every run, an image per row, a channel per column; one colour scale for all "
            "epochs of a stage. The slider below a panel selects the epoch; epoch 0 is the untrained net. The table "
            "has the same pictures by variant, stage and epoch.", panels.maps()),
        *_section("Invariance error by roll",
            "Invariance error for each roll, no roll in the middle: dark = no change, yellow = the maximum of each "
            "picture. A periodic pattern shows the net's strides.", panels.roll_maps()),
        *_section("All values", "Every measure with its interval, and the model summaries.", panels.tables()),
        *_section("Differences of the configs", "", panels.configs()),
        wr.H1("How to reproduce"),
        wr.CodeBlock("\n".join(commands)),
        wr.UnorderedList([f"{name}: {values}" for name, values in run_facts(runs).items() if name != "label noise"]),
    ]  # fmt: skip
    return wr.Report(
        project=panels.project, entity=entity, title=shorten_name(folder.resolve().name), description=question,
        blocks=[block for block in blocks if block != wr.P("")], width="fluid",
    )  # fmt: skip


def _verdicts(study: StudyVerdict | None) -> list[Any]:
    """The verdict of each claim with its contrasts, and what they rest on; empty where the sweep states no claims."""
    if study is None:
        return []
    headings = ["comparison, a − b", "number", "expected", "difference [interval]", "rests on", "verdict"]
    blocks: list[Any] = [wr.H1("Verdicts")]
    for claim in study.claims:
        rows = [
            [row.name, row.number, expected(row), difference(row), basis(row), str(row.verdict)]
            for row in claim.contrasts
        ]
        blocks += [wr.CalloutBlock(f"{claim.verdict.upper()}: {claim.text}")]
        blocks += [wr.MarkdownBlock(markdown_table(headings, rows))]
    return [*blocks, *(wr.P(remark) for remark in remarks(study))]


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with escaped cells; all columns but the first are right-aligned.

    >>> print(markdown_table(["variant", "para-\\nmeters"], [["a|b", "72.7 k"]]))
    | variant | parameters |
    | :-- | --: |
    | a&#124;b | 72.7 k |
    """
    marks = [":--", *["--:"] * (len(headings) - 1)]
    head, *body = [[escape_markdown(cell) for cell in row] for row in ([*map(one_line, headings)], *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *body))


def escape_markdown(text: str) -> str:
    """Text for markdown: characters that could be markup become character references."""
    return "".join(c if c.isalnum() or c in " .,=+-±%()²–" else f"&#{ord(c)};" for c in " ".join(text.split()))


def _section(title: str, reading: str, grids: list[Any]) -> list[Any]:
    """A heading, how to read its panels, and the panels; empty without panels."""
    return [wr.H1(title), wr.P(reading), *grids] if grids else []


def _counted(items: Sized, noun: str) -> str:
    return f"{len(items)} {noun}{'s' * (len(items) != 1)}"
