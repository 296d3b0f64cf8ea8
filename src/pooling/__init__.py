"""Downsampling layers: ``POOLS`` by name; ``swap_pools`` puts them into any net."""

from .base import BORDERS, Pool
from .swap import swap_pools
from .table import POOLS

__all__ = ["BORDERS", "POOLS", "Pool", "swap_pools"]
