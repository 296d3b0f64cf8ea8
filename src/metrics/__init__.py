"""Metrics, each a function and a torchmetrics ``Metric``: ``from whatwhere.metrics import InvarianceError``.

A file here is its own registration: its ``MEASURE`` (of pairs of images) or ``LAYER_MEASURE`` (of one layer) is part of
every run, and its ``QUANTITIES`` explain the numbers that it writes.
"""

from importlib import import_module
from typing import Any

from ..common.registry import registered
from .rows import COLUMNS, Estimate, Heatmap, Note, PerImage, Pictures, Result, Row

#: modules, in the order in which tables list their numbers
MODULES = registered(
    __file__, ("consistency", "cosine", "dimension", "fidelity", "channel_health", "invariance_error", "morans_i")
)


def __getattr__(name: str) -> Any:
    """Any metric by the name of its class, whatever its file; torchmetrics is imported only then."""
    for module in () if name.startswith("_") else MODULES:
        path = f"{__name__}.{module}"
        value = vars(import_module(path)).get(name)
        if isinstance(value, type) and value.__module__ == path:
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["COLUMNS", "MODULES", "Estimate", "Heatmap", "Note", "PerImage", "Pictures", "Result", "Row"]
