"""What files hold, as checksums: where pictures lie is no part of a run, which pictures they are is."""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

#: (name that counts, path, bytes, time of its last change in ns)
Stamp = tuple[str, str, int, int]


def folder_checksum(root: Path) -> str:
    """Of the pictures below a folder: their places in it, and every byte; empty where there are none.

    A folder that is moved or copied keeps it; a picture that is added, taken away, renamed or changed does not.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS  # what ``data=folder`` reads

    found = [
        Path(folder, name)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.lower().endswith(IMG_EXTENSIONS)
    ]
    return _checksum(tuple(sorted(_stamp(path, path.relative_to(root).as_posix()) for path in found)))


def files_checksum(paths: Sequence[Path]) -> str:
    """Of some pictures in their order, wherever they lie; empty where one is missing."""
    return _checksum(tuple(_stamp(path, "") for path in paths)) if all(path.is_file() for path in paths) else ""


def _stamp(path: Path, name: str) -> Stamp:
    about = path.stat()
    return name, str(path), about.st_size, about.st_mtime_ns


@lru_cache(maxsize=8)  # the jobs of a sweep ask for the same; a file that was changed has another stamp
def _checksum(stamps: tuple[Stamp, ...]) -> str:
    digest = hashlib.sha256()
    for name, path, size, _ in stamps:
        digest.update(f"{name}\0{size}\0".encode())
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16] if stamps else ""
