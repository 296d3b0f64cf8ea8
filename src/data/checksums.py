"""Checksums of image files: a run is identified by their content, not by their location."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

#: (name that enters the checksum, path, bytes, modification time in ns)
Stamp = tuple[str, str, int, int]


def folder_checksum(root: Path) -> str:
    """Checksum of the relative paths and contents of the images in a folder; "" if there are none.

    Moving or copying the folder does not change it; adding, removing, renaming or changing an image does.
    """
    from .image_files import ENDINGS, walk

    files = [Path(folder, name) for folder, names in walk(root) for name in names]
    paths = [path for path in files if path.name.lower().endswith(ENDINGS) and path.is_file()]
    return _checksum(tuple(sorted(_stamp(path, path.relative_to(root).as_posix()) for path in paths)))


def files_checksum(paths: Sequence[Path]) -> str:
    """Checksum of the contents of image files, in their order; "" if a file is missing."""
    return _checksum(tuple(_stamp(path, "") for path in paths)) if all(path.is_file() for path in paths) else ""


def _stamp(path: Path, name: str) -> Stamp:
    stat = path.stat()
    return name, str(path), stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=8)  # shared by the jobs of a sweep; a changed file has another stamp
def _checksum(stamps: tuple[Stamp, ...]) -> str:
    digest = hashlib.sha256()
    for name, path, size, _ in stamps:
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))  # names of files may be any bytes
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16] if stamps else ""
