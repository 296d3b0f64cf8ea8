"""``CALLS``: the rules of functions and tensor methods.

A rule takes the name of the call and its arguments, some of them layers, and returns a layer, several, or numbers.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import linear, matmul, merge_patches, scaled_dot_product_attention
from .dimensions import as_one_position, flatten, permute, reshape, take, transpose, unsqueeze
from .layers import Axis, Layer, ShapeError
from .shapes_and_costs import pad, rule_of

Call = Callable[..., Any]
Dims = int | Sequence[int]


def _join(name: str, *operands: Any, **options: Any) -> Layer:
    """Elementwise operations with broadcasting; the receptive field covers all operands. Tensors are learned."""
    layers = [operand for operand in operands if isinstance(operand, Layer)]
    whole = max(layers, key=lambda layer: (len(layer.layout), layer.numel))
    for layer in layers:
        sizes = layer.sizes if layer.layout == whole.layout else ()
        if not sizes or not all(size in (1, most) for size, most in zip(sizes, whole.sizes, strict=True)):
            raise ShapeError(f"{name}: joins {_shapes(layers)}")
    for operand in operands:
        if isinstance(operand, Tensor) and not _broadcasts(operand.shape, whole.sizes):
            raise ShapeError(f"{name}: joins {_shapes([whole])} and a learned tensor of {tuple(operand.shape)}")
    return _join_axes(whole, layers)


def _broadcasts(shape: Sequence[int], sizes: Sequence[int]) -> bool:
    pairs = zip(reversed(shape), reversed(sizes), strict=False)
    return len(shape) <= len(sizes) and all(size in (1, whole) for size, whole in pairs)


def _join_axes(result: Layer, layers: Sequence[Layer]) -> Layer:
    rows, columns = (reduce(Axis.join, axes) for axes in zip(*((x.rows, x.columns) for x in layers), strict=True))
    return replace(result, rows=rows, columns=columns)


def _shapes(layers: Sequence[Layer | Tensor]) -> str:
    return " and ".join(
        f"{layer.name} {layer.shape}" if isinstance(layer, Layer) else f"a learned tensor {tuple(layer.shape)}"
        for layer in layers
    )


def _cat(name: str, layers: Sequence[Layer | Tensor], dim: int = 0) -> Layer:
    """Concatenation of channels; or of learned tokens and a map's."""
    first = next(layer for layer in layers if isinstance(layer, Layer))
    if first.layout[dim] == "t":
        return _with_tokens(name, first, layers, dim)
    parts = [layer for layer in layers if isinstance(layer, Layer)]
    alike = {(layer.layout, layer.prefix, _resized(layer, dim, 1).sizes) for layer in parts}
    if len(parts) < len(layers) or len(alike) > 1:
        raise ShapeError(f"{name}: puts side by side {_shapes(layers)}")
    _of_channels(name, first, dim)
    return _join_axes(_resized(first, dim, sum(layer.sizes[dim] for layer in parts)), parts)


def _with_tokens(name: str, layer: Layer, parts: Sequence[Layer | Tensor], dim: int) -> Layer:
    """Learned tokens before those of a map."""
    *before, last = parts
    learned = [part for part in before if isinstance(part, Tensor)]
    shapes = {(*part.shape[:dim], *part.shape[dim:][1:]) for part in learned}
    if last is not layer or len(learned) < len(before) or shapes != {(*layer.sizes[:dim], *layer.sizes[dim:][1:])}:
        raise ShapeError(f"{name}: puts one after the other {_shapes(parts)}; the summary follows tokens before a map")
    return replace(layer, prefix=layer.prefix + sum(part.shape[dim] for part in learned))


def _of_channels(name: str, layer: Layer, dim: int) -> None:
    if layer.layout[dim] != "c":
        raise ShapeError(f"{name}: works along dimension {dim} of ({', '.join(layer.layout)}), the summary follows c")


def _resized(layer: Layer, dim: int, size: int) -> Layer:
    sizes = [*layer.sizes]
    sizes[dim] = size
    return layer.arranged(layer.layout, sizes)


def _split(name: str, layer: Layer, sizes: Dims, dim: int = 0) -> list[Layer]:
    _of_channels(name, layer, dim)
    whole = layer.sizes[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - first) for first in range(0, whole, sizes)]
    return [_resized(layer, dim, size) for size in sizes]


