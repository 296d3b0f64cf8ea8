"""Other dimensions of the same numbers: the rules of reshapes, permutations and slices.

A map is followed through the shapes that nets of tokens give it: (n, c, h, w), (n, h, w, c), its positions as one
dimension t, (n, t, c), and channels as several dimensions, such as (n, c, t, c) for the heads of attention.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from .layers import MAPS, Axis, Layer, ShapeError


def numbers(values: tuple[Any, ...]) -> list[int]:
    """``x.view(2, 3)`` and ``x.view((2, 3))`` are the same."""
    return list(values if isinstance(values[0], int) else values[0])


def permute(name: str, layer: Layer, *order: Any) -> Layer:
    """The dimensions in another order."""
    dims = numbers(order)
    return layer.arranged("".join(layer.layout[dim] for dim in dims), [layer.sizes[dim] for dim in dims])


def transpose(name: str, layer: Layer, first: int, second: int) -> Layer:
    """Two dimensions exchanged."""
    order = list(range(len(layer.layout)))
    order[first], order[second] = order[second], order[first]
    return permute(name, layer, order)


def flatten(name: str, layer: Layer, start_dim: int = 0, end_dim: int = -1) -> Layer:
    """Neighbouring dimensions as one."""
    sizes = layer.sizes
    first, last = (range(len(sizes))[dim] for dim in (start_dim, end_dim))
    if layer.layout[first] == "n" and last > first:
        raise ShapeError(f"{name}: flattens dimensions {start_dim} to {end_dim}, which mixes the images of a batch")
    return reshape(name, layer, [*sizes[:first], math.prod(sizes[first : last + 1]), *sizes[last + 1 :]])


def reshape(name: str, layer: Layer, *sizes: Any) -> Layer:
    """Channels split into groups or merged again; positions as one dimension, or as rows and columns again; or all
    numbers of an image as one vector.
    """
    shape = numbers(sizes)
    if -1 in shape:
        shape[shape.index(-1)] = layer.numel // -math.prod(shape)
    for before, after in (("hw", "t"), ("t", "hw")):  # here, as sizes of 1 do not tell which dimension is which
        other = replace(layer, layout=layer.layout.replace(before, after))
        if not layer.prefix and other.sizes == tuple(shape):
            return other
    parts: list[str | None] = [None]
    if math.prod(shape) == layer.numel:
        parts = [_letters(layer, *block) for block in _blocks(layer, shape)]
    layout = "".join(part or "" for part in parts)
    if None in parts or len(layout) != len(shape):
        raise ShapeError(f"{name}: reshapes {layer.sizes[1:]} to {tuple(shape[1:])}, which the summary cannot follow")
    if set(layer.layout) & set("hwt") and not set(layout) & set("hwt"):  # in one vector
        layer = as_one_position(layer)
    return layer.arranged(layout, shape)


def _blocks(layer: Layer, shape: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """The fewest neighbouring dimensions that hold the same numbers before and after: their letters, the new sizes."""
    old, new = [*zip(layer.layout, layer.sizes, strict=True)], [*shape]
    while old and new:
        letter, size = old.pop(0)
        letters, sizes = letter, [new.pop(0)]
        while size != math.prod(sizes):
            if size < math.prod(sizes):
                letter, more = old.pop(0)
                letters, size = letters + letter, size * more
            else:
                sizes.append(new.pop(0))
        yield letters, sizes
    if old or new:  # sizes of 1
        yield "".join(letter for letter, _ in old), new


def _letters(layer: Layer, old: str, sizes: list[int]) -> str | None:
    """The letters of the new dimensions of a block; None if they would mix what the summary keeps apart."""
    if len(old) == len(sizes) == 1:
        return old
    return _positions(layer, old, sizes) if set(old) & set("hwts") else _channels(layer, old, sizes)


def _positions(layer: Layer, old: str, sizes: list[int]) -> str | None:
    if not sizes:  # a map of one position as a vector
        return "" if set(old) <= set("hw") else None
    if old == "hw" and len(sizes) == 1:  # with channels in several dimensions, before or after
        return "t"
    if old == "t" and not layer.prefix and sizes == [layer.rows.size, layer.columns.size]:
        return "hw"
    whole = sorted(old) == sorted(layer.layout.replace("n", ""))
    return "c" if whole and len(sizes) == 1 and "s" not in old else None


def _channels(layer: Layer, old: str, sizes: list[int]) -> str | None:
    if not old or not sizes:  # a vector as a map of one position
        return "hw" if sizes == [1, 1] and layer.layout == "nc" else None
    if "n" in old:  # the batch and groups of channels as one dimension
        return "c" if len(sizes) == 1 else None
    first = "n" if "n" not in layer.layout and sizes[0] == 1 else "c"  # the batch, apart again
    return first + "c" * (len(sizes) - 1)


def as_one_position(layer: Layer) -> Layer:
    """All positions as one, which sees what any of them sees."""
    return replace(layer, rows=layer.rows.whole(), columns=layer.columns.whole(), prefix=0)


def take(name: str, value: Any, index: Any) -> Any:
    """``x[…]``: an entry of a tuple, or a part of a layer's output along c, h, w or t."""
    if not isinstance(value, Layer):
        return value[index]
    entries = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in entries:
        where = entries.index(Ellipsis)
        entries[where : where + 1] = [slice(None)] * (len(value.layout) - len(entries) + 1 + entries.count(None))
    dims = [entry for entry in entries if not isinstance(entry, int)]
    added = [dim for dim, entry in enumerate(dims) if entry is None]
    entries = [entry for entry in entries if entry is not None]
    entries += [slice(None)] * (len(value.layout) - len(entries))
    layer, kept = value, []
    for letter, size, entry in zip(value.layout, value.sizes, entries, strict=True):
        if entry == slice(None):
            kept.append((letter, size))
            continue
        if not isinstance(entry, slice | int) or letter in "ns" or (isinstance(entry, int) and letter in "hw"):
            raise ShapeError(f"{name}: takes [{index}] of a map, the summary follows only slices of an image")
        part = range(size)[entry]
        if letter == "t":
            layer = _take_tokens(name, layer, part)
        elif isinstance(part, range) and letter in "hw":
            rows, columns = (part if letter == along else None for along in "hw")
            layer = replace(layer, rows=_subsample(layer.rows, rows), columns=_subsample(layer.columns, columns))
        if isinstance(part, range):
            kept.append((letter, len(part)))
    layer = layer.arranged("".join(letter for letter, _ in kept), [size for _, size in kept])
    for dim in added:
        layer = unsqueeze(name, layer, dim)
    return layer


