"""VGG: five plain stages of 3×3 convolutions, deep (Simonyan & Zisserman 2015)."""

from collections.abc import Sequence
from typing import ClassVar

from .ladder import Ladder
from .options import Model

#: variant → convolutions of each stage; its name counts them and the three linear layers of the paper
CONVS = {"11": (1, 1, 2, 2, 2), "13": (2, 2, 2, 2, 2), "16": (2, 2, 3, 3, 3), "19": (2, 2, 4, 4, 4)}


class VGG(Ladder):
    """``model.variant`` 11, 13, 16 or 19: width 64 doubling to 512, as in the paper; one linear layer as its head.

    The variant says how many convolutions a stage has, so ``depth`` and ``convs`` are no axes.
    """

    variants = tuple(CONVS)
    unsupported_axes: ClassVar = {"depth": 5, "convs": None}

    def kernels(self, model: Model) -> Sequence[Sequence[int]]:
        """All 3."""
        return [(3,) * convs for convs in CONVS[model.variant]]
