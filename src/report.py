"""Compare finished runs again: the table, comparison.csv and the page.

    python -m src.report runs=outputs/SWEEP
    python -m src.report runs=outputs out=outputs/all   every run below a folder
    python -m src.report runs=outputs/SWEEP/RUN         one run alone
    python -m src.report runs=RUN beside=OTHER          two runs, or sweeps
    python -m src.report runs=outputs/SWEEP baseline=pool=none
                                differences from another variant than the first
    python -m src.report runs=outputs where=data=shapes,pool=max,avg,seed=0
                                of all runs, those of these settings
    python -m src.report runs=outputs/SWEEP figures=talk format=svg,pdf
                                every figure as a file, for a lecture or a paper
    python -m src.report runs=outputs/SWEEP wandb=true
                                also a W&B Report; without login, its definition

Only runs of one data set and task are ranked with each other. Beside
comparison.csv lies runs.csv: one row per run, with every setting that differs
and every number.

options: runs=FOLDER  beside=FOLDER  wandb=true|false
         baseline=VARIANT (as the table names it)
         where=KEY=VALUE,… (model.pool=max or pool=max; pool=max,avg: either)
         out=FOLDER (where to write; the folder of the runs, or beside-OTHER,
             where-… in it)
         figures=FOLDER  format=svg,png,pdf,csv (by default svg,csv)
         width=CENTIMETRES (as on the page)  font=NAME  font_size=POINTS (10)
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
    where: str | None = None
    wandb: bool = False
    figures: str | None = None
    format: str = "svg,csv"
    width: float | None = None
    font: str = "sans-serif"
    font_size: float = 10


def main() -> None:
    """Build the comparison and the page of the runs that the command line names."""
    from .common.cli_errors import cli_errors

    with cli_errors():
        from .config import from_command_line

        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        from .reporting.figure_files import FigureFiles
        from .reporting.page import build_report, report_folder

        figures = None
        if options.figures is not None:
            look = (options.width, options.font, options.font_size)
            figures = FigureFiles(Path(options.figures), tuple(options.format.split(",")), *look)
        folder = Path(options.runs)
        out, compare_with = (Path(path) if path else None for path in (options.out, options.beside))
        build_report(folder, out, options.baseline, compare_with, options.where, figures)
        if options.wandb:
            from .reporting.wandb_report import write_wandb_report

            out = out or folder / report_folder(where=options.where)
            write_wandb_report(folder, out, options.where)


if __name__ == "__main__":
    main()
