"""The form of a net that ``live_net.js`` runs in the page: a flat program of a few array operations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class UnknownOperationError(Exception):
    """A net has an operation that the page cannot compute; the text says which."""


@dataclass(frozen=True)
class Slot:
    """A value that depends on the image: 0 is the image, i + 1 what step i gives."""

    number: int


@dataclass
class Program:
    """What the page runs.

    Args:
        image: (channels, height, width) of the pixels from 0 to 255 that it takes.
        steps: each an operation ``op`` of the values ``in``, which gives a value of this ``shape``. A value below 0 is
            a constant, -1 the first.
        constants: weights, and all else that does not depend on the image.
        outputs: name of a layer → its value.
    """

    image: tuple[int, int, int]
    steps: list[dict[str, Any]] = field(default_factory=list)
    constants: list[Float[Tensor, "..."]] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)

    def step(self, op: str, inputs: Sequence[Any], shape: Sequence[int], **options: Any) -> Slot:
        """Append an operation; an input that is no ``Slot`` becomes a constant."""
        numbers = [value.number if isinstance(value, Slot) else self._constant(value) for value in inputs]
        self.steps.append({"op": op, "in": numbers, "shape": [*shape], **options})
        return Slot(len(self.steps))

    def _constant(self, value: Tensor | float) -> int:
        self.constants.append(torch.as_tensor(value, dtype=torch.float32).detach())
        return -len(self.constants)


def number(value: float) -> float | str:
    """A number as JSON has it: an infinite one as JavaScript's ``Number`` reads it."""
    return value if math.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"
