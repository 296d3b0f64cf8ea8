"""Named layers → their outputs, inside a ``with``."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """``net.eval()`` inside the ``with``; every module gets its own train/eval flag back afterwards."""
    flags = {module: module.training for module in net.modules()}
    if not any(flags.values()):
        yield
        return
    net.eval()
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


@contextmanager
def watch(
    net: nn.Module, names: Iterable[str], see: Callable[[str, Tensor], None] | None = None
) -> Iterator[dict[str, Tensor]]:
    """The outputs of the named modules, in eval mode: a dict filled anew by every forward inside the ``with``.

    Hooks and flags are gone at its end, also after an exception. Outputs are references, so watching is free; they
    are cloned only where the net has in-place modules, which could overwrite them.

    Args:
        net: any module.
        names: names of submodules, as in ``net.named_modules()``.
        see: is given each name and output as soon as the module has run, while caches hold it, and the dict stays
            empty; it may keep what it makes of the output, not the output.

    Raises:
        KeyError: a name the net does not have.
    """
    modules, names = dict(net.named_modules()), list(names)
    missing = [name for name in names if name not in modules]
    if missing:
        raise KeyError(f"no layer {', '.join(missing)}; the net has {', '.join(filter(None, modules))}")
    overwrites = any(getattr(module, "inplace", False) for module in modules.values())
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            if see is not None:
                see(name, output)
            else:
                outputs[name] = output.clone() if overwrites else output

        return hook

    with ExitStack() as stack:
        stack.enter_context(evaluating(net))
        for name in names:
            stack.callback(modules[name].register_forward_hook(keep(name)).remove)
        yield outputs
