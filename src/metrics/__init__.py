"""Measures, each a function and a torchmetrics ``Metric``: ``from src.metrics import InvarianceError``.

The file's name is its registration: a ``MEASURE`` (of pairs) or ``LAYER_MEASURE`` in a file here is taken in every run.
"""

from importlib import import_module
from typing import Any

from ..registry import registered
from .rows import COLUMNS, Estimate, Heatmap, Note, PerImage, Row

#: modules, in the order in which tables list their numbers
MODULES = registered(
    __file__, ("consistency", "cosine", "dimension", "fidelity", "channel_health", "invariance_error", "morans_i")
)


def __getattr__(name: str) -> Any:
    """Any measure by its class's name, wherever its file is; torchmetrics is imported here first."""
    for one in () if name.startswith("_") else MODULES:
        found = vars(import_module(f"{__name__}.{one}")).get(name)
        if isinstance(found, type) and found.__module__ == f"{__name__}.{one}":
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["COLUMNS", "MODULES", "Estimate", "Heatmap", "Note", "PerImage", "Row"]
