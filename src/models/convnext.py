"""A small ConvNeXt (Liu et al. 2022), whose downsampling is a layer of its own."""

from collections import OrderedDict

from torch import nn

from .blocks import Maps, Network, channels_of, convolution, downsampler, dropout, growth, stages
from .layers import ACTIVATIONS, NORMS
from .options import Model

KERNEL, EXPANSION = 7, 4


class Block(nn.Module):
    """``shortcut(x) + body(x)``: depthwise 7×7 convolution, norm, 1×1 convolution to 4 times the channels and back."""

    def __init__(self, model: Model, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                depthwise=convolution(model, channels, channels, kernel=KERNEL, groups=channels, bias=True),
                norm=NORMS[model.norm](channels),
                expand=nn.Conv2d(channels, EXPANSION * channels, 1),
                act=ACTIVATIONS[model.activation](),
                project=nn.Conv2d(EXPANSION * channels, channels, 1),
            )
        )
        padding = growth(model, KERNEL)
        self.shortcut = nn.ZeroPad2d(padding) if padding else nn.Identity()

    def forward(self, x: Maps) -> Maps:
        """Maps (n, c, h, w) → maps of the same shape, unless ``model.padding`` is ``full`` or ``valid``."""
        return self.shortcut(x) + self.body(x)


class ConvNeXt(Network):
    """A 3×3 convolution as stem; then stages of norm, 3×3 convolution, pool and ``convs`` blocks.

    Every stage has its convolution, whether it downsamples or not; without a pool it has the stride. So neither
    ``model.pool_at`` nor ``pool=none`` against ``pool=max`` changes the number of parameters. All convolutions have
    biases, as in the paper. Differences from it, for small images: 3×3 instead of 2×2 before a stage, no 4×4 patches as
    stem. Others: no layer scale, no stochastic depth, no norm before the classifier; ``layer`` normalises over channels
    and positions together.
    """

    def build(self, model: Model) -> None:
        """Add the stem and the stages."""
        width = channels_of(model, 1)
        self.add("stem", convolution(model, self.image[0], width, bias=True))
        for stage in stages(model, width):
            layers = OrderedDict[str, nn.Module](norm=NORMS[model.norm](stage.channels_in))
            layers["conv"] = convolution(model, stage.channels_in, stage.channels, stage.last_stride, bias=True)
            layers |= downsampler(model, stage)
            layers |= {f"block{i}": Block(model, stage.channels) for i in range(1, (model.convs or 2) + 1)}
            self.add(stage.name, nn.Sequential(layers | dropout(model)))
