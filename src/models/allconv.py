"""All-CNN and its controls: can a convolution replace pooling? (Springenberg et al. 2015, tables 1 and 2)."""

from collections.abc import Sequence
from typing import ClassVar

from .ladder import Ladder
from .options import Model

#: variant → kernels of each stage
KERNELS = {"a": ((5,), (5,), (3, 1)), "b": ((5, 1), (5, 1), (3, 1)), "c": ((3, 3), (3, 3), (3, 1))}


class AllConv(Ladder):
    """``model.variant`` a, b or c. Options that all architectures have give the paper's four forms of each:

        base        model.pool=max (window 3)
        strided     model.pool=none
        ConvPool    model.pool=max model.extra_conv=true
        All-CNN     model.pool=conv

    The stages have 96, 192 and 192 channels; the third does not downsample. Then come the mean over positions and a
    linear layer (the paper's 1×1 convolution and mean, which commute). Two differences from the paper: the third
    stage's 3×3 convolution is padded (8×8 maps for CIFAR, 6×6 in the paper), so that ``model.padding`` applies to it;
    and no activation follows the linear layer.
    """

    variants = tuple(KERNELS)
    unsupported_axes: ClassVar = {"depth": 3, "convs": None}
    downsampling = (1, 2)
    window = 3

    def kernels(self, model: Model) -> Sequence[Sequence[int]]:
        """The kernel sizes of the variant, stage by stage."""
        return KERNELS[model.variant]
