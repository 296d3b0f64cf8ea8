"""``data=folder``: a folder of images, with a subfolder for each class."""

from functools import partial
from pathlib import Path

from ..images import DataError, DataSet, Source
from ..names import halves


def _load(root: Path, size: int, skip_damaged: bool = False) -> Source:
    """``root/{train,test}/CLASS/*``; or ``root/CLASS/*``, of which every fifth file of a class is for testing."""
    from ..image_files import labelled, read

    def source(train: list[tuple[str, int]], test: list[tuple[str, int]], classes: list[str]) -> Source:
        learned, tested = read(train, size, skip_damaged), read(test, size, skip_damaged)
        skipped = len(train) + len(test) - len(learned) - len(tested)
        return Source(learned, tested, classes, "edge", skipped=skipped)

    train_root, test_root = halves(root)
    try:
        if train_root != test_root:
            (train, classes), (test, test_classes) = labelled(train_root), labelled(test_root)
            if classes != test_classes:
                raise DataError(f"data=folder: {root}/train and {root}/test hold different classes")
            return source(train, test, classes)
        files, classes = labelled(root)
    except OSError as error:
        raise DataError(
            f"data=folder: data.root={root} must hold CLASS/*.png, or train/CLASS/*.png and test/CLASS/*.png ({error})"
        ) from error
    labels = [label for _, label in files]
    is_test = [(i - labels.index(label)) % 5 == 4 for i, label in enumerate(labels)]
    train = [file for file, test in zip(files, is_test, strict=True) if not test]
    test = [file for file, test in zip(files, is_test, strict=True) if test]
    if not test:
        raise DataError(f"data=folder: {len(train)} images in {root} are too few to hold any out for testing")
    return source(train, test, classes)


SETS = {"folder": DataSet(3, None, None, _load, load_readable=partial(_load, skip_damaged=True))}
