"""The page of a sweep: the answer, the table, the figures, the ledgers and the feature maps; no server, no network.

What was measured on a net alone has a smaller page, from the same template.
"""

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ..config import NON_IDENTITY_KEYS, Config, fitting_name, flatten, plain_name, written
from ..results import files
from ..results.runs import FinishedRun, find_runs
from .comparison import (
    FACTS,
    FAILURES,
    Variant,
    alike,
    axes,
    baselines,
    choose,
    comparison_rows,
    difference_rows,
    failures,
    legend,
    one_line,
    ranking,
    run_rows,
    shown_columns,
    shown_differences,
    shown_rows,
    variants,
)
from .map_browser import packed_maps
from .sections import MEASURED_SECTIONS, OF_A_SWEEP, Section
from .terminal import console, millions, show_comparison, show_differences, show_failures

#: variants that the answer names of those that are not told apart from the first
NAMED = 3
#: up to so many variants the page holds the differences from each of them, to choose from
BASELINES = 16


def build_report(
    folder: Path,
    out: Path | None = None,
    baseline: str | None = None,
    beside: Path | None = None,
    where: str | None = None,
) -> Path:
    """Compare the finished runs below a folder: print the tables, write them as CSV, and ``report.html``.

    Args:
        folder: of a sweep, or of any set of runs.
        out: where to write; by default the same folder, or one in it that is named after ``beside`` and ``where``.
        baseline: name of the variant that differences are taken from; by default the first.
        beside: another folder, to be compared with.
        where: runs of these settings alone, as ``where.matching`` reads it.

    Returns:
        The page's path.

    Raises:
        UserError: there is no finished run, or no such baseline.
    """
    runs, others = find_runs(folder, where)
    title = folder.resolve().name
    if beside is not None:
        more, missing = find_runs(beside, where)
        runs, others = runs + more, others | missing
        title += f" beside {beside.resolve().name}"
    title += f" where {where}" * bool(where)
    found = [one for group in alike(variants(runs)).values() for one in group]
    chosen = choose(found, baseline)
    out = out or folder / place_of(beside, where)
    files.write_rows(out / files.COMPARISON, comparison_rows(found, others))
    files.write_rows(out / files.DIFFERENCES, difference_rows(found, chosen))
    files.write_rows(out / files.RUNS, run_rows(found))
    page = out / files.PAGE
    files.write(page, render(folder, title, runs, found, others, chosen))
    columns = shown_columns(found)
    count = sum(len(one.runs) for one in found)  # a run that lies there twice is one
    show_comparison(shown_rows(found), f"{title}: {count} run{'s' * (count > 1)}", columns)
    console.print(f"[dim]{legend(columns)}[/dim]", soft_wrap=False)
    if baseline or any(len(one.runs) > 1 for one in found):
        measured = {key: heading for key, heading in columns.items() if key not in (*FACTS, *FAILURES)}
        for one, _ in baselines(found, chosen):
            show_differences(shown_differences(found, one), one.name, measured)
    show_failures(failures(runs))
    for name, why in others.items():
        console.print(f"  missing: {name}: {why}", markup=False)
    console.print(f"\n{answer(found)}\n\n  {out / files.COMPARISON}\n  {page.resolve()}", markup=False, soft_wrap=True)
    return page


def place_of(beside: Path | None = None, where: str | None = None) -> str:
    """The folder, in that of the runs, of a comparison of fewer or of more than these.

    >>> place_of(), place_of(Path("outputs/other"), "data=shapes")
    ('', 'beside-other,where-data=shapes')
    """
    words = [f"beside-{beside.resolve().name}"] if beside else []
    return fitting_name(",".join([*words, *([f"where-{plain_name(where)}"] if where else [])]))


def write_run_page(run: Path) -> Path:
    """The page of one run, in its folder."""
    runs, _ = find_runs(run)
    page = run / files.PAGE
    (one,) = variants(runs)
    files.write(page, render(run, run.resolve().name, runs, [one], {}, one))
    console.print(f"  {page.resolve()}", markup=False, soft_wrap=True)
    return page


