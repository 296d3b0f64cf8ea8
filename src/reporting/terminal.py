"""Terminal output: model summary, comparison of a sweep, measures of a net."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from ..results.outcomes import RULES
from ..summary import ModelSummary
from ..transforms import SHIFTS

if TYPE_CHECKING:
    from ..metrics.rows import Row

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=120)  # a log file has no width of its own


def si_prefix(number: float) -> str:
    """Three digits with an SI prefix.

    >>> si_prefix(1234567), si_prefix(0.5)
    ('1.23 M', '0.5')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def _table(title: str, **options: Any) -> Table:
    return Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False, **options)


def show_summary(summary: ModelSummary, title: str) -> None:
    """One line per layer; pointwise layers are dimmed."""
    table = _table(title)
    table.add_column("layer", no_wrap=True, vertical="bottom")
    for column in ("channels", "size", "RF", "stride", "centre", "params", "mult-adds", "input\nseen"):
        table.add_column(column, justify="right", vertical="bottom")
    for layer in summary.layers:
        rows, columns = layer.rows, layer.columns
        size = f"{rows.size}×{columns.size}" if (rows.size, columns.size) != (1, 1) else "1"
        costs = layer.parameters or layer.multiply_adds or (rows.jump != 1 and "pool" in layer.name)
        table.add_row(
            layer.name, str(layer.channels), size, f"{max(rows.receptive_field, columns.receptive_field):g}",
            f"{max(rows.jump, columns.jump):g}", f"{rows.offset:g}",
            f"{layer.parameters:,}" if layer.parameters else "·",
            si_prefix(layer.multiply_adds) if layer.multiply_adds else "·",
            f"{layer.seen(summary.image[1:]):.0%}", style=None if costs else "dim",
        )  # fmt: skip
    console.print(table)
    channels, height, width = summary.image
    console.print(
        f"input {channels}×{height}×{width}; {summary.parameters:,} parameters; "
        f"{si_prefix(summary.multiply_adds)} multiply-adds (MACs) per image\n"
        "RF: receptive field, stride: effective stride, centre: of the first RF, all in input pixels\n"
    )


def show_comparison(rows: Sequence[Mapping[str, Any]], title: str, columns: Mapping[str, str]) -> None:
    """One row per variant; ``columns`` maps keys to headings."""
    console.print(_comparison(rows, title, columns))


def show_differences(rows: Sequence[Mapping[str, Any]], baseline: str, columns: Mapping[str, str]) -> None:
    """The differences from a baseline; nothing where the table is too wide for the terminal."""
    table = _comparison(rows, f"\ndifferences from {baseline}, paired by seed", columns)
    if rows and _width(table) <= min(100, console.width):
        console.print(table)


def _width(table: Table) -> int:
    """The width that a table needs, in characters."""
    return console.measure(table, options=console.options.update(max_width=1000)).maximum


def _comparison(rows: Sequence[Mapping[str, Any]], title: str, columns: Mapping[str, str]) -> Table:
    table = _table(title, padding=(0, 1))
    for i, heading in enumerate(columns.values()):
        justify: JustifyMethod = "right" if i else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=i > 0, vertical="bottom")
    for row in rows:
        table.add_row(*(escape(str(row[key])) for key in columns))
    table.collapse_padding = _width(table) > console.width  # narrower gaps before names are wrapped
    return table


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
    failed = f"{failure}: {RULES[failure.partition(' ')[0]]}" if failure else ""
    lines = [line for line in (text, failed, str(folder)) if line]
    console.print("".join(f"  {line}\n" for line in lines), soft_wrap=True, markup=False)


def show_failures(failures: Mapping[str, str]) -> None:
    """The runs whose training failed, one per line."""
    for name, failure in failures.items():
        console.print(f"  {failure}: {name}", markup=False, soft_wrap=True)


def show_notes(notes: Mapping[str, str]) -> None:
    """How each metric group was measured; notes of the untrained net are left out."""
    for family, text in notes.items():
        if not family.endswith("_untrained"):
            console.print(f"  [dim]{family}: {escape(text)}[/dim]", soft_wrap=True)


def show_layers(layers: Sequence[Mapping[str, Any]], default: Sequence[str], title: str) -> None:
    """Every layer that can be measured, one per line; those measured by default are marked."""
    table = _table(title)
    for column, justify in {"layer": "left", "kind": "left", "output": "right", "parameters": "right"}.items():
        table.add_column(column, justify=justify, no_wrap=column == "layer")  # type: ignore[arg-type]
    for layer in layers:
        is_default, shape = layer["name"] in default, "×".join(map(str, layer["shape"]))
        cells = escape(layer["name"]) + " *" * is_default, layer["kind"], shape
        parameters = f"{layer['parameters']:,}" if layer["parameters"] else "·"
        table.add_row(*cells, parameters, style="bold" if is_default else None)
    console.print(table)
    console.print("*: measured by default; choose others by names or patterns: layers='layer?,avgpool'\n")


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
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for protocol, amount, suffix in columns:
        table.add_column(f"{protocol} {amount:g} px" + "\nuntrained" * bool(suffix), justify="right")
    for layer in dict.fromkeys(row.layer for row in shifted):
        measure = "output_distance" if layer == "output" else "invariance_error"
        cells = (values.get((layer, protocol, amount, measure + suffix)) for protocol, amount, suffix in columns)
        table.add_row(escape(layer), *("·" if value is None else f"{value:.3f}" for value in cells))
    if shifted:
        console.print(table)
        console.print("output distance, invariance error of layers: 0 = no change, 1 = as much as to another image")
    console.print(f"  {len(rows):,} values: {out}\n", soft_wrap=True, markup=False)
