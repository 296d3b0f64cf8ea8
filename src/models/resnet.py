"""A small residual net in the style of He et al. 2016 for CIFAR."""

from collections import OrderedDict

from torch import nn

from .blocks import Maps, Network, channels_of, convolution, downsampler, dropout, growth, stages, unit
from .layers import ACTIVATIONS, NORMS
from .options import Model


class Residual(nn.Module):
    """``act(body(x) + shortcut(x))``; the body is one or two (convolution, norm), with an activation between them."""

    def __init__(self, model: Model, channels_in: int, channels: int, convs: int, stride: int) -> None:
        super().__init__()
        body: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, convs + 1):
            last = i == convs
            body |= unit(model, channels_in if i == 1 else channels, channels, str(i), stride=stride if last else 1)
        del body[f"act{convs}"]  # it follows the sum
        shortcut: OrderedDict[str, nn.Module] = OrderedDict()
        if padding := convs * growth(model, 3):
            shortcut["pad"] = nn.ZeroPad2d(padding)
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

    With an odd ``convs`` the stage's last block has a single convolution. The pool follows the sum, so the phase that
    ``aps`` selects is the same for both branches.
    """

    def build(self, model: Model) -> None:
        """Add the stem and the stages."""
        width = channels_of(model, 1)
        self.add("stem", nn.Sequential(unit(model, self.image[0], width)))
        convs = model.convs or 2
        for stage in stages(model, width):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            width = stage.channels_in
            sizes = [2] * (convs // 2) + [1] * (convs % 2)
            for i, size in enumerate(sizes, start=1):
                stride = stage.last_stride if i == len(sizes) else 1
                blocks[f"block{i}"] = Residual(model, width, stage.channels, size, stride)
                width = stage.channels
            self.add(stage.name, nn.Sequential(blocks | downsampler(model, stage) | dropout(model)))
