"""Compare finished runs again: the table, comparison.csv and the page.

    python -m src.report runs=outputs/SWEEP
    python -m src.report runs=outputs out=outputs/all      every run below a folder
    python -m src.report runs=outputs/SWEEP/RUN            one run alone
    python -m src.report runs=RUN beside=OTHER             two runs, or sweeps, side by side
    python -m src.report runs=outputs/SWEEP baseline=pool=none   differences from another variant than the first

options: runs=FOLDER  beside=FOLDER  out=FOLDER (where to write; the folder of the runs, or beside-OTHER in it)
         baseline=VARIANT (as the table names it)
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


def main() -> None:
    """Build them."""
    from src.config import from_command_line, refusing

    with refusing():
        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        from src.views.page import conclude

        out, beside = (Path(one) if one else None for one in (options.out, options.beside))
        conclude(Path(options.runs), out, options.baseline, beside)


if __name__ == "__main__":
    main()
