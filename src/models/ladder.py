"""The default net: a plain CNN, whose stages of convolutions each end with a downsampler."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from .blocks import Network, downsampler, dropout, stages, unit
from .options import Model


class Ladder(Network):
    """``depth`` stages of ``convs`` × (3×3 convolution, norm, activation), then the downsampler.

    A subclass defines other plain CNNs by their kernels and the stages that downsample.
    """

    #: the stages that downsample if ``model.pool_at`` is null; None: all
    downsampling: ClassVar[Sequence[int] | None] = None

    def kernels(self, model: Model) -> Sequence[Sequence[int]]:
        """Kernel sizes of the convolutions, stage by stage."""
        return [[3] * (model.convs or 2)] * model.depth

    def build(self, model: Model) -> None:
        """Add the stages."""
        for stage, kernels in zip(stages(model, self.image[0], self.downsampling), self.kernels(model), strict=True):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            channels = stage.channels_in
            for i, kernel in enumerate(kernels, start=1):
                stride = stage.last_stride if i == len(kernels) else 1
                layers |= unit(model, channels, stage.channels, str(i), stride=stride, kernel=kernel)
                channels = stage.channels
            self.add(stage.name, nn.Sequential(layers | downsampler(model, stage) | dropout(model)))
