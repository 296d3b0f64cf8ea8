"""``swap_pools``: replace the pooling layers of any net by one of ``POOLS``."""

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

from ..common import arguments
from ..common.errors import UserError, did_you_mean
from ..nets.hooks import blank_image, eval_mode, first_line, reference_tensor, uncompiled
from .base import Pool
from .geometry import Window, pair
from .table import POOLS

#: a class of ``POOLS``, or a callable: (kernel_size, stride, padding, *, border, ceil_mode, channels) → Pool
MakePool = Callable[..., Pool]


def swap_pools(
    net: nn.Module,
    pool: str | MakePool,
    image: tuple[int, int, int],
    *,
    window: int | None = None,
    border: str = "clip",
    convs: bool = False,
    names: str | Iterable[str] | None = None,
) -> list[str]:
    """Replace the pooling layers of a net, in place (``copy.deepcopy`` it first to keep the old one).

    By default it replaces the ``nn.MaxPool2d``, ``nn.AvgPool2d`` and ``Pool`` layers of stride above 1, and leaves
    adaptive (global) pools and pools of stride 1. A new pool takes the window, stride and padding of the old one, so
    that all map sizes stay; a pool that cannot have that window gets the padding that keeps all sizes. Pools with
    non-overlapping windows (``aps``, ``flc``, ``unshuffle`` …) replace 3×3 windows of stride 2 and padding 1 by stride
    2: both give ``ceil(n / 2)``. A pool that is a layer (``conv``, ``unshuffle``) gets no norm or activation here.

    A strided convolution becomes ``Sequential(conv, pool)``: the convolution with stride 1 and the same weights, then
    the pool with its stride, before any norm or activation. Its weights are then named ``….conv.weight``: load a
    checkpoint before the swap.

    The net runs once, in eval mode, on zeros, to find channels, dtype and device of each layer's output. New pools
    inherit the train/eval flag and the channels-last format. After an error the net is unchanged.

    Args:
        net: any net for maps (n, c, h, w).
        pool: a name in ``POOLS``, or a callable with their arguments: ``partial(POOLS["maxblur"], taps=5)``.
        image: (channels, height, width) of its input.
        window: side of the new windows. ``None``: that of the replaced layer (so ``blur`` in place of 2×2 windows has
            two taps and equals ``avg``); after a convolution the pool's own default.
        border: padding mode of the new pools; one of ``BORDERS``.
        convs: replace strided convolutions too, as the antialiased nets of Zhang 2019 do.
        names: the layer or layers to replace, which may include convolutions and pools of stride 1; ``None``: as above.

    Returns:
        The names of the replaced layers.

    Raises:
        UserError: an argument is of another kind; there is nothing to replace; a name is no replaceable layer; a layer
            has a setting that no pool here has (dilation, indices, windows that are not square …); the pool cannot keep
            the sizes; the net does not take such images; or it calls pooling functions, which cannot be replaced.
    """
    net, image = uncompiled(arguments.module("net", net)), arguments.image_size(image)
    window = None if window is None else arguments.whole_number("window", window, least=1)
    names = None if names is None else arguments.names_of("names", names)
    make = pool if callable(pool) else _named(pool)
    modules = dict(net.named_modules(remove_duplicate=False))
    kinds = (*POOLING, nn.Conv2d) if convs else POOLING
    strided = [name for name, layer in modules.items() if isinstance(layer, kinds) and max(pair(layer.stride)) > 1]
    inside_pools = tuple(f"{name}." for name, layer in modules.items() if isinstance(layer, Pool))
    chosen = [name for name in strided if not name.startswith(inside_pools)] if names is None else names
    if not chosen:
        _, functions = _run(net, image)
        reason = f"{functions[0]}, which cannot be replaced: make it a layer" if functions else NOTHING
        raise UserError(f"nothing to replace: {reason}")
    replaced = {name: _replaced(name, modules.get(name), window) for name in chosen}
    outputs, functions = _run(net, image)
    if functions and names is None:
        raise UserError(f"{functions[0]}, which cannot be replaced: make it a layer, or name the others with names=")
    new: dict[nn.Module, Pool] = {}  # a layer with two names stays one layer
    for name, old in replaced.items():
        if old.module not in new:
            build = partial(make, old.kernel, old.stride, border=border)
            new[old.module] = _build_pool(name, build, old, outputs.get(old.module, {}), net)
    for name, old in replaced.items():
        net.set_submodule(name, _replacement(old.module, new[old.module]))
    return chosen


