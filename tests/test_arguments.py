"""What the public functions take, what they refuse in one line, and what they leave as it was."""

import copy
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from src.common.errors import UserError
from src.evaluation.evaluate import evaluate
from src.evaluation.suite import TRANSFORMS_OF
from src.pooling import swap_pools
from src.summary import summarize
from tests.helpers import ROOT

# as they are where the package is used: here, a type checker stands before them
evaluate, swap_pools, summarize = (inspect.unwrap(function) for function in (evaluate, swap_pools, summarize))

IMAGES = torch.rand(6, 3, 10, 10, generator=torch.Generator().manual_seed(0))
SHORT = {"max_shift": 1, "quiet": True}


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 5)
    )


def measured(net: nn.Module | None = None, images: Any = IMAGES, **options: Any) -> pd.DataFrame:
    return evaluate(net or small(), images, **SHORT | options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": torch.full((6,), 77)}, "labels: 77 is not in 0…4, the net's 5 outputs"),
        ({"labels": [0, 1, 2, 3, 4, -1]}, "labels: -1 is not in 0…4, the net's 5 outputs"),
        ({"labels": [0.5] * 6}, "labels of shape (6,), torch.float64: 6 whole numbers are needed"),
        ({"images": IMAGES * torch.nan}, "images: some of their pixels are nan"),
        ({"images": None}, "images: a tensor or an array of numbers is needed, not NoneType"),
        ({"max_shift": 2.5}, "max_shift=2.5: must be a whole number of at least 1"),
        ({"batch": 0}, "batch=0: must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1: must be a whole number of at least 0, below 4294967296"),
        ({"mean": torch.zeros(2)}, "mean=[0.0, 0.0]: one number per channel is needed, the images have 3"),
        (
            {"mean": [123, 117, 104]},
            "mean=[123.0, 117.0, 104.0]: of pixels from 0 to 1 (those from 0 to 255 divided by 255)",
        ),
        ({"mean": 0.5}, "mean=0.5: one number per channel is needed, the images have 3"),
        ({"std": [1, 1, 0]}, "std=[1.0, 1.0, 0.0]: must be finite numbers above 0"),
        ({"what": 3}, "what=3: a name or a list of names is needed"),
        ({"layers": [3]}, "layers=3: a name or a list of names is needed"),
        ({"untrained": nn.Flatten()}, "untrained: it has no layer 0, 1, 2; it must be the same net as the other"),
        ({"untrained": 3}, "untrained: an nn.Module is needed, not int"),
    ],
)
def test_evaluate_refuses_an_argument_before_it_measures(
    options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.evaluation.evaluate.evaluate_families", lambda *_: pytest.fail("it measures"))
    with pytest.raises(UserError) as caught:
        measured(**options)
    assert str(caught.value) == words


def test_an_untrained_net_with_other_outputs_is_refused() -> None:
    other = small()
    other[5] = nn.Linear(4, 7)
    with pytest.raises(UserError, match="untrained: it has 7 outputs, the net 5"):
        measured(untrained=other)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"what": "flip"}, {"what": ["flip"]}),
        ({"layers": "3"}, {"layers": ["3"]}),
        ({"images": IMAGES.numpy()[:, :, ::-1]}, {"images": IMAGES.flip(2)}),
        ({"labels": [0, 1, 2, 3, 4, 0]}, {"labels": torch.tensor([0, 1, 2, 3, 4, 0])}),
        ({"labels": np.array([0, 1, 2, 3, 4, 0], np.int32)}, {"labels": torch.tensor([0, 1, 2, 3, 4, 0])}),
        (
            {"mean": torch.tensor([0.5, 0.25, 0]), "std": np.array([0.5, 2, 1])},
            {"mean": [0.5, 0.25, 0], "std": [0.5, 2, 1]},
        ),
    ],
)
def test_evaluate_takes_arrays_and_single_names(options: dict[str, Any], same: dict[str, Any]) -> None:
    pd.testing.assert_frame_equal(measured(**options), measured(**same))


def test_torchs_default_dtype_changes_nothing() -> None:
    net, what = small(), [*TRANSFORMS_OF, "layers"]
    expected = measured(net, what=what)
    torch.set_default_dtype(torch.float64)
    try:
        pd.testing.assert_frame_equal(measured(net, what=what), expected)
    finally:
        torch.set_default_dtype(torch.float32)


