"""Terminal output: model summary, comparison of a sweep, measures of a net."""

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from ..common.naming import si_prefix
from ..results.outcomes import rule_of
from ..summary import ModelSummary
from ..transforms import SHIFTS
from .columns import FAILURES, one_line

if TYPE_CHECKING:
    from ..metrics.rows import Row

#: columns that text is wrapped to where the terminal has fewer than a word
NARROWEST = 20
console = Console(highlight=False)
if console.width == 0 or (not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit()):
    console = Console(highlight=False, width=120)  # a log file has no width of its own, nor has COLUMNS=0

#: columns of the comparison that a narrow terminal leaves out, the least important first; not the first value
LEAST_IMPORTANT = (
    "seconds", "multiply_adds", "parameters", "gap_trained_labels", "gap", "crop_1px_consistency", "seeds",
    "roll_1px_output_distance", "dissimilar_accuracy", *FAILURES, "crop_1px_output_distance", "test_r2",
)  # fmt: skip
#: characters of the column of names: at least the heading, and at most so many are kept for an unbroken word
LEAST_NAME, LONGEST_WORD = len("variant"), 24


@dataclass
class Trimmed:
    """A renderable without the spaces that would end its lines."""

    renderable: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines, as Rich asks for them."""
        for line in console.render_lines(self.renderable, options, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
            yield from line
            yield Segment.line()


def print_table(table: RenderableType) -> None:
    """Print a table without spaces at the ends of its lines."""
    console.print(Trimmed(table))


def print_text(text: str, indent: int = 2, style: str = "") -> None:
    """Print text in lines as wide as the console, broken between words; what follows the first is indented further."""
    lines = textwrap.fill(
        text, max(console.width, NARROWEST), initial_indent=" " * indent, subsequent_indent=" " * (2 * indent),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    console.print(lines, style=style or None, markup=False, soft_wrap=True)


def shown_path(path: Path) -> str:
    """A path as people read it: relative to the working directory where it lies below it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def _widths(rows: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> dict[str, int]:
    """Column → the characters of its longest line, heading included."""
    texts = {key: [*heading.splitlines(), *(row[key] for row in rows)] for key, heading in columns.items()}
    return {key: max(map(cell_len, lines)) for key, lines in texts.items()}


def _fitting(
    rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], least_important: Iterable[str]
) -> dict[str, str]:
    """The columns that the console has room for, with the words of the first unbroken up to ``LONGEST_WORD``."""
    first, widths = next(iter(columns)), _widths(rows, columns)
    words = (cell_len(word) for row in rows for word in row[first].split())
    widths[first] = max(LEAST_NAME, min(LONGEST_WORD, max(words, default=0)))
    for key in least_important:
        if sum(widths.values()) + len(widths) - 1 > console.width and len(widths) > 2:
            widths.pop(key, None)
    return {key: heading for key, heading in columns.items() if key in widths}


def _table(
    title: str, rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], styles: Sequence[str] | None = None
) -> Table:
    """A table whose first column, of names, wraps in what the others leave of the console; numbers never wrap.

    Args:
        title: above it.
        rows: column → cell.
        columns: column → heading.
        styles: of each row.
    """
    (first, name), *numbers = columns.items()
    widths = _widths(rows, columns)
    gap = 2 if sum(widths.values()) + 2 * len(numbers) <= console.width else 1  # narrower before names are wrapped
    room = console.width - sum(widths[key] + gap for key, _ in numbers)
    table = Table(
        title=escape(title) or None, title_justify="left", title_style="bold", box=None, padding=0, pad_edge=False
    )
    table.add_column(name, width=max(LEAST_NAME, min(widths[first], room)), overflow="fold", vertical="bottom")
    for key, heading in numbers:
        table.add_column(heading, width=gap + widths[key], justify="right", no_wrap=True, vertical="bottom")
    for row, style in zip(rows, styles or [""] * len(rows), strict=True):
        table.add_row(*(escape(row[key]) for key in columns), style=style)
    return table


def _show(
    title: str, rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], least_important: Iterable[str],
    where: str, styles: Sequence[str] | None = None,
) -> list[str]:  # fmt: skip
    """Print a table; of columns that do not fit the console a line says where they are. Returns those that fit."""
    shown = _fitting(rows, columns, least_important)
    print_table(_table(title, rows, shown, styles))
    if left_out := [one_line(heading) for key, heading in columns.items() if key not in shown]:
        print_text(f"not shown, too wide for {console.width} columns: {'; '.join(left_out)}. See {where}.", 0)
    return list(shown)


def show_summary(summary: ModelSummary, title: str) -> None:
    """One line per layer; pointwise layers are dimmed."""
    lines = summary.cells()
    columns = {name: name for name in lines[0]} | {"seen": "input\nseen"}
    styles = ["" if costs else "dim" for costs in summary.costs()]
    _show(title, lines, columns, ("centre", "stride", "seen", "channels", "size"), "shapes.csv of a run", styles)
    channels, height, width = summary.image
    print_text(
        f"input {channels}×{height}×{width}; {summary.parameters:,} parameters; "
        f"{si_prefix(summary.multiply_adds)} multiply-adds (MACs) per image",
        indent=0,
    )
    print_text("RF: receptive field, stride: effective stride, centre: of the first RF, all in input pixels", indent=0)
    console.print()


