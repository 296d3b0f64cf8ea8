"""Baseline: a linear classifier of the pixels themselves."""

from typing import TYPE_CHECKING, ClassVar

from src.models.blocks import NO_LAYERS, Network

if TYPE_CHECKING:
    from src.config import Model


class Pixels(Network):
    """Nothing but the head: ``features`` are the pixels."""

    fixed: ClassVar = NO_LAYERS | {"width": 1, "parameters": None}

    def build(self, model: "Model") -> None:
        """Add nothing."""
