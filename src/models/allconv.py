"""All-CNN and its controls: can a convolution take the place of pooling? (Springenberg et al. 2015, tables 1 and 2)."""

from collections.abc import Sequence
from typing import ClassVar

from .ladder import Ladder
from .options import Model

#: variant → kernels of each stage
KERNELS = {"a": ((5,), (5,), (3, 1)), "b": ((5, 1), (5, 1), (3, 1)), "c": ((3, 3), (3, 3), (3, 1))}


class AllConv(Ladder):
    """``model.variant`` a, b or c, and the paper's four forms of each by axes that every architecture has:

        base        model.pool=max (window 3)
        strided     model.pool=none
        ConvPool    model.pool=max model.extra_conv=true
        All-CNN     model.pool=conv

    96, then 192 channels; the third stage keeps its map, and is followed by the mean over positions and the classes
    (the paper's 1×1 convolution and mean, which commute). Two differences from the paper: the third stage's 3×3
    convolution is padded (8×8 maps for CIFAR, the paper has 6×6), so that padding stays an axis; and there is no
    activation behind the classes.
    """

    variants = tuple(KERNELS)
    unsupported_axes: ClassVar = {"depth": 3, "convs": None}
    downsampling = (1, 2)

    def kernels(self, model: Model) -> Sequence[Sequence[int]]:
        """The variant's."""
        return KERNELS[model.variant]
