"""Measures. The file's name is its registration: every file here with a ``MEASURE`` is taken in every run."""

from importlib import import_module
from pkgutil import iter_modules

from src.measures.base import COLUMNS, Estimate, PairMeasure, Row


def pair_measures() -> list[type[PairMeasure]]:
    """All measures of pairs, in the order of their files' names."""
    modules = (import_module(f"{__name__}.{one.name}") for one in iter_modules(__path__))
    return [module.MEASURE for module in modules if hasattr(module, "MEASURE")]


__all__ = ["COLUMNS", "Estimate", "PairMeasure", "Row", "pair_measures"]
