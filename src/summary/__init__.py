"""The shape ledger: size, receptive field and cost of every layer, by arithmetic; then held against the running net.

``ledger`` follows the net's graph (``torch.fx``) with one formula per kind of layer (``layers.py``) and per call that
is no layer (``calls.py``), and runs nothing. What a row is, and the arithmetic of a window, stand in ``book.py``.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..nets.hooks import blank_image, eval_mode, uncompiled
from .functions import CALLS, Call
from .layers import MAPS, Axis, Layer, ModelSummary, ShapeError
from .modules import refuse_larger, rule_of

__all__ = ["MAPS", "Axis", "Layer", "ModelSummary", "ShapeError", "graph", "ledger", "verify"]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        return rule_of(m) is not None or super().is_leaf_module(m, qualified_name)


def graph(net: nn.Module) -> fx.Graph:
    """The net's graph in eval mode, or the layer in which it could not be followed."""
    tracer = _Tracer()
    try:
        with eval_mode(net):
            return tracer.trace(net)
    except Exception as error:  # whatever the net's own code raises when it meets a stand-in for a map
        where = _innermost(tracer.module_stack) or type(net).__name__
        raise ShapeError(f"{where}: torch.fx cannot follow it: {' '.join(str(error).split())}") from error


def _innermost(stack: Mapping[str, tuple[str, Any]]) -> str:
    """The name of the module that torch.fx was in."""
    return ["", *(name for name, _ in stack.values())][-1]


def summarize(net: nn.Module, image: tuple[int, int, int], *, tight: bool = False) -> ModelSummary:
    """The ledger of any net that ``torch.fx`` can trace, computed without running it (it may be on the meta device).

    It is that of the net in eval mode. A module or parameter that is used twice has a row for each use, and its
    parameters in the first; so has one that two modules share.

    Args:
        net: the net; its layers must be of the kinds in ``RULES`` and ``CALLS``.
        image: (channels, height, width) of its input.
        tight: refuse strides and windows larger than their maps too, which PyTorch runs.

    Raises:
        ShapeError: a map vanishes, or a layer has no rule; names the layer.
    """
    net = uncompiled(net)
    values: dict[fx.Node, Any] = {}
    rows: list[Layer] = []
    counted = Counted(net)
    for node in graph(net).nodes:
        if node.op == "output":
            break
        if node.op == "placeholder":
            values[node] = Layer("input", "image", image[0], Axis(image[1]), Axis(image[2]))
            continue
        try:
            if tight and node.op == "call_module":
                refuse_larger(str(node.target), net.get_submodule(str(node.target)), values[node.all_input_nodes[0]])
            value = _value(net, node, values)
        except ShapeError as error:
            sizes = dict.fromkeys(
                [image[1:], *((one.rows.size, one.columns.size) for one in rows if one.rows.receptive_field)]
            )
            raise ShapeError(f"{error}; so far {' → '.join(f'{h}×{w}' for h, w in sizes)}") from error.__cause__
        if isinstance(value, Layer):
            rows.append(replace(value, parameters=value.parameters - counted.again(value.name)))
            value = replace(value, parameters=0, multiply_adds=0)  # a row's own, not those of what comes after it
        values[node] = value
    return ModelSummary(image, rows)