def _chunk(name: str, layer: Layer, chunks: int, dim: int = 0) -> list[Layer]:
    return _split(name, layer, -(-layer.sizes[dim] // chunks), dim)


def _unbind(name: str, layer: Layer, dim: int = 0) -> list[Layer]:
    _of_channels(name, layer, dim)
    index = [slice(None)] * (dim % len(layer.layout))
    return [take(name, layer, (*index, i)) for i in range(layer.sizes[dim])]


def _reduce(name: str, layer: Layer, dim: Dims = (), keepdim: bool = False, **options: Any) -> Layer:
    """A mean, sum or maximum over dimensions of an image."""
    dims = [range(len(layer.layout))[i] for i in ((dim,) if isinstance(dim, int) else dim)]
    reduced = {layer.layout[i] for i in dims}
    if not reduced or not reduced <= set("chwts"):
        over = f"dimensions {tuple(dims)}" if dims else "all dimensions"
        raise ShapeError(f"{name}: a mean, sum or maximum over {over}; the summary follows those of an image")
    kept = [i for i in range(len(layer.layout)) if keepdim or i not in dims]
    layout = "".join(layer.layout[i] for i in kept)
    sizes = [1 if i in dims else layer.sizes[i] for i in kept]
    if "t" in reduced:
        layer = as_one_position(layer)
    layer = replace(
        layer,
        rows=layer.rows.whole() if "h" in reduced else layer.rows,
        columns=layer.columns.whole() if "w" in reduced else layer.columns,
        attended=1 if "s" in reduced else layer.attended,
    )
    return layer.arranged(layout, sizes)


def _squeeze(name: str, layer: Layer, dim: int) -> Layer:
    if layer.sizes[dim] != 1:
        raise ShapeError(f"{name}: dimension {dim} of {layer.sizes} is not 1")
    return _reduce(name, layer, dim)


def _attribute(name: str, value: Any, attribute: str) -> Any:
    known = {
        "shape": lambda: value.sizes,
        "ndim": lambda: len(value.layout),
        "device": lambda: None,
        "dtype": lambda: None,
    }
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
    out: Layer = rule(name, module, layer)
    return out


_window = "kernel_size stride padding "
#: function, or name of a tensor's method → its rule
CALLS: dict[Any, Call] = {
    **dict.fromkeys([operator.add, operator.iadd, torch.add, "add", "add_"], _join),
    **dict.fromkeys([operator.sub, operator.isub, torch.sub, "sub", "sub_"], _join),
    **dict.fromkeys([operator.mul, operator.imul, torch.mul, "mul", "mul_"], _join),
    **dict.fromkeys([operator.truediv, torch.div, "div", "div_"], _join),
    **dict.fromkeys([torch.addcmul, "expand_as", torch.maximum, torch.minimum, "maximum", "minimum"], _join),
    **dict.fromkeys([torch.cat, torch.concat], _cat),
    **dict.fromkeys([torch.split, "split"], _split),
    **dict.fromkeys([torch.chunk, "chunk"], _chunk),
    **dict.fromkeys([torch.mean, "mean", torch.sum, "sum", torch.amax, "amax"], _reduce),
    **dict.fromkeys([torch.norm, "norm"], lambda name, x, p=2, dim=(), keepdim=False: _reduce(name, x, dim, keepdim)),
    **dict.fromkeys([torch.squeeze, "squeeze"], _squeeze),
    **dict.fromkeys([torch.unsqueeze, "unsqueeze"], unsqueeze),
    **dict.fromkeys([torch.permute, "permute"], permute),
    **dict.fromkeys([torch.transpose, "transpose"], transpose),
    **dict.fromkeys([torch.reshape, "reshape", "view"], reshape),
    **dict.fromkeys([torch.flatten, "flatten"], flatten),
    operator.getitem: take,
    **dict.fromkeys([torch.unbind, "unbind"], _unbind),
    **dict.fromkeys([operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"], matmul),
    F.scaled_dot_product_attention: scaled_dot_product_attention,
    F.linear: linear,
    "torchvision._patch_merging_pad": merge_patches,
    "dim": lambda name, x: len(x.layout),
    "size": lambda name, x, dim=None: x.sizes if dim is None else x.sizes[dim],
    getattr: _attribute,
    F.pad: lambda name, x, pads, *_, **__: pad(name, x, *pads),
    F.interpolate: _interpolate,
    F.max_pool2d: partial(_as_layer, nn.MaxPool2d, _window + "dilation ceil_mode"),
    torch.max_pool2d: partial(_as_layer, nn.MaxPool2d, _window + "dilation ceil_mode"),
    F.avg_pool2d: partial(_as_layer, nn.AvgPool2d, _window + "ceil_mode count_include_pad"),
    F.adaptive_avg_pool2d: partial(_as_layer, nn.AdaptiveAvgPool2d, "output_size"),
    F.adaptive_max_pool2d: partial(_as_layer, nn.AdaptiveMaxPool2d, "output_size"),
    F.pixel_shuffle: partial(_as_layer, nn.PixelShuffle, "upscale_factor"),
    F.pixel_unshuffle: partial(_as_layer, nn.PixelUnshuffle, "downscale_factor"),
    **dict.fromkeys([F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.softplus, F.dropout], _same),
    **dict.fromkeys([operator.pow, torch.pow, "pow", torch.square, "square"], _same),
    **dict.fromkeys(
        [F.hardswish, F.hardsigmoid, F.hardtanh, F.softmax, torch.softmax, torch.relu, torch.sigmoid, torch.tanh], _same
    ),
    **dict.fromkeys([F.log_softmax, F.celu, F.selu, torch.exp, torch.abs, torch.sqrt, torch.neg, operator.neg], _same),
    **dict.fromkeys("log_softmax exp abs sqrt neg".split(), _same),
    **dict.fromkeys("softmax relu relu_ sigmoid sigmoid_ tanh clamp contiguous clone detach float to".split(), _same),
}


def call_of(function: Any) -> Call | None:
    """The rule of a function, or of a tensor's method by its name; those of optional packages are in the table by
    name.
    """
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    return CALLS.get(function) or CALLS.get(f"{package}.{getattr(function, '__name__', '')}")
