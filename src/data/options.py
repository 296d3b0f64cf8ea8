"""The options of a data set and of the example images: the groups ``data`` and ``probe`` of a config."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..fields import choice, count, seed, within
from .names import AUGMENTATIONS, SETS, TASKS, class_folders, halves


@dataclass(unsafe_hash=True)  # so that a split can be kept for the next job
class Data:
    """A data set, its split, and what is done to its training part."""

    name: str = choice("fashion_mnist", SETS)
    task: str = choice("what", TASKS)  # what: which class? where: at which position? both
    root: str = "data"  # where data sets lie, or are put
    canvas: int | None = count(None)  # every image lies somewhere on a black square of this side, drawn once
    train_size: int | None = count(None)  # a seeded subset of the training images; null: all
    val_size: int = count(5000)  # held out of the training images
    split_seed: int = seed()  # which images are held out, and which the subset takes: the same in all runs of a sweep
    label_noise: float = within(0.0, 0, 1 + 1e-9, "a share in [0, 1]")  # of training labels replaced by another, once
    augment: str = choice("none", AUGMENTATIONS)
    image_size: int = count(64)  # folder, shapes, red_green: side of the square the images come in

    def check(self) -> None:
        """Raises:
        UserError: options that do not go together.
        """
        if self.task != "what" and self.augment != "none":
            raise UserError(
                f"data.augment={self.augment}: with data.task={self.task} leave it out, as it would move the object"
            )
        if self.task == "where" and self.label_noise > 0:
            raise UserError(
                f"data.label_noise={self.label_noise}: with data.task=where leave it out, as no label is asked for"
            )


def image_shape(data: Data) -> tuple[tuple[int, int, int], int]:
    """((channels, height, width), classes) of a set; a folder that is not there counts 10 classes."""
    channels, side, classes = SETS[data.name]
    if classes is None:
        train, _ = halves(Path(data.root).expanduser())
        classes = len(class_folders(train)) if train.is_dir() else 10
    side = data.canvas or side or data.image_size
    return (channels, side, side), classes


@dataclass
class Probe:
    """The fixed test images whose feature maps are kept."""

    images: int = count(8)
    choice: str = choice("random", ("random", "balanced"))  # drawn by the seed; as many of each class as can be
    seed: int = seed()
    files: list[str] = field(default_factory=list)  # instead: these pictures
    channels: int = count(16)  # shown of each stage
    every: int = count(1)  # epochs; more where the maps of a run would take more than 64 MB

    def check(self) -> None:
        """Raises:
        UserError: a file is missing.
        """
        if missing := [path for path in self.files if not Path(path).is_file()]:
            raise UserError(f"probe.files: {missing[0]}: no such file")
