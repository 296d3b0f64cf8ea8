"""``RULES``: the rules of the kinds of layers; those of optional packages are in the table by name.

A rule takes the name of a layer, the module and its input, and returns its output with parameters and
multiply-adds (MACs, half the FLOPs).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.padding import _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd

from ..pooling import Pool
from ..pooling.geometry import Window, pair
from ..pooling.heads import GlobalPool
from .attention import multihead_attention, partition_attention, window_attention
from .dimensions import flatten
from .layers import MAPS, Axis, Layer, ShapeError

Rule = Callable[..., Any]


def _maps(name: str, layer: Layer) -> None:
    if layer.layout != MAPS:
        raise ShapeError(f"{name}: takes maps ({', '.join(MAPS)}), gets ({', '.join(layer.layout)})")


def slide(name: str, layer: Layer, windows: Sequence[Window], border: str = "") -> Layer:
    """The map after sliding windows; ``ShapeError`` if it would be empty, or the padding is larger than the map."""
    _maps(name, layer)
    for axis, window in zip((layer.rows, layer.columns), windows, strict=True):
        n, k, s, p = axis.size, window.extent, window.stride, window.before
        if window.output_size(n) < 1:
            raise ShapeError(f"{name}: nothing is left: floor(({n} + 2·{p} - {k})/{s}) + 1 = {window.output_size(n)}")
        most = max(p, *window.pads(n))
        if (border == "reflect" and most >= n) or (border == "circular" and most > n):
            raise ShapeError(f"{name}: {border} padding of {most} needs a map larger than {most}, this one has {n}")
    return replace(layer, rows=layer.rows.slide(windows[0]), columns=layer.columns.slide(windows[1]))


def refuse_larger(name: str, module: nn.Module, layer: Layer) -> None:
    """``ShapeError`` if a stride, or a window with "same" padding, is larger than its map: mostly padding is seen."""
    if not isinstance(module, Pool | nn.Conv2d):
        return
    for window in module.windows if isinstance(module, Pool) else _windows(module, (0, 0)):
        for n in layer.shape[1:]:
            if isinstance(module, Pool) and window.padding is None and window.extent > n:
                raise ShapeError(f"{name}: its window of {window.extent} is larger than its map of {n}")
            if window.stride > n:
                raise ShapeError(f"{name}: its stride of {window.stride} is larger than its map of {n}")


def pad(name: str, layer: Layer, left: int, right: int, top: int = 0, bottom: int = 0) -> Layer:
    """The map padded, or (negative) cropped, on its four sides."""
    _maps(name, layer)
    for axis, more in ((layer.rows, top + bottom), (layer.columns, left + right)):
        if axis.size + more < 1:
            raise ShapeError(f"{name}: cropping {-more} leaves nothing of a map of {axis.size}")
    return replace(layer, rows=layer.rows.pad(top, bottom), columns=layer.columns.pad(left, right))


def _windows(module: Any, padding: Sequence[int]) -> list[Window]:
    """The two windows of a PyTorch convolution or pool."""
    kernel, dilation = pair(module.kernel_size), pair(getattr(module, "dilation", 1))
    axes = zip(kernel, pair(module.stride or module.kernel_size), padding, dilation, strict=True)
    return [Window(k, s, p, d, ceil=getattr(module, "ceil_mode", False)) for k, s, p, d in axes]


def _reach(name: str, module: Any, layer: Layer) -> Layer:
    """The map after a PyTorch convolution or pool; ``padding="same"`` adds the odd sample after the map."""
    border, padding = getattr(module, "padding_mode", ""), getattr(module, "padding", 0)
    if not isinstance(padding, str):
        return slide(name, layer, _windows(module, pair(padding)), border)
    windows = _windows(module, (0, 0))
    if padding == "same":
        top, left = ((window.extent - 1) // 2 for window in windows)
        bottom, right = (window.extent - 1 - before for window, before in zip(windows, (top, left), strict=True))
        layer = pad(name, layer, left, right, top, bottom)
    return slide(name, layer, windows, border)


def _tensorflow(name: str, module: Any, layer: Layer) -> Layer:
    """TensorFlow's "same" padding: ceil(n / stride) windows, with the odd sample of padding after the map."""
    windows = _windows(module, (0, 0))
    pads = []
    for axis, window in zip((layer.columns, layer.rows), reversed(windows), strict=True):
        total = max((-(-axis.size // window.stride) - 1) * window.stride + window.extent - axis.size, 0)
        pads += [total // 2, total - total // 2]
    return slide(name, pad(name, layer, *pads), windows)


def _pool(name: str, pool: Pool, layer: Layer) -> Layer:
    out = layer
    for window in pool.windows:
        out = slide(name, out, (window, window), pool.border)
    parameters = pool.parameters_by_formula(layer.channels)
    return replace(
        out, parameters=parameters, multiply_adds=pool.multiply_adds(layer.channels, layer.shape[1:], out.shape[1:])
    )


def _adaptive(name: str, pool: nn.Module, layer: Layer) -> Layer:
    """Windows from floor(i n / m) to ceil((i + 1) n / m); if m does not divide n, the largest receptive field."""
    _maps(name, layer)
    axes = []
    for axis, size in zip((layer.rows, layer.columns), pair(pool.output_size), strict=True):
        n, m = axis.size, size or axis.size
        first, *others = (-(-(i + 1) * n // m) - i * n // m for i in range(m))
        centre = axis.offset + (first - 1) / 2 * axis.jump
        axes.append(Axis(m, axis.receptive_field + (max(first, *others, 0) - 1) * axis.jump, axis.jump * n / m, centre))
    return replace(layer, rows=axes[0], columns=axes[1])


def _global(name: str, pool: GlobalPool, layer: Layer) -> Layer:
    cost = pool.multiply_adds(layer.channels, layer.shape[1:])
    out = _adaptive(name, pool, layer)
    return replace(out, parameters=pool.parameters_by_formula(layer.channels), multiply_adds=cost)


def _resize(name: str, module: nn.Upsample, layer: Layer) -> Layer:
    """Interpolation; its own samples are not in the receptive field."""
    _maps(name, layer)
    factors = pair(module.scale_factor)
    sizes = pair(module.size) if module.size else [int(n * f) for n, f in zip(layer.shape[1:], factors, strict=True)]
    return replace(layer, rows=layer.rows.resize(sizes[0]), columns=layer.columns.resize(sizes[1]))


def _shuffle(name: str, module: nn.PixelShuffle, layer: Layer) -> Layer:
    """r² channels become r × r positions, which see what their one position saw."""
    _maps(name, layer)
    factor = module.upscale_factor
    if layer.channels % factor**2:
        raise ShapeError(f"{name}: takes a multiple of {factor**2} channels, gets {layer.channels}")
    rows, columns = (axis.resize(axis.size * factor) for axis in (layer.rows, layer.columns))
    return replace(layer, channels=layer.channels // factor**2, rows=rows, columns=columns)


def _unshuffle(name: str, module: nn.PixelUnshuffle, layer: Layer) -> Layer:
    """r × r positions become channels of one."""
    factor = module.downscale_factor
    if any(size % factor for size in layer.shape[1:]):
        raise ShapeError(
            f"{name}: takes sides that are multiples of {factor}, gets {layer.rows.size}×{layer.columns.size}"
        )
    return replace(slide(name, layer, [Window(factor, factor, 0)] * 2), channels=layer.channels * factor**2)


def _blur_pool(name: str, blur: Any, layer: Layer) -> Layer:
    """A fixed filter per channel, after the module's own padding."""
    window = Window(blur.filt_size, blur.stride, 0)
    out = slide(name, pad(name, layer, *blur.padding), (window, window))
    return replace(out, multiply_adds=blur.filt_size**2 * math.prod(out.shape))


def _convolution(name: str, conv: nn.Conv2d, layer: Layer, reach: Rule = _reach) -> Layer:
    if conv.in_channels != layer.channels:
        raise ShapeError(f"{name}: takes {conv.in_channels} channels, gets {layer.channels}")
    out: Layer = reach(name, conv, layer)
    weights = conv.in_channels // conv.groups * math.prod(conv.kernel_size)  # of an output channel
    parameters = conv.out_channels * (weights + (conv.bias is not None))
    cost = conv.out_channels * weights * out.rows.size * out.columns.size
    return replace(out, channels=conv.out_channels, parameters=parameters, multiply_adds=cost)


def _transposed_convolution(
    name: str, conv: nn.ConvTranspose2d, layer: Layer, output_size: Sequence[int] | None = None
) -> Layer:
    """Every sample adds the kernel to a map ``stride`` times as large."""
    _maps(name, layer)
    if conv.in_channels != layer.channels:
        raise ShapeError(f"{name}: takes {conv.in_channels} channels, gets {layer.channels}")
    windows = _windows(conv, pair(conv.padding))
    axes = [axis.spread(window) for axis, window in zip((layer.rows, layer.columns), windows, strict=True)]
    more: Sequence[int] = conv.output_padding
    if output_size is not None:
        more = [size - axis.size for size, axis in zip(output_size[-2:], axes, strict=True)]
    rows, columns = (axis.pad(0, extra) for axis, extra in zip(axes, more, strict=True))
    if min(rows.size, columns.size) < 1:
        raise ShapeError(f"{name}: nothing is left of a map of {layer.rows.size}×{layer.columns.size}")
    weights = conv.in_channels * conv.out_channels // conv.groups * math.prod(conv.kernel_size)
    parameters = weights + conv.out_channels * (conv.bias is not None)
    out = replace(layer, channels=conv.out_channels, rows=rows, columns=columns, parameters=parameters)
    return replace(out, multiply_adds=weights * layer.rows.size * layer.columns.size)


_same_convolution = partial(_convolution, reach=_tensorflow)


def _with_gain(rule: Rule) -> Rule:
    """A convolution with a learned gain for each output channel."""

    def gained(name: str, conv: Any, layer: Layer) -> Layer:
        out: Layer = rule(name, conv, layer)
        return replace(out, parameters=out.parameters + (out.channels if conv.gain is not None else 0))

    return gained


def _linear(name: str, module: nn.Linear, layer: Layer) -> Layer:
    if layer.layout[-1] != "c" or module.in_features != layer.sizes[-1]:
        raise ShapeError(f"{name}: takes {module.in_features} numbers, gets {layer.sizes[-1]}")
    out = layer.arranged(layer.layout, [*layer.sizes[:-1], module.out_features])
    parameters = module.out_features * (module.in_features + (module.bias is not None))
    return replace(out, parameters=parameters, multiply_adds=out.numel * module.in_features)


def _norm(name: str, norm: nn.Module, layer: Layer) -> Layer:
    """A weight and a bias per channel, if it has them."""
    learned = sum(getattr(norm, name, None) is not None for name in ("weight", "bias"))
    return replace(layer, parameters=learned * layer.channels)


def _layer_norm(name: str, norm: nn.LayerNorm | nn.RMSNorm, layer: Layer) -> Layer:
    shape = tuple(norm.normalized_shape)
    if layer.sizes[-len(shape) :] != shape:
        raise ShapeError(f"{name}: takes maps that end in {shape}, gets {layer.sizes}")
    learned = sum(getattr(norm, name, None) is not None for name in ("weight", "bias"))
    return replace(layer, parameters=learned * math.prod(shape))


def _channel_attention(name: str, gate: Any, layer: Layer) -> Layer:
    """A gate per channel, from a filter over the channels of the map's mean: every output sees the whole map."""
    taps = gate.conv.kernel_size[0]
    rows, columns = (axis.join(axis.whole()) for axis in (layer.rows, layer.columns))
    return replace(layer, rows=rows, columns=columns, parameters=taps, multiply_adds=taps * layer.channels)


def _pointwise(name: str, module: nn.Module, layer: Layer) -> Layer:
    return layer


def _table(rules: dict[Any, Rule]) -> dict[type[nn.Module] | str, Rule]:
    """One entry per kind, from entries with tuples of kinds."""
    return {kind: rule for kinds, rule in rules.items() for kind in (kinds if isinstance(kinds, tuple) else (kinds,))}


#: kind of layer, or "package.Kind" → its rule; also for subclasses without a rule of their own
RULES = _table(
    {
        nn.Conv2d: _convolution,
        Pool: _pool,
        (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d): _reach,
        (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d): _adaptive,
        GlobalPool: _global,
        (_ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd): lambda name, module, x: pad(name, x, *module.padding),
        nn.Upsample: _resize,
        nn.PixelShuffle: _shuffle,
        nn.PixelUnshuffle: _unshuffle,
        nn.Flatten: lambda name, module, x: flatten(name, x, module.start_dim, module.end_dim),
        nn.Linear: _linear,
        (_NormBase, nn.GroupNorm, "torchvision.LayerNorm2d", "timm.LayerNorm2d"): _norm,
        (nn.LayerNorm, nn.RMSNorm): _layer_norm,
        nn.ConvTranspose2d: _transposed_convolution,
        nn.MultiheadAttention: multihead_attention,
        "torchvision.ShiftedWindowAttention": window_attention,
        "torchvision.PartitionAttentionLayer": partition_attention,
        (nn.Softmax, nn.LogSoftmax, nn.CELU, nn.SELU, nn.LogSigmoid, nn.Softsign): _pointwise,
        nn.PReLU: lambda name, module, x: replace(x, parameters=module.num_parameters),
        (nn.Identity, _DropoutNd, "torchvision.StochasticDepth"): _pointwise,
        (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish): _pointwise,
        (nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus): _pointwise,
        ("timm.MaxPool2dSame", "timm.AvgPool2dSame"): _tensorflow,
        ("timm.Conv2dSame", "timm.StdConv2dSame"): _same_convolution,
        "timm.BlurPool2d": _blur_pool,
        "timm.EcaModule": _channel_attention,
        "timm.ScaledStdConv2d": _with_gain(_convolution),
        "timm.ScaledStdConv2dSame": _with_gain(_same_convolution),
    }
)


def rule_of(module: nn.Module) -> Rule | None:
    """The module's own rule, ``module.summary_rule(layer)``; else that of its class or the nearest base class."""
    if hasattr(module, "summary_rule"):
        return lambda name, own, layer: own.summary_rule(layer)
    for kind in type(module).__mro__:
        rule = RULES.get(kind) or RULES.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if rule is not None:
            return rule
    return None
