"""A net as a ``torch.fx`` graph, to run its nodes in another way than the net itself does."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..common.errors import UserError
from ..nets.hooks import eval_mode, reference_tensor
from ..summary import graph, summarize

#: (down, right) in pixels
Steps = tuple[int, int]
NO_STRIDE: Steps = (1, 1)
#: outputs are equal if they differ by at most this share of the largest; rounding in float32 is about 1e-6
TOLERANCE = 1e-4


class FxInterpreter:
    """Runs the nodes of a net's graph one by one. A ``UserError`` where ``torch.fx`` cannot trace the net."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.graph, self.modules = net, graph(net), dict(net.named_modules())
        #: node → the last node that reads its value, which can be freed then
        self.last_use = {source: node for node in self.graph.nodes for source in node.all_input_nodes}

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Run layers on the same random numbers each time, in eval mode, without changing the global generator."""
        device = reference_tensor(self.net).device
        with eval_mode(self.net), torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield

    def call(self, node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
        """The output of a node; ``value`` gives the values of its inputs."""
        target: Any = node.target
        if node.op == "get_attr":
            return attrgetter(target)(self.net)
        args, options = fx.node.map_arg((node.args, node.kwargs), value)
        if node.op == "call_module":
            return self.modules[target](*args, **options)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **options)
        return target(*args, **options)

    def forwards_of(self, image: tuple[int, int, int], times: Callable[[str], float]) -> float:
        """The cost, in forward passes, of running each layer, by its name, ``times(name)`` times: by multiply-adds; nan
        if the net has no model summary.
        """
        try:
            summary = summarize(self.net, image)
        except UserError:
            return math.nan
        total = sum(times(row.name) * row.multiply_adds for row in summary.layers)
        return total / summary.multiply_adds if summary.multiply_adds else math.nan


def name_of(node: fx.Node) -> str:
    """The name of the layer that a node calls; of any other node, its own."""
    return str(node.target) if node.op == "call_module" else node.name


def padding_of(net: nn.Module, name: str) -> str | None:
    """The padding mode of a convolution; None without padding, or for another layer."""
    layer = dict(net.named_modules()).get(name)
    if not isinstance(layer, nn.Conv2d) or layer.padding in ((0, 0), "valid"):
        return None
    return layer.padding_mode


def all_close(outputs: Tensor, expected: Tensor) -> bool:
    """Whether two outputs are equal up to rounding."""
    if outputs.dtype == torch.bool:
        return torch.equal(outputs, expected)
    return bool((outputs - expected).abs().max() <= TOLERANCE * expected.abs().max())
