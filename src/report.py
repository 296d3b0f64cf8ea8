"""Compare finished runs again: the table, comparison.csv and the page.

    python -m src.report runs=outputs/SWEEP
    python -m src.report runs=outputs out=outputs/all      every run below a folder
    python -m src.report runs=outputs/SWEEP wandb=true     and as a W&B Report; without a login, its definition

options: runs=FOLDER  out=FOLDER (where to write; the folder of the runs)  wandb=true|false
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING


@dataclass
class Options:
    """Options of the command line."""

    runs: str = MISSING
    out: str | None = None
    wandb: bool = False


def main() -> None:
    """Build them."""
    from src.config import from_command_line, refusing

    with refusing():
        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        from src.views.page import conclude

        folder, out = Path(options.runs), Path(options.out) if options.out else None
        conclude(folder, out)
        if options.wandb:
            from src.views.wandb_report import leave_report

            leave_report(folder, out)


if __name__ == "__main__":
    main()
