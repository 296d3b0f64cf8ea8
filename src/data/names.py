"""What the schema and the ledger need to know of the data sets, without loading any: importing this costs nothing."""

from pathlib import Path

#: set → (channels, side or None where data.image_size says, classes or None where the folder says)
SETS: dict[str, tuple[int, int | None, int | None]] = {
    "fashion_mnist": (1, 28, 10),
    "mnist": (1, 28, 10),
    "cifar10": (3, 32, 10),
    "cifar100": (3, 32, 100),
    "folder": (3, None, None),
    "shapes": (1, None, 8),
    "red_green": (3, None, 2),
}
TASKS = ("what", "where", "both")
AUGMENTATIONS = ("none", "flip", "shift", "flip_shift")


def halves(root: Path) -> tuple[Path, Path]:
    """The folders of a folder's training and test part: ``train`` and ``test`` in it where it has both, else itself."""
    train, test = root / "train", root / "test"
    return (train, test) if train.is_dir() and test.is_dir() else (root, root)


def class_folders(root: Path) -> list[Path]:
    """The folders in a folder, one a class, by name; hidden ones (``.ipynb_checkpoints``) are none."""
    return sorted(one for one in root.iterdir() if one.is_dir() and not hidden(one.name))


def hidden(name: str) -> bool:
    """Whether a file or folder of that name is one that programs keep for themselves."""
    return name.startswith(".")
