"""Choices of ``data.task``, ``data.augment`` and ``data.label_noise_kind``, and the layout of a folder of images."""

from pathlib import Path

TASKS = ("what", "where", "both")
AUGMENTATIONS = ("none", "flip", "shift", "flip_shift")
LABEL_NOISE = ("wrong", "random")


def halves(root: Path) -> tuple[Path, Path]:
    """The folders of training and test images: ``root/train`` and ``root/test`` if both exist, else twice ``root``."""
    train, test = root / "train", root / "test"
    return (train, test) if train.is_dir() and test.is_dir() else (root, root)


def class_folders(root: Path) -> list[Path]:
    """The folders in a folder, one per class, sorted by name; without hidden ones (``.ipynb_checkpoints``)."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not hidden(path.name))


def hidden(name: str) -> bool:
    """Whether a file or folder is hidden, by a dot at the start of its name."""
    return name.startswith(".")
