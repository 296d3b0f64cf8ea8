"""The ladder: plain stages of convolutions, each ended by one downsampler; the net the questions are asked of."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from .blocks import Network, downsampler, dropout, stages, unit
from .options import Model


class Ladder(Network):
    """``depth`` stages of ``convs`` × (3×3 convolution, norm, activation), then the downsampler.

    Any plain stack is one: a subclass says which kernels its stages have, and which stages shrink.
    """

    #: the stages that shrink unless ``model.pool_at`` says; None: all
    downsampling: ClassVar[Sequence[int] | None] = None

    def kernels(self, model: Model) -> Sequence[Sequence[int]]:
        """Stage by stage, the sizes of its convolutions."""
        return [[3] * (model.convs or 2)] * model.depth

    def build(self, model: Model) -> None:
        """Add the stages."""
        stage_list = stages(model, self.image[0], self.downsampling)
        for stage, kernels in zip(stage_list, self.kernels(model), strict=True):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            channels = stage.channels_in
            for i, kernel in enumerate(kernels, start=1):
                stride = stage.last_stride if i == len(kernels) else 1
                layers |= unit(model, channels, stage.channels, str(i), stride=stride, kernel=kernel)
                channels = stage.channels
            self.add(stage.name, nn.Sequential(layers | downsampler(model, stage) | dropout(model)))
