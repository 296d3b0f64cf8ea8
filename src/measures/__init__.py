"""Measures, each a function and a torchmetrics ``Metric``: ``from src.measures import InvarianceError``.

The file's name is its registration: a ``MEASURE`` (of pairs) or ``LAYER_MEASURE`` in a file here is taken in every run.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from src.measures.rows import COLUMNS, Estimate, Grid, Note, PerImage, Row

if TYPE_CHECKING:
    from src.measures.base import LayerMeasure, PairMeasure


def _registered(name: str) -> list[Any]:
    """In the order of their files' names."""
    modules = (import_module(f"{__name__}.{one.name}") for one in iter_modules(__path__))
    return [getattr(module, name) for module in modules if name in vars(module)]


def pair_measures() -> "list[type[PairMeasure]]":
    """All measures of pairs, an image and the same transformed."""
    return _registered("MEASURE")


def layer_measures() -> "list[type[LayerMeasure]]":
    """All measures of a layer's outputs for untouched images."""
    return _registered("LAYER_MEASURE")


def __getattr__(name: str) -> Any:
    """Any measure by its class's name, wherever its file is; torchmetrics is imported here first."""
    for one in iter_modules(__path__):
        if name.startswith("_"):
            break
        found = vars(import_module(f"{__name__}.{one.name}")).get(name)
        if isinstance(found, type) and found.__module__ == f"{__name__}.{one.name}":
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["COLUMNS", "Estimate", "Grid", "Note", "PerImage", "Row", "layer_measures", "pair_measures"]
