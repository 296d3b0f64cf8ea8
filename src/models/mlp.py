"""A multilayer perceptron, without convolutions or weights shared between positions."""

from collections import OrderedDict
from typing import ClassVar

from torch import nn

from .blocks import NO_MAPS, Network, dropout
from .layers import ACTIVATIONS, NORMS
from .norm import BatchNorm1d
from .options import Model


class MLP(Network):
    """``depth`` hidden layers of ``width`` units; a stage is a linear layer, norm, activation and dropout.

    Stages give vectors (n, width), so the options of pools and convolutions do not apply. ``model.parameters`` matches
    its size to another net.
    """

    unsupported_axes: ClassVar = NO_MAPS

    def build(self, model: Model) -> None:
        """Add the layers."""
        channels, height, width = self.image
        units = channels * height * width
        self.add("pixels", nn.Flatten())
        for i in range(1, model.depth + 1):
            linear = nn.Linear(units, model.width, bias=model.bias and model.norm == "none")
            nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
            layers = OrderedDict(linear=linear, norm=_norm(model), act=ACTIVATIONS[model.activation]())
            self.add(f"stage{i}", nn.Sequential(layers | dropout(model, nn.Dropout)))
            units = model.width


def _norm(model: Model) -> nn.Module:
    """The norm of a vector. A group has at least two units: a single unit minus its mean would always be 0."""
    if model.norm == "batch":
        return BatchNorm1d(model.width)
    if model.norm == "group":
        return nn.GroupNorm(next((groups for groups in (8, 4, 2) if model.width % (2 * groups) == 0), 1), model.width)
    return NORMS[model.norm](model.width)
