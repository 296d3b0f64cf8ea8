"""The page of a sweep: headline, comparison, figures, feature maps and model summaries, in one file without a server.

Measures of a single net have a smaller page from the same template.
"""

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..claims.record import StudyVerdict, judge_sweep, write_verdict
from ..common.naming import si_prefix
from ..config import NON_IDENTITY_KEYS, Config, fitting_name, flatten, format_override, plain_name
from ..results import files
from ..results.runs import FinishedRun, find_runs
from . import comparison
from .cautions import cautions
from .columns import FACTS, FAILURES, MEASURED, legend, one_line
from .comparison import group_by_task, group_into_variants, shown_differences
from .figure_files import FigureFiles, figure_csv, write_figures
from .groups import GROUPS, Group
from .headline import headline
from .inline_data import compressed
from .live_net import serialize_live_nets
from .map_browser import serialize_maps
from .metamers import pictures_of, write_slide
from .reference_nets import numbers_of_nets
from .sections import MEASURED_SECTIONS, SWEEP_SECTIONS, Section, drawn
from .story import answer, causes, no_cause
from .tables import comparison_rows, failures, page_rows, run_facts, run_rows, shown_columns, shown_rows
from .terminal import console, print_text, show_comparison, show_differences, shown_path
from .terms import key_of, terms, used_terms, with_terms
from .variant import Variant
from .verdicts import page_of, show_verdicts

#: the library that draws the figures; its licence lies beside it
PLOTLY = Path(__file__).with_name("plotly-cartesian.min.js.gz")
#: where the template leaves room for the definitions of its terms
DEFINITIONS = "<!-- definitions -->"
#: with at most so many variants, the page holds the differences from each of them to choose from
MOST_BASELINES = 16


def build_report(
    folder: Path, out: Path | None = None, baseline: str | None = None, compare_with: Path | None = None,
    where: str | None = None, figures: FigureFiles | None = None,
) -> Path:  # fmt: skip
    """Compare the finished runs below a folder: print the tables, write them as CSV files, write and return the page.

    Args:
        folder: of a sweep, or of any set of runs; with those of ``compare_with``.
        out: where to write; by default the same folder, or ``report_folder`` in it.
        baseline: name of the variant that differences are taken from; by default the first.
        where: only runs with these settings, as ``where.matching`` reads it.
        figures: where each figure of the page is written as a file too.

    Raises:
        UserError: there is no finished run, or the baseline does not exist.
    """
    runs, unfinished = find_runs(folder, where)
    title = folder.resolve().name
    if compare_with is not None:
        more_runs, more_unfinished = find_runs(compare_with, where)
        runs, unfinished = runs + more_runs, unfinished | more_unfinished
        title += f" compared with {compare_with.resolve().name}"
    title += f" where {where}" * bool(where)
    out = out or folder / report_folder(compare_with, where)
    files.refuse_unwritable("out", out)
    if figures is not None:
        files.refuse_unwritable("figures", figures.folder)
    while True:
        try:
            return _write_report(folder, out, title, runs, unfinished, baseline, not (compare_with or where), figures)
        except files.DamagedFileError as error:  # of those that are read as they are drawn
            whole = [run for run in runs if run.folder not in error.path.parents]
            if not whole or len(whole) == len(runs):
                raise
            unfinished |= {run.folder.name: str(error) for run in runs if run not in whole}
            runs = whole


def _write_report(
    folder: Path, out: Path, title: str, runs: list[FinishedRun], unfinished: dict[str, str], baseline: str | None,
    judged: bool, figures: FigureFiles | None,
) -> Path:  # fmt: skip
    """Print and write the comparison of some runs, with the verdict of their study if they are ``judged``."""
    variants = [variant for group in group_by_task(group_into_variants(runs)).values() for variant in group]
    selected = comparison.select_baseline(variants, baseline)
    files.write_rows(out / files.COMPARISON, comparison_rows(variants, unfinished))
    files.write_rows(out / files.DIFFERENCES, comparison.difference_rows(variants, selected))
    files.write_rows(out / files.RUNS, run_rows(variants))
    study = judge_sweep(folder, runs, unfinished) if judged else None
    page = out / files.PAGE
    files.write(page, render(folder, title, runs, variants, unfinished, selected, study))
    write_slide(out / files.METAMERS, {variant.name: pictures_of(variant) for variant in variants})
    columns = shown_columns(variants)
    count = sum(len(variant.runs) for variant in variants)  # a run found twice counts once
    shown = show_comparison(shown_rows(variants), f"{title}: {count} run{'s' * (count > 1)}", columns)
    print_text(legend(column for column in columns if column in (*shown, *FAILURES)), 0, "dim")
    if baseline or any(len(variant.runs) > 1 for variant in variants):
        measured = {column: heading for column, heading in columns.items() if column not in (*FACTS, *FAILURES)}
        for reference, _ in comparison.baselines(variants, selected):
            show_differences(shown_differences(variants, reference), reference.name, measured)
    for name, failure in failures(runs).items():
        console.print(f"  {failure}: {name}", markup=False, soft_wrap=True)
    for name, reason in unfinished.items():
        print_text(f"missing: {name}: {reason}")
    console.print()
    print_text(headline(variants), 0)
    if study is not None:
        write_verdict(out, study)
        show_verdicts(study)
    paths = f"\n  {shown_path(out / files.COMPARISON)}\n  {shown_path(page)}"
    console.print(paths, markup=False, soft_wrap=True)
    if figures is not None:  # last, as it needs a browser
        write_figures(drawn(variants, SWEEP_SECTIONS), figures)
        console.print(f"  {shown_path(figures.folder)}", markup=False, soft_wrap=True)
    return page


