"""The shape ledger: size, receptive field and cost of every layer, by arithmetic; then held against the running net.

``ledger`` follows the net's graph (``torch.fx``) with one formula per kind of layer and runs nothing. Along one axis,
with r the receptive field, j the jump (input pixels between neighbouring outputs) and ``start`` the centre of the
first output's field, a window of extent k, stride s and p samples of padding before the map gives

    n' = floor((n + 2p - k) / s) + 1    r' = r + (k - 1) j    start' = start + ((k - 1) / 2 - p) j    j' = s j

from n = the image, r = j = 1, start = 0.5 (Dumoulin & Visin 2016; Araujo et al. 2019). The field is that of the
arithmetic: padding counts as input, and a choice that depends on the whole map (``aps``) is not in it.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from src.activations import watch
from src.errors import Refusal
from src.geometry import Window
from src.pooling import Pool


class ShapeError(Refusal):
    """A map that would vanish, a window larger than its map, or a ledger that differs from the net."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a map: its size, and the field, jump and start of its outputs in input pixels."""

    size: int
    field: float = 1.0
    jump: float = 1.0
    start: float = 0.5

    def slide(self, window: Window) -> "Axis":
        """The axis after a window has passed over it."""
        return Axis(
            window.places(self.size),
            self.field + (window.extent - 1) * self.jump,
            self.jump * window.stride,
            self.start + ((window.extent - 1) / 2 - window.before) * self.jump,
        )

    def whole(self) -> "Axis":
        """All positions taken together: what a global pool, or a unit behind ``flatten``, sees."""
        return self.slide(Window(self.size, self.size, 0))

    def join(self, other: "Axis") -> "Axis":
        """Two branches that meet: the field covers both."""
        wide = self if self.size >= other.size else other  # a 1×1 branch is broadcast
        low = min(self.start - self.field / 2, other.start - other.field / 2)
        high = max(self.start + self.field / 2, other.start + other.field / 2)
        return replace(wide, field=high - low, start=(low + high) / 2)


@dataclass(frozen=True)
class Layer:
    """One row of the ledger.

    Attributes:
        name: of the module, as in ``net.named_modules()``.
        kind: its class.
        channels: channels of its output (units, behind ``flatten``).
        rows, columns: its output's two axes.
        parameters: learned numbers.
        multiply_adds: for one image; convolutions, linear layers and filters. Norms and activations count as none.
    """

    name: str
    kind: str
    channels: int
    rows: Axis
    columns: Axis
    parameters: int = 0
    multiply_adds: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.rows.size, self.columns.size

    def seen(self, image: tuple[int, int]) -> float:
        """Share of the input that one output can see, in (0, 1]."""
        return min(self.rows.field / image[0], 1) * min(self.columns.field / image[1], 1)


@dataclass(frozen=True)
class Ledger:
    """All layers of a net for one image shape ``(c, h, w)``."""

    image: tuple[int, int, int]
    layers: list[Layer]

    @property
    def parameters(self) -> int:
        """Learned numbers of the net."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image's forward pass."""
        return sum(layer.multiply_adds for layer in self.layers)

    def __getitem__(self, name: str) -> Layer:
        """The layer of that name; for a container, its last layer."""
        inside = [layer for layer in self.layers if layer.name == name or layer.name.startswith(f"{name}.")]
        if not inside:
            raise KeyError(name)
        return inside[-1]

    def rows(self) -> list[dict[str, Any]]:
        """One dict a layer, for tables."""
        return [
            {
                "layer": layer.name,
                "kind": layer.kind,
                "channels": layer.channels,
                "height": layer.rows.size,
                "width": layer.columns.size,
                "receptive_field": max(layer.rows.field, layer.columns.field),
                "jump": max(layer.rows.jump, layer.columns.jump),
                "start": layer.rows.start,
                "parameters": layer.parameters,
                "multiply_adds": layer.multiply_adds,
                "input_seen": round(layer.seen(self.image[1:]), 4),
            }
            for layer in self.layers
        ]


# --- one formula per kind of layer ---------------------------------------------------------------------------------


