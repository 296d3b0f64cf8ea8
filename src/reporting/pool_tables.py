"""Tables of all pools: formula, properties, costs, and the exactness matrix; for the terminal and as Markdown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.columns import Columns
from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text
from torch import nn

from ..evaluation.exactness import PROTOCOLS, ROUNDING, Cell, Setting
from ..models.layers import PADDINGS
from ..pooling import POOLS
from ..pooling.facts import FACTS
from ..results.files import read_rows
from ..summary import summarize
from .terminal import print_table, print_text

#: channels, height and width of the map that costs are given for; batch size of the times
MAP, BATCH = (64, 56, 56), 16
#: written by the benchmark: python -m tests.bench.pools
TIMES = Path(__file__).with_name("pool_times.csv")


@dataclass(frozen=True)
class Sheet:
    """A table with a title above and a legend below; numbers are right-aligned."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: str = ""
    numbers: bool = False

    def rich(self) -> Group:
        """For the terminal, at any width."""
        table = Table(title=self.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for i, heading in enumerate(self.columns):
            right = self._is_right(i)
            justify: JustifyMethod = "right" if right else "left"
            table.add_column(heading, justify=justify, no_wrap=i == 0 or right, vertical="top", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell, style="bold" if cell == "exact" else "") for cell in row))
        return Group(table, Text(self.legend, style="dim"), "") if self.legend else Group(table, "")

    def markdown(self) -> str:
        """The table as Markdown, for a page."""
        bars = ["-:" if self._is_right(i) else "-" for i in range(len(self.columns))]
        headings = [heading.replace("-\n", "").replace("\n", " ") for heading in self.columns]
        lines = [headings, bars, *([cell.replace("|", "\\|") for cell in row] for row in self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.title}\n\n{body}\n" + (f"\n{self.legend}\n" if self.legend else "")

    def _is_right(self, column: int) -> bool:
        """Whether a column is right-aligned, as numbers are."""
        return column > 0 and (self.numbers or all(row[column][:1] in "0123456789·–" for row in self.rows))


def pool_sheets() -> list[Sheet]:
    """Formula, properties, sources and costs of every pool, and its measured times."""
    times = read_rows(TIMES)
    by_max = {row["pool"]: row["ratio"] for row in times if row["against"] == "max"}
    costs = []
    for name, facts in FACTS.items():
        parameters, multiply_adds = cost(name)
        costs.append((name, facts.formula, f"{parameters:,}", f"{multiply_adds:.3g}", by_max.get(name, "·")))
    size = f"{MAP[0]}×{MAP[1]}×{MAP[2]}"
    sheets = [
        Sheet("Formula and cost", ("pool", "one output", "para-\nmeters", "MACs per\noutput", "time"), costs,
            "x: the map; R: the window of an output; x[i::s, j::s]: a phase, of s² at stride s; σ: the sigmoid; "
            f"W, F: learned. On a map of {size}, stride 2, default windows. MACs: multiply-adds. Time: "
            f"forward and backward, in units of max (channels_last, as nets run, a batch of {BATCH}, one thread)"
            + measured_on(times)),
        Sheet("Properties", ("pool", "keeps", "exact"),
            [(name, facts.keeps, facts.exact) for name, facts in FACTS.items()],
            "keeps: constants, range and mean of any map with a circular border, for any weights. exact: identities "
            "that hold exactly. Aliasing: a frequency above the new Nyquist frequency returns as a lower one."),
        Sheet("Differences from the authors' implementations", ("pool", "differs"),
            [(name, facts.differs) for name, facts in FACTS.items() if facts.differs],
            "N: side of the map; m: taps; s: stride."),
        Sheet("Sources", ("pool", "source"), [(name, facts.source) for name, facts in FACTS.items()]),
    ]  # fmt: skip
    against = [row for row in times if row["against"] != "max"]
    if against:
        rows = [(row["pool"], row["against"], row["ratio"], f"{row['low']} to {row['high']}") for row in against]
        columns = "pool", "other implementation", "time, ours / other", "range of pairs"
        sheets.append(
            Sheet("Speed against other implementations", columns, rows,
                "One thread, the same map. (overflows): squares or exponentials overflow float32; (zeros): zero "
                "padding. The limit is 1.2 against implementations that always compute the same. Measured"
                + measured_on(times).removeprefix(";"))
        )  # fmt: skip
    return sheets


def cost(name: str) -> tuple[int, float]:
    """Parameters, and multiply-adds (MACs) per output value, by the model summary; ``none`` adds none to its stage."""
    pool = POOLS[name]
    if pool is None:
        return 0, 0.0
    summary = summarize(nn.Sequential(pool(stride=2, channels=MAP[0])), MAP)
    channels, height, width = summary.layers[-1].shape
    return summary.parameters, summary.multiply_adds / (channels * height * width)


def measured_on(times: Sequence[Mapping[str, str]]) -> str:
    """The machine, torch version and date of the times."""
    return f"; on {times[0]['machine']}, torch {times[0]['torch']}, {times[0]['date']}." if times else "."


def exactness_sheets(cells: Sequence[Cell], setting: Setting) -> list[Sheet]:
    """A sheet per protocol: pools down, paddings across."""
    texts = {(cell.pool, cell.padding, cell.protocol): cell_text(cell) for cell in cells}
    pools = list(dict.fromkeys(cell.pool for cell in cells))
    sheets = []
    for protocol, meaning in PROTOCOLS.items():
        rows = [(pool, *(texts[pool, padding, protocol] for padding in PADDINGS)) for pool in pools]
        title = meaning.replace("of S", f"of S = {setting.total}")
        sheets.append(Sheet(title, ("pool", *PADDINGS), rows, numbers=True))
    return sheets


def cell_text(cell: Cell) -> str:
    """``exact``, or the median change; · where there is no such net."""
    if math.isnan(cell.largest):
        return "·"
    return "exact" if cell.exact else f"{cell.median:.2g}"


def setting_text(setting: Setting) -> str:
    """How the matrix was computed."""
    return (
        f"Relative change ‖f(gx) − f(x)‖ / ‖f(x)‖: exact where the largest is below {ROUNDING:g}, else the median; · no"
        " such net. Roll: circular shift; crop: true shift that reveals pixels outside the frame; last map up to a "
        f"roll: after the best-fitting roll. Plain CNNs of {setting.depth} stages of stride {setting.stride}, "
        f"{setting.head} head, random weights (exactness does not depend on training, the other values do), batch norm "
        f"in eval mode, float64; {setting.images} images of white noise, {setting.size}×{setting.size}, "
        f"{setting.shifts} shifts each of up to {setting.margin} px, seed {setting.seed}."
    )


def show_sheets(sheets: Sequence[Sheet]) -> None:
    """Print sheets one below the other."""
    for sheet in sheets:
        print_table(sheet.rich())


def show_matrix(cells: Sequence[Cell], setting: Setting) -> None:
    """Print the matrix, sheets side by side where there is room, and its legend."""
    print_table(Columns([sheet.rich() for sheet in exactness_sheets(cells, setting)], padding=(0, 4)))
    print_text(setting_text(setting), 0, "dim")


def markdown_page(cells: Sequence[Cell], setting: Setting, made: str) -> str:
    """The Markdown page: the list, which a test compares with the code, and the matrix of one run."""
    pools, matrix = ([sheet.markdown() for sheet in s] for s in (pool_sheets(), exactness_sheets(cells, setting)))
    parts = ["# Pools\n", *pools, "# The exactness matrix\n", setting_text(setting) + "\n", *matrix, made]
    return "\n".join(parts) + "\n"
