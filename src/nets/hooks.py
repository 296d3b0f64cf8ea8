"""Forward hooks: the outputs of named layers, inside a ``with``."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..common.errors import UserError

#: name of a module → a function of its output
Views = Mapping[str, Callable[[Tensor], Tensor]]
NO_VIEWS: Views = {}


def uncompiled(net: nn.Module) -> nn.Module:
    """The original of a net from ``torch.compile``, which would compile again whenever a hook is added or removed.

    Raises:
        UserError: the net or a part of it is scripted (TorchScript), and runs no hooks; or it has no ``forward``.
    """
    scripted = [name for name, module in net.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        part = scripted[0] or "the net"
        raise UserError(f"{part} is scripted: its layers cannot be seen; give the nn.Module that it was made from")
    original: nn.Module = getattr(net, "_orig_mod", net)
    if type(original).forward is nn.Module.forward and "forward" not in vars(original):
        raise UserError(f"the net, a {type(original).__name__}, has no forward: it cannot be run")
    return original if original._compiled_call_impl is None else copy.copy(original)  # the copy is not compiled


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def reference_tensor(net: nn.Module) -> Tensor:
    """A tensor with the net's device and dtype: its first floating-point parameter or buffer, else an empty one."""
    tensors = chain(net.parameters(), net.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))


def blank_image(net: nn.Module, image: tuple[int, int, int]) -> Float[Tensor, "1 c h w"]:
    """An image of zeros, with the net's device and dtype."""
    like = reference_tensor(net)
    return torch.zeros(1, *image, dtype=like.dtype, device=like.device)


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """``net.eval()`` and full float32 precision inside the ``with``; each module's train/eval flag is restored.

    TF32, which GPUs may use for float32 products, has a mantissa of 10 bits: with it, a net that is exactly invariant
    would be measured as invariant to three digits.
    """
    flags = {module: module.training for module in net.modules() if module.training}
    precisions: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in precisions]
    try:
        for backend in precisions:
            backend.fp32_precision = "ieee"
        if flags:
            _eval(net)
        yield
    finally:
        for backend, precision in zip(precisions, before, strict=True):
            backend.fp32_precision = precision
        for module, flag in flags.items():
            module.training = flag


def _eval(net: nn.Module) -> None:
    try:
        net.eval()
    except Exception as error:  # a net's own ``train`` or ``eval`` can raise anything
        raise UserError(f"the net cannot be put into eval mode ({first_line(error)})") from error


@contextmanager
def record_outputs(net: nn.Module, names: Iterable[str], views: Views = NO_VIEWS) -> Iterator[dict[str, Tensor]]:
    """The outputs of the named modules, in eval mode: a dict that every forward pass inside the ``with`` updates.

    Hooks are removed and flags restored at the end, after an exception too. A module that runs several times per
    forward pass has its last output in the dict. The first forward pass stores copies, and finds by the tensors'
    version counters which of them the net overwrites in place (by a module, ``F.relu(x, inplace=True)``, ``x += y`` …);
    from then on only these are copied, and the others are references. Writes through ``.data`` or NumPy are not
    counted, and are missed. ``views`` are functions of the outputs, by name, whose results are taken instead.

    Raises:
        KeyError: a name that the net does not have.
        UserError: a later forward pass overwrites outputs that the first did not; or an output is no tensor.
    """
    modules = _named(net, names)
    outputs: dict[str, Tensor] = {}
    versions: dict[str, tuple[Tensor, float]] = {}
    copied: set[str] | None = None  # None: all, in the first forward pass

    def keep(module: nn.Module, inputs: object, output: Any, name: str) -> None:
        _refuse_other_than_tensor(name, module, output)
        seen = output.clone() if copied is None or name in copied else output
        outputs[name] = views[name](seen) if name in views else seen
        versions[name] = output, _version(output)

    def finish(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal copied
        written = {name for name, (tensor, version) in versions.items() if _version(tensor) != version}
        versions.clear()
        copied = written if copied is None else copied
        if late := written - copied:
            raise UserError(f"{', '.join(sorted(late))}: overwritten in place, and not in the first forward pass")

    with eval_mode(net), ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(partial(keep, name=name)).remove)
        stack.callback(net.register_forward_pre_hook(lambda *_: versions.clear()).remove)  # after an aborted pass
        stack.callback(net.register_forward_hook(finish).remove)
        yield outputs


@contextmanager
def stream_outputs(
    net: nn.Module, names: Iterable[str], callback: Callable[[str, Tensor], None], views: Views = NO_VIEWS
) -> Iterator[None]:
    """As ``record_outputs``, but calls ``callback(name, output)`` as soon as a module has run, and stores nothing.

    The first forward pass, which counts how often each module runs, makes the calls at its end. ``callback`` must not
    keep the output itself, which the net may overwrite.

    Raises:
        KeyError: a name that the net does not have.
        UserError: a module runs more or less often than in the first forward pass; or an output is no tensor.
    """
    modules = _named(net, names)
    runs, seen = Counter[str](), Counter[str]()
    first: dict[str, Tensor] = {}

    def observe(module: nn.Module, inputs: object, output: Any, name: str) -> None:
        _refuse_other_than_tensor(name, module, output)
        seen[name] += 1
        if name in views:
            output = views[name](output)
        if not runs:
            first[name] = output.clone()  # it may be overwritten before the pass ends
        elif seen[name] == runs[name]:
            callback(name, output)

    def begin(module: nn.Module, inputs: object) -> None:
        seen.clear()  # after an aborted pass
        first.clear()

    def finish(module: nn.Module, inputs: object, output: object) -> None:
        if runs and seen != runs:
            names = [name for name in modules if seen[name] != runs[name]]
            raise UserError(f"{', '.join(names)}: runs more or less often than in the first forward pass")
        runs.update({} if runs else seen)
        seen.clear()
        for name in list(first):
            callback(name, first.pop(name))

    with eval_mode(net), ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(partial(observe, name=name)).remove)
        stack.callback(net.register_forward_pre_hook(begin).remove)
        stack.callback(net.register_forward_hook(finish).remove)
        yield


def _refuse_other_than_tensor(name: str, module: nn.Module, output: object) -> None:
    if not isinstance(output, Tensor):
        raise UserError(f"{name}: {type(module).__name__} gives {type(output).__name__}, where a tensor is needed")


def _version(output: Tensor) -> float:
    """The version counter of a tensor; nan, which differs from itself, in inference mode, where there is none."""
    return float("nan") if output.is_inference() else output._version


def _named(net: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    modules, names = dict(net.named_modules()), list(names)
    missing = [name for name in names if name not in modules]
    if missing:
        raise KeyError(f"no layer {', '.join(missing)}; the net has {', '.join(filter(None, modules))}")
    return {name: modules[name] for name in names}
