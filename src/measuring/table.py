"""A table of measures that is written, or written again: what of it is replaced, and what is kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..evaluation.families import ALWAYS
from ..metrics.rows import COLUMNS, Heatmap, Note, PerImage, Row
from ..reporting.terminal import console
from ..results import files
from ..results.measures import families_in, write_measures


@dataclass
class Table:
    """A table to be written; what of it is replaced is said.

    Attributes:
        path: of the table.
        families: that are measured, and replaced; the others stay. None: all of it is replaced.
        provenance: everything that its numbers depend on, but the families; None: the config of its run says it.
        given: whether it was named, by ``out=``: then one measured with other settings is replaced as a whole.
    """

    path: Path
    families: list[str] | None
    provenance: dict[str, Any] | None
    given: bool

    def __post_init__(self) -> None:
        """Look at what is there.

        Raises:
            UserError: it is no table of measures; or it has other settings, and ``out=`` does not name it.
        """
        if not self.path.exists():
            return
        if set(next(iter(files.read_rows(self.path)), COLUMNS)) != set(COLUMNS):
            raise UserError(f"out={self.path}: is there already, and is no table of measures; name another")
        if self.provenance is None:
            return
        kept = files.beside(self.path, files.MEASURED)
        before = files.read_json(kept, {})
        if keys := [key for key in self.provenance if before.get(key) != self.provenance[key]]:
            key = keys[0]
            was = f"was measured with {key}={before.get(key)}, not {self.provenance[key]}"
            was = was if before else "does not say how it was measured"
            if not self.given:
                raise UserError(f"{self.path} is there already, and {was}; give out=TABLE.csv, or move it away")
            self.families = None  # numbers of two kinds are not mixed

    def write(self, found: Iterable[Row | Heatmap | Note | PerImage]) -> list[Row]:
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
