"""The processes of a run that has several devices, its ranks: which writes the files, and how they end together."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: in the environment of the ranks that Lightning starts: the process that they belong to
MAIN = "WHATWHERE_MAIN"
#: environment variables by which a process knows that it is one of several
RANKS = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_RUN_ID", "JSM_NAMESPACE_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS",
)  # fmt: skip
#: seconds between two looks at the other ranks
POLL = 0.2

_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def is_main_process() -> bool:
    """Whether this is the one process of a run that writes its files."""
    return all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))


def forget_ranks(processes: int) -> None:
    """Let a run of one process not take itself for one of several, by what an allocation or another program left in
    the environment.
    """
    if processes == 1:
        for name in RANKS:
            os.environ.pop(name, None)


@contextmanager
def starting_ranks(launcher: Any) -> Iterator[None]:
    """The ranks that Lightning's launcher starts meanwhile know the process that they belong to, and where one of them
    is lost, all end.
    """
    os.environ[MAIN] = str(os.getpid())
    watch = threading.Thread(target=_end_with_ranks, args=(launcher,), daemon=True)
    if hasattr(launcher, "procs"):
        watch.start()
    try:
        yield
    except Exception:
        if watch.is_alive():
            watch.join(5 * POLL)  # the error can be that of a lost rank
        raise
    finally:
        del os.environ[MAIN]


def _end_with_ranks(launcher: Any) -> None:
    """Wait for the ranks that were started here; end the process, with a line, when one has ended badly: it would wait
    for it.
    """
    ranks: list[subprocess.Popen[bytes]] = []
    while not ranks or any(rank.poll() is None for rank in ranks):
        time.sleep(POLL)
        ranks = list(launcher.procs)
        for number, rank in enumerate(ranks, 1):
            if code := rank.poll():
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                print(f"rank {number} was lost ({how}): the same command goes on where it stopped", file=sys.stderr)
                for other in ranks:
                    other.kill()
                os._exit(1)
        if not ranks and MAIN not in os.environ:  # none was started
            return


def end_with_parent(signum: signal.Signals = signal.SIGTERM) -> None:
    """In a process: get a signal when the one that started it is gone, also by kill -9."""
    if _PRCTL is not None:
        _PRCTL(1, signum)  # PR_SET_PDEATHSIG
