"""``POOLS``: all downsamplers by name, collected from the files of this folder. A new file is found by itself."""

from importlib import import_module

from ..registry import registered
from .base import Pool

_MODULES = registered(
    __file__,
    ("windows", "mixed", "blur", "polyphase", "spectral", "learned"),
    without=("base", "facts", "geometry", "swap", "table"),
)
#: ``none``: no pooling, the stage's last convolution carries the stride
POOLS: dict[str, type[Pool] | None] = {"none": None}
for _module in _MODULES:
    POOLS |= import_module(f"{__package__}.{_module}").POOLS
