"""Compare finished runs again: the table, comparison.csv and the page.

    python -m src.report runs=outputs/SWEEP
    python -m src.report runs=outputs out=outputs/all      every run below a folder
    python -m src.report runs=outputs/SWEEP/RUN            one run alone
    python -m src.report runs=RUN beside=OTHER             two runs, or sweeps, side by side
    python -m src.report runs=outputs/SWEEP baseline=pool=none   differences from another variant than the first
    python -m src.report runs=outputs/SWEEP wandb=true     and as a W&B Report; without a login, its definition

options: runs=FOLDER  beside=FOLDER  out=FOLDER (where to write; the folder of the runs, or beside-OTHER in it)
         baseline=VARIANT (as the table names it)  wandb=true|false
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING


@dataclass
class Options:
    """Options of the command line."""

    runs: str = MISSING
    beside: str | None = None
    out: str | None = None
    baseline: str | None = None
    wandb: bool = False


def main() -> None:
    """Build them."""
    from src.config import from_command_line, refusing

    with refusing():
        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        from src.views.page import conclude

        folder = Path(options.runs)
        out, beside = (Path(one) if one else None for one in (options.out, options.beside))
        conclude(folder, out, options.baseline, beside)
        if options.wandb:
            from src.views.wandb_report import leave_report

            leave_report(folder, out)


if __name__ == "__main__":
    main()
