"""Locks: one process at a time uses a folder. The kernel frees a lock when its process ends, also by kill -9."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..common.errors import UserError
from .files import LOCK

TRIES = 5


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock a folder, which is made if it is missing.

    On a network file system the lock holds between machines if it supports ``flock`` (NFS since Linux 2.6.12, Lustre
    mounted with ``flock``). A file system without locks has no protection.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        for _ in range(TRIES):
            if taken := _taken(file):
                break
            time.sleep(0.1)  # another process may only be checking
        if not taken:
            raise UserError(
                f"{folder}: {_holder(file)} is using this folder; wait until it finishes, or choose another folder"
            )
        with suppress(OSError):  # a full disk; the lock works without a name in it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield


def lock_holder(folder: Path) -> str | None:
    """The process that has locked a folder, in words; None if there is none."""
    try:
        with (folder / LOCK).open("r+", encoding="utf-8") as file:
            return None if _taken(file) else _holder(file)
    except OSError:  # there is no lock, or no right to open it
        return None


def _taken(file: IO[str]) -> bool:
    """Try to lock; whether this process has the lock now."""
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
