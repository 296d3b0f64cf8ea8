"""Baseline: a linear classifier of the pixels themselves."""

from typing import ClassVar

from .blocks import NO_LAYERS, Network
from .options import Model


class Pixels(Network):
    """A head without stages: ``features`` are the pixels."""

    unsupported_axes: ClassVar = NO_LAYERS | {"width": 1, "parameters": None}

    def build(self, model: Model) -> None:
        """Add nothing."""
