"""Families of measures other than transforms. A file here is its own registration; its name is in ``measure.what``.

A family's file has:

- ``rows(adapter, test_set)``, which yields its ``Row``, ``Heatmap``, ``Note``, ``PerImage`` and ``Pictures`` results;
- ``QUANTITIES`` (``metrics.quantities``), if it defines numbers of its own;
- ``PREFIXES``, if names of its measures without a transform, heatmaps and notes do not begin with the family's name;
- ``FUSES_NORMS = False``, if it needs the batch norms as they are; ``NEEDS_ALL_IMAGES = True``, if its numbers depend
  on how many images there are.

A family that costs much, or that few sets can have, is in ``ON_REQUEST``.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from ...common.errors import UserError
from ...common.registry import registered
from ...transforms import TABLE

FAMILIES = registered(__file__, ("rolls", "crops", "velocity", "aliasing", "layers", "field", "units"))
#: the family of what is measured whatever ``measure.what`` is: the scores on original images, and the suite's note
ALWAYS = ""
#: families that a run measures only if ``measure.what`` names them: two cost as much as several others, one is for
#: comparisons of pools, one needs images whose objects have a known size
ON_REQUEST = ("equal_dimension", "maximum_sampling", "metamers", "object_size")
#: numbers of features that ``equal_dimension`` compares layers at
DIMENSIONS = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class MetamerOptions:
    """What ``metamers`` optimises: images, starts of each, the most steps, and layers (none: those of the adapter)."""

    images: int = 8
    starts: int = 2
    steps: int = 300
    layers: tuple[str, ...] = ()


def file_of_family(name: str) -> str:
    """The file of a family, from the package's folder on."""
    return f"{__name__.replace('.', '/')}/{name}.py"


#: entries of ``measure.what`` that are no families, whose names these cannot have
TRANSFORM_NAMES = (*dict.fromkeys(transform.name for transform in TABLE), "embed")
for _name in {*FAMILIES} & {*TRANSFORM_NAMES}:
    raise UserError(f"{file_of_family(_name)}: {_name} is the name of a transform; choose another")


def check_family(name: str) -> None:
    """Refuse the file of a family that has no ``rows``, without importing it, which takes longer."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    if not re.search(r"^(def rows\(|rows =|from .*\brows\b)", source, re.MULTILINE):
        raise UserError(f"{file_of_family(name)}: has no rows(adapter, test_set), which yields its results")


@cache
def prefixes() -> dict[str, str]:
    """Beginning of a measure's, a heatmap's or a note's name → its family; ``UserError`` if two have the same."""
    own = {"answers": ALWAYS}
    for family in FAMILIES:
        for prefix in getattr(import_module(f"{__name__}.{family}"), "PREFIXES", (family,)):
            if prefix in own:
                other = f"{own[prefix]}.py" if own[prefix] else "what is always measured"
                raise UserError(f"{file_of_family(family)}: the prefix {prefix} is that of {other}; choose another")
            own[prefix] = family
    return own


def family_of(name: str) -> str | None:
    """The family of a heatmap or a note; of a measure, if its name alone determines it.

    >>> family_of("roll_map_untrained/stage1"), family_of("rolls"), family_of("invariance_error")
    ('rolls', 'rolls', None)
    """
    return next((family for prefix, family in prefixes().items() if name.startswith(prefix)), None)
