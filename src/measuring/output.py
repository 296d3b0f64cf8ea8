"""What the measure command leaves beside its table: a page of figures, and a run at W&B."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import Config
from ..metrics.rows import Heatmap, Result, Row
from ..reporting.metamers import write_slide
from ..reporting.page import write_measure_page
from ..reporting.terminal import console, shown_path
from ..reporting.wandb_logger import WandbLogger
from ..results import files
from ..results.runs import FinishedRun
from .options import Options, at_wandb


def fastest_device() -> torch.device:
    """The GPU, if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def show_page(
    run: FinishedRun, title: str, table: Path, about: str = "", beside: Mapping[str, FinishedRun] | None = None
) -> None:
    """Draw what was measured on a page beside its table, and say where; ``about`` and ``beside``: see the page."""
    page = write_measure_page(run, title, table.with_suffix(".html"), about, beside)
    console.print(f"  {shown_path(page)}\n", soft_wrap=True, markup=False)
    if slide := write_slide(files.beside(table, files.METAMERS), {title: run.pictures}):
        console.print(f"  {shown_path(slide)}\n", soft_wrap=True, markup=False)


def log(
    options: Options,
    name: str,
    table: Path,
    found: Sequence[Result],
    settings: Mapping[str, Any],
    cfg: Config | None = None,
) -> None:
    """Send what was measured to W&B, as a run of its own, if that is asked for."""
    told = {"name": name, "group": "measure", "job_type": "measure", "config": dict(settings)}
    tracker = WandbLogger(at_wandb(options, cfg), table.parent, **told)
    failed = True
    try:
        grids = {f"{result.measure}/{result.layer}": result.values for result in found if isinstance(result, Heatmap)}
        tracker.log_measures([result for result in found if isinstance(result, Row)], grids)
        failed = False
    finally:
        tracker.finish(failed)
    if tracker.url_or_sync_command:
        console.print(f"  {tracker.url_or_sync_command}\n", soft_wrap=True, markup=False)
