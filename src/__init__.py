"""whatwhere: the lab for what a CNN keeps and what it throws away.

    import whatwhere
    whatwhere.summarize(net, (3, 224, 224))           # shapes, receptive fields, multiply-adds (MACs)
    whatwhere.evaluate(net, images, labels)           # what shifts do to its output and its layers, as a DataFrame
    whatwhere.swap_pools(net, "maxblur", (3, 224, 224))

A name is imported when it is first used. Before all else, this file lets a CUDA build of torchvision be imported beside
a CPU build of torch: such a torchvision cannot load its compiled operators, and its import (so also that of lightning
and torchmetrics) fails because two of them are not declared. Declaring their schemas first is enough. And it makes the
C library keep freed memory.
"""

import ctypes
import random
import signal
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

_IS_COMMAND = Path(sys.argv[0] if sys.argv else "").name in ("-m", "whatwhere")
if _IS_COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends imports without a traceback, until ``cli_errors``

import torch  # noqa: E402

if TYPE_CHECKING:  # for type checkers; when it runs, ``__getattr__`` imports them
    from .evaluation.evaluate import evaluate
    from .pooling import POOLS, swap_pools
    from .results.frames import load_measures, load_runs
    from .summary import ModelSummary, summarize, verify

#: public name → the module that it is in
_PUBLIC = {
    "POOLS": "pooling",
    "swap_pools": "pooling",
    "ModelSummary": "summary",
    "summarize": "summary",
    "verify": "summary",
    "evaluate": "evaluation.evaluate",
    "load_measures": "results.frames",
    "load_runs": "results.frames",
}

#: subpackages that are imported when they are first used
_SUBPACKAGES = ("evaluation", "metrics", "nets", "pooling", "reporting", "results", "stats", "summary", "transforms")
#: tells this package, under either of its names, from another one that is called ``src``
IS_WHATWHERE = True

__all__ = ["POOLS", "ModelSummary", "evaluate", "load_measures", "load_runs", "summarize", "swap_pools", "verify"]


def __getattr__(name: str) -> Any:
    """A public name or a subpackage, imported when it is first used."""
    if name not in (*_PUBLIC, *_SUBPACKAGES):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    state = random.getstate()  # libraries draw from it when they are imported (rich)
    try:
        module = import_module(f".{_PUBLIC.get(name, name)}", __name__)
        return getattr(module, name) if name in _PUBLIC else module
    finally:
        random.setstate(state)


def __dir__() -> list[str]:
    """The public names and the subpackages."""
    return sorted([*__all__, *_SUBPACKAGES, *(name for name in globals() if name.startswith("__"))])


def _declare_missing_operators() -> torch.library.Library | None:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or torch.version.cuda or torch.version.hip:
        return None
    version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8").splitlines()[0]
    if "+cu" not in version:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):  # else by this file under its other name, or by another library
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _warn_of_two_names() -> None:
    """The checkout (``src``) and the installed package (``whatwhere``) have separate classes: a pool of one is no pool
    to the other.
    """
    for name in {"src", "whatwhere"} - {__name__}:
        if "IS_WHATWHERE" in vars(sys.modules.get(name, object)):
            warnings.warn(f"{name} is imported already: do not mix its objects with those of {__name__}", stacklevel=3)


def _keep_freed_memory() -> None:
    """glibc gives freed memory back to the kernel, and every batch asks for it again, page by page: a fifth of the
    time that training takes on a CPU. Other C libraries have no such setting.
    """
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h has them
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**25)  # the most it takes


_warn_of_two_names()
_keep_freed_memory()
_OPERATORS = _declare_missing_operators()  # the declarations live as long as this reference
