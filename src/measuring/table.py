"""A table of measures that is written, or written again: what of it is replaced, and what is kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..config import Config
from ..data.splits import pictures_of
from ..evaluation.families import ALWAYS
from ..metrics.rows import COLUMNS, Result, Row
from ..reporting.terminal import console
from ..results import files
from ..results.identity import read_config, read_image_checksums
from ..results.measures import families_in, write_measures
from .options import METAMERS, OF_MEASURE, Options


@dataclass
class Table:
    """A table to be written; what of it is replaced is said."""

    path: Path
    families: list[str] | None  # that are measured, and replaced; the others stay. None: all of it is replaced
    provenance: dict[str, Any] | None  # what its numbers depend on, but the families; None: the config of its run
    given: bool  # whether it was named, by ``out=``: then one measured with other settings is replaced as a whole

    def __post_init__(self) -> None:
        """Refuse what is there and is no table of measures; or has other settings, and ``out=`` does not name it."""
        if not self.path.exists():
            return
        if set(next(iter(files.read_rows(self.path)), COLUMNS)) != set(COLUMNS):
            raise UserError(f"out={self.path}: is there already, and is no table of measures; name another")
        if self.provenance is None:
            return
        kept = files.beside(self.path, files.MEASURED)
        before = files.read_json(kept, {})
        if before:  # older tables have ``size`` alone, null or not, and metamers of one size
            before = {"pixels": self.provenance.get("pixels"), **METAMERS} | before
        if keys := [key for key in self.provenance if before.get(key) != self.provenance[key]]:
            key = keys[0]
            was = f"was measured with {key}={before.get(key)}, not {self.provenance[key]}"
            was = was if before else "does not say how it was measured"
            if not self.given:
                raise UserError(f"{self.path} is there already, and {was}; give out=TABLE.csv, or move it away")
            self.families = None  # numbers of two kinds are not mixed

    def write(self, found: Iterable[Result]) -> list[Row]:
        """Write it, and say what that replaces; gives the rows."""
        before = families_in(self.path)
        asked = {*before} if self.families is None else {*self.families}

        def numbers(names: set[str]) -> str:
            listed = ", ".join(name for name in before if name in names)
            return f"{sum(before[name] for name in names):,} numbers of {listed}"

        families = {*before} - {ALWAYS}
        if gone := families & asked:
            console.print(f"  replaced in {self.path.name}: {numbers(gone)}", soft_wrap=True, markup=False)
        if stay := families - asked:
            console.print(f"  kept in {self.path.name}: {numbers(stay)}", soft_wrap=True, markup=False)
        if self.provenance is not None:
            files.write_json(files.beside(self.path, files.MEASURED), self.provenance)
        return write_measures(self.path, found, self.families)


# --- a run's own table: where it is, and what it does not take -----------------------------------------------------


def output_paths(options: Options, name: str) -> tuple[Path, Path]:
    """The folder of the checkpoint's run, and the table: ``out=``, or of that name in it."""
    path = Path(options.checkpoint or "")
    run = path.resolve().parent.parent
    return run, Path(options.out) if options.out else (run if (run / files.CONFIG).exists() else path.parent) / name


def refuse_options(options: Options) -> None:
    """Keep numbers of other images or shifts than the run's out of its own table, before anything is loaded."""
    run, out = output_paths(options, files.MEASURES)
    if out.resolve() == run / files.MEASURES and (run / files.CONFIG).exists():
        _refuse(_other_numbers(options, read_config(run)))


def _other_numbers(asked: Any, saved: Config) -> list[str]:
    """What is asked for and is not what the run has."""
    pairs = ((key, getattr(asked, key), getattr(saved.measure, key)) for key in OF_MEASURE)
    return [
        f"{key}={now}, the run has measure.{key}={before}" for key, now, before in pairs if now not in (None, before)
    ]


def _refuse(wrong: list[str]) -> None:
    if wrong:
        raise UserError(
            f"{wrong[0]}: the run's own table takes no numbers measured with other settings; give out=TABLE.csv"
        )


def refuse_other_settings(options: Options, cfg: Config, run: Path) -> None:
    """Keep numbers measured with other settings out of a run's own table: other images or shifts than the run's, other
    pictures, or weights that the run does not measure.
    """
    saved, weights = read_config(run), Path(options.checkpoint or "").stem
    wrong = _other_numbers(cfg.measure, saved)
    if weights != saved.train.keep:
        wrong.append(f"{weights}.ckpt, the run has train.keep={saved.train.keep}")
    if pictures_of(cfg.data) != read_image_checksums(run, saved).get("data.root", ""):
        wrong.append(f"data.root={cfg.data.root} holds other pictures than the run's {saved.data.root} did")
    _refuse(wrong)
