"""``swap_pools``: the pools of any net replaced by one of this project's, and everything else left as it is."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from ..nets.hooks import blank_image, reference_tensor, uncompiled
from .base import Pool
from .geometry import Window
from .table import POOLS

#: a class of ``POOLS``, or what is called as one: (kernel_size, stride, padding, *, border, ceil_mode, channels) → Pool
MakePool = Callable[..., Pool]


def swap_pools(
    net: nn.Module,
    pool: str | MakePool,
    image: tuple[int, int, int],
    *,
    window: int | None = None,
    border: str = "clip",
    convs: bool = False,
    names: Iterable[str] | None = None,
) -> list[str]:
    """Replace the pooling layers of a net, in place (``copy.deepcopy`` it first to keep the old one).

    Replaced are the ``nn.MaxPool2d``, ``nn.AvgPool2d`` and ``Pool`` layers with a stride above 1; adaptive (global)
    pools and pools of stride 1 stay. A new pool has the old one's window, stride and padding, so maps of any size keep
    the size they had; where it cannot have that window, the padding is found that keeps all sizes. Pools whose windows
    tile the map (``aps``, ``flc``, ``unshuffle`` …) put stride 2 in the place of 3×3 windows with stride 2 and padding
    1: both give ``ceil(n / 2)``. A pool that is a layer (``conv``, ``unshuffle``) gets no norm or activation behind it.

    A strided convolution becomes ``Sequential(conv, pool)``: itself with stride 1 and the same weights, and the pool
    with its stride, before any norm or activation. Its weights are then named ``….conv.weight``: load a checkpoint
    before the swap.

    The net runs once, in eval mode, on zeros: for the channels, types and devices at each place. Train/eval flags,
    and channels-last weights, are handed on to the new pools. A net that is refused has not been changed.

    Args:
        net: any net for maps (n, c, h, w).
        pool: a name in ``POOLS``, or a callable with their arguments: ``partial(POOLS["maxblur"], taps=5)``.
        image: (channels, height, width) of its input.
        window: side of the new windows. ``None``: that of the layer replaced (so ``blur`` for 2×2 windows has two taps
            and is ``avg``), or behind a convolution the pool's own default.
        border: what the new windows see beyond the border; one of ``BORDERS``.
        convs: replace strided convolutions as well, as the antialiased nets of Zhang 2019 do.
        names: the layers to replace, convolutions and pools of stride 1 among them; ``None``: as said above.

    Returns:
        The names of what was replaced.

    Raises:
        UserError: there is nothing to replace, a name is no such layer, a layer has what no pool here has (dilation,
            indices, windows that are not square …), the pool cannot give the sizes it had, or a net calls pools as
            functions, which would stay.
    """
    net = uncompiled(net)
    make = _named(pool) if isinstance(pool, str) else pool
    modules = dict(net.named_modules(remove_duplicate=False))
    kinds = (*POOLING, nn.Conv2d) if convs else POOLING
    shrinking = [name for name, one in modules.items() if isinstance(one, kinds) and max(_pair(one.stride)) > 1]
    parts = [f"{name}." for name, one in modules.items() if isinstance(one, Pool)]  # a pool may be made of others
    chosen = [name for name in shrinking if not name.startswith(tuple(parts))] if names is None else list(names)
    if not chosen:
        raise UserError("nothing to replace: no pooling layer has a stride above 1 (strided convolutions: convs=True)")
    places = {name: _place(name, modules.get(name), window) for name in chosen}
    arrivals, functions = _run(net, image)
    if functions and names is None:
        raise UserError(f"{functions[0]} is called as a function and would stay; names= to replace layers all the same")
    fresh: dict[nn.Module, Pool] = {}  # a layer that has two names stays one
    for name, place in places.items():
        if place.module not in fresh:
            build = partial(make, place.kernel, place.stride, border=border)
            fresh[place.module] = _made(name, build, place, arrivals.get(place.module, {}), net)
    for name, place in places.items():
        net.set_submodule(name, _put(place.module, fresh[place.module]))
    return chosen


@dataclass(frozen=True)
class Place:
    """Where a pool comes to stand: the layer there, its windows, and what the new pool should have if it can."""

    module: nn.Module
    windows: list[Window]
    kernel: int | None
    stride: int
    padding: int | None
    ceil: bool


@dataclass(frozen=True)
class Arrival:
    """A kind of map that leaves a layer."""

    channels: int
    dtype: torch.dtype
    device: torch.device


def _named(name: str) -> MakePool:
    pool = POOLS.get(name)
    if pool is None:
        names = ", ".join(one for one, pool in POOLS.items() if pool)
        raise UserError(f"pool={name!r}: choose one of {names}")
    return pool


# --- what stands there now -----------------------------------------------------------------------------------------


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _side(name: str, module: nn.Module, attribute: str) -> int:
    """A setting that both axes share."""
    one, other = _pair(getattr(module, attribute))
    if one != other:
        raise UserError(f"{name}: {attribute}={one, other} differs between the axes; pools here are square")
    return one


def _torch_pool(name: str, module: nn.Module) -> Place:
    for setting, allowed in (("dilation", 1), ("return_indices", False), ("divisor_override", None)):
        value = getattr(module, setting, allowed)
        if value not in (allowed, (allowed, allowed)):
            raise UserError(f"{name}: {setting}={value}, which no pool here has")
    kernel, stride, padding = (_side(name, module, one) for one in ("kernel_size", "stride", "padding"))
    ceil = bool(module.ceil_mode)
    return Place(module, [Window(kernel, stride, padding, ceil=ceil)], kernel, stride, padding, ceil)


def _pool(name: str, pool: Pool) -> Place:
    return Place(pool, pool.windows, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)


def _convolution(name: str, conv: nn.Conv2d) -> Place:
    """A strided convolution is the one with stride 1, then ``[::s]``: a window of one sample."""
    stride = _side(name, conv, "stride")
    return Place(conv, [Window(1, stride, 0)], None, stride, None, False)


PLACES: dict[type[nn.Module], Callable[[str, Any], Place]] = {
    nn.MaxPool2d: _torch_pool,
    nn.AvgPool2d: _torch_pool,
    nn.Conv2d: _convolution,
    Pool: _pool,
}
POOLING = (nn.MaxPool2d, nn.AvgPool2d, Pool)
FUNCTIONS = (F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.lp_pool2d)


def _place(name: str, module: nn.Module | None, window: int | None) -> Place:
    # a subclass of PyTorch's may have sizes of its own
    place = PLACES.get(Pool if isinstance(module, Pool) else type(module))  # type: ignore[arg-type]
    if module is None or place is None:
        kinds = ", ".join(kind.__name__ for kind in PLACES)
        what = "no such layer" if module is None else f"{type(module).__name__} is none of the layers replaced"
        raise UserError(f"{name}: {what} ({kinds})")
    if not name:
        raise UserError(f"the net is itself a {type(module).__name__}: there is nothing to put another one in")
    found = place(name, module)
    return replace(found, kernel=window or found.kernel)


def _run(net: nn.Module, image: tuple[int, int, int]) -> tuple[dict[nn.Module, dict[Arrival, None]], list[str]]:
    """What leaves each layer in a forward pass, and the calls of pools that are no layers and shrink a map."""
    arrivals: dict[nn.Module, dict[Arrival, None]] = {}
    running: list[tuple[str, nn.Module]] = []
    functions: list[str] = []

    def enter(module: nn.Module, inputs: object, name: str) -> None:
        running.append((name, module))

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        running.pop()
        if isinstance(output, Tensor) and output.dim() == 4:
            arrivals.setdefault(module, {})[Arrival(output.shape[1], output.dtype, output.device)] = None

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            name, module = running[-1]
            if func in FUNCTIONS and not isinstance(module, POOLING) and _shrinks(args[0], output):
                functions.append(f"{name or 'the net'}: {func.__name__}")
            return output

    running.append(("", net))
    with ExitStack() as stack:
        for name, module in net.named_modules():
            stack.callback(setattr, module, "training", module.training)
            stack.callback(module.register_forward_pre_hook(partial(enter, name=name)).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        net.eval()
        with torch.no_grad(), Watch():
            net(blank_image(net, image))
    return arrivals, functions


def _shrinks(x: Tensor, output: Any) -> bool:
    """Whether a pool has taken a map to a smaller one, not to its size again or, as a head does, to one place."""
    return isinstance(output, Tensor) and output.shape[-1] not in (1, x.shape[-1])


# --- what comes to stand there -------------------------------------------------------------------------------------


def _made(name: str, build: MakePool, place: Place, arrivals: dict[Arrival, None], net: nn.Module) -> Pool:
    """The pool for a place: of the same sizes, for the maps that arrive there, in the state of the net around it."""
    options = _fit(name, build, place)
    channels = sorted({one.channels for one in arrivals})
    try:
        pool = build(**options, channels=channels[0] if len(channels) == 1 else None)
    except ValueError as error:
        came = " and ".join(map(str, channels)) or "no map at all"
        raise UserError(f"{name}: {error}; there came {came}") from None
    weight = reference_tensor(net)
    where = next(iter(arrivals), Arrival(0, weight.dtype, weight.device))
    pool.to(where.device, where.dtype).to(memory_format=_memory_format(net))  # type: ignore[call-overload]
    return pool.train(place.module.training)


def _fit(name: str, build: MakePool, place: Place) -> dict[str, Any]:
    """Padding and rounding with which the pool keeps the sizes of all maps: if it can be, those that were there."""
    first = None
    paddings = [place.padding, None, *range((place.kernel or 0) // 2 + 1)]
    for padding, ceil in product(paddings, [place.ceil, not place.ceil]):
        options = {"padding": padding, "ceil_mode": ceil}
        try:
            with torch.device("meta"):  # nothing is drawn
                trial = build(**options, channels=1)
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None
        wrong = _first_difference(place.windows, trial.windows)
        if wrong is None:
            return options
        first = first or f"{name}: {type(trial).__name__} cannot keep the sizes of {place.module}: {wrong}"
    raise UserError(str(first))


def _first_difference(old: list[Window], new: list[Window]) -> str | None:
    """The smallest map for which the windows give different sizes; they do so again a few strides on."""
    start = max(window.extent for window in [*old, *new])
    period = max(window.stride for window in [*old, *new])
    for n in range(start, start + 3 * period):
        was, gives = (reduce(lambda size, window: window.places(size), windows, n) for windows in (old, new))
        if was != gives:
            return f"a map of {n} becomes one of {gives}, not {was}"
    return None


def _memory_format(net: nn.Module) -> torch.memory_format:
    """Channels last where a weight of the net is."""
    last = torch.channels_last
    weights = (one for one in net.parameters() if one.dim() == 4)
    found = any(one.is_contiguous(memory_format=last) and not one.is_contiguous() for one in weights)
    return last if found else torch.preserve_format


def _put(old: nn.Module, pool: Pool) -> nn.Module:
    """What stands in the layer's place: the pool, behind a convolution with the convolution before it."""
    if not isinstance(old, nn.Conv2d):
        return pool
    old.stride = (1, 1)
    return nn.Sequential(OrderedDict(conv=old, pool=pool)).train(old.training)
