"""The ladder: plain stages of convolutions, each ended by one downsampler; the net the questions are asked of."""

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from src.models.blocks import ACTIVATIONS, NORMS, Network, convolution, downsampler, stages

if TYPE_CHECKING:
    from src.config import Model


class Ladder(Network):
    """``depth`` stages of ``convs`` × (3×3 convolution, norm, activation), then the downsampler."""

    def build(self, model: "Model") -> None:
        """Add the stages."""
        for stage in stages(model, self.image[0]):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            channels = stage.channels_in
            for i in range(1, model.convs + 1):
                stride = stage.last_stride if i == model.convs else 1
                layers[f"conv{i}"] = convolution(model, channels, stage.channels, stride)
                layers[f"norm{i}"] = NORMS[model.norm](stage.channels)
                layers[f"act{i}"] = ACTIVATIONS[model.activation]()
                channels = stage.channels
            self.add(stage.name, nn.Sequential(layers | downsampler(model, channels)))
