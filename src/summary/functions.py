"""``CALLS``: the rules of functions and tensor methods.

A rule takes the name of the call and its arguments, some of them layers, and returns a layer, several, or numbers.
"""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .layers import Axis, Layer, ShapeError
from .modules import flatten, pad, rule_of

Call = Callable[..., Any]
Dims = int | Sequence[int]


def _join(name: str, *operands: Any, **options: Any) -> Layer:
    """Elementwise operations with broadcasting; the receptive field covers all operands."""
    layers = [operand for operand in operands if isinstance(operand, Layer)]
    whole = max(layers, key=lambda layer: (len(layer.layout), math.prod(layer.shape)))
    for layer in layers:
        fits = all(size in (1, most) for size, most in zip(layer.shape, whole.shape, strict=True))
        if not fits or (layer.rows.receptive_field and layer.layout != whole.layout):
            raise ShapeError(f"{name}: joins {_shapes(layers)}")
    return _join_axes(whole, layers)


def _join_axes(result: Layer, layers: Sequence[Layer]) -> Layer:
    rows, columns = (reduce(Axis.join, axes) for axes in zip(*((x.rows, x.columns) for x in layers), strict=True))
    return replace(result, rows=rows, columns=columns)


def _shapes(layers: Sequence[Layer]) -> str:
    return " and ".join(f"{layer.name} {layer.shape}" for layer in layers)


def _cat(name: str, layers: Sequence[Layer], dim: int = 0) -> Layer:
    """Concatenation of channels."""
    first = layers[0]
    if any(layer.layout != first.layout or layer.shape[1:] != first.shape[1:] for layer in layers):
        raise ShapeError(f"{name}: puts side by side {_shapes(layers)}")
    _of_channels(name, first, dim)
    return _join_axes(replace(first, channels=sum(layer.channels for layer in layers)), layers)


def _of_channels(name: str, layer: Layer, dim: int) -> None:
    if layer.layout[dim] != "c":
        raise ShapeError(f"{name}: works along dimension {dim} of ({', '.join(layer.layout)}), the summary follows c")


def _split(name: str, layer: Layer, sizes: Dims, dim: int = 0) -> list[Layer]:
    _of_channels(name, layer, dim)
    if isinstance(sizes, int):
        sizes = [min(sizes, layer.channels - first) for first in range(0, layer.channels, sizes)]
    return [replace(layer, channels=size) for size in sizes]


