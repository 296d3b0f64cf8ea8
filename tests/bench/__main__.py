"""``make bench``: every pair, its ratio, and the bound that the project holds itself to."""

import platform
from datetime import date

import torch
from rich.console import Console
from rich.table import Table

from src.run import hardware
from tests.bench import parallel, pools, rolls, startup, training
from tests.bench.paired import paired


def main() -> None:
    """Measure and print."""
    quiet = Console(quiet=True)
    import src.run
    import src.views.terminal

    src.run.console = src.views.terminal.console = quiet  # the table is all that is shown
    console = Console()
    machine = hardware(torch.device("cpu"))
    table = Table(title=f"{machine}, torch {torch.__version__}, {platform.system()}, {date.today()}")
    for heading in ("A / B", "ratio of medians", "single pairs", "bound"):
        table.add_column(heading)
    for name, a, b, pairs, bound in (
        ("start to first step / import torch, lightning", startup.to_first_step, startup.imports, 5, 1.30),
        ("training with everything on / bare loop", training.with_lightning, training.bare, 3, 1.10),
    ):
        with console.status(f"{name}: {pairs} pairs"):
            ratio = paired(a, b, pairs)
        table.add_row(name, f"{ratio.median:.2f}", f"{ratio.low:.2f} to {ratio.high:.2f}", f"{bound:.2f}")
    name = "jobs an hour: two at a time / one at a time"
    with console.status(f"{name}: 3 pairs"):
        ratio = paired(parallel.one_at_a_time, parallel.two_at_a_time, 3)
    table.add_row(name, f"{ratio.median:.2f}", f"{ratio.low:.2f} to {ratio.high:.2f}", "at least 1.15")
    for pair in (*rolls.every(["max"]), *rolls.suite(training.bare)):
        with console.status(f"{pair.name}: {pair.pairs} pairs"):
            ratio = pair.run()
        bound = f"at {'least' if pair.least else 'most'} {pair.bound:.2f}"
        table.add_row(pair.name, f"{ratio.median:.2f}", f"{ratio.low:.2f} to {ratio.high:.2f}", bound)
    console.print(table)
    pools.show()


if __name__ == "__main__":
    main()
