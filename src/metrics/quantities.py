"""Every number that measuring writes, declared in the file that computes it: ``QUANTITIES = (Quantity(…), …)``.

A declaration is a literal: it is read from the source of the file, so that a report knows the range of a number without
importing what computes it.
"""

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..common.errors import UserError

_PACKAGE = Path(__file__).parent.parent
#: packages whose files may declare quantities
PACKAGES = ("metrics", "evaluation")
#: ending of a name → the same quantity, measured as a control
CONTROLS = {
    "untrained": "of the net that training started from, or of one with random weights",
    "floor": "of interpolation alone: the image transformed and transformed back",
    "shuffled": "with labels and positions of other images",
    "null": "by chance alone",
    "random": "of two different images",
}


@dataclass(frozen=True)
class Quantity:
    """A number of ``measures.csv``: what it is, which values it can have, what it is by chance, and who defined it.

    Attributes:
        name: in the column ``measure``.
        low, high: the least and the largest possible value.
        better: ``higher`` or ``lower``; empty where neither is better.
        formula: in words or symbols; φ is a layer's output, f the net's, g a transform.
        null: its value where there is nothing to measure, or what to compare it with.
        source: author and year of the definition; empty for ours.
    """

    name: str
    low: float = -math.inf
    high: float = math.inf
    better: str = ""
    formula: str = ""
    null: str = ""
    source: str = ""


@cache
def quantities() -> dict[str, Quantity]:
    """Name → quantity, of all files of ``PACKAGES``; a ``UserError`` that names the files if two declare the same name,
    or a declaration is not a literal.
    """
    found: dict[str, Quantity] = {}
    owners: dict[str, str] = {}
    for path in sorted(path for package in PACKAGES for path in (_PACKAGE / package).rglob("*.py")):
        for quantity in declared(path):
            if owner := owners.get(quantity.name):
                raise UserError(f"{_short(path)}: {quantity.name} is declared in another file too, {owner}")
            found[quantity.name], owners[quantity.name] = quantity, _short(path)
    return found


def declared(path: Path) -> Iterator[Quantity]:
    """The quantities that a file declares; ``UserError`` if a declaration is not a literal."""
    source = path.read_text(encoding="utf-8")
    for node in ast.parse(source).body if "QUANTITIES" in source else ():
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="QUANTITIES")], value=value)
                | ast.AnnAssign(target=ast.Name(id="QUANTITIES"), value=value)
            ):
                try:
                    yield from _literals(value)
                except (TypeError, ValueError) as error:
                    line = f"{_short(path)}: line {node.lineno}"
                    raise UserError(
                        f"{line}: QUANTITIES must be a tuple of Quantity(…) of literals ({error})"
                    ) from error


def _literals(value: ast.expr | None) -> Iterator[Quantity]:
    if not isinstance(value, ast.Tuple):
        raise TypeError("it is no tuple, as in QUANTITIES = (Quantity(…),)")
    for call in value.elts:
        if not isinstance(call, ast.Call):
            raise TypeError(f"{ast.unparse(call)} is no Quantity(…)")
        words = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        yield Quantity(*map(ast.literal_eval, call.args), **words)


def _short(path: Path) -> str:
    """A file from the package's folder on."""
    return path.relative_to(_PACKAGE.parent).as_posix() if path.is_relative_to(_PACKAGE.parent) else str(path)


def quantity_of(measure: str) -> Quantity | None:
    """The quantity of a measure's name, which may end in one or more of ``CONTROLS``; None if it is not declared.

    >>> [quantity_of(name).name for name in ("accuracy", "probe_r2_shuffled_untrained", "cosine_random")]
    ['accuracy', 'probe_r2', 'cosine']
    """
    while measure not in quantities():
        measure, _, ending = measure.rpartition("_")
        if ending not in CONTROLS:
            return None
    return quantities()[measure]


def is_of_a_metric(measure: str) -> bool:
    """Whether a file of ``metrics`` declares a measure's quantity: no family of measures has it to itself."""
    quantity = quantity_of(measure)
    return quantity is not None and quantity.name in _of_metrics()


@cache
def _of_metrics() -> set[str]:
    return {quantity.name for path in Path(__file__).parent.glob("*.py") for quantity in declared(path)}


def range_of(measure: str) -> tuple[float, float]:
    """The least and the largest value that a measure can have.

    >>> range_of("output_distance_untrained"), range_of("accuracy"), range_of("seconds")
    ((0.0, inf), (0.0, 1.0), (-inf, inf))
    """
    quantity = quantity_of(measure)
    return (float(quantity.low), float(quantity.high)) if quantity else (-math.inf, math.inf)
