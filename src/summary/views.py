"""Maps in the outputs of layers that give tokens, (n, t, c), or channels last, (n, h, w, c).

The model summary knows the order of a layer's dimensions. Where it cannot follow the net, they are inferred: the grid
of tokens from the convolution that makes patches, or from a ``patch_size``; which dimension has the channels, from the
last layer whose number of channels is known.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..common.errors import UserError
from ..nets.external import Image, NetError, run_once
from ..nets.hooks import uncompiled
from ..pooling.geometry import pair
from . import summarize
from .layers import MAPS, ModelSummary

log = logging.getLogger(__name__)

#: tokens before those of the map that are taken for class and register tokens, where the summary does not say
MOST_PREFIX = 16
#: kind of layer → the dimension that has its channels, their number
CHANNELS: dict[Any, tuple[int, Callable[[Any], int]]] = {
    nn.Conv2d: (1, lambda layer: layer.out_channels),
    _NormBase: (1, lambda layer: layer.num_features),
    nn.GroupNorm: (1, lambda layer: layer.num_channels),
    nn.Linear: (-1, lambda layer: layer.out_features),
    nn.LayerNorm: (-1, lambda layer: layer.normalized_shape[-1]),
    nn.RMSNorm: (-1, lambda layer: layer.normalized_shape[-1]),
}


@dataclass(frozen=True)
class MapView:
    """How the output of a layer is read as maps, and maps are put back.

    Attributes:
        layout: order of its dimensions: n, c and either h and w or t, the positions of the map row by row.
        size: (height, width) of the map.
        prefix: tokens before those of the map, which are left out: class and register tokens.

    >>> tokens = torch.arange(5.0).view(1, 5, 1)
    >>> view = MapView("ntc", (2, 2), prefix=1)
    >>> view(tokens).tolist()
    [[[[1.0, 2.0], [3.0, 4.0]]]]
    >>> view.put_back(view(tokens), tokens).equal(tokens)
    True
    """

    layout: str
    size: tuple[int, int]
    prefix: int = 0

    @property
    def _order(self) -> list[int]:
        return [self.layout.index(letter) for letter in ("nct" if "t" in self.layout else MAPS)]

    def __call__(self, output: Float[Tensor, "..."]) -> Float[Tensor, "n c h w"]:
        """The maps in a layer's output; a view of it, where that is possible."""
        maps = output.permute(self._order)
        if maps.ndim == 3:
            maps = maps[:, :, self.prefix :].unflatten(2, self.size)
        return maps

    def put_back(self, maps: Float[Tensor, "n c h w"], output: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The layer's output with these maps in place of its own."""
        if "t" in self.layout:
            maps = torch.cat([output.permute(self._order)[:, :, : self.prefix], maps.flatten(2)], 2)
        return maps.permute([self._order.index(dim) for dim in range(output.ndim)])


def map_views(net: nn.Module, image: Image, layers: Sequence[str]) -> dict[str, MapView]:
    """Layer → how its output is read as maps, of the layers for which that is needed and known. Maps (n, c, h, w),
    vectors, and sequences that are no map of the image have none.

    Raises:
        UserError: the net does not take such images; or an output may be read in more than one way, named with the
            layer.
    """
    calls = run_once(net, image)
    summary = None
    with suppress(UserError):
        summary = summarize(net, image)
    views, inferred = {}, []
    for name in layers:
        output = calls[name].output if name in calls else None
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            continue
        known, view = _of_summary(summary, name, tuple(output.shape))
        if not known:
            view = _of_tokens(name, calls, net, image) if output.ndim == 3 else _of_channels_last(name, calls, image)
            inferred += [name] if view else []
        if view:
            views[name] = view
    if inferred:
        which = "; ".join(f"{name} {'×'.join(map(str, views[name].size))} + {views[name].prefix}" for name in inferred)
        log.info("outputs read as maps of positions, after tokens that are left out: %s", which)
    return views


def _of_summary(summary: ModelSummary | None, name: str, shape: tuple[int, ...]) -> tuple[bool, MapView | None]:
    """Whether the summary knows the layer's dimensions, and the view if one is needed."""
    try:
        row = None if summary is None else summary[name]
    except KeyError:
        row = None
    if row is None or row.sizes != shape:
        return False, None
    if sorted(row.layout) not in (sorted("nct"), sorted(MAPS)) or row.layout == MAPS:
        return True, None
    return True, MapView(row.layout, (row.rows.size, row.columns.size), row.prefix)


def _of_tokens(name: str, calls: Mapping[str, Any], net: nn.Module, image: Image) -> MapView | None:
    """Tokens (n, t, c), by the grids that are known: of convolutions with as many channels, and of patch sizes."""
    _, tokens, channels = calls[name].output.shape
    grids = {
        tuple(call.output.shape[2:])
        for call in calls.values()
        if isinstance(call.module, nn.Conv2d) and call.module.out_channels == channels and call.output.ndim == 4
    }
    for module in uncompiled(net).modules():
        patch = pair(getattr(module, "patch_size", None))
        if len(patch) == 2 and all(isinstance(side, int) and side > 0 for side in patch):
            grids.add((image[1] // patch[0], image[2] // patch[1]))
    fits = {(h, w): tokens - h * w for h, w in grids if 0 <= tokens - h * w <= min(MOST_PREFIX, h * w - 1)}
    exact = {size: 0 for size, prefix in fits.items() if not prefix}
    fits = exact or fits
    if len(fits) > 1:
        ways = " or ".join(f"{h}×{w} + {prefix}" for (h, w), prefix in sorted(fits.items()))
        raise _ambiguous(name, f"its {tokens} tokens may be {ways}")
    return next((MapView("ntc", size, prefix) for size, prefix in fits.items()), None)


def _of_channels_last(name: str, calls: Mapping[str, Any], image: Image) -> MapView | None:
    """(n, h, w, c), if the last layer with a known number of channels has its channels last."""
    shape = calls[name].output.shape
    before = [call.module for call in list(calls.values())[: 1 + list(calls).index(name)]]
    dim, count = 1, 0
    for module in before:
        for kind, (dim_of_kind, count_of) in CHANNELS.items():
            if isinstance(module, kind):
                dim, count = dim_of_kind, count_of(module)
    shaped = abs(shape[1] * image[2] - shape[2] * image[1]) <= max(image[1:])  # as the image, up to rounding
    if shape[3] != count or not shaped or (dim == 1 and shape[1] == count):
        return None
    if shape[1] == count:
        raise _ambiguous(name, f"of its output {tuple(shape[1:])}, the first or the last may be the {count} channels")
    return MapView("nhwc", (shape[1], shape[2]))


def _ambiguous(name: str, why: str) -> NetError:
    return NetError(f"{name}: {why}, and the model summary cannot follow the net", "name other layers, by layers=")
