"""whatwhere: the lab for what a CNN keeps and what it throws away.

This file holds one thing: it lets a CUDA build of torchvision be imported beside a CPU build of torch.
Such a torchvision cannot load its compiled operators, and its import (so also that of lightning and
torchmetrics) then fails because two of them are not declared. Declaring their schemas first is enough.
"""

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


_OPERATORS = _declare_missing_operators()  # the declarations live as long as this reference
