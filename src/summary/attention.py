"""The rules of attention, as a module or as products of matrices, and of other parts of transformers.

Multiply-adds (MACs) are those of the projections, of queries and keys, and of weights and values. Every output of
attention sees all positions, or those of its window (``Axis.attend``).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..pooling.geometry import Window
from .dimensions import transpose
from .layers import MAPS, Layer, ShapeError


def multihead_attention(
    name: str, attention: nn.MultiheadAttention, query: Layer, key: Layer, value: Layer, *_: Any, **__: Any
) -> tuple[Layer, None]:
    """``nn.MultiheadAttention``: the output, and None for the weights."""
    order, width = ("ntc" if attention.batch_first else "tnc"), attention.embed_dim
    takes = (width, attention.kdim, attention.vdim)
    for layer, channels in zip((query, key, value), takes, strict=True):
        if layer.layout != order or layer.channels != channels:
            raise ShapeError(
                f"{name}: takes tokens ({', '.join(order)}) of {channels} numbers, gets {layer.sizes} "
                f"({', '.join(layer.layout)})"
            )
    attended = key.positions + (attention.bias_k is not None) + attention.add_zero_attn
    projections = query.positions * 2 * width + key.positions * attention.kdim + value.positions * attention.vdim
    biases = width * (3 * (attention.in_proj_bias is not None) + (attention.out_proj.bias is not None))
    learned_tokens = 0 if attention.bias_k is None else 2 * width
    out = _attend(query, key)
    return replace(
        out,
        parameters=width * (2 * width + attention.kdim + attention.vdim) + biases + learned_tokens,
        multiply_adds=projections * width + 2 * query.positions * attended * width,
    ), None


def _attend(query: Layer, key: Layer) -> Layer:
    return replace(query, rows=query.rows.attend(key.rows), columns=query.columns.attend(key.columns))


def window_attention(name: str, attention: Any, layer: Layer) -> Layer:
    """torchvision's attention in windows, of Swin transformers of both versions: windows that do not overlap, of a map
    that is padded at its end and may be shifted.
    """
    width, heads = attention.qkv.in_features, attention.num_heads
    if layer.layout != "nhwc" or layer.channels != width:
        raise ShapeError(f"{name}: takes maps (n, h, w, c) of {width} channels, gets {layer.sizes}")
    height, breadth = attention.window_size
    padded = math.ceil(layer.rows.size / height) * height * math.ceil(layer.columns.size / breadth) * breadth
    biases = 3 * (attention.qkv.bias is not None) + (attention.proj.bias is not None)
    parameters, cost = (4 * width + biases) * width, padded * width * (4 * width + 2 * height * breadth)
    relative = (2 * height - 1) * (2 * breadth - 1)  # positions of a token, seen from another
    if hasattr(attention, "cpb_mlp"):  # version 2: their biases are computed by a net, from two coordinates
        hidden = attention.cpb_mlp[0].out_features
        parameters += (2 + 1 + heads) * hidden + heads
        cost += relative * (2 + heads) * hidden
    else:
        parameters += relative * heads
    rows, columns = layer.rows.attend(layer.rows, height), layer.columns.attend(layer.columns, breadth)
    return replace(layer, rows=rows, columns=columns, parameters=parameters, multiply_adds=cost)


def partition_attention(name: str, block: Any, layer: Layer) -> Layer:
    """torchvision's attention of MaxViT, with the two layers after it: in windows, or in grids, whose positions are as
    far apart as there are windows.
    """
    attention, norms = block.attn_layer[1], (block.attn_layer[0], block.mlp_layer[0])
    width, hidden, side = layer.channels, block.mlp_layer[1].out_features, attention.size
    takes = (attention.to_qkv.in_features, *block.grid_size)
    if layer.layout != MAPS or layer.shape != takes:
        raise ShapeError(
            f"{name}: takes maps ({', '.join(MAPS)}) of {takes}, gets {layer.sizes[1:]} ({', '.join(layer.layout)})"
        )
    learned = sum(parameter.numel() for norm in norms for parameter in norm.parameters())
    relative = (2 * side - 1) ** 2 * attention.n_heads
    step = block.n_partitions if block.partition_type == "grid" else 1
    return replace(
        layer,
        rows=layer.rows.attend(layer.rows, side, step),
        columns=layer.columns.attend(layer.columns, side, step),
        parameters=(4 * width + 4) * width + (2 * width + 1) * hidden + width + relative + learned,
        multiply_adds=layer.positions * width * (4 * width + 2 * side**2 + 2 * hidden),
    )


def merge_patches(name: str, layer: Layer) -> Layer:
    """Each 2×2 positions of a map (n, h, w, c) as the channels of one; of an odd size, the last is padded."""
    if layer.layout != "nhwc":
        raise ShapeError(f"{name}: takes maps (n, h, w, c), gets ({', '.join(layer.layout)})")
    rows, columns = (axis.pad(0, axis.size % 2).slide(Window(2, 2, 0)) for axis in (layer.rows, layer.columns))
    return replace(layer, channels=4 * layer.channels, rows=rows, columns=columns)


def matmul(name: str, first: Any, second: Any) -> Layer:
    """Queries by keys (… t c)(… c t) → (… t s), weights by values (… t s)(… t c) → (… t c), or channels by a learned
    matrix.
    """
    if isinstance(first, Layer) and isinstance(second, Tensor) and second.ndim == 2:
        return linear(name, first, second.T)
    layers = [layer for layer in (first, second) if isinstance(layer, Layer)]
    if len(layers) < 2 or min(len(layer.layout) for layer in layers) < 3:
        raise _unknown_product(name, first, second)
    *batch, n, inner = zip(first.layout, first.sizes, strict=True)
    *others, same, m = zip(second.layout, second.sizes, strict=True)
    pattern = n[0] + inner[0] + same[0] + m[0]
    if batch != others or inner[1] != same[1] or pattern not in ("tcct", "tstc"):
        raise _unknown_product(name, first, second)
    dims = [*batch, n, ("s", m[1]) if pattern == "tcct" else m]
    out = replace(_attend(first, second), attended=m[1] if pattern == "tcct" else 1)
    out = out.arranged("".join(letter for letter, _ in dims), [size for _, size in dims])
    return replace(out, multiply_adds=out.numel * inner[1])


def _unknown_product(name: str, first: Any, second: Any) -> ShapeError:
    shapes = " by ".join(str(tuple(getattr(x, "sizes", getattr(x, "shape", "a number")))) for x in (first, second))
    return ShapeError(f"{name}: multiplies {shapes}, which the summary follows for the matrices of attention only")


def scaled_dot_product_attention(name: str, query: Layer, key: Layer, value: Layer, *_: Any, **__: Any) -> Layer:
    """The two products of attention in one call."""
    weights = matmul(name, query, transpose(name, key, -2, -1))
    out = matmul(name, replace(weights, multiply_adds=0), value)
    return replace(out, multiply_adds=weights.multiply_adds + out.multiply_adds)


def linear(name: str, layer: Layer, weight: Tensor, bias: Tensor | None = None) -> Layer:
    """The last dimension, of channels, by a learned matrix; its parameters have a row of their own."""
    outputs, inputs = weight.shape
    if layer.layout[-1] != "c" or layer.sizes[-1] != inputs:
        raise ShapeError(f"{name}: takes {inputs} numbers, gets {layer.sizes[-1]}")
    sizes: Sequence[int] = [*layer.sizes[:-1], outputs]
    out = layer.arranged(layer.layout, sizes)
    return replace(out, multiply_adds=out.numel * inputs)
