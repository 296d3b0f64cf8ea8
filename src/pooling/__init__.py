"""Every way to shrink a map, behind one name: ``POOLS``.

Each file holds a family and its own part of the table, so a new pooling is one class and one line in one file.
``none`` is in the table as well: no pooling, the stage's last convolution carries the stride.
"""

from src.pooling import blur, learned, mixed, polyphase, spectral, windows
from src.pooling.base import BORDERS, Pool
from src.pooling.swap import swap_pools

POOLS: dict[str, type[Pool] | None] = {
    "none": None,
    **windows.POOLS,
    **mixed.POOLS,
    **blur.POOLS,
    **polyphase.POOLS,
    **spectral.POOLS,
    **learned.POOLS,
}

__all__ = ["BORDERS", "POOLS", "Pool", "swap_pools"]
