"""The page of a sweep: the answer, the table, the figures, the ledgers and the feature maps; no server, no network.

What was measured on a net alone has a smaller page, from the same template.
"""

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from src import files
from src.runs import FinishedRun, find_runs
from src.views.comparison import (
    MEASURED,
    Variant,
    axes,
    comparison_rows,
    legend,
    shown_columns,
    shown_rows,
    variants,
)
from src.views.sections import MEASURED_SECTIONS, OF_A_SWEEP, Section
from src.views.terminal import console, millions, show_comparison


def conclude(folder: Path, out: Path | None = None) -> Path:
    """Compare the finished runs below a folder: print the table, write ``comparison.csv`` and ``report.html``.

    Args:
        folder: of a sweep, or of any set of runs.
        out: where to write; by default the same folder.

    Returns:
        The page's path.

    Raises:
        Refusal: there is no finished run.
    """
    runs, others = find_runs(folder)
    found = variants(runs)
    out = out or folder
    files.write_rows(out / files.COMPARISON, comparison_rows(found, others))
    page = out / files.PAGE
    files.write(page, render(folder, out, runs, found, others))
    columns = shown_columns(found)
    show_comparison(shown_rows(found), f"{folder.name}: {len(runs)} runs", columns)
    console.print(f"[dim]{legend(columns)}[/dim]", soft_wrap=False)
    for name, why in others.items():
        console.print(f"  missing: {name}: {why}", markup=False)
    console.print(f"\n{answer(found)}\n\n  {out / files.COMPARISON}\n  {page.resolve()}", markup=False, soft_wrap=True)
    return page


def answer(found: list[Variant]) -> str:
    """The comparison in a few sentences: who is first, by how much, and what speaks against reading more into it."""
    if len(found) < 2:
        return "One variant: nothing to compare it with."
    seeds = min(len(one.runs) for one in found)
    classifiers = [one for one in found if one.has("test_accuracy")]  # for "where", to stay put is no merit
    sentences = [
        _winner(classifiers, "crop_1px_output_distance", "A 1-px crop moves {} least", smallest=True),
        _winner(classifiers, "test_accuracy", "{} is the most accurate", smallest=False),
        _winner(found, "test_r2", "{} locates best, by R²", smallest=False),
    ]
    if seeds < 5:
        sentences.append(
            f"With {seeds} {'seed' if seeds == 1 else 'seeds'} a variant it is a look, not a claim: five make one."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def _winner(found: list[Variant], key: str, words: str, smallest: bool) -> str:
    found = [one for one in found if one.has(key)]
    if len(found) < 2:
        return ""
    ranked = sorted(found, key=lambda one: one.mean(key), reverse=not smallest)
    first, second = ranked[:2]
    value, other = first.mean(key), second.mean(key)
    if len(first.runs) == 1:
        _, low, high = first.runs[0].estimate(*MEASURED[key])
        spread = f"[{low:.3f}, {high:.3f}]"
    else:
        low, high = value - first.sd(key), value + first.sd(key)
        spread = f"± {first.sd(key):.3f} over {len(first.runs)} seeds"
    apart = "not told apart from" if low <= other <= high else "next is"
    return f"{words.format(first.name)}: {value:.3f} {spread}; {apart} {second.name} with {other:.3f}."


def render(folder: Path, out: Path, runs: list[FinishedRun], found: list[Variant], others: dict[str, str]) -> str:
    """The page's HTML; every name in it is escaped."""
    manifest = json.loads((folder / files.SWEEP).read_text()) if (folder / files.SWEEP).exists() else {}
    columns = shown_columns(found)
    return _page(
        found,
        OF_A_SWEEP,
        title=folder.name,
        question=manifest.get("question") or runs[0].settings["question"],
        answer=answer(found),
        columns={key: heading.replace("-\n", "").replace("\n", " ") for key, heading in columns.items()},
        legend=legend(columns),
        rows=shown_rows(found),
        sort=[{key: _sort_key(variant, key) for key in columns} for variant in found],
        ledgers={variant.name: _stages(variant.runs[0]) for variant in found},
        maps=_maps(found, out),
        axes=axes(runs),
        others=others,
        command=manifest.get("command") or f"python -m src.report runs={shlex.quote(str(folder))}",
        facts=_facts(runs),
        images=max((n for key, n in runs[0].counts.items() if key[3] == "output_distance"), default=0),
    )


def leave_measured(run: FinishedRun, title: str, path: Path) -> Path:
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
            "json": Markup(figure.to_json()),  # plotly writes <, > and / as \u003c …
        }
        for section, figure in drawn
        if figure.data
    ]
    return environment.get_template("page.html.j2").render(figures=figures, plotly=get_plotlyjs(), **words)


def _sort_key(variant: Variant, key: str) -> str | float:
    if key == "variant":
        return variant.name
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


def _maps(found: list[Variant], out: Path) -> list[tuple[str, dict[str, dict[int, str]]]]:
    """(variant, stage → epoch → the picture's address, relative to the page); of each variant's first seed."""
    pictures: dict[str, dict[str, dict[int, str]]] = {}
    for variant in found:
        folder = variant.runs[0].folder / files.MAPS
        for picture in sorted(folder.glob("*_epoch_*.png")):
            stage, epoch = picture.stem.split("_epoch_")
            address = quote(os.path.relpath(picture.resolve(), out.resolve()))
            pictures.setdefault(variant.name, {}).setdefault(stage, {})[int(epoch)] = address
    return list(pictures.items())


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