def answer(found: list[Variant]) -> str:
    """The comparison in a few sentences: who is first, by how much, and what speaks against reading more into it. Only
    like is ranked with like.
    """
    groups = alike(found)
    if len(found) < 2:
        return f"{_of_one(found[0])} Nothing stands beside it to compare it with."
    sentences = [_ranked(group) for group in groups.values()]
    if len(groups) > 1:
        sentences = [f"{name}: {words}" for name, words in zip(groups, sentences, strict=True)]
        sentences.insert(0, f"{len(groups)} data sets or tasks, ranked within each, not with each other.")
    most = max(len(group) for group in groups.values())
    if most > 2:
        sentences.append(
            f"These intervals hold for the best of {most}, and for all pairs at once: they are wider than the tables'."
        )
    runs = [run for one in found for run in one.runs]
    if earlier := sum(run.earlier for run in runs):
        sentences.append(
            f"{earlier} of {len(runs)} runs were measured by an earlier version, with other floors and intervals: "
            "python -m src.measure checkpoint=RUN/checkpoints/best.ckpt measures one again."
        )
    seeds = min(len(one.measured) for one in found)
    if seeds < 5:
        sentences.append(
            f"With {seeds} {'seed' if seeds == 1 else 'seeds'} a variant it is a look, not a claim: five make one."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def _ranked(found: list[Variant]) -> str:
    """Who is first among variants that were asked the same."""
    if len(found) < 2:
        return _of_one(found[0])
    classifiers = [one for one in found if one.has("test_accuracy")]  # for "where", to stay put is no merit
    sentences = [
        _winner(classifiers, "crop_1px_output_distance", "A 1-px crop moves {} least", smallest=True),
        _winner(classifiers, "test_accuracy", "{} is the most accurate", smallest=False),
        _winner(found, "test_r2", "{} locates best, by R²", smallest=False),
    ]
    if not any(sentences):  # fewer than two have any number, as where the others diverged
        having = [one for one in found if one.has("test_accuracy") or one.has("test_r2")]
        sentences = [f"{one.name} alone has numbers: {_of_one(one)}" for one in having]
    return " ".join(sentence for sentence in sentences if sentence)


def _of_one(variant: Variant) -> str:
    """The main numbers of what has nothing beside it."""
    words = {"test_accuracy": "test accuracy", "test_r2": "R² of the position"}
    words["crop_1px_output_distance"] = "a 1-px crop moves the answer by this part of the way to another image's:"
    words["crop_1px_output_distance_untrained"] = "untrained"
    said = "; ".join(f"{word} {_spread(variant, key)}" for key, word in words.items() if variant.has(key))
    said = said or "nothing was measured"
    return f"{said[0].upper()}{said[1:]}."


def _spread(variant: Variant, key: str) -> str:
    """A number with its 95% interval, over images or over seeds."""
    value, low, high = variant.interval(key)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" + f" over {len(variant.measured)} seeds" * (len(variant.measured) > 1)


def _winner(found: list[Variant], key: str, words: str, smallest: bool) -> str:
    found = [one for one in found if one.has(key)]
    if len(found) < 2:
        return ""
    ranked = ranking(found, key, smallest)
    first, second = ranked.order[:2]
    value, low, high = ranked.interval
    spread = f"[{low:.3f}, {high:.3f}]" + f" over {len(first.measured)} seeds" * (len(first.measured) > 1)
    nearest = ranked.behind[0]
    by = f", behind by {nearest.value:.3f}"
    if not math.isnan(nearest.low):
        paired = "image by image" if nearest.images else "seed by seed"
        by += f" [{nearest.low:.3f}, {nearest.high:.3f}] {paired}"
    names = [one.name for one in ranked.alike if one is not second]
    more = f" and {len(names) - NAMED} more" * (len(names) > NAMED)
    said = f"{second.name} with {second.mean(key):.3f}{by}"
    if second in ranked.alike:
        said = f"not told apart from {said}" + f", nor from {', '.join(names[:NAMED])}{more}" * bool(names)
    else:
        said = f"next is {said}" + f"; not told apart from {', '.join(names[:NAMED])}{more}" * bool(names)
    return f"{words.format(first.name)}: {value:.3f} {spread}; {said}."


def render(
    folder: Path,
    title: str,
    runs: list[FinishedRun],
    found: list[Variant],
    others: dict[str, str],
    chosen: Variant,
) -> str:
    """The page's HTML; every name in it is escaped. The differences are from the chosen variant."""
    manifest = json.loads((folder / files.SWEEP).read_text()) if (folder / files.SWEEP).exists() else {}
    columns = shown_columns(found)
    return _page(
        found,
        OF_A_SWEEP,
        title=title,
        question=manifest.get("question") or runs[0].settings["question"],
        answer=answer(found),
        columns={key: one_line(heading) for key, heading in columns.items()},
        legend=legend(columns),
        rows=shown_rows(found),
        sort=[{key: _sort_key(variant, key) for key in columns} for variant in found],
        baseline=chosen.name,
        differences={
            one.name: shown_differences(found, one) for one in found if one is chosen or len(found) <= BASELINES
        },
        ledgers={variant.name: _stages(variant.measured[0]) for variant in found},
        maps=packed_maps(found),
        axes=axes(runs),
        shared=shared_settings(runs),
        several=len(runs) > 1,
        others=others,
        failures=failures(runs),
        command=manifest.get("command") or f"python -m src.report runs={shlex.quote(str(folder))}",
        facts=_facts(runs),
        images=_images(runs, "output_distance"),
        twin_images=_images(runs, "output_distance_untrained"),
    )


def write_measure_page(run: FinishedRun, title: str, path: Path) -> Path:
    """Write the page of what was measured on one net: trained, and untrained where it has such a twin.

    Args:
        run: with its ``table``; of its folder nothing else need be there.
        title: what was measured.
        path: of the page.
    """
    table = run.table or run.folder / files.MEASURES
    files.write(path, _page([Variant(title, {}, [run])], MEASURED_SECTIONS, title=title, table=table.name))
    return path


def _page(found: Sequence[Variant], sections: Iterable[Section], **words: Any) -> str:
    """The template with those sections that have something to show."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    drawn = [(section, section.figure(found)) for section in sections]
    figures = [
        {
            "title": section.title,
            "reading": section.reading,
            "height": figure.layout.height,
            "width": (figure.layout.meta or {}).get("width", 560),
            "notes": notes(found, section.family) | (figure.layout.meta or {}).get("notes", {}),
            "json": Markup(figure.to_json()),  # plotly writes <, > and / as \u003c …
        }
        for section, figure in drawn
        if figure.data
    ]
    return environment.get_template("page.html.j2").render(figures=figures, plotly=get_plotlyjs(), **words)


def shared_settings(runs: list[FinishedRun]) -> dict[str, str]:
    """What all runs have set in the same way, where it is not the default: key → value."""
    default = flatten(Config())
    same = {key: value for key, value in runs[0].settings.items() if all(run.settings[key] == value for run in runs)}
    return {
        key: written(value)
        for key, value in same.items()
        if key != "seed" and key not in NON_IDENTITY_KEYS and value != default.get(key, value)
    }


def notes(found: Sequence[Variant], family: str) -> dict[str, str]:
    """How a family of measures was had → of which variants, a line for all that have it the same."""
    lines: dict[str, list[str]] = {}
    for variant in found:
        if words := next((run.notes[family] for run in variant.measured if family in run.notes), None):
            lines.setdefault(words, []).append(variant.name)
    return {words: ", ".join(names) for words, names in lines.items()}


def _images(runs: Sequence[FinishedRun], measure: str) -> int:
    """The most images that a measure of some run comes from; 0 where none has it."""
    return max((n for run in runs for key, n in run.counts.items() if key[3] == measure), default=0)


def _sort_key(variant: Variant, key: str) -> str | float:
    if key == "variant":
        return variant.name
    if key in FAILURES:
        return variant.failed(key)
    return len(variant.runs) if key == "seeds" else variant.mean(key)


def _stages(run: FinishedRun) -> list[dict[str, str]]:
    """A line a stage (its last layer) with the costs of the whole stage, then the head."""
    lines: dict[str, dict[str, str]] = {}
    parameters: dict[str, int] = {}
    adds: dict[str, int] = {}
    for row in run.shapes:
        stage = row["layer"].split(".")[0]
        parameters[stage] = parameters.get(stage, 0) + int(row["parameters"])
        adds[stage] = adds.get(stage, 0) + int(row["multiply_adds"])
        lines[stage] = {
            "layer": stage,
            "map": f"{row['channels']}×{row['height']}×{row['width']}",
            "field": f"{float(row['receptive_field']):g}",
            "jump": f"{float(row['jump']):g}",
            "sees": f"{float(row['input_seen']):.0%}",
        }
    for stage, line in lines.items():
        line |= {"parameters": f"{parameters[stage]:,}", "mult-adds": millions(adds[stage])}
    return list(lines.values())


def _facts(runs: list[FinishedRun]) -> dict[str, str]:
    """What all runs share, or how they differ."""
    keys = {
        "hardware": "hardware",
        "torch": "torch",
        "split_checksum": "split",
        "probe_checksum": "probe images",
        "realised_label_noise": "label noise",
    }
    return {word: ", ".join(sorted({str(run.facts[key]) for run in runs})) for key, word in keys.items()}
