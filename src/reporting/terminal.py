"""What the terminal shows: the shape ledger, and the comparison of a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
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


def millions(number: float) -> str:
    """1234567 → 1.23 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def _table(title: str, **options: Any) -> Table:
    return Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False, **options)


def show_summary(summary: ModelSummary, title: str) -> None:
    """Every layer on a line; pointwise layers stand dimmed."""
    table = _table(title)
    table.add_column("layer", no_wrap=True)
    for column in ("channels", "size", "field", "jump", "start", "parameters", "mult-adds", "sees"):
        table.add_column(column, justify="right")
    for layer in summary.layers:
        rows, columns = layer.rows, layer.columns
        size = f"{rows.size}×{columns.size}" if (rows.size, columns.size) != (1, 1) else "1"
        table.add_row(
            layer.name,
            str(layer.channels),
            size,
            f"{max(rows.receptive_field, columns.receptive_field):g}",
            f"{max(rows.jump, columns.jump):g}",
            f"{rows.offset:g}",
            f"{layer.parameters:,}" if layer.parameters else "·",
            millions(layer.multiply_adds) if layer.multiply_adds else "·",
            f"{layer.seen(summary.image[1:]):.0%}",
            style=None
            if layer.parameters or layer.multiply_adds or (rows.jump != 1 and "pool" in layer.name)
            else "dim",
        )
    console.print(table)
    channels, height, width = summary.image
    console.print(
        f"input {channels}×{height}×{width}; {summary.parameters:,} parameters; "
        f"{millions(summary.multiply_adds)} multiply-adds an image; field, jump and start in input pixels\n"
    )


def show_comparison(rows: Sequence[Mapping[str, Any]], title: str, columns: Mapping[str, str]) -> None:
    """A row a variant; ``columns`` maps the keys to show to their headings."""
    console.print(_comparison(rows, title, columns))


def show_differences(rows: Sequence[Mapping[str, Any]], baseline: str, columns: Mapping[str, str]) -> None:
    """The differences from a baseline; nothing where they are too wide for a terminal."""
    table = _comparison(rows, f"\ndifferences from {baseline}, seed by seed", columns)
    if rows and _width(table) <= min(100, console.width):
        console.print(table)


def _width(table: Table) -> int:
    """That it would take."""
    return console.measure(table, options=console.options.update(max_width=1000)).maximum


def _comparison(rows: Sequence[Mapping[str, Any]], title: str, columns: Mapping[str, str]) -> Table:
    table = _table(title, padding=(0, 1))
    for i, heading in enumerate(columns.values()):
        table.add_column(
            heading, justify="left" if i == 0 else "right", overflow="fold", no_wrap=i > 0, vertical="bottom"
        )
    for row in rows:
        table.add_row(*(escape(str(row[key])) for key in columns))
    table.collapse_padding = _width(table) > console.width  # before names are broken
    return table


def show_closing(numbers: Mapping[str, float], folder: Path, failure: str = "") -> None:
    """A run's main numbers, those that were measured, how its training failed, if it did, and where it lies."""
    distances = {p: f"invariance/{p}/1px/output_distance" for p in SHIFTS}
    moved = ", ".join(f"{numbers[key]:.3f} ({p})" for p, key in distances.items() if key in numbers)
    twins = [f"{key}_untrained" for key in distances.values()]
    untrained = ", ".join(f"{numbers[key]:.3f}" for key in twins if key in numbers)
    scores = {"accuracy": "test accuracy", "r2": "R² of the position"}
    found = ", ".join(
        f"{word} {numbers[f'test/{key}']:.3f}" for key, word in scores.items() if f"test/{key}" in numbers
    )
    if moved:
        found += f"; a shift by 1 px moves the answer by {moved} of the way to another image's"
        found += f"; untrained {untrained}" * bool(untrained)
    failed = f"{failure}: {RULES[failure.partition(' ')[0]]}" if failure else ""
    lines = [line for line in (found, failed, str(folder)) if line]
    console.print("".join(f"  {line}\n" for line in lines), soft_wrap=True, markup=False)


def show_failures(failures: Mapping[str, str]) -> None:
    """The runs whose training failed, a line each."""
    for name, how in failures.items():
        console.print(f"  {how}: {name}", markup=False, soft_wrap=True)


def show_notes(notes: Mapping[str, str]) -> None:
    """How something was measured; the untrained twin's is the same but for the images."""
    for family, words in notes.items():
        if not family.endswith("_untrained"):
            console.print(f"  [dim]{family}: {escape(words)}[/dim]", soft_wrap=True)


def show_layers(layers: Sequence[Mapping[str, Any]], chosen: Sequence[str], title: str) -> None:
    """Every layer that can be measured on a line; those that are, if nothing else is asked for, stand out."""
    table = _table(title)
    for column, justify in {"layer": "left", "kind": "left", "output": "right", "parameters": "right"}.items():
        table.add_column(column, justify=justify, no_wrap=column == "layer")  # type: ignore[arg-type]
    for layer in layers:
        mark = layer["name"] in chosen
        table.add_row(
            escape(layer["name"]) + " *" * mark,
            layer["kind"],
            "×".join(map(str, layer["shape"])),
            f"{layer['parameters']:,}" if layer["parameters"] else "·",
            style="bold" if mark else None,
        )
    console.print(table)
    console.print("*: what is measured without layers=; a pattern takes several, as in layers='layer?,avgpool'\n")


def show_measured(rows: Sequence["Row"], out: Path) -> None:
    """How far the smallest and the largest shift move each layer and the answer; untrained beside it, where it is. Of
    other numbers, how many there are.
    """
    found = {(one.layer, one.protocol, one.amount, one.measure): one.estimate.value for one in rows}
    shifted = [one for one in rows if one.transform == "shift" and one.protocol in SHIFTS]
    amounts = sorted({one.amount for one in shifted})
    shifts = [(protocol, amount) for amount in dict.fromkeys([*amounts[:1], *amounts[-1:]]) for protocol in SHIFTS]
    columns = [(*shift, suffix) for shift in shifts for suffix in ("", "_untrained")]
    columns = [one for one in columns if ("output", *one[:2], f"{MOVED['output']}{one[2]}") in found]
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for protocol, amount, suffix in columns:
        table.add_column(f"{protocol} {amount:g} px" + "\nuntrained" * bool(suffix), justify="right")
    for layer in dict.fromkeys(one.layer for one in shifted):
        measure = MOVED.get(layer, "invariance_error")
        values = (found.get((layer, protocol, amount, measure + suffix)) for protocol, amount, suffix in columns)
        table.add_row(escape(layer), *("·" if value is None else f"{value:.3f}" for value in values))
    if shifted:
        console.print(table)
        console.print("0: the shift is not noticed; 1: it moves as far as another image is")
    console.print(f"  {len(rows):,} numbers: {out}\n", soft_wrap=True, markup=False)


#: layer → the measure shown of it, where it is another than that of layers
MOVED = {"output": "output_distance"}