@dataclass(frozen=True)
class Replaced:
    """A layer that a pool replaces: its windows, and the settings that the new pool should have if possible."""

    module: nn.Module
    windows: list[Window]
    kernel: int | None
    stride: int
    padding: int | None
    ceil: bool


@dataclass(frozen=True)
class OutputKind:
    """Channels, dtype and device of a layer's output."""

    channels: int
    dtype: torch.dtype
    device: torch.device


def _named(name: Any) -> MakePool:
    pool = POOLS.get(name) if isinstance(name, str) else None
    if pool is None:
        names = [key for key, value in POOLS.items() if value]
        meant = did_you_mean(name, names) if isinstance(name, str) else ""
        raise UserError(f"pool={arguments.shown(name)}: {meant}choose one of {', '.join(names)}")
    return pool


def _place(name: str) -> str:
    return f"layer {name}" if name else "the net"


def _side(name: str, module: nn.Module, attribute: str) -> int:
    rows, columns = pair(getattr(module, attribute))
    if rows != columns:
        raise UserError(f"{_place(name)}: {attribute}={rows, columns} differs between the axes; pools here are square")
    return int(rows)


def _torch_pool(name: str, module: nn.Module) -> Replaced:
    for setting, allowed in (("dilation", 1), ("return_indices", False), ("divisor_override", None)):
        value = getattr(module, setting, allowed)
        if value not in (allowed, (allowed, allowed)):
            raise UserError(f"{_place(name)}: {setting}={value}, which no pool here has")
    kernel, stride, padding = (_side(name, module, key) for key in ("kernel_size", "stride", "padding"))
    ceil = bool(module.ceil_mode)
    return Replaced(module, [Window(kernel, stride, padding, ceil=ceil)], kernel, stride, padding, ceil)


def _pool(name: str, pool: Pool) -> Replaced:
    return Replaced(pool, pool.windows, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)


def _convolution(name: str, conv: nn.Conv2d) -> Replaced:
    """A strided convolution equals one of stride 1, then ``[::s]``: a window of one sample."""
    stride = _side(name, conv, "stride")
    return Replaced(conv, [Window(1, stride, 0)], None, stride, None, False)


#: kind of layer → how to read its windows
READERS: dict[type[nn.Module], Callable[[str, Any], Replaced]] = {
    nn.MaxPool2d: _torch_pool,
    nn.AvgPool2d: _torch_pool,
    nn.Conv2d: _convolution,
    Pool: _pool,
}
POOLING = (nn.MaxPool2d, nn.AvgPool2d, Pool)
#: why a net has nothing to replace
NOTHING = "no pooling layer has a stride above 1 (strided convolutions: convs=True)"
FUNCTIONS = (F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.lp_pool2d)


def _replaced(name: str, module: nn.Module | None, window: int | None) -> Replaced:
    # no subclasses of PyTorch's layers, which may compute sizes in their own way
    reader = READERS.get(Pool if isinstance(module, Pool) else type(module))  # type: ignore[arg-type]
    if module is None or reader is None:
        kinds = ", ".join(kind.__name__ for kind in READERS)
        reason = "no such layer" if module is None else f"{type(module).__name__} is not one of the layers replaced"
        raise UserError(f"{_place(name)}: {reason} ({kinds})")
    if not name:
        raise UserError(f"the net is itself a {type(module).__name__}: there is nothing to put another one in")
    old = reader(name, module)
    return replace(old, kernel=window or old.kernel)


