"""A small ConvNeXt (Liu et al. 2022): a modern net, whose downsampling is a layer of its own."""

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from src.models.blocks import ACTIVATIONS, NORMS, Maps, Network, convolution, downsampler, reach, stages

if TYPE_CHECKING:
    from src.config import Model

KERNEL, EXPANSION = 7, 4


class Block(nn.Module):
    """``shortcut(x) + body(x)``: a 7×7 convolution of each channel alone, norm, 4 times as many channels and back."""

    def __init__(self, model: "Model", channels: int) -> None:
        super().__init__()
        each = convolution(model, channels, channels, kernel=KERNEL, groups=channels)
        self.body = nn.Sequential(
            OrderedDict(
                depthwise=each,
                norm=NORMS[model.norm](channels),
                expand=nn.Conv2d(channels, EXPANSION * channels, 1),
                act=ACTIVATIONS[model.activation](),
                project=nn.Conv2d(EXPANSION * channels, channels, 1),
            )
        )
        grown = reach(model, KERNEL)
        self.shortcut = nn.ZeroPad2d(grown) if grown else nn.Identity()

    def forward(self, x: Maps) -> Maps:
        """Maps (n, c, h, w) → the same."""
        return self.shortcut(x) + self.body(x)


class ConvNeXt(Network):
    """A 3×3 convolution as stem; then stages that begin with their downsampler and go on with ``convs`` blocks.

    The downsampler is norm, 3×3 convolution (which carries the stride where there is no pool), pool: so ``pool=none``
    and ``pool=max`` have equally many parameters. Differences from the paper: 3×3 instead of 2×2 in the downsampler
    and no 4×4 patches as stem, as small images have no pixels to spare; no layer scale, no stochastic depth; ``layer``
    normalises over channels and positions together.
    """

    def build(self, model: "Model") -> None:
        """Add the stem and the stages."""
        self.add("stem", convolution(model, self.image[0], model.width))
        for stage in stages(model, model.width):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            if stage.shrinks or stage.channels != stage.channels_in:
                layers["norm"] = NORMS[model.norm](stage.channels_in)
                layers["conv"] = convolution(model, stage.channels_in, stage.channels, stage.last_stride)
            layers |= downsampler(model, stage)
            dropout = layers.pop("dropout", None)
            layers |= {f"block{i}": Block(model, stage.channels) for i in range(1, (model.convs or 2) + 1)}
            if dropout is not None:
                layers["dropout"] = dropout
            self.add(stage.name, nn.Sequential(layers))
