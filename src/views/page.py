from pathlib import Path


def conclude(folder: Path, out: Path | None = None) -> None:
    """x."""
    print("compare", folder)
