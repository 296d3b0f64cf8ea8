"""The options of a data set and of the example images: the groups ``data`` and ``probe`` of a config."""

from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import UserError
from ..common.option_fields import choice_field, count_field, range_field, seed_field
from .names import AUGMENTATIONS, LABEL_NOISE, TASKS, class_folders, halves
from .sets import SETS


@dataclass(unsafe_hash=True)  # so that a split can be kept for the next job
class Data:
    """A data set, its split, and the augmentation of its training part."""

    name: str = choice_field("fashion_mnist", SETS)
    task: str = choice_field("what", TASKS)  # what: which class? where: at which position? both
    root: str = "data"  # folder of data sets
    canvas: int | None = count_field(None)  # side of a black square, on which every image has a random, fixed position
    train_size: int | None = count_field(None)  # a seeded subset of the training images; null: all
    val_size: int = count_field(5000)  # held out of the training images
    split_seed: int = seed_field()  # of validation images and subset: the same in all runs of a sweep
    label_noise: float = range_field(0.0, 0, 1 + 1e-9, "a share in [0, 1]")  # of training labels that are replaced …
    # … by another class, never the true one; or by one drawn from all classes, so that at 1.0 labels say nothing
    label_noise_kind: str = choice_field("wrong", LABEL_NOISE)
    augment: str = choice_field("none", AUGMENTATIONS)
    # the net sees every image with its pixels in one fixed, random order, drawn by split_seed: what locality is worth
    permute: bool = False
    image_size: int = count_field(64)  # folder, shapes, red_green: images are resized or rendered to this side
    skip_damaged: bool = False  # folder: leave out files that cannot be read as images; else they are refused
    # shapes: least and largest radius, in units of the side, at most 0.5; null: 0.12 and 0.25
    object_size: list[float] | None = field(default=None, hash=False)

    def check(self) -> None:
        """Raise ``UserError`` for options that do not go together."""
        if self.skip_damaged and self.name != "folder":
            raise UserError(f"data.skip_damaged=true: is of data=folder; leave it out with data={self.name}")
        if self.object_size is not None:
            self._check_object_size(self.object_size)
        leave_out = f"with data.task={self.task} leave it out"
        if self.task != "what" and self.augment != "none":
            raise UserError(f"data.augment={self.augment}: {leave_out}, as it would move the object")
        if self.task == "where" and self.label_noise > 0:
            raise UserError(f"data.label_noise={self.label_noise}: {leave_out}, as the task has no labels")

    def _check_object_size(self, sizes: list[float]) -> None:
        able = [name for name, data_set in SETS.items() if data_set.load_sized]
        if self.name not in able:
            raise UserError(f"data.object_size={sizes}: data={self.name} has its own; choose data={' or '.join(able)}")
        if len(sizes) != 2 or not 0 < sizes[0] < sizes[1] <= 0.5:
            raise UserError(
                f"data.object_size={sizes}: must be the least and the largest radius, above 0 and at most 0.5, as in "
                "data.object_size=[0.06,0.12]"
            )


def image_shape(data: Data) -> tuple[tuple[int, int, int], int]:
    """((channels, height, width), classes) of a set; 10 classes for a folder that does not exist."""
    data_set = SETS[data.name]
    classes = data_set.classes
    if classes is None:
        train, _ = halves(Path(data.root).expanduser())
        classes = len(class_folders(train)) if train.is_dir() else 10
    side = data.canvas or data_set.side or data.image_size
    return (data_set.channels, side, side), classes


@dataclass
class Probe:
    """The fixed test images whose feature maps are saved."""

    images: int = count_field(8)
    choice: str = choice_field("random", ("random", "balanced"))  # balanced: as many of each class as possible
    seed: int = seed_field()
    files: list[str] = field(default_factory=list)  # these image files instead
    channels: int = count_field(16)  # shown of each stage
    every: int = count_field(1)  # epochs; more if the maps of a run would take more than 64 MB

    def check(self) -> None:
        """Raise ``UserError`` if a file is missing."""
        if missing := [path for path in self.files if not Path(path).is_file()]:
            raise UserError(f"probe.files: {missing[0]}: no such file")
