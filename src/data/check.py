"""A data set is held to what its entry in the table says, once, when it is loaded."""

from typing import Any

import torch
from torch import Tensor

from .images import MARGIN, DataError, DataSet, Images, Source

#: values of ``Source.out_of_frame``
OUT_OF_FRAME = ("black", "edge")


def check_source(name: str, data_set: DataSet, source: Any, image_size: int) -> None:
    """Check what a loader gave: types, shapes and labels; ``image_size`` is the side, if the set has none of its own.
    Pixels are not read. A ``DataError`` if it is no ``Source``, or not what the entry says; the message names both.
    """
    if not isinstance(source, Source):
        raise DataError(f"data={name}: its loader gives {type(source).__name__}, where a Source is needed")
    if not isinstance(source.classes, list | tuple) or not all(isinstance(label, str) for label in source.classes):
        raise DataError(f"data={name}: classes={source.classes}: must be a list of names")
    if data_set.classes not in (None, len(source.classes)):
        raise DataError(
            f"data={name}: its DataSet says {data_set.classes} classes, its Source names {len(source.classes)}"
        )
    if source.out_of_frame not in OUT_OF_FRAME:
        raise DataError(f"data={name}: out_of_frame={source.out_of_frame}: choose one of {', '.join(OUT_OF_FRAME)}")
    if tuple(source.others) != data_set.others:
        given = tuple(source.others)
        raise DataError(f"data={name}: its DataSet says others={data_set.others}, its Source has others={given}")
    side = data_set.side or image_size
    shape = (data_set.channels, side, side)
    for part, images in {"train": source.train, "test": source.test, **source.others}.items():
        _check_part(f"data={name}: {part}", images, shape, len(source.classes))


def _check_part(part: str, images: Any, shape: tuple[int, int, int], classes: int) -> None:
    if not isinstance(images, Images):
        raise DataError(f"{part}: {type(images).__name__}, where Images are needed")
    _check_tensor(f"{part}.images", images.images, torch.uint8, (None, *shape), ", as its DataSet says")
    _check_tensor(f"{part}.labels", images.labels, torch.int64, (None,))
    count = len(images.images)
    if len(images.labels) != count:
        raise DataError(f"{part}: {count} images and {len(images.labels)} labels")
    outside = images.labels[(images.labels < 0) | (images.labels >= classes)]
    if len(outside):
        raise DataError(f"{part}.labels: {int(outside[0])} is none of the {classes} classes, 0 … {classes - 1}")
    if images.padded is not None:
        channels, height, width = shape
        padded = (count, channels, height + 2 * MARGIN, width + 2 * MARGIN)
        _check_tensor(f"{part}.padded", images.padded, torch.uint8, padded)
    if images.factors is not None:
        _check_tensor(f"{part}.factors", images.factors, torch.float32, (count, 4))


def _check_tensor(name: str, tensor: Any, dtype: torch.dtype, shape: tuple[int | None, ...], reason: str = "") -> None:
    """Check dtype and shape; None: any size."""
    right = f"{_short(dtype)} {_sizes(shape)} is needed{reason}"
    if not isinstance(tensor, Tensor):
        raise DataError(f"{name}: {type(tensor).__name__}, where a tensor, {right}")
    sizes = zip(shape, tensor.shape, strict=False)
    if tensor.dtype != dtype or tensor.ndim != len(shape) or not all(size in (None, own) for size, own in sizes):
        raise DataError(f"{name}: {_short(tensor.dtype)} {_sizes(tuple(tensor.shape))}, where {right}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sizes(shape: tuple[int | None, ...]) -> str:
    return "×".join("n" if size is None else str(size) for size in shape) or "without an axis"
