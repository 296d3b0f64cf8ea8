"""``POOLS``: every way to shrink a map, by its name. Each file here holds a family and its part of the table."""

from importlib import import_module

from ..registry import registered
from .base import Pool

_FAMILIES = registered(
    __file__,
    ("windows", "mixed", "blur", "polyphase", "spectral", "learned"),
    without=("base", "facts", "geometry", "swap", "table"),
)
#: ``none``: no pooling, the stage's last convolution carries the stride
POOLS: dict[str, type[Pool] | None] = {"none": None}
for _family in _FAMILIES:
    POOLS |= import_module(f"{__package__}.{_family}").POOLS