def report_folder(compare_with: Path | None = None, where: str | None = None) -> str:
    """The subfolder for a comparison of other runs than all those of a folder; empty for all of them.

    >>> report_folder(), report_folder(Path("outputs/other"), "data=shapes")
    ('', 'beside-other,where-data=shapes')
    """
    parts = [f"beside-{compare_with.resolve().name}"] if compare_with else []
    return fitting_name(",".join([*parts, *([f"where-{plain_name(where)}"] if where else [])]))


def write_run_page(run: Path) -> Path:
    """Write the page of a single run into its folder."""
    runs = [found for found in find_runs(run)[0] if found.folder == run]  # others may lie below it
    page = run / files.PAGE
    (variant,) = group_into_variants(runs)
    files.write(page, render(run, run.resolve().name, runs, [variant], {}, variant))
    console.print(f"  {shown_path(page)}", markup=False, soft_wrap=True)
    return page


def render(
    folder: Path, title: str, runs: list[FinishedRun], variants: list[Variant], unfinished: dict[str, str],
    baseline: Variant, study: StudyVerdict | None = None,
) -> str:  # fmt: skip
    """The page's HTML, with every name escaped; ``unfinished`` is name of a run → why it is not finished; ``study``
    holds the verdicts of its claims.
    """
    manifest = files.read_sweep(folder)
    columns = shown_columns(variants)
    references = variants if len(variants) <= MOST_BASELINES else [baseline]
    maps = serialize_maps(variants)
    return _page(
        variants, SWEEP_SECTIONS, title=title, headline=headline(variants), legend=legend(columns),
        verdict=page_of(study) if study else None,
        question=manifest.get("question") or runs[0].settings["question"],
        columns={column: one_line(heading) for column, heading in columns.items()}, rows=page_rows(variants),
        heading_terms=_heading_terms(columns),
        sort_keys=[{column: _sort_key(variant, column) for column in columns} for variant in variants],
        baseline=baseline.name, differences={v.name: shown_differences(variants, v) for v in references},
        summaries={variant.name: _stages(variant.measured[0]) for variant in variants},
        marks=_marks(variants), maps=maps, live=serialize_live_nets(variants, maps),
        axes=comparison.axes(runs), shared=shared_settings(runs), several=len(runs) > 1,
        unfinished=unfinished, failures=failures(runs), facts=run_facts(runs),
        command=manifest.get("command") or f"python -m src.report runs={shlex.quote(str(folder))}",
        images=_images(runs, "output_distance"), untrained_images=_images(runs, "output_distance_untrained"),
    )  # fmt: skip


def write_measure_page(
    run: FinishedRun, title: str, path: Path, about: str = "", beside: Mapping[str, FinishedRun] | None = None
) -> Path:
    """Write the page of one net's measures, trained, and untrained where that was measured; of the run's folder, only
    its ``table`` is needed.

    Args:
        about: what images it was measured on, after "images": " of photos, 64×64 pixels".
        beside: name → the same measures of another net, on the same images.
    """
    table = run.table or run.folder / files.MEASURES
    nets = {title: run} | dict(beside or {})
    variants = [Variant(name, {}, [each]) for name, each in nets.items()]
    numbers = numbers_of_nets(variants)
    page = _page(
        variants, MEASURED_SECTIONS, title=title, table=table.name, about=about,
        several=len(nets) > 1, images=max(run.counts.values(), default=0), legend=legend(numbers["columns"]), **numbers,
    )  # fmt: skip
    files.write(path, page)
    return path