def unsqueeze(name: str, layer: Layer, dim: int) -> Layer:
    """A new dimension of size 1: the rows or columns that a mean left out, or channels."""
    dim %= len(layer.layout) + 1
    letter = "c"
    for missing, axis in (("w", layer.columns), ("h", layer.rows)):
        layout = layer.layout[:dim] + missing + layer.layout[dim:]
        if axis.size == 1 and layout in ("nch", "ncw", MAPS):
            letter = missing
    sizes = [*layer.sizes[:dim], 1, *layer.sizes[dim:]]
    return layer.arranged(layer.layout[:dim] + letter + layer.layout[dim:], sizes)


def _take_tokens(name: str, layer: Layer, part: range | int) -> Layer:
    """A class token, or the map with fewer tokens before it."""
    if isinstance(part, int):
        part = range(part, part + 1)
    if len(part) == 1 and part[0] < layer.prefix:
        return as_one_position(layer)
    if part.step == 1 and part.stop == layer.positions and part.start <= layer.prefix:
        return replace(layer, prefix=layer.prefix - part.start)
    raise ShapeError(
        f"{name}: takes tokens {part.start} to {part.stop - 1} of {layer.positions}, of which {layer.prefix} stand "
        "before the map; the summary follows one of these, or all others"
    )


def _subsample(axis: Axis, kept: range | None) -> Axis:
    if kept is None:
        return axis
    return replace(axis, size=len(kept), jump=axis.jump * kept.step, offset=axis.offset + kept.start * axis.jump)
