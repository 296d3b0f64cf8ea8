"""Compare finished runs again: the table, comparison.csv and the page.

    python -m src.report runs=outputs/SWEEP
    python -m src.report runs=outputs out=outputs/all      every run below a folder
    python -m src.report runs=outputs/SWEEP baseline=pool=none   differences from another variant than the first

options: runs=FOLDER  out=FOLDER (where to write; the folder of the runs)  baseline=VARIANT (as the table names it)
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
    baseline: str | None = None


def main() -> None:
    """Build them."""
    from src.config import from_command_line, refusing

    with refusing():
        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        from src.views.page import conclude

        conclude(Path(options.runs), Path(options.out) if options.out else None, options.baseline)


if __name__ == "__main__":
    main()
