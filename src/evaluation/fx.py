"""A net as the graph of its calls, to be run node by node in another way than it runs by itself."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import UserError
from ..nets.hooks import eval_mode, reference_tensor
from ..summary import graph, summarize

Steps = tuple[int, int]
ONE: Steps = (1, 1)

#: outputs are the same if they differ by no more than this share of the largest; float32 leaves about 1e-6
ROUNDING = 1e-4


class FxInterpreter:
    """What nets that are run so have in common.

    Args:
        net: one that ``torch.fx`` can follow.

    Raises:
        UserError: it cannot.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net, self.graph, self.modules = net, graph(net), dict(net.named_modules())
        #: node → the last one that takes it; then its value can go
        self.last_use = {one: node for node in self.graph.nodes for one in node.all_input_nodes}

    @contextmanager
    def trying(self) -> Iterator[None]:
        """To run layers on noise: always on the same, and what others draw is what it would have been."""
        device = reference_tensor(self.net).device
        with eval_mode(self.net), torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield

    def call(self, node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
        """What a node gives where the nodes that it takes have such values."""
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
        """What it costs in forward passes to run each layer, by its name, as much as so many times: by the ledger's
        multiply-adds; nan where the ledger has no formula.
        """
        try:
            summary = summarize(self.net, image)
        except UserError:
            return math.nan
        total = sum(times(row.name) * row.multiply_adds for row in summary.layers)
        return total / summary.multiply_adds if summary.multiply_adds else math.nan


def name_of(node: fx.Node) -> str:
    """What people know a node by: the layer it calls."""
    return str(node.target) if node.op == "call_module" else node.name


def padding_of(net: nn.Module, name: str) -> str | None:
    """How a convolution continues its maps; None where it does not, or is no convolution."""
    layer = dict(net.named_modules()).get(name)
    if not isinstance(layer, nn.Conv2d) or layer.padding in ((0, 0), "valid"):
        return None
    return layer.padding_mode


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs differ by rounding alone."""
    if one.dtype == torch.bool:
        return torch.equal(one, other)
    return bool((one - other).abs().max() <= ROUNDING * other.abs().max())
