"""All pools on a page: what each is, keeps and costs, and the exactness matrix; for the terminal and as Markdown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import nn

from ..evaluation.exactness import PROTOCOLS, ROUNDING, Cell, Setting
from ..models.layers import PADDINGS
from ..pooling import POOLS
from ..pooling.facts import FACTS
from ..results.files import read_rows
from ..summary import summarize
from .terminal import console

#: the map that costs are given for
MAP, BATCH = (64, 56, 56), 16
#: measured by the benchmark: python -m tests.bench.pools
TIMES = Path(__file__).with_name("pool_times.csv")


@dataclass(frozen=True)
class Sheet:
    """A table with a title above and a legend below; numbers stand right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: str = ""
    numbers: bool = False

    def rich(self) -> Group:
        """For the terminal, at any width."""
        table = Table(title=self.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for i, heading in enumerate(self.columns):
            right = i > 0 and (self.numbers or self._numeric(i))
            table.add_column(
                heading, justify="right" if right else "left", no_wrap=i == 0 or right, vertical="top", overflow="fold"
            )
        for row in self.rows:
            table.add_row(*(Text(cell, style="bold" if cell == "exact" else "") for cell in row))
        return Group(table, Text(self.legend, style="dim"), "") if self.legend else Group(table, "")

    def markdown(self) -> str:
        """For a page."""
        bars = ["-:" if i and (self.numbers or self._numeric(i)) else "-" for i in range(len(self.columns))]
        headings = [heading.replace("-\n", "").replace("\n", " ") for heading in self.columns]
        lines = [headings, bars, *([cell.replace("|", "\\|") for cell in row] for row in self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.title}\n\n{body}\n" + (f"\n{self.legend}\n" if self.legend else "")

    def _numeric(self, column: int) -> bool:
        return all(row[column][:1] in "0123456789·–" for row in self.rows)


# --- the list --------------------------------------------------------------------------------------------------------


def listing() -> list[Sheet]:
    """What the code says of every pool, and the times that were measured."""
    times = read_rows(TIMES)
    by_max = {row["pool"]: row["ratio"] for row in times if row["against"] == "max"}
    costs = []
    for name, facts in FACTS.items():
        parameters, each = cost(name)
        costs.append((name, facts.formula, f"{parameters:,}", f"{each:.3g}", by_max.get(name, "·")))
    size = f"{MAP[0]}×{MAP[1]}×{MAP[2]}"
    sheets = [
        Sheet(
            "What each computes, and what it costs",
            ("pool", "an output", "para-\nmeters", "mult-\nadds", "time"),
            costs,
            "x: the map; R: the window of an output; x[i::s, j::s]: a phase, of s² at stride s; σ: the sigmoid; "
            f"W, F: learned. On a map of {size}, stride 2, default windows. Mult-adds: for one output number. Time: "
            f"forward and backward, in units of max (channels_last, as nets run, a batch of {BATCH}, one thread)"
            + measured(times),
        ),
        Sheet(
            "What each keeps, and where it is exact",
            ("pool", "keeps", "exact"),
            [(name, facts.keeps, facts.exact) for name, facts in FACTS.items()],
            "keeps: constants, range and mean of any map with a circular border, whatever the weights. Aliasing: a "
            "frequency above the new Nyquist frequency comes back as a lower one.",
        ),
        Sheet(
            "Where it differs from its authors' own layer",
            ("pool", "differs"),
            [(name, facts.differs) for name, facts in FACTS.items() if facts.differs],
            "N: the map's side; m: taps; s: the stride.",
        ),
        Sheet("Sources", ("pool", "source"), [(name, facts.source) for name, facts in FACTS.items()]),
    ]
    against = [row for row in times if row["against"] != "max"]
    if against:
        rows = [(row["pool"], row["against"], row["ratio"], f"{row['low']} to {row['high']}") for row in against]
        sheets.append(
            Sheet(
                "Against other ways to compute the same",
                ("pool", "other way", "time, ours / other", "single pairs"),
                rows,
                "One thread, the same map. (overflows): fails where squares or exponentials leave float32; (zeros): "
                "another border. The bound is 1.2 against ways that compute the same everywhere. Measured"
                + measured(times).removeprefix(";"),
            )
        )
    return sheets


def cost(name: str) -> tuple[int, float]:
    """Parameters, and multiply-adds for one output number, by the ledger; ``none`` adds none to its stage."""
    pool = POOLS[name]
    if pool is None:
        return 0, 0.0
    summary = summarize(nn.Sequential(pool(stride=2, channels=MAP[0])), MAP)
    channels, height, width = summary.layers[-1].shape
    return summary.parameters, summary.multiply_adds / (channels * height * width)


def measured(times: Sequence[Mapping[str, str]]) -> str:
    """On what and when."""
    return f"; on {times[0]['machine']}, torch {times[0]['torch']}, {times[0]['date']}." if times else "."


# --- the matrix ------------------------------------------------------------------------------------------------------


def matrix(cells: Sequence[Cell], setting: Setting) -> list[Sheet]:
    """A sheet a protocol: pools down, paddings across."""
    by = {(cell.pool, cell.padding, cell.protocol): cell for cell in cells}
    pools = list(dict.fromkeys(cell.pool for cell in cells))
    return [
        Sheet(
            meaning.replace("of S", f"of S = {setting.total}"),
            ("pool", *PADDINGS),
            [(pool, *(show(by[pool, padding, protocol]) for padding in PADDINGS)) for pool in pools],
            numbers=True,
        )
        for protocol, meaning in PROTOCOLS.items()
    ]


def show(cell: Cell) -> str:
    """``exact``, or the median; · where there is no such net."""
    if math.isnan(cell.largest):
        return "·"
    return "exact" if cell.exact else f"{cell.median:.2g}"


def about(setting: Setting) -> str:
    """What the matrix was made with."""
    one = setting
    return (
        f"Relative change ‖f(gx) − f(x)‖ / ‖f(x)‖: exact where the largest is below {ROUNDING:g}, else the median; · no"
        " such net. Roll: what leaves on one side comes back on the other; crop: true pixels come in; last map but for "
        f"a roll: after the one that fits best. Ladders of {one.depth} stages of stride {one.stride}, {one.head} head, "
        "random weights (nothing is trained: what is exact stays so, the numbers do not), batch norm in eval, float64; "
        f"{one.images} images of white noise, {one.size}×{one.size}, {one.shifts} shifts each of up to {one.margin} px,"
        f" seed {one.seed}."
    )


# --- out -------------------------------------------------------------------------------------------------------------


def show_sheets(sheets: Sequence[Sheet]) -> None:
    """One below the other."""
    for sheet in sheets:
        console.print(sheet.rich())


def show_matrix(cells: Sequence[Cell], setting: Setting) -> None:
    """Sheets side by side where there is room, then the legend."""
    console.print(Columns([sheet.rich() for sheet in matrix(cells, setting)], padding=(0, 4)))
    console.print(Text(about(setting), style="dim"))


def page(cells: Sequence[Cell], setting: Setting, made: str) -> str:
    """Markdown: the list, which a test holds against the code, and the matrix of one run, with how it was made."""
    parts = ["# Pools\n", *(sheet.markdown() for sheet in listing()), "# The exactness matrix\n", about(setting) + "\n"]
    parts += [sheet.markdown() for sheet in matrix(cells, setting)]
    return "\n".join([*parts, made]) + "\n"
