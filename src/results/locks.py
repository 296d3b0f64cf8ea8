"""One process at a time in a folder. The kernel lets go of a lock when its process ends, however it ends."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import UserError
from .files import LOCK

TRIES = 5


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if it is not there.

    On a network file system this holds between machines where it supports ``flock`` (NFS since Linux 2.6.12, Lustre
    mounted with ``flock``); where it has no locks at all, nothing is held, and nothing refused.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        for _ in range(TRIES):
            if taken := _taken(file):
                break
            time.sleep(0.1)  # it may be someone who only looks
        if not taken:
            raise UserError(f"{folder}: {_holder(file)} is at work in it; wait for its end, or choose another folder")
        with suppress(OSError):  # a full disk: the lock holds without a name in it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield


def lock_holder(folder: Path) -> str | None:
    """The process that holds a folder, in words; None where nobody does."""
    try:
        with (folder / LOCK).open("r+") as file:
            return None if _taken(file) else _holder(file)
    except OSError:  # there is no lock, or none of ours to try
        return None


def _taken(file: IO[str]) -> bool:
    """Whether this process has got the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read() or "another process"