class Named(nn.Module):
    """Two convolutions and a pool under any names."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.names = names
        for name, layer in zip(names, (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3)), strict=True):
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def test_a_module_called_output_is_kept_apart_from_the_nets_output() -> None:
    what = ["shift", "rolls", "crops", "layers", "units", "field"]
    labels = torch.arange(6) % 5
    other = {"first": "conv", "second": "pool", "third": "output (module)"}
    expected = measured(Named(*other), labels=labels, what=what, layers=[*other], untrained=Named(*other))
    names = "conv", "pool", "output"
    table = measured(Named(*names), labels=labels, what=what, layers=names, untrained=Named(*names))
    pd.testing.assert_frame_equal(table, expected.replace({"layer": other, "protocol": other}))
    assert not table.duplicated(["layer", "transform", "protocol", "amount", "measure"]).any()


def test_images_that_are_not_square_lose_the_quarter_turns_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    table = measured(net, torch.rand(4, 3, 10, 14), what=["rotate", "flip"])
    assert set(zip(table["transform"], table["protocol"], strict=True)) == {("rotate", "disc"), ("flip", "mirror")}
    note = "not measured: it needs square images, and these have 10 × 14 pixels"
    assert {name: text for name, text in table.attrs["notes"].items() if name != "nan"} == {"rotate/quarter": note}


def test_a_map_that_is_not_square_has_no_equivariance_error_of_quarter_turns() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.MaxPool2d((2, 1)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    table = measured(net, layers=["0", "1"], what="rotate")
    of_turns = table[(table.protocol == "quarter") & (table.measure == "equivariance_error")]
    assert set(of_turns.layer) == {"0"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: swap_pools(net, "avg", (3, 3, 3)), "the net does not take 3×3×3 images: layer 1 (MaxPool2d): "),
        (lambda net: swap_pools(net, "avg", (3, 4, 4)), "the net does not take 3×4×4 images: layer 2 (Conv2d): "),
        (lambda net: swap_pools(net, "avg", (1, 10, 10)), "the net does not take 1×10×10 images: layer 0 (Conv2d): "),
        (lambda net: swap_pools(net, "avg", (10, 10)), "image=(10, 10): (channels, height, width) is needed"),
        (lambda net: swap_pools(net, "avg", (3, 10, 10), window=2.5), "window=2.5: must be a whole number"),
        (lambda net: swap_pools(net, "avg", (3, 10, 10), window=0), "window=0: must be a whole number"),
        (lambda net: swap_pools(net, "avg", (3, 10, 10), names=3), "names=3: a name or a list of names"),
        (lambda net: swap_pools(net, 3, (3, 10, 10)), "pool=3: choose one of max, avg"),
        (lambda net: swap_pools("net", "avg", (3, 10, 10)), "net: an nn.Module is needed, not str"),
        (lambda net: summarize(net, (3, 10)), "image=(3, 10): (channels, height, width) is needed"),
        (lambda net: summarize(3, (3, 10, 10)), "net: an nn.Module is needed, not int"),
    ],
)
def test_pools_and_summary_refuse_an_argument(call: Callable[[nn.Module], object], words: str) -> None:
    net = small()
    kept = copy.deepcopy(net)
    with pytest.raises(UserError) as caught:
        call(net)
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)
    assert str(net) == str(kept)


def test_a_single_name_replaces_that_layer() -> None:
    assert swap_pools(small(), "avg", (3, 10, 10), names="3") == ["3"]


FIRST_USE = """
import random, warnings
warnings.simplefilter("ignore")
import torch, src, whatwhere
assert src.__file__ != whatwhere.__file__
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
before = random.getstate()
src.evaluate(net, torch.rand(4, 3, 8, 8), max_shift=1)
assert random.getstate() == before, "evaluate draws from Python's random state"
whatwhere.evaluate(net, torch.rand(4, 3, 8, 8), max_shift=1)
import src.launch.compose, whatwhere.launch.compose
try:
    src.launch.compose.compose_one([])
except src.common.errors.UserError as error:
    print(error)
"""


def test_both_names_of_the_package_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "whatwhere").symlink_to(ROOT / "src", target_is_directory=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FIRST_USE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "commands of src and of whatwhere in one process: import one of the two names alone\n"
