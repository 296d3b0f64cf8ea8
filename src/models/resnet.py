"""A small residual net in the style of He et al. 2016 for CIFAR: the ladder's stages with shortcuts."""

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from src.models.blocks import ACTIVATIONS, NORMS, Maps, Network, convolution, downsampler, stages

if TYPE_CHECKING:
    from src.config import Model


class Residual(nn.Module):
    """``act(body(x) + shortcut(x))``, the body being one or two (convolution, norm), with an activation between."""

    def __init__(self, model: "Model", channels_in: int, channels: int, convs: int, stride: int) -> None:
        super().__init__()
        body: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, convs + 1):
            last = i == convs
            body[f"conv{i}"] = convolution(model, channels_in if i == 1 else channels, channels, stride if last else 1)
            body[f"norm{i}"] = NORMS[model.norm](channels)
            if not last:
                body[f"act{i}"] = ACTIVATIONS[model.activation]()
        shortcut: OrderedDict[str, nn.Module] = OrderedDict()
        if model.padding == "valid":  # each unpadded 3×3 convolution takes one pixel off every side
            shortcut["crop"] = nn.ZeroPad2d(-convs)
        if stride > 1 or channels_in != channels:
            shortcut["conv"] = convolution(model, channels_in, channels, stride, kernel=1)
            shortcut["norm"] = NORMS[model.norm](channels)
        self.body = nn.Sequential(body)
        self.shortcut = nn.Sequential(shortcut)
        self.act = ACTIVATIONS[model.activation]()

    def forward(self, x: Maps) -> Maps:
        """Maps (n, c, h, w) → (n, channels, h/stride, w/stride)."""
        return self.act(self.body(x) + self.shortcut(x))


class ResNet(Network):
    """A convolution as stem, then ``depth`` stages of ``convs / 2`` residual blocks, each with its downsampler.

    An odd ``convs`` makes the stage's last block one of a single convolution. The pool follows the sum, so its choice
    (``aps``) is the same for both branches.
    """

    def build(self, model: "Model") -> None:
        """Add the stem and the stages."""
        stem = convolution(model, self.image[0], model.width)
        layers = OrderedDict(conv=stem, norm=NORMS[model.norm](model.width), act=ACTIVATIONS[model.activation]())
        self.add("stem", nn.Sequential(layers))
        for stage in stages(model, model.width):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            channels = stage.channels_in
            sizes = [2] * (model.convs // 2) + [1] * (model.convs % 2)
            for i, convs in enumerate(sizes, start=1):
                stride = stage.last_stride if i == len(sizes) else 1
                blocks[f"block{i}"] = Residual(model, channels, stage.channels, convs, stride)
                channels = stage.channels
            self.add(stage.name, nn.Sequential(blocks | downsampler(model, channels)))
