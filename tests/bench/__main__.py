"""``make bench``: every pair, its ratio, and the bound that the project holds itself to."""

import platform
from datetime import date

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from src.training.run import hardware
from tests.bench import parallel, pools, rolls, startup, training
from tests.bench.paired import DEVICE, Pair


def main() -> None:
    """Measure and print."""
    quiet = Console(quiet=True)
    import src.reporting.terminal
    import src.training.run

    src.training.run.console = src.reporting.terminal.console = quiet  # the table is all that is shown
    console = Console()
    machine = hardware(DEVICE)
    table = Table(title=f"{machine}, torch {torch.__version__}, {platform.system()}, {date.today()}")
    for heading in ("A / B", "ratio of medians", "single pairs", "bound"):
        table.add_column(heading)
    start = Pair("start to first step / import torch, lightning", startup.to_first_step, startup.imports, 5, 1.3)
    everything = Pair("training with everything on / bare loop", training.with_lightning, training.bare, 3, 1.1)
    name = "jobs an hour: two at a time / in one process"
    jobs = Pair(name, parallel.in_one_process, parallel.two_at_a_time, 3, 1.3, least=True)
    with Live(table, console=console):
        for pair in (start, everything, jobs, *rolls.every(["max"]), *rolls.suite(training.bare)):
            table.caption = f"{pair.name}: {pair.pairs} pairs"
            ratio = pair.run()
            bound = f"at {'least' if pair.least else 'most'} {pair.bound:.2f}"
            table.add_row(pair.name, f"{ratio.median:.2f}", f"{ratio.low:.2f} to {ratio.high:.2f}", bound)
        table.caption = None
    pools.show()


if __name__ == "__main__":
    main()
