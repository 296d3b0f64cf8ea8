"""``data=folder``: a folder of images, with a subfolder for each class."""

from pathlib import Path

from ..images import DataError, DataSet, Source
from ..names import halves


def _load(root: Path, size: int) -> Source:
    """``root/{train,test}/CLASS/*``; or ``root/CLASS/*``, of which every fifth file of a class is for testing."""
    from ..image_files import labelled, read

    train_root, test_root = halves(root)
    try:
        if train_root != test_root:
            (train, classes), (test, test_classes) = labelled(train_root), labelled(test_root)
            if classes != test_classes:
                raise DataError(f"data=folder: {root}/train and {root}/test hold different classes")
            return Source(read(train, size), read(test, size), classes, "edge")
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
    return Source(read(train, size), read(test, size), classes, "edge")


SETS = {"folder": DataSet(3, None, None, _load)}
