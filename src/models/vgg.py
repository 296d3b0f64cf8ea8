"""VGG: a deep plain CNN with five stages of 3×3 convolutions (Simonyan & Zisserman 2015)."""

from collections.abc import Sequence
from typing import ClassVar

from .ladder import Ladder
from .options import Model

#: variant → convolutions per stage; the variant's number includes the three linear layers of the paper
CONVS = {"11": (1, 1, 2, 2, 2), "13": (2, 2, 2, 2, 2), "16": (2, 2, 3, 3, 3), "19": (2, 2, 4, 4, 4)}


class VGG(Ladder):
    """``model.variant`` 11, 13, 16 or 19, which sets ``depth`` and ``convs``: 64 channels doubling to 512, as in the
    paper; one linear layer as head.
    """

    variants = tuple(CONVS)
    unsupported_axes: ClassVar = {"depth": 5, "convs": None}

    def kernels(self, model: Model) -> Sequence[Sequence[int]]:
        """3 for every convolution."""
        return [(3,) * convs for convs in CONVS[model.variant]]
