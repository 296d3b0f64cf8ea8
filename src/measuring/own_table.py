"""A run's own table of measures: where it is, and what it does not take."""

from pathlib import Path

from ..config import Config
from ..data.splits import pictures_of
from ..errors import UserError
from ..results import files
from ..results.identity import read_config, read_image_checksums
from .options import OF_MEASURE, Options

ADVICE = "the run's own table takes no numbers measured with other settings; give out=TABLE.csv"


def output_paths(options: Options, name: str) -> tuple[Path, Path]:
    """The folder of the checkpoint's run, and the table: ``out=``, or of that name in it."""
    path = Path(options.checkpoint or "")
    run = path.resolve().parent.parent
    return run, Path(options.out) if options.out else (run if (run / files.CONFIG).exists() else path.parent) / name


def refuse_options(options: Options) -> None:
    """Keep numbers measured with other options out of a run's own table, before anything is loaded.

    Raises:
        UserError: other images or shifts than the run's.
    """
    run, out = output_paths(options, files.MEASURES)
    if out.resolve() != run / files.MEASURES or not (run / files.CONFIG).exists():
        return
    saved = read_config(run)
    for key in OF_MEASURE:
        now, before = getattr(options, key), getattr(saved.measure, key)
        if now not in (None, before):
            raise UserError(f"{key}={now}, the run has measure.{key}={before}: {ADVICE}")


def refuse_other_settings(options: Options, cfg: Config, run: Path) -> None:
    """Keep numbers measured with other settings out of a run's own table.

    Raises:
        UserError: other images or shifts than the run's, other pictures, or weights that the run does not measure.
    """
    saved, weights = read_config(run), Path(options.checkpoint or "").stem
    wrong = [
        f"{key}={now}, the run has measure.{key}={before}"
        for key in OF_MEASURE
        if (now := getattr(cfg.measure, key)) != (before := getattr(saved.measure, key))
    ]
    if weights != saved.train.keep:
        wrong.append(f"{weights}.ckpt, the run has train.keep={saved.train.keep}")
    if pictures_of(cfg.data) != read_image_checksums(run, saved).get("data.root", ""):
        wrong.append(f"data.root={cfg.data.root} holds other pictures than the run's {saved.data.root} did")
    if wrong:
        raise UserError(f"{wrong[0]}: {ADVICE}")