def _chunk(name: str, layer: Layer, chunks: int, dim: int = 0) -> list[Layer]:
    return _split(name, layer, -(-layer.channels // chunks), dim)


def _reduce(name: str, layer: Layer, dim: Dims = (), keepdim: bool = False, **options: Any) -> Layer:
    """A mean, sum or maximum over dimensions of an image."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    reduced = {layer.layout[dim] for dim in dims}
    if not reduced or not reduced <= set("chw"):
        over = f"dimensions {dims}" if dims else "all dimensions"
        raise ShapeError(f"{name}: a mean, sum or maximum over {over}; the summary follows those of an image")
    return replace(
        layer,
        channels=1 if "c" in reduced else layer.channels,
        rows=layer.rows.whole() if "h" in reduced else layer.rows,
        columns=layer.columns.whole() if "w" in reduced else layer.columns,
        layout=layer.layout if keepdim else "".join(letter for letter in layer.layout if letter not in reduced),
    )


def _squeeze(name: str, layer: Layer, dim: int) -> Layer:
    if layer.sizes[dim] != 1:
        raise ShapeError(f"{name}: dimension {dim} of {layer.sizes} is not 1")
    return _reduce(name, layer, dim)


def _permute(name: str, layer: Layer, *order: Any) -> Layer:
    dims = order if isinstance(order[0], int) else order[0]
    return replace(layer, layout="".join(layer.layout[dim] for dim in dims))


def _transpose(name: str, layer: Layer, first: int, second: int) -> Layer:
    order = list(range(len(layer.layout)))
    order[first], order[second] = order[second], order[first]
    return _permute(name, layer, order)


def _view(name: str, layer: Layer, *sizes: Any) -> Layer:
    """Channels split into groups or merged again, or a flattened image."""
    if not layer.rows.receptive_field:  # a learned tensor is broadcast to maps of any layout
        return layer
    shape = list(sizes if isinstance(sizes[0], int) else sizes[0])
    if -1 in shape:
        shape[shape.index(-1)] = math.prod(layer.shape) // -math.prod(shape)
    groups = len(shape) - 3
    if shape[0] == 1 and groups > 0 and tuple(shape[-2:]) == layer.shape[1:] and re.fullmatch("nc+(hw)?", layer.layout):
        return replace(layer, layout="n" + "c" * groups + "hw")
    if shape == [1, math.prod(layer.shape)]:
        return flatten(name, layer, 1)
    raise ShapeError(f"{name}: reshapes {layer.shape} to {tuple(shape[1:])}, which the summary cannot follow")


def _take(name: str, value: Any, index: Any) -> Any:
    """``x[…]``: an entry of a tuple, or slices of a map along c, h and w."""
    if not isinstance(value, Layer):
        return value[index]
    slices = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in slices:
        where = slices.index(Ellipsis)
        slices[where : where + 1] = [slice(None)] * (len(value.layout) - len(slices) + 1)
    if not all(isinstance(entry, slice) for entry in slices) or slices[0] != slice(None):
        raise ShapeError(f"{name}: takes [{index}] of a map, the summary follows only slices of an image")
    kept = {label: range(size)[part] for label, size, part in zip(value.layout, value.sizes, slices, strict=False)}
    return replace(
        value,
        channels=len(kept.get("c", range(value.channels))),
        rows=_subsample(value.rows, kept.get("h")),
        columns=_subsample(value.columns, kept.get("w")),
    )


def _subsample(axis: Axis, kept: range | None) -> Axis:
    if kept is None:
        return axis
    return replace(axis, size=len(kept), jump=axis.jump * kept.step, offset=axis.offset + kept.start * axis.jump)


def _attribute(name: str, value: Any, attribute: str) -> Any:
    known = {"shape": lambda: value.sizes, "ndim": lambda: len(value.layout), "dtype": lambda: None}
    if attribute not in known:
        raise ShapeError(f"{name}: reads .{attribute} of a map, which the summary cannot follow")
    return known[attribute]()


def _interpolate(name: str, layer: Layer, size: Any = None, scale_factor: Any = None, *_: Any, **__: Any) -> Layer:
    return _as_layer(nn.Upsample, "size scale_factor", name, layer, size, scale_factor)


def _same(name: str, layer: Layer, *options: Any, **more: Any) -> Layer:
    return layer


def _as_layer(kind: type[nn.Module], names: str, name: str, layer: Layer, *options: Any, **more: Any) -> Layer:
    """A function that equals a layer, by the layer's formula."""
    module = kind(**dict(zip(names.split(), options, strict=False)) | more)
    rule = rule_of(module)
    assert rule is not None
    return rule(name, module, layer)


_window = "kernel_size stride padding "
#: function, or name of a tensor's method → its rule
CALLS: dict[Any, Call] = {
    **dict.fromkeys([operator.add, operator.iadd, torch.add, "add", "add_"], _join),
    **dict.fromkeys([operator.sub, operator.isub, torch.sub, "sub", "sub_"], _join),
    **dict.fromkeys([operator.mul, operator.imul, torch.mul, "mul", "mul_"], _join),
    **dict.fromkeys([operator.truediv, torch.div, "div", "div_"], _join),
    **dict.fromkeys([torch.addcmul, "expand_as"], _join),
    **dict.fromkeys([torch.cat, torch.concat], _cat),
    **dict.fromkeys([torch.split, "split"], _split),
    **dict.fromkeys([torch.chunk, "chunk"], _chunk),
    **dict.fromkeys([torch.mean, "mean", torch.sum, "sum", torch.amax, "amax"], _reduce),
    **dict.fromkeys([torch.norm, "norm"], lambda name, x, p=2, dim=(), keepdim=False: _reduce(name, x, dim, keepdim)),
    **dict.fromkeys([torch.squeeze, "squeeze"], _squeeze),
    **dict.fromkeys([torch.permute, "permute"], _permute),
    **dict.fromkeys([torch.transpose, "transpose"], _transpose),
    **dict.fromkeys([torch.reshape, "reshape", "view"], _view),
    **dict.fromkeys([torch.flatten, "flatten"], flatten),
    operator.getitem: _take,
    "size": lambda name, x, dim=None: x.sizes if dim is None else x.sizes[dim],
    getattr: _attribute,
    F.pad: lambda name, x, pads, *_, **__: pad(name, x, *pads),
    F.interpolate: _interpolate,
    F.max_pool2d: partial(_as_layer, nn.MaxPool2d, _window + "dilation ceil_mode"),
    torch.max_pool2d: partial(_as_layer, nn.MaxPool2d, _window + "dilation ceil_mode"),
    F.avg_pool2d: partial(_as_layer, nn.AvgPool2d, _window + "ceil_mode count_include_pad"),
    F.adaptive_avg_pool2d: partial(_as_layer, nn.AdaptiveAvgPool2d, "output_size"),
    F.adaptive_max_pool2d: partial(_as_layer, nn.AdaptiveMaxPool2d, "output_size"),
    **dict.fromkeys([F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.softplus, F.dropout], _same),
    **dict.fromkeys([operator.pow, torch.pow, "pow", torch.square, "square"], _same),
    **dict.fromkeys([F.hardswish, F.hardsigmoid, F.hardtanh, torch.relu, torch.sigmoid, torch.tanh], _same),
    **dict.fromkeys("relu relu_ sigmoid sigmoid_ tanh clamp contiguous clone detach float to".split(), _same),
}
