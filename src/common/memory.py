"""Memory of this machine: what takes more is refused before it is allocated."""

import os
from pathlib import Path

from .errors import UserError

#: bytes of a GPU's memory, where there is one: no GPU has more
LARGEST_GPU = 2**38
#: the limit of a container
CGROUP = Path("/sys/fs/cgroup/memory.max")


def available(gpus: bool = False) -> int:
    """Bytes that a process can have at most; ``gpus``: on this machine, or on a GPU."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text(encoding="utf-8").strip() if CGROUP.exists() else ""
    return max(min(total, int(limit)) if limit.isdigit() else total, LARGEST_GPU if gpus else 0)


def refuse_too_large(what: str, needed: float, gpus: bool = False) -> None:
    """``UserError`` where ``what``, as ``data.image_size=9999``, takes more bytes than there are."""
    there = available(gpus)
    if needed > there:
        raise UserError(
            f"{what} takes at least {min(needed, 2**90) / 2**30:,.1f} GB of memory; there are {there / 2**30:,.1f}"
        )
