"""What several files of tests use."""

import base64
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from src.config import Config, Model, from_dict
from src.launch.compose import compose_one
from src.metrics import Row
from src.models import ARCHITECTURES, architecture
from src.models import network as build

Image = tuple[int, int, int]
ROOT = Path(__file__).parent.parent
#: runs a command of these words, the first of them a module
Command = Callable[..., subprocess.CompletedProcess[str]]


def composed(*overrides: str) -> Config:
    """As ``python -m src.train`` gets it from the command line."""
    return compose_one(list(overrides))


def architectures(*axes: str) -> list[str]:
    """Those that have all of these axes."""
    return [name for name in ARCHITECTURES if not set(axes) & set(architecture(name).unsupported_axes)]


every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def every_architecture_with(*axes: str) -> pytest.MarkDecorator:
    """Parametrised over those that have all of these axes."""
    return pytest.mark.parametrize("name", architectures(*axes))


def shared(name: str, **axes: Any) -> dict[str, Any]:
    """Those of the axes that the architecture has."""
    return {key: value for key, value in axes.items() if name in architectures(key)}


#: what makes a net small; two stages that shrink, whatever the architecture
SMALL = {"depth": 2, "width": 4, "max_width": 8}
SMALLER: dict[str, dict[str, Any]] = {"vgg": {"variant": "11", "pool_at": [1, 2]}, "convnext": {"convs": 1}}


def model(name: str = "ladder", **axes: Any) -> Model:
    """The config of an architecture by its yaml, small unless told otherwise."""
    tree = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    return Model(**vars(Model()) | tree | shared(name, **SMALL) | SMALLER.get(name, {}) | axes)


def network(image: Image, outputs: int = 5, **axes: Any) -> nn.Module:
    """A net, small unless told otherwise."""
    return build(model(**axes), image, outputs)


def on_paper(image: Image, outputs: int = 5, **axes: Any) -> nn.Module:
    """The same on the meta device: it has shapes, but no numbers, and costs next to nothing."""
    with torch.device("meta"):
        return network(image, outputs, **axes)


def parameters(net: nn.Module) -> int:
    """How many numbers a net learns."""
    return sum(parameter.numel() for parameter in net.parameters())


def nested(key: str, value: Any) -> dict[str, Any]:
    """``model.depth``, 3 → ``{"model": {"depth": 3}}``."""
    for name in reversed(key.split(".")):
        value = {name: value}
    tree: dict[str, Any] = value
    return tree


#: a config whose run takes about a second
TINY: dict[str, Any] = {
    "data": {"name": "shapes", "image_size": 16, "train_size": 256, "val_size": 100},
    "model": {"depth": 2, "width": 4, "convs": 1, "dropout": 0.2, "dropout_kind": "both"},
    "train": {"epochs": 2, "batch_size": 64},
    "measure": {"what": ["shift"], "images": 40, "max_shift": 2},
    "probe": {"images": 3, "channels": 4},
    "wandb": {"mode": "disabled"},
}


def tiny(**sections: Any) -> Config:
    """The config of such a run, with further keys in its sections."""
    deep = {key: TINY.get(key, {}) | value if isinstance(value, dict) else value for key, value in sections.items()}
    return from_dict(TINY | deep)


def only_rows(found: Iterable[object]) -> list[Row]:
    """What measuring gives, without grids and notes."""
    return [one for one in found if isinstance(one, Row)]


WANDB = Path(sys.executable).with_name("wandb")  # the environment need not be activated


def wandb_records(run: Path) -> list[dict[str, Any]]:
    """All that W&B's own reader finds in the logs that a run left, a part after the other; it finds each whole."""
    import wandb

    wandb.teardown()  # it closes a log a moment after its run has finished, or as here
    records: list[dict[str, Any]] = []
    for log in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        done = subprocess.run([WANDB, "leet", "inspect", "--json", log], capture_output=True, text=True, check=True)
        assert not done.stderr, done.stderr
        records += map(json.loads, done.stdout.splitlines())
    return records


class Overwrites(nn.Module):
    """Overwrites what its layers gave, in every way that no module says it does."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.one, self.two = how, nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.two(x)
        match self.how:
            case "function":
                y = F.relu(y, inplace=True)
            case "method":
                y = torch.relu_(y)
            case "sum":
                y += x
            case "product":
                y.mul_(2)
            case "view":
                y.flatten(1).zero_()
            case "earlier":
                x.neg_()
        return y.mean((2, 3))


PADS = {"clip": {"constant_values": np.nan}, "circular": {}, "reflect": {}, "replicate": {}}
MODES = {"clip": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def windows(x: Tensor, kernel: int, stride: int, border: str) -> np.ndarray:
    """All windows (n, c, p, q, k, k) by NumPy, with nan beyond a clipped border."""
    before = (kernel - 1) // 2 if kernel > stride else 0
    pad = (before, kernel + stride)
    y = np.pad(x.numpy(), ((0, 0), (0, 0), pad, pad), MODES[border], **PADS[border])
    rows, columns = (-(-size // stride) for size in x.shape[2:])
    return sliding_window_view(y, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride][:, :, :rows, :columns]


def words_of_page(page: Path) -> str:
    """The HTML of a page without its packed data: the library, maps and figures."""
    return re.sub(
        r'<script type="(text/plain|application/json)"[^>]*>.*?</script>', "", page.read_text(), flags=re.DOTALL
    )


def figures_of(page: Path) -> dict[str, dict[str, Any]]:
    """The figures of a page: title → data and layout."""
    pattern = r'<section class="figure" .*?<h[23] .*?>(.*?)</h.*?<script type="text/plain" class="data">(.*?)</script>'
    packed = re.findall(pattern, page.read_text(), re.DOTALL)
    return {title: json.loads(gzip.decompress(base64.b64decode(text))) for title, text in packed}
