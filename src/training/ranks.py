"""The processes of a run that has several devices, its ranks: which writes the files, and how they end together."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: in the environment of the ranks that Lightning starts: the process that they belong to
MAIN = "WHATWHERE_MAIN"


_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def is_main_process() -> bool:
    """Whether this is the one process of a run that writes its files."""
    return all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))


@contextmanager
def starting_ranks() -> Iterator[None]:
    """The ranks that are started meanwhile know the process that they belong to."""
    os.environ[MAIN] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[MAIN]


def end_with_parent(signum: signal.Signals = signal.SIGTERM) -> None:
    """In a process: get a signal when the one that started it is gone, also by kill -9."""
    if _PRCTL is not None:
        _PRCTL(1, signum)  # PR_SET_PDEATHSIG
