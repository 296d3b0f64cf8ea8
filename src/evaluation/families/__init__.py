"""Families of measures other than transforms. A file here is its own registration; its name is in ``measure.what``.

A family's file has:

- ``rows(adapter, test_set)``, which yields its ``Row``, ``Heatmap``, ``Note`` and ``PerImage`` results;
- ``QUANTITIES`` (``metrics.quantities``), if it defines numbers of its own;
- ``PREFIXES``, if names of its measures without a transform, heatmaps and notes do not begin with the family's name;
- ``FUSES_NORMS = False``, if it needs the batch norms as they are; ``NEEDS_ALL_IMAGES = True``, if its numbers depend
  on how many images there are.

A family that costs much, or that few sets can have, is in ``ON_REQUEST``.
"""

from functools import cache
from importlib import import_module

from ...registry import registered

FAMILIES = registered(__file__, ("rolls", "crops", "velocity", "aliasing", "layers", "field", "units"))
#: the family of what is measured whatever ``measure.what`` is: the scores on original images, and the suite's note
ALWAYS = ""
#: families that a run measures only if ``measure.what`` names them: one costs as much as several others, one needs
#: images whose objects have a known size
ON_REQUEST = ("equal_dimension", "object_size")
#: numbers of features that ``equal_dimension`` compares layers at
DIMENSIONS = (4, 8, 16, 32, 64)


@cache
def prefixes() -> dict[str, str]:
    """Beginning of a measure's, a heatmap's or a note's name → its family."""
    modules = {family: import_module(f"{__name__}.{family}") for family in FAMILIES}
    own = {prefix: name for name, module in modules.items() for prefix in getattr(module, "PREFIXES", (name,))}
    return own | {"answers": ALWAYS}


def family_of(name: str) -> str | None:
    """The family of a heatmap or a note; of a measure, if its name alone determines it.

    >>> family_of("roll_map_untrained/stage1"), family_of("rolls"), family_of("invariance_error")
    ('rolls', 'rolls', None)
    """
    return next((family for prefix, family in prefixes().items() if name.startswith(prefix)), None)