def _run(net: nn.Module, image: tuple[int, int, int]) -> tuple[dict[nn.Module, dict[OutputKind, None]], list[str]]:
    """The kinds of output of each layer in a forward pass, and the calls of pooling functions that downsample."""
    outputs: dict[nn.Module, dict[OutputKind, None]] = {}
    running: list[tuple[str, nn.Module]] = []
    functions: list[str] = []

    def enter(module: nn.Module, inputs: object, name: str) -> None:
        running.append((name, module))

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        running.pop()
        if isinstance(output, Tensor) and output.dim() == 4:
            outputs.setdefault(module, {})[OutputKind(output.shape[1], output.dtype, output.device)] = None

    class FindPooling(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            name, module = running[-1]
            if func in FUNCTIONS and not isinstance(module, POOLING) and _downsamples(args[0], output):
                functions.append(f"{_place(name)}: {func.__name__} is called as a function")
            return output

    running.append(("", net))
    with ExitStack() as stack, torch.no_grad(), eval_mode(net):
        for name, module in net.named_modules():
            stack.callback(module.register_forward_pre_hook(partial(enter, name=name)).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        try:
            with FindPooling():
                net(blank_image(net, image))
        except Exception as error:  # a net's own code can raise anything
            name, module = running[-1]
            where = f"layer {name} ({type(module).__name__}): " if name else ""
            size = "×".join(map(str, image))
            raise UserError(f"the net does not take {size} images: {where}{first_line(error)}") from error
    return outputs, functions


def _downsamples(x: Tensor, output: Any) -> bool:
    """Whether a pool gave a smaller map; not one of the same size, nor a single value as a global pool does."""
    return isinstance(output, Tensor) and output.shape[-1] not in (1, x.shape[-1])


def _build_pool(name: str, build: MakePool, old: Replaced, outputs: dict[OutputKind, None], net: nn.Module) -> Pool:
    """A pool that gives the sizes of the old layer, with its channels, dtype, device and train/eval flag."""
    options = _fit(name, build, old)
    channels = sorted({output.channels for output in outputs})
    try:
        pool = build(**options, channels=channels[0] if len(channels) == 1 else None)
    except ValueError as error:
        inputs = " and ".join(map(str, channels)) or "no map at all"
        raise UserError(f"{_place(name)}: {error}; it was given {inputs}") from None
    weight = reference_tensor(net)
    like = next(iter(outputs), OutputKind(0, weight.dtype, weight.device))
    pool.to(like.device, like.dtype).to(memory_format=_memory_format(net))  # type: ignore[call-overload]
    return pool.train(old.module.training)


def _fit(name: str, build: MakePool, old: Replaced) -> dict[str, Any]:
    """Padding and ceil_mode with which the pool keeps the sizes of all maps; those of the old layer if possible."""
    first = None
    paddings = [old.padding, None, *range((old.kernel or 0) // 2 + 1)]
    for padding, ceil in product(paddings, [old.ceil, not old.ceil]):
        options = {"padding": padding, "ceil_mode": ceil}
        try:
            with torch.device("meta"):  # no weights are drawn
                trial = build(**options, channels=1)
        except ValueError as error:
            raise UserError(f"{_place(name)}: {error}") from None
        except TypeError as error:
            takes = "(kernel_size, stride, padding, *, border, ceil_mode, channels)"
            raise UserError(f"pool: must be called as those of POOLS, with {takes} ({first_line(error)})") from None
        if not isinstance(trial, Pool):
            raise UserError(f"pool: must give a Pool, as those of POOLS do, not {type(trial).__name__}")
        difference = _first_difference(old.windows, trial.windows)
        if difference is None:
            return options
        first = first or f"{_place(name)}: {type(trial).__name__} cannot keep the sizes of {old.module}: {difference}"
    raise UserError(str(first))


def _first_difference(old: list[Window], new: list[Window]) -> str | None:
    """The smallest map for which the windows give different sizes. Three strides of sizes suffice."""
    start = max(window.extent for window in [*old, *new])
    period = max(window.stride for window in [*old, *new])
    for n in range(start, start + 3 * period):
        before, after = (reduce(lambda size, window: window.output_size(size), windows, n) for windows in (old, new))
        if before != after:
            return f"a map of {n} becomes one of {after}, not {before}"
    return None


def _memory_format(net: nn.Module) -> torch.memory_format:
    """Channels last if any weight of the net is."""
    last = torch.channels_last
    weights = (weight for weight in net.parameters() if weight.dim() == 4)
    is_last = any(weight.is_contiguous(memory_format=last) and not weight.is_contiguous() for weight in weights)
    return last if is_last else torch.preserve_format


def _replacement(old: nn.Module, pool: Pool) -> nn.Module:
    """The pool, or for a convolution the convolution with stride 1 followed by the pool."""
    if not isinstance(old, nn.Conv2d):
        return pool
    old.stride = (1, 1)
    return nn.Sequential(OrderedDict(conv=old, pool=pool)).train(old.training)