def _places(name: str, layer: Layer, windows: Sequence[Window], reach: str = "") -> Layer:
    """The map after the windows have passed, or the arithmetic of why they cannot."""
    for axis, window in zip((layer.rows, layer.columns), windows, strict=True):
        n, k, s, p = axis.size, window.extent, window.stride, window.before
        if window.padding is None and k > n:
            raise ShapeError(f"{name}: its window of {k} is larger than its map of {n}")
        if window.places(n) < 1:
            raise ShapeError(f"{name}: nothing is left: floor(({n} + 2·{p} - {k})/{s}) + 1 = {window.places(n)}")
        if s > n:
            raise ShapeError(f"{name}: its stride of {s} is larger than its map of {n}")
        if (reach == "reflect" and p >= n) or (reach == "circular" and p > n):
            raise ShapeError(f"{name}: {reach} padding of {p} needs a map larger than {p}, this one has {n}")
    return replace(layer, rows=layer.rows.slide(windows[0]), columns=layer.columns.slide(windows[1]))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _convolution(name: str, conv: nn.Conv2d, layer: Layer) -> Layer:
    if conv.in_channels != layer.channels:
        raise ShapeError(f"{name}: takes {conv.in_channels} channels, gets {layer.channels}")
    if isinstance(conv.padding, str):
        same = [d * (k - 1) // 2 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
        padding = [0, 0] if conv.padding == "valid" else same
    else:
        padding = list(conv.padding)
    windows = [Window(*one) for one in zip(conv.kernel_size, conv.stride, padding, conv.dilation, strict=True)]
    out = _places(name, layer, windows, conv.padding_mode)
    weights = conv.out_channels * (conv.in_channels // conv.groups) * math.prod(conv.kernel_size)
    return replace(
        out,
        channels=conv.out_channels,
        parameters=weights + (conv.out_channels if conv.bias is not None else 0),
        multiply_adds=weights * out.rows.size * out.columns.size,
    )


def _pool(name: str, pool: Pool, layer: Layer) -> Layer:
    out = layer
    for window in pool.windows:
        out = _places(name, out, (window, window), pool.border)
    return replace(
        out,
        parameters=pool.parameters_by_formula(layer.channels),
        multiply_adds=pool.multiply_adds(layer.channels) * out.rows.size * out.columns.size
        + pool.multiply_adds_read(layer.channels) * layer.rows.size * layer.columns.size,
    )


def _torch_pool(name: str, pool: nn.MaxPool2d | nn.AvgPool2d, layer: Layer) -> Layer:
    k, p = _pair(pool.kernel_size), _pair(pool.padding)
    s, d = _pair(pool.stride or pool.kernel_size), _pair(getattr(pool, "dilation", 1))
    windows = [Window(*one) for one in zip(k, s, p, d, strict=True)]
    out = _places(name, layer, windows)
    if not pool.ceil_mode:
        return out
    axes = []
    for before, after, window in zip((layer.rows, layer.columns), (out.rows, out.columns), windows, strict=True):
        places = -(-(before.size + 2 * window.before - window.extent) // window.stride) + 1
        # the last window must start on the map, or before it
        places -= (places - 1) * window.stride >= before.size + window.before
        axes.append(replace(after, size=places))
    return replace(out, rows=axes[0], columns=axes[1])


def _adaptive(name: str, pool: nn.Module, layer: Layer) -> Layer:
    axes = []
    for axis, size in zip((layer.rows, layer.columns), _pair(pool.output_size), strict=True):
        if size != axis.size and axis.size % size:
            raise ShapeError(f"{name}: a map of {axis.size} does not divide into {size} equal windows")
        axes.append(axis if size == axis.size else axis.slide(Window(axis.size // size, axis.size // size, 0)))
    return replace(layer, rows=axes[0], columns=axes[1])


def _pad(name: str, pad: nn.ZeroPad2d, layer: Layer) -> Layer:
    left, right, top, bottom = pad.padding
    axes = []
    for axis, before, after in ((layer.rows, top, bottom), (layer.columns, left, right)):
        if axis.size + before + after < 1:
            raise ShapeError(f"{name}: cropping {-before - after} leaves nothing of a map of {axis.size}")
        axes.append(replace(axis, size=axis.size + before + after, start=axis.start - before * axis.jump))
    return replace(layer, rows=axes[0], columns=axes[1])


def _flatten(layer: Layer) -> Layer:
    units = math.prod(layer.shape)
    return replace(layer, channels=units, rows=layer.rows.whole(), columns=layer.columns.whole())


def _linear(name: str, linear: nn.Linear, layer: Layer) -> Layer:
    if linear.in_features != layer.channels:
        raise ShapeError(f"{name}: takes {linear.in_features} numbers, gets {layer.channels}")
    weights = linear.in_features * linear.out_features
    bias = linear.out_features if linear.bias is not None else 0
    return replace(layer, channels=linear.out_features, parameters=weights + bias, multiply_adds=weights)


def _norm(name: str, norm: nn.Module, layer: Layer) -> Layer:
    return replace(layer, parameters=2 * layer.channels if norm.affine else 0)


def _pointwise(name: str, module: nn.Module, layer: Layer) -> Layer:
    return layer


Rule = Callable[[str, Any, Layer], Layer]
RULES: dict[tuple[type[nn.Module], ...], Rule] = {
    (nn.Conv2d,): _convolution,
    (Pool,): _pool,
    (nn.MaxPool2d, nn.AvgPool2d): _torch_pool,
    (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d): _adaptive,
    (nn.ZeroPad2d,): _pad,
    (nn.Flatten,): lambda name, module, layer: _flatten(layer),
    (nn.Linear,): _linear,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d): _norm,
    (nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU): _pointwise,
    (nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.ELU): _pointwise,
}
JOINS = {operator.add, operator.iadd, torch.add, operator.mul, torch.mul, "add", "add_", "mul"}
POINTWISE = {F.relu, torch.relu, F.gelu, F.silu, torch.sigmoid, F.dropout, "relu", "relu_", "contiguous"}
FLATTEN = {torch.flatten, "flatten"}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        return isinstance(m, Pool) or super().is_leaf_module(m, qualified_name)


def ledger(net: nn.Module, image: tuple[int, int, int]) -> Ledger:
    """The ledger of any net that ``torch.fx`` can trace, computed without running it (it may be on the meta device).

    Args:
        net: the net; its layers must be of the kinds in ``RULES``.
        image: (channels, height, width) of its input.

    Raises:
        ShapeError: a map vanishes, a window is larger than its map, or a layer has no rule.
    """
    modules = dict(net.named_modules())
    values: dict[fx.Node, Layer] = {}
    layers: list[Layer] = []
    for node in _Tracer().trace(net).nodes:
        inputs = [values[argument] for argument in node.all_input_nodes if argument in values]
        if node.op == "placeholder":
            values[node] = Layer("input", "image", image[0], Axis(image[1]), Axis(image[2]))
        elif node.op == "output":
            break
        elif node.op == "call_module":
            module, name = modules[str(node.target)], str(node.target)
            rule = next((rule for kinds, rule in RULES.items() if isinstance(module, kinds)), None)
            if rule is None:
                raise ShapeError(f"{name}: the ledger has no formula for {type(module).__name__}")
            start = replace(inputs[0], name=name, kind=type(module).__name__, parameters=0, multiply_adds=0)
            try:
                values[node] = rule(name, module, start)
            except ShapeError as error:
                sizes = dict.fromkeys([image[1:], *((one.rows.size, one.columns.size) for one in layers)])
                raise ShapeError(f"{error}; so far {' → '.join(f'{h}×{w}' for h, w in sizes)}") from None
            layers.append(values[node])
        else:
            values[node] = _function(node, inputs)
            layers.append(values[node])
    return Ledger(image, layers)


def _function(node: fx.Node, inputs: Sequence[Layer]) -> Layer:
    """Calls that are no modules: sums, concatenations, flatten, pointwise functions."""
    start = replace(inputs[0], name=node.name, kind=node.name.rstrip("_0123456789"), parameters=0, multiply_adds=0)
    if node.target in JOINS and len(inputs) == 2:
        a, b = inputs
        broadcast = 1 in (a.rows.size, b.rows.size)
        if a.channels != b.channels or (a.shape != b.shape and not broadcast):
            raise ShapeError(f"{node.name}: joins {a.name} {a.shape} and {b.name} {b.shape}")
        return replace(start, rows=a.rows.join(b.rows), columns=a.columns.join(b.columns))
    if node.target is torch.cat:
        channels = sum(one.channels for one in inputs)
        rows, columns = inputs[0].rows, inputs[0].columns
        for one in inputs[1:]:
            rows, columns = rows.join(one.rows), columns.join(one.columns)
        return replace(start, channels=channels, rows=rows, columns=columns)
    if node.target in FLATTEN:
        return _flatten(start)
    if node.target in POINTWISE or node.target in JOINS:
        return start
    raise ShapeError(f"{node.name}: the ledger has no formula for {node.target}")


def verify(book: Ledger, net: nn.Module) -> None:
    """Hold the ledger against the running net, layer by layer: shapes by a forward pass, parameters by counting.

    Raises:
        ShapeError: naming the first layer that differs.
    """
    modules = dict(net.named_modules())
    named = [layer for layer in book.layers if layer.name in modules]
    where = next(iter(net.parameters()), torch.empty(0))
    with watch(net, [layer.name for layer in named]) as outputs, torch.no_grad():
        net(torch.zeros(1, *book.image, device=where.device, dtype=where.dtype))
    for layer in named:
        shape = tuple(outputs[layer.name].shape[1:])
        if math.prod(shape) != math.prod(layer.shape) or shape[0] != layer.channels or len(shape) not in (1, 3):
            raise ShapeError(f"{layer.name}: the ledger says {layer.shape}, the net gives {shape}")
        if len(shape) == 3 and shape != layer.shape:
            raise ShapeError(f"{layer.name}: the ledger says {layer.shape}, the net gives {shape}")
        counted = sum(parameter.numel() for parameter in modules[layer.name].parameters())
        if counted != layer.parameters:
            raise ShapeError(f"{layer.name}: the ledger says {layer.parameters} parameters, the net has {counted}")
    total = sum(parameter.numel() for parameter in net.parameters())
    if total != book.parameters:
        raise ShapeError(f"the ledger says {book.parameters} parameters in all, the net has {total}")
