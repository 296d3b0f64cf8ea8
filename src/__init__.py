"""whatwhere: the lab for what a CNN keeps and what it throws away.

This file holds what has to be done before anything else is. It lets a CUDA build of torchvision be imported beside a
CPU build of torch: such a torchvision cannot load its compiled operators, and its import (so also that of lightning and
torchmetrics) then fails because two of them are not declared. Declaring their schemas first is enough. And it has
memory kept that was freed.
"""

import ctypes
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch


def _declare_missing_operators() -> torch.library.Library | None:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or torch.version.cuda or torch.version.hip:
        return None
    version = Path(spec.origin).with_name("version.py").read_text().splitlines()[0]
    if "+cu" not in version:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _keep_freed_memory() -> None:
    """glibc gives freed memory back to the kernel, and every batch asks for the same anew, page by page: a fifth of the
    time that training takes on a CPU. Other C libraries have no such setting.
    """
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h has them
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**25)  # the most it takes


_keep_freed_memory()
_OPERATORS = _declare_missing_operators()  # the declarations live as long as this reference
