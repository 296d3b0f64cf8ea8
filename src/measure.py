"""Measure a finished run again; its checkpoint holds its whole config.

    python -m src.measure checkpoint=outputs/SWEEP/RUN/checkpoints/best.ckpt
    python -m src.measure checkpoint=PATH images=200 max_shift=4 out=again.csv

options: checkpoint=PATH  images=N  max_shift=PIXELS  root=DATA_FOLDER  out=FILE (the run's own measures.csv)
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import MISSING


@dataclass
class Options:
    """Options of the command line."""

    checkpoint: str = MISSING
    images: int | None = None
    max_shift: int | None = None
    root: str | None = None
    out: str | None = None


def main() -> None:
    """Measure, write the table, and show its main numbers."""
    from src.config import from_command_line, refusing

    with refusing():
        measure_again(from_command_line(Options, sys.argv[1:], __doc__ or ""))


def measure_again(options: Options) -> None:
    """Measure the net in a checkpoint, which is read as data only.

    Raises:
        Refusal: no such file, not a checkpoint of this project, or its weights do not fit its config.
    """
    from src.config import check
    from src.runs import read_checkpoint

    path = Path(options.checkpoint)
    cfg, weights = read_checkpoint(path)
    asked = {key: getattr(options, key) for key in ("images", "max_shift") if getattr(options, key) is not None}
    cfg = replace(
        cfg, measure=replace(cfg.measure, **asked), data=replace(cfg.data, root=options.root or cfg.data.root)
    )
    check(cfg)

    from src import files
    from src.data.splits import split
    from src.errors import Refusal
    from src.measures.suite import measure
    from src.models import module
    from src.runs import summary, write_measures
    from src.views.terminal import console, show_closing

    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise Refusal(f"{path} does not hold the weights of its own config, a {cfg.model.name}: {reason}") from error
    console.print(f"  {cfg.model.name}, pool {cfg.model.pool}: {cfg.measure.images} test images of {cfg.data.name}")
    rows = list(measure(net, cfg, splits))
    run = path.resolve().parent.parent
    out = Path(options.out) if options.out else (run if (run / files.CONFIG).exists() else path.parent) / files.MEASURES
    write_measures(out, rows)
    show_closing(summary(rows), out)


if __name__ == "__main__":
    main()