def show_comparison(rows: Sequence[Mapping[str, str]], title: str, columns: Mapping[str, str]) -> list[str]:
    """One row per variant; ``columns`` maps keys to headings. Returns the columns that fit the console; the others are
    named in a line below.
    """
    return _show(title, rows, columns, LEAST_IMPORTANT, "comparison.csv or the page")


def show_differences(rows: Sequence[Mapping[str, str]], baseline: str, columns: Mapping[str, str]) -> None:
    """The differences from a baseline; columns give way as those of the comparison do."""
    if rows:
        title = f"\ndifferences from {baseline}, paired by seed"
        _show(title, rows, columns, LEAST_IMPORTANT, "differences.csv or the page")


def show_closing(numbers: Mapping[str, float], folder: Path, failure: str = "") -> None:
    """A run's main values (those that were measured), how its training failed, if it did, and its folder."""
    scores = {"test/accuracy": "test accuracy", "test/r2": "R² of the position"}
    text = ", ".join(f"{name} {numbers[key]:.3f}" for key, name in scores.items() if key in numbers)
    distances = {protocol: f"invariance/{protocol}/1px/output_distance" for protocol in SHIFTS}
    measured = {protocol: key for protocol, key in distances.items() if key in numbers}
    if measured:
        trained = ", ".join(f"{numbers[key]:.3f} ({protocol})" for protocol, key in measured.items())
        text += f"; output distance for a 1-px shift: {trained}"
        untrained = [f"{numbers[f'{key}_untrained']:.3f}" for key in measured.values() if f"{key}_untrained" in numbers]
        text += f"; untrained {', '.join(untrained)}" * bool(untrained)
    measured_scores = [key.removeprefix("test/") for key in scores if key in numbers]
    failed = f"{failure}: {rule_of(failure.partition(' ')[0], measured_scores)}" if failure else ""
    for line in filter(None, (text, failed)):
        print_text(line)
    console.print(f"  {shown_path(folder)}\n", soft_wrap=True, markup=False)


def show_notes(notes: Mapping[str, str]) -> None:
    """How each metric group was measured; notes of the untrained net are left out."""
    for family, text in notes.items():
        if not family.endswith("_untrained"):
            print_text(f"{family}: {text}", style="dim")


def show_layers(layers: Sequence[Mapping[str, Any]], default: Sequence[str], title: str) -> None:
    """Every layer that can be measured, one per line; those measured by default are marked."""
    columns = {name: name for name in ("layer", "kind", "output", "parameters")}
    lines, styles = [], []
    for layer in layers:
        is_default, shape = layer["name"] in default, "×".join(map(str, layer["shape"]))
        parameters = f"{layer['parameters']:,}" if layer["parameters"] else "·"
        cells = layer["name"] + " *" * is_default, layer["kind"], shape, parameters
        lines.append(dict(zip(columns, cells, strict=True)))
        styles.append("bold" if is_default else "")
    print_table(_table(title, lines, columns, styles))
    print_text("*: measured by default; choose others by names or patterns: layers='layer?,avgpool'", 0)
    console.print()


def show_measured(rows: Sequence["Row"], out: Path) -> None:
    """How far the smallest and the largest shift move the output and each layer, with the untrained net where it was
    measured; and how many values there are in all.
    """
    values = {(row.layer, row.protocol, row.amount, row.measure): row.estimate.value for row in rows}
    shifted = [row for row in rows if row.transform == "shift" and row.protocol in SHIFTS]
    amounts = sorted({row.amount for row in shifted})
    shifts = [(protocol, amount) for amount in dict.fromkeys([*amounts[:1], *amounts[-1:]]) for protocol in SHIFTS]
    columns = [(*shift, suffix) for shift in shifts for suffix in ("", "_untrained")]
    columns = [shift for shift in columns if ("output", *shift[:2], f"output_distance{shift[2]}") in values]
    headings = {"layer": "layer"}
    headings |= {
        "/".join(map(str, column)): f"{column[0]} {column[1]:g} px" + "\nuntrained" * bool(column[2])
        for column in columns
    }
    lines = []
    for layer in dict.fromkeys(row.layer for row in shifted):
        measure = "output_distance" if layer == "output" else "invariance_error"
        cells = (values.get((layer, protocol, amount, measure + suffix)) for protocol, amount, suffix in columns)
        texts = ("·" if value is None else f"{value:.3f}" for value in cells)
        lines.append(dict(zip(headings, (layer, *texts), strict=True)))
    if shifted:
        _show("", lines, headings, [key for key in reversed(headings) if key.endswith("untrained")], out.name)
        print_text("output distance, invariance error of layers: 0 = no change, 1 = as much as to another image", 0)
    console.print(f"  {len(rows):,} values: {shown_path(out)}\n", soft_wrap=True, markup=False)
