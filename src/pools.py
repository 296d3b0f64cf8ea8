"""All pools: formula, source, cost, what each keeps, and where each is exact.

    python -m src.pools
    python -m src.pools size=31                 odd maps
    python -m src.pools stride=1 head=flatten
    python -m src.pools out=docs/pools.md       the same as a page

Where a pool is exact under shifts is found by running small nets.

options: size=PIXELS (32)  stride=N (2)  depth=STAGES (2)  head=gap|flatten
         images=N (4)  shifts=N (8)  seed=N (0)
         out=FILE (a Markdown page; null: the terminal)
"""

import sys
from dataclasses import dataclass

from .evaluation.exactness import Setting, exactness


@dataclass
class Options(Setting):
    """Options of the command line."""

    out: str | None = None


def main() -> None:
    """Print the list and the matrix, or write them."""
    from .common.cli_errors import cli_errors

    words = sys.argv[1:]
    with cli_errors():
        from .config import from_command_line

        show(from_command_line(Options, words, __doc__ or "") if words else Options(), " ".join(words))


def show(options: Options, words: str) -> None:
    """Run small nets with every pool and padding; print facts and exactness of the pools, or write them as a page.
    ``UserError`` if ``size``, ``images`` or ``shifts`` is below 1, or no net has such a setting.
    """
    from pathlib import Path

    import torch
    from rich.progress import track

    from .common import arguments
    from .common.naming import command
    from .common.option_fields import LARGEST
    from .models.layers import PADDINGS
    from .pooling import POOLS
    from .reporting.pool_tables import markdown_page, pool_sheets, show_matrix, show_sheets
    from .reporting.terminal import console
    from .results import files

    for key, least in {"size": 1, "images": 1, "shifts": 1, "seed": 0}.items():
        arguments.whole_number(key, getattr(options, key), least, LARGEST)
    if options.out is not None:
        files.refuse_unwritable("out", Path(options.out).parent)
    torch.set_num_threads(1)  # for maps this small, more threads take longer
    rows = exactness(options)
    if options.out is None:
        show_sheets(pool_sheets())
    total, quiet = len(POOLS) * len(PADDINGS), not console.is_terminal
    shown = track(rows, "running small nets", total, console=console, transient=True, disable=quiet)
    cells = [cell for row in shown for cell in row]
    if options.out is None:
        show_matrix(cells, options)
        return
    from datetime import date

    from .training.run import hardware

    machine = hardware(torch.device("cpu"))
    made = f"Made by `{command('pools')} {words}`: {machine}, torch {torch.__version__}, {date.today()}."
    files.write(Path(options.out), markdown_page(cells, options, made))
    console.print(f"  {options.out}", markup=False)


if __name__ == "__main__":
    main()
