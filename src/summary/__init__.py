"""Model summary: shape, receptive field, parameters and multiply-adds (MACs, half the FLOPs) of every layer.

``summarize`` follows the net's graph (``torch.fx``) with a formula per kind of layer (``modules.py``) and function
(``functions.py``), without running the net; ``verify`` compares the result with the running net.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..common import arguments
from ..nets.hooks import blank_image, eval_mode, first_line, uncompiled
from .functions import Call, call_of
from .layers import MAPS, Axis, Layer, ModelSummary, ShapeError
from .shapes_and_costs import refuse_larger, rule_of
from .tracing import graph, innermost

__all__ = ["MAPS", "Axis", "Layer", "ModelSummary", "ShapeError", "graph", "summarize", "verify"]


def summarize(net: nn.Module, image: tuple[int, int, int], *, tight: bool = False) -> ModelSummary:
    """Shapes, receptive fields, parameters and multiply-adds (MACs) of a net's layers.

    Works on any net that ``torch.fx`` can trace, in eval mode, without running it (it may be on the meta device). A
    module or parameter that is used twice has a row for each use; the first row has its parameters. The same holds for
    a parameter that two modules share.

    Args:
        net: its layers must be of the kinds in ``RULES`` and ``CALLS``.
        image: (channels, height, width) of its input.
        tight: also refuse strides and windows larger than their maps, which PyTorch allows.

    Raises:
        ShapeError: a map would be empty, or a layer has no rule; names the layer.
        UserError: ``net`` or ``image`` is of another kind.
    """
    net, image = uncompiled(arguments.module("net", net)), arguments.image_size(image)
    values: dict[fx.Node, Any] = {}
    rows: list[Layer] = []
    counted = CountedParameters(net)
    for node in graph(net).nodes:
        if node.op == "output":
            break
        if node.op == "placeholder" and values:  # an option of the net, at its default
            values[node] = node.args[0] if node.args else None
            continue
        if node.op == "placeholder":
            values[node] = Layer("input", "image", image[0], Axis(image[1]), Axis(image[2]))
            continue
        try:
            if tight and node.op == "call_module":
                refuse_larger(str(node.target), net.get_submodule(str(node.target)), values[node.all_input_nodes[0]])
            value = _value(net, node, values)
        except ShapeError as error:
            sizes = dict.fromkeys([image[1:], *(layer.shape[1:] for layer in rows if layer.rows.receptive_field)])
            raise ShapeError(f"{error}; so far {' → '.join(f'{h}×{w}' for h, w in sizes)}") from error.__cause__
        row, values[node] = _row_of(net, node, value, values)
        if row is not None:
            rows.append(replace(row, parameters=row.parameters - counted.again(row.name)))
    return ModelSummary(image, rows)


def _row_of(net: nn.Module, node: fx.Node, value: Any, values: dict[fx.Node, Any]) -> tuple[Layer | None, Any]:
    """The row of a graph node, if it has one, and its value for the nodes after it: a layer without the row's costs, or
    a learned tensor as one on the meta device, which has its shape alone.
    """
    if isinstance(value, Tensor):
        kind = type(value).__name__ if node.op == "get_attr" else _kind(node)
        return _learned(_name(node), kind, value), value.to("meta")
    row, *more = value if isinstance(value, tuple) and value else (value,)
    if not isinstance(row, Layer):
        return None, value
    free = replace(row, parameters=0, multiply_adds=0)
    if node.target is operator.getitem and isinstance(values[node.all_input_nodes[0]], tuple):
        return None, free  # of a layer with several outputs, which has its row
    return row, (free, *more) if isinstance(value, tuple) else free


def _value(net: nn.Module, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """The output of a graph node: a layer with its name and costs, several layers, or plain numbers."""
    rule: Call | None
    target, name, kind = str(node.target), _name(node), _kind(node)
    if node.op == "get_attr":
        return attrgetter(target)(net)
    arguments: Any
    arguments, options = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    if node.op == "call_module":
        module = net.get_submodule(target)
        rule, kind = rule_of(module), type(module).__name__
        arguments = (module, *arguments)
    else:
        rule = call_of(node.target)
        if not any(_has_layer(values[x]) for x in node.all_input_nodes):
            rule = partial(_arithmetic, node.target)
    if rule is None:
        operation = kind if node.op == "call_module" else getattr(node.target, "__name__", target)
        raise ShapeError(f"{name}: the summary has no formula for {operation}")
    try:
        value = rule(name, *arguments, **options)
    except ShapeError:
        raise
    except Exception as error:  # the rule does not know these arguments
        raise ShapeError(f"{name}: the summary cannot follow {kind}: {error}") from error
    layer, *others = value if isinstance(value, tuple) and value else (value,)
    if not isinstance(layer, Layer):
        return value
    more = reparametrised(module) if node.op == "call_module" else 0
    layer = replace(layer, name=name, kind=kind, parameters=layer.parameters + more)
    return (layer, *others) if isinstance(value, tuple) else layer


def _name(node: fx.Node) -> str:
    """Of a module or parameter; or of a call, with the name of the module around it."""
    if node.op in ("call_module", "get_attr"):
        return str(node.target)
    return f"{innermost(node.meta.get('nn_module_stack', {}))}.{node.name}".lstrip(".")


def _kind(node: fx.Node) -> str:
    return node.name.rstrip("_0123456789")


def _has_layer(value: Any) -> bool:
    return isinstance(value, Layer) or (isinstance(value, tuple | list) and any(map(_has_layer, value)))


def _arithmetic(function: Callable[..., Any] | str, name: str, *arguments: Any, **options: Any) -> Any:
    """The rule of a function, or method, of plain numbers and learned tensors: the function itself."""
    if isinstance(function, str):
        return getattr(arguments[0], function)(*arguments[1:], **options)
    return function(*arguments, **options)


def _learned(name: str, kind: str, value: Tensor) -> Layer:
    """A parameter or buffer that the net reads directly, or numbers of one: a 1×1 map with receptive field 0."""
    axis, learned = Axis(1, receptive_field=0), isinstance(value, nn.Parameter)
    return Layer(name, kind, value.numel(), axis, axis, value.numel() if learned else 0, layout="c")


class CountedParameters:
    """The parameters that earlier rows have counted, by identity, so that shared ones count once."""

    def __init__(self, net: nn.Module) -> None:
        self.own = {name: [*module.parameters()] for name, module in net.named_modules()}
        self.own |= {name: [parameter] for name, parameter in net.named_parameters(remove_duplicate=False)}
        self.seen: set[nn.Parameter] = set()

    def again(self, name: str) -> int:
        """How many parameters of the module or parameter ``name`` were counted before; marks all as counted."""
        own = set(self.own.get(name, ()))
        repeated = own & self.seen
        self.seen |= own
        return sum(parameter.numel() for parameter in repeated)


def reparametrised(module: nn.Module) -> int:
    """Extra parameters of a layer whose weight is computed from others (weight norm)."""
    more = 0
    for name, parts in getattr(module, "parametrizations", nn.ModuleDict()).items():
        with torch.no_grad():
            more += sum(part.numel() for part in parts.parameters()) - getattr(module, name).numel()
    own = dict(module.named_parameters(recurse=False))  # PyTorch's older weight norm
    return more + sum(gain.numel() for name, gain in own.items() if name.endswith("_g") and f"{name[:-2]}_v" in own)


def verify(summary: ModelSummary, net: nn.Module) -> None:
    """Compare the summary with the running net, layer by layer: shapes by a forward pass, parameters by counting.

    Raises:
        ShapeError: they differ, or a layer gives no tensor; names the first such layer.
    """
    net = uncompiled(net)
    counted = CountedParameters(net)
    named = [layer for layer in summary.layers if layer.name in counted.own]
    shapes = _shapes(net, [layer.name for layer in named], summary.image)
    for layer in named:
        name = layer.name
        if name in shapes:
            shape = next(shapes[name], None)
            if shape != layer.sizes or math.prod(shape) != layer.numel:
                raise ShapeError(f"{name}: the summary says {layer.sizes[1:]}, the net gives {shape and shape[1:]}")
        count = sum(parameter.numel() for parameter in counted.own[name]) - counted.again(name)
        if count != layer.parameters:
            raise ShapeError(f"{name}: the summary says {layer.parameters} parameters, the net has {count}")
    unknown = [name for name, parameter in net.named_parameters() if parameter not in counted.seen]
    total = sum(parameter.numel() for parameter in net.parameters())
    if unknown or total != summary.parameters:
        names = f"; not in the summary: {', '.join(unknown[:3])}{' …' if unknown[3:] else ''}" if unknown else ""
        raise ShapeError(f"the summary says {summary.parameters} parameters in all, the net has {total}{names}")


def _shapes(net: nn.Module, names: Iterable[str], image: tuple[int, int, int]) -> dict[str, Iterator[tuple[int, ...]]]:
    """Output shapes of the named modules for one image, one shape per call."""
    modules = dict(net.named_modules())
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in names if name in modules}

    def append(module: nn.Module, inputs: object, output: Any, name: str) -> None:
        if isinstance(module, nn.MultiheadAttention):  # it gives its weights too
            output = output[0]
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            raise ShapeError(f"{name}: {type(module).__name__} gives {kind}, where the summary says a tensor")
        shapes[name].append(tuple(output.shape))

    with ExitStack() as stack, torch.no_grad(), eval_mode(net):
        for name in shapes:
            stack.callback(modules[name].register_forward_hook(partial(append, name=name)).remove)
        try:
            net(blank_image(net, image))
        except ShapeError:
            raise
        except Exception as error:  # a net's own code can raise anything
            raise ShapeError(
                f"the net does not take {'×'.join(map(str, image))} images: {first_line(error)}"
            ) from error
    return {name: iter(seen) for name, seen in shapes.items()}
