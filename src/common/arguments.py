"""Arguments of public functions as plain tensors, tuples and whole numbers; anything else is refused in one line."""

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn

from .errors import UserError


def shown(value: Any) -> str:
    """A wrong argument in a few words: of arrays their shape, of all else the beginning.

    >>> shown(torch.zeros(2, 3)), shown(2.5)
    ('a Tensor of shape (2, 3)', '2.5')
    """
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:80]}…"


def module(name: str, value: Any) -> nn.Module:
    """A net; ``UserError`` if it is none."""
    if not isinstance(value, nn.Module):
        raise UserError(f"{name}: an nn.Module is needed, not {type(value).__name__}")
    if "_modules" not in vars(value):
        raise UserError(f"{name}: {type(value).__name__}.__init__ must begin with super().__init__()")
    return value


def names_of(name: str, value: Any) -> list[str]:
    """A list of names, of one name or several; ``UserError`` if they are no strings.

    >>> names_of("layers", "conv1"), names_of("layers", ("conv1", "fc"))
    (['conv1'], ['conv1', 'fc'])
    """
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    for entry in names:
        if not isinstance(entry, str):
            raise UserError(f"{name}={shown(entry)}: a name or a list of names is needed")
    return names


def whole_number(name: str, value: Any, least: int, below: float = math.inf) -> int:
    """A whole number in [least, below), also one of NumPy or PyTorch; ``UserError`` for anything else.

    >>> whole_number("seed", torch.tensor(3), least=0)
    3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number < below:
        limit = "" if below == math.inf else f", below {below:.0f}"
        raise UserError(f"{name}={shown(value)}: must be a whole number of at least {least}{limit}")
    return number


def image_size(image: Any) -> tuple[int, int, int]:
    """(channels, height, width), each at least 1; ``UserError`` for anything else."""
    try:
        channels, height, width = (whole_number("image", value, least=1) for value in image)
    except (TypeError, ValueError):
        raise UserError(
            f"image={shown(image)}: (channels, height, width) is needed, whole numbers of at least 1"
        ) from None
    return channels, height, width


def channel_numbers(name: str, values: Any, channels: int, positive: bool = False) -> tuple[float, ...]:
    """One finite number per channel, of a list, an array or a tensor; ``UserError`` for anything else.

    >>> channel_numbers("mean", torch.tensor([0.5, 0.25]), 2)
    (0.5, 0.25)
    """
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise UserError(
            f"{name}={shown(values)}: one number per channel is needed, the images have {channels}"
        ) from None
    if len(numbers) != channels:
        raise UserError(f"{name}={shown(list(numbers))}: one number per channel is needed, the images have {channels}")
    if not all(math.isfinite(number) and (number > 0 or not positive) for number in numbers):
        raise UserError(f"{name}={shown(list(numbers))}: must be finite numbers{' above 0' if positive else ''}")
    if not positive and any(abs(number) > 1 for number in numbers):
        raise UserError(f"{name}={shown(list(numbers))}: of pixels from 0 to 1 (those from 0 to 255 divided by 255)")
    return numbers


def image_tensor(images: Any) -> Shaped[Tensor, "n c h w"]:
    """Images in 0 … 255, of bytes in that range or floats in [0, 1]; a tensor of the same kind.

    Raises:
        UserError: they are no array of this shape, less than 2, of another type, not finite, or outside the range.
    """
    tensor = _tensor("images", images)
    if tensor.ndim != 4 or len(tensor) < 2 or 0 in tensor.shape:
        raise UserError(f"images of shape {tuple(tensor.shape)}: (n, c, h, w) is needed, n at least 2")
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point() or tensor.min() < 0 or tensor.max() > 1:
        raise UserError("images: bytes from 0 to 255 or floats in [0, 1] are needed; mean= and std= normalise them")
    if not tensor.isfinite().all():
        raise UserError("images: some of their pixels are nan")
    return 255 * tensor.float()


def label_tensor(labels: Any, count: int) -> Int64[Tensor, " n"]:
    """The class of each of ``count`` images, of a list, an array or a tensor of whole numbers; else ``UserError``."""
    tensor = _tensor("labels", labels)
    whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
    if tensor.shape != (count,) or not whole:
        raise UserError(f"labels of shape {tuple(tensor.shape)}, {tensor.dtype}: {count} whole numbers are needed")
    return tensor.long()


def refuse_labels_without_output(labels: Int64[Tensor, " n"], outputs: int) -> None:
    """``UserError`` if a label is not in 0 … outputs - 1."""
    wrong = labels[(labels < 0) | (labels >= outputs)]
    if len(wrong):
        raise UserError(f"labels: {int(wrong[0])} is not in 0…{outputs - 1}, the net's {outputs} outputs")


def _tensor(name: str, value: Any) -> Tensor:
    """A tensor, or a new one of an array or of nested lists."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta or value.is_nested or value.is_quantized:
            raise UserError(f"{name}: a dense tensor of numbers is needed, not of {value.layout} on {value.device}")
        return value.detach()
    try:
        return torch.from_numpy(np.array(value))  # a copy: an array may be read-only, or have negative strides
    except (TypeError, ValueError):
        raise UserError(f"{name}: a tensor or an array of numbers is needed, not {type(value).__name__}") from None
