"""``POOLS``: all downsamplers by name, collected from the files of this folder. A new file is found by itself."""

from ..common.registry import Table, collect, registered
from .base import Pool

_MODULES = registered(
    __file__,
    ("windows", "mixed", "soft", "stochastic", "ordered", "fractional", "blur", "polyphase", "spectral", "learned"),
    without=("base", "facts", "geometry", "heads", "null_space", "swap", "table"),
)
_POOLS = collect(
    (f"{__package__}.{module}" for module in _MODULES),
    "POOLS",
    "a subclass of Pool",
    lambda entry: isinstance(entry, type) and issubclass(entry, Pool),
    {"none": "no pooling"},
)
#: ``none``: no pooling, the stage's last convolution carries the stride
POOLS: dict[str, type[Pool] | None] = Table("pool", {"none": None, **_POOLS})
