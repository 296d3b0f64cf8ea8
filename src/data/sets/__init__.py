"""``SETS``: all data sets by name, collected from the files of this folder; ``load`` reads one.

A new data set is a new file here with its part of the table, and conf/data/NAME.yaml.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from ...common.memory import refuse_too_large
from ...common.registry import Table, collect, registered
from ..check import check_source
from ..images import MARGIN, DataError, DataSet, Images, Source

__all__ = ["MARGIN", "SETS", "DataError", "DataSet", "Images", "Source", "load", "place"]

_MODULES = registered(__file__, ("torchvision_sets", "folder", "shapes", "red_green"), without=("__main__",))
#: name → data set; importing them loads no images and no torchvision
SETS: dict[str, DataSet] = Table(
    "data",
    collect(
        (f"{__name__}.{module}" for module in _MODULES), "SETS", "a DataSet", lambda entry: isinstance(entry, DataSet)
    ),
)


@lru_cache(maxsize=2)
def load(
    name: str,
    root: str,
    image_size: int,
    canvas: int | None = None,
    object_size: tuple[float, float] | None = None,
    skip_damaged: bool = False,
) -> Source:
    """A data set by name, cached for the next job of a sweep.

    Args:
        name: a key of ``SETS``.
        root: folder of data sets (for ``folder``: of the set itself).
        image_size: side of the images, for sets without a size of their own.
        canvas: side of the black square that every image is placed on; None: images as they are.
        object_size: least and largest size of the objects, for sets that draw them; None: the set's own.
        skip_damaged: leave out files that cannot be read, for sets of image files.

    Raises:
        DataError: the set is not there and cannot be downloaded, and the message names the ways to get it; or it is not
            what its entry in ``SETS`` says.
    """
    if canvas is not None:
        return _place_all(load(name, root, image_size, None, object_size, skip_damaged), canvas)
    data_set, folder = SETS[name], Path(root).expanduser()
    if skip_damaged:
        assert data_set.load_readable is not None, f"data.skip_damaged is refused for data={name}"
        source = data_set.load_readable(folder, image_size)
    elif object_size is None:
        source = data_set.load(folder, image_size)
    else:
        assert data_set.load_sized is not None, f"data.object_size is refused for data={name}"
        source = data_set.load_sized(folder, image_size, object_size)
    check_source(name, data_set, source, image_size)
    return source


def _place_all(source: Source, side: int) -> Source:
    """The set with every image at a random position on a black square."""
    height, width = source.test.images.shape[-2:]
    if side < max(height, width):
        raise DataError(f"data.canvas={side}: smaller than the images, which are {height}×{width}")
    count = sum(map(len, (source.train, source.test, *source.others.values())))
    refuse_too_large(f"data.canvas={side}", count * source.test.images.shape[1] * side**2)
    others = {name: place(part, side, seed=2) for name, part in source.others.items()}  # positions as in the test part
    train, test = place(source.train, side, seed=1), place(source.test, side, seed=2)
    sizes = source.object_size and (source.object_size[0] * width / side, source.object_size[1] * width / side)
    return replace(source, train=train, test=test, others=others, out_of_frame="black", object_size=sizes)


def place(part: Images, side: int, seed: int) -> Images:
    """Each image on a black square, at a uniform position inside it, by which its factors are transformed."""
    n, channels, height, width = part.images.shape
    generator = torch.Generator().manual_seed(seed)
    top = torch.randint(0, side - height + 1, (n,), generator=generator)
    left = torch.randint(0, side - width + 1, (n,), generator=generator)
    images = torch.zeros(n, channels, side, side, dtype=torch.uint8)
    for i, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        images[i, :, y : y + height, x : x + width] = part.images[i]
    x, y, size, angle = (torch.tensor([0.5, 0.5, 0.5, 0.0]).expand(n, 4) if part.factors is None else part.factors).T
    factors = torch.stack([(left + x * width) / side, (top + y * height) / side, size * width / side, angle], 1)
    return Images(images, part.labels, factors=factors)