def _page(variants: Sequence[Variant], sections: Iterable[Section], **context: Any) -> str:
    """The template with those sections whose figures have data, folded into their groups; all other measures last."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters["terms"] = with_terms
    figures: dict[Group | None, list[dict[str, Any]]] = {}
    for section, figure in drawn(variants, sections):
        figures.setdefault(section.group, []).append(_figure(variants, section, figure))
    groups: list[dict[str, Any]] = []
    for group in GROUPS:
        part = environment.get_template(group.part).render(context).strip() if group.part else ""
        if part or group in figures:
            shown = {"part": Markup(part), "figures": figures.get(group, [])}
            words = group.answer(variants) or f"{len(shown['figures'])} figures."
            groups.append({"key": group.key, "title": group.title, "answer": words, **shown})
    if groups and context.get("table"):  # of a page without a comparison, the groups are most of what there is
        groups[0]["open"] = True
    context |= {"groups": groups, "open_figures": figures.get(None, []), "plotly": plotly_library()}
    context |= {"answer": answer(variants), "causes": causes(variants), "no_cause": no_cause(variants)}
    context |= {"cautions": cautions(variants)}
    text = environment.get_template("page.html.j2").render(context)
    return text.replace(DEFINITIONS, _definitions(text), 1)


def _figure(variants: Sequence[Variant], section: Section, figure: go.Figure) -> dict[str, Any]:
    """A section as the template takes it."""
    meta = figure.layout.meta or {}
    parts = list(meta.get("parts", ()))
    return {
        "key": f"figure-{key_of(section.title)}", "title": section.title, "reading": section.reading,
        "look": section.look, "height": 600 if parts else figure.layout.height, "width": meta.get("width", 560),
        "parts": parts,
        "notes": notes(variants, section.family) | meta.get("notes", {}),
        "packed": compressed(figure.to_json().encode()), "table": compressed(figure_csv(figure).encode()),
    }  # fmt: skip


def _definitions(text: str) -> Markup:
    """The definitions of the terms that a page uses."""
    line = Markup('<dt>{}</dt><dd id="term-{}">{}: {}</dd>\n')
    return Markup("").join(line.format(term, key, term, words) for key, (term, words) in used_terms(text).items())


@cache
def plotly_library() -> str:
    """The library that draws the figures, gzip in base64.

    Plotly's cartesian bundle, which has all that the figures use and a third of the whole library's size; the Python
    package has the whole one alone. It is plotly-cartesian.min.js of the npm package plotly.js-cartesian-dist-min,
    of the version in its first lines, by ``gzip -9 -n``.
    """
    return base64.b64encode(PLOTLY.read_bytes()).decode()


def shared_settings(runs: list[FinishedRun]) -> dict[str, str]:
    """The settings that are the same in all runs and not the default: key → value."""
    default = flatten(Config())
    same = {key: value for key, value in runs[0].settings.items() if all(run.settings[key] == value for run in runs)}
    names = [key for key in same if key not in ("seed", *NON_IDENTITY_KEYS)]
    return {key: format_override(same[key]) for key in names if same[key] != default.get(key, same[key])}


def notes(variants: Sequence[Variant], family: str) -> dict[str, str]:
    """How a metric group was measured: note → names of the variants that have it."""
    names: dict[str, list[str]] = {}
    for variant in variants:
        if note := next((run.notes[family] for run in variant.measured if family in run.notes), None):
            names.setdefault(note, []).append(variant.name)
    return {note: ", ".join(variant_names) for note, variant_names in names.items()}


def _images(runs: Sequence[FinishedRun], measure: str) -> int:
    """The largest number of images behind a measure in any run; 0 where none has it."""
    return max((n for run in runs for key, n in run.counts.items() if key[3] == measure), default=0)


def _marks(variants: Sequence[Variant]) -> dict[str, Any] | None:
    """What readers choose variants by: axis → its values, and variant → axis → value; None for one variant alone."""
    values = {
        variant.name: {key.rpartition(".")[2]: format_override(value) for key, value in variant.settings.items()}
        for variant in variants
    }
    by_axis: dict[str, dict[str, None]] = {}
    for axis, value in (pair for of in values.values() for pair in of.items()):
        by_axis.setdefault(axis, {})[value] = None
    axes = {axis: list(choices) for axis, choices in by_axis.items() if len(choices) > 1}
    return {"axes": axes, "variants": values} if len(variants) > 1 else None


def _heading_terms(columns: Iterable[str]) -> dict[str, str]:
    """Column → key of the term that its heading is explained by."""
    names = {column: (MEASURED[column][-1] if column in MEASURED else column).replace("_", " ") for column in columns}
    return {column: key_of(name) for column, name in names.items() if name in terms()}


def _sort_key(variant: Variant, column: str) -> str | float:
    """What a click on the column's heading sorts by."""
    if column == "variant":
        return variant.name
    if column in FAILURES:
        return variant.failed(column)
    return len(variant.runs) if column == "seeds" else variant.mean(column)


def _stages(run: FinishedRun) -> list[dict[str, str]]:
    """The model summary by stage."""
    with files.reading(run.folder / files.SHAPES):
        stages: dict[str, list[dict[str, str]]] = {}
        for row in run.shapes:
            stages.setdefault(row["layer"].split(".")[0], []).append(row)
        return [_stage(name, rows) for name, rows in stages.items()]


def _stage(name: str, rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """Shape and receptive field of a stage's last layer, costs of the whole stage."""
    last, costs = rows[-1], {key: sum(int(row[key]) for row in rows) for key in ("parameters", "multiply_adds")}
    return {
        "stage": name, "output": f"{last['channels']}×{last['height']}×{last['width']}",
        "RF": f"{float(last['receptive_field']):g}", "stride": f"{float(last['jump']):g}",
        "input seen": f"{float(last['input_seen']):.0%}", "params": f"{costs['parameters']:,}",
        "mult-adds": si_prefix(costs["multiply_adds"]),
    }  # fmt: skip