def _value(net: nn.Module, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """What a node of the graph gives: a layer with its name and costs, several layers, or plain numbers."""
    rule: Call | None
    target, kind = str(node.target), node.name.rstrip("_0123456789")
    if node.op == "get_attr":
        return _learned(target, attrgetter(target)(net))
    arguments: Any
    arguments, options = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    if node.op == "call_module":
        module = net.get_submodule(target)
        rule, name, kind = rule_of(module), target, type(module).__name__
        arguments = (module, *arguments)
    else:
        owner = _innermost(node.meta.get("nn_module_stack", {}))
        rule, name = CALLS.get(node.target), f"{owner}.{node.name}".lstrip(".")
        if callable(node.target) and not any(isinstance(values[one], Layer | list) for one in node.all_input_nodes):
            rule = _arithmetic(node.target)
    if rule is None:
        what = kind if node.op == "call_module" else getattr(node.target, "__name__", target)
        raise ShapeError(f"{name}: the ledger has no formula for {what}")
    try:
        value = rule(name, *arguments, **options)
    except ShapeError:
        raise
    except Exception as error:  # arguments that the rule does not know
        raise ShapeError(f"{name}: the ledger cannot follow {kind}: {error}") from error
    if not isinstance(value, Layer):
        return value
    more = reparametrised(module) if node.op == "call_module" else 0
    return replace(value, name=name, kind=kind, parameters=value.parameters + more)


def _arithmetic(function: Callable[..., Any]) -> Call:
    """The rule of a call on plain numbers, as of sizes: the call itself."""
    return lambda name, *arguments, **options: function(*arguments, **options)


def _learned(name: str, value: Tensor) -> Layer:
    """A parameter or buffer that the net reads itself: a 1×1 map that sees nothing of the image."""
    axis, learned = Axis(1, receptive_field=0), isinstance(value, nn.Parameter)
    return Layer(name, type(value).__name__, value.numel(), axis, axis, value.numel() if learned else 0, layout="c")


class Counted:
    """The parameters of a net that a row has counted already: under the same name, or another that shares them."""

    def __init__(self, net: nn.Module) -> None:
        self.own = {name: [*module.parameters()] for name, module in net.named_modules()}
        self.own |= {name: [one] for name, one in net.named_parameters(remove_duplicate=False)}
        self.seen: set[nn.Parameter] = set()

    def again(self, name: str) -> int:
        """How many numbers of a module or parameter stand in rows before."""
        own = set(self.own.get(name, ()))
        again = own & self.seen
        self.seen |= own
        return sum(one.numel() for one in again)


def reparametrised(module: nn.Module) -> int:
    """Parameters that a layer has beside those of its kind, as its weight is computed from others (weight norm)."""
    more = 0
    for name, one in getattr(module, "parametrizations", nn.ModuleDict()).items():
        with torch.no_grad():
            more += sum(part.numel() for part in one.parameters()) - getattr(module, name).numel()
    own = dict(module.named_parameters(recurse=False))  # PyTorch's older weight norm
    return more + sum(one.numel() for name, one in own.items() if name.endswith("_g") and f"{name[:-2]}_v" in own)


def verify(summary: ModelSummary, net: nn.Module) -> None:
    """Hold the ledger against the running net, layer by layer: shapes by a forward pass, parameters by counting.

    Raises:
        ShapeError: naming the first layer that differs.
    """
    net = uncompiled(net)
    counted = Counted(net)
    named = [layer for layer in summary.layers if layer.name in counted.own]
    shapes = _shapes(net, [layer.name for layer in named], summary.image)
    for layer in named:
        name = layer.name
        if name in shapes:
            shape = next(shapes[name], None)
            if shape != layer.sizes or math.prod(shape) != math.prod(layer.shape):
                raise ShapeError(f"{name}: the ledger says {layer.sizes[1:]}, the net gives {shape and shape[1:]}")
        there = sum(one.numel() for one in counted.own[name]) - counted.again(name)
        if there != layer.parameters:
            raise ShapeError(f"{name}: the ledger says {layer.parameters} parameters, the net has {there}")
    unknown = [name for name, one in net.named_parameters() if one not in counted.seen]
    total = sum(one.numel() for one in net.parameters())
    if unknown or total != summary.parameters:
        names = f"; not in the ledger: {', '.join(unknown[:3])}{' …' if unknown[3:] else ''}" if unknown else ""
        raise ShapeError(f"the ledger says {summary.parameters} parameters in all, the net has {total}{names}")


def _shapes(net: nn.Module, names: Iterable[str], image: tuple[int, int, int]) -> dict[str, Iterator[tuple[int, ...]]]:
    """Shapes of the named modules' outputs for one image, call by call."""
    modules = dict(net.named_modules())
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in names if name in modules}
    with ExitStack() as stack, torch.no_grad(), eval_mode(net):
        for name, seen in shapes.items():
            hook = modules[name].register_forward_hook(lambda _, __, y, seen=seen: seen.append(tuple(y.shape)))
            stack.callback(hook.remove)
        net(blank_image(net, image))
    return {name: iter(seen) for name, seen in shapes.items()}
