"""Named layers → their outputs, inside a ``with``."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError


def uncompiled(net: nn.Module) -> nn.Module:
    """The net that ``torch.compile`` was given: a compiled net compiles again whenever a hook is added or removed.

    Raises:
        UserError: a net scripted in whole or in part, whose layers run where no hook sees them.
    """
    scripted = [name for name, one in net.named_modules() if isinstance(one, torch.jit.ScriptModule)]
    if scripted:
        what = scripted[0] or "the net"
        raise UserError(f"{what} is scripted: its layers cannot be seen; give the nn.Module that it was made from")
    original: nn.Module = getattr(net, "_orig_mod", net)
    return original if original._compiled_call_impl is None else copy.copy(original)  # a copy has lost net.compile()


def reference_tensor(net: nn.Module) -> Tensor:
    """A tensor on the device and of the type that a net takes: its first parameter or buffer of floats, else an empty
    one, as where a net without numbers runs on the CPU.
    """
    tensors = chain(net.parameters(), net.buffers())
    return next((one for one in tensors if one.is_floating_point()), torch.empty(0))


def blank_image(net: nn.Module, image: tuple[int, int, int]) -> Float[Tensor, "1 c h w"]:
    """A black image, where a net takes it."""
    where = reference_tensor(net)
    return torch.zeros(1, *image, dtype=where.dtype, device=where.device)


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """``net.eval()`` and true float32 inside the ``with``; every module gets its own train/eval flag back afterwards.

    GPUs multiply float32 as TF32, with a mantissa of 10 bits, where they may: nothing for training, but a net that is
    exactly invariant would be measured as one that is so to three digits.
    """
    flags = {module: module.training for module in net.modules() if module.training}
    precisions: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    asked = [one.fp32_precision for one in precisions]
    try:
        for one in precisions:
            one.fp32_precision = "ieee"
        if flags:
            net.eval()
        yield
    finally:
        for one, precision in zip(precisions, asked, strict=True):
            one.fp32_precision = precision
        for module, flag in flags.items():
            module.training = flag


@contextmanager
def record_outputs(net: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the named modules, in eval mode: a dict filled anew by every forward inside the ``with``.

    Hooks and flags are gone at its end, also after an exception. Of a module that runs several times in a forward it is
    the last output. The first forward keeps copies, and sees by the outputs' version counters which of them the net
    overwrites later (by a module, ``F.relu(x, inplace=True)``, ``x += y`` …); from then on these alone are copied, and
    the others are references, which are free. Writes through ``.data`` or NumPy are not counted, and not seen.

    Args:
        net: any module.
        names: names of submodules, as in ``net.named_modules()``.

    Raises:
        KeyError: a name the net does not have.
        UserError: from a later forward pass on, the net overwrites more than in the first.
    """
    modules = _named(net, names)
    outputs: dict[str, Tensor] = {}
    versions: dict[str, tuple[Tensor, float]] = {}
    copied: set[str] | None = None  # all, until a forward has shown which

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            outputs[name] = output.clone() if copied is None or name in copied else output
            versions[name] = output, _version(output)

        return hook

    def over(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal copied
        written = {name for name, (kept, version) in versions.items() if _version(kept) != version}
        versions.clear()
        copied = written if copied is None else copied
        if late := written - copied:
            raise UserError(f"{', '.join(sorted(late))}: overwritten in place, and not in the first forward pass")

    with ExitStack() as stack:
        stack.enter_context(eval_mode(net))
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(keep(name)).remove)
        stack.callback(net.register_forward_pre_hook(lambda *_: versions.clear()).remove)  # of one that was broken off
        stack.callback(net.register_forward_hook(over).remove)
        yield outputs


@contextmanager
def stream_outputs(net: nn.Module, names: Iterable[str], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """``see`` is given each name and output of the named modules as soon as one has run, while caches hold it: as
    ``watch``, but nothing is kept. In the first forward, which tells how often each module runs, at its end.

    Args:
        net: any module.
        names: names of submodules.
        see: may keep what it makes of an output, not the output, which may be overwritten.

    Raises:
        KeyError: a name the net does not have.
        UserError: a module runs more or less often than in the first forward pass.
    """
    modules = _named(net, names)
    runs, seen = Counter[str](), Counter[str]()
    first: dict[str, Tensor] = {}

    def show(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            seen[name] += 1
            if not runs:
                first[name] = output.clone()  # it may be overwritten before the forward ends
            elif seen[name] == runs[name]:
                see(name, output)

        return hook

    def begin(module: nn.Module, inputs: object) -> None:
        seen.clear()  # of a forward pass that was broken off
        first.clear()

    def over(module: nn.Module, inputs: object, output: object) -> None:
        if runs and seen != runs:
            names = [name for name in modules if seen[name] != runs[name]]
            raise UserError(f"{', '.join(names)}: runs more or less often than in the first forward pass")
        runs.update({} if runs else seen)
        seen.clear()
        for name in list(first):
            see(name, first.pop(name))

    with ExitStack() as stack:
        stack.enter_context(eval_mode(net))
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(show(name)).remove)
        stack.callback(net.register_forward_pre_hook(begin).remove)
        stack.callback(net.register_forward_hook(over).remove)
        yield


def _version(output: Tensor) -> float:
    """How often a tensor, or what it is a view of, has been written to; nan, which equals nothing, where PyTorch does
    not count (in inference mode).
    """
    return float("nan") if output.is_inference() else output._version


def _named(net: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    modules, names = dict(net.named_modules()), list(names)
    missing = [name for name in names if name not in modules]
    if missing:
        raise KeyError(f"no layer {', '.join(missing)}; the net has {', '.join(filter(None, modules))}")
    return {name: modules[name] for name in names}
