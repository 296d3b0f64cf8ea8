"""A new pooling is one class and one table line in one file: shown on a copy of the lab."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

TOY = '''

class Toy(Pool):
    """The weakest response in the window."""

    formula = "min(x_R)"
    keeps = "constants, range"
    exact = "is -max(-x)"
    source = "nobody 2026"

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        return -F.max_pool2d(-self.extend(x, self.windows[0], torch.inf), self.kernel_size, self.stride)


POOLS["toy"] = Toy
'''

TRAIN = """
import torch
from torch import nn
from src.summary import summarize, verify
from src.pooling import POOLS, swap_pools
from tests.helpers import network

assert "toy" in POOLS
x = torch.arange(16.0).view(1, 1, 4, 4)
assert POOLS["toy"](2)(x).flatten().tolist() == [0, 2, 8, 10]

torch.manual_seed(0)
net = network((1, 12, 12), outputs=2, pool="toy")
verify(summarize(net, (1, 12, 12)), net)
y = torch.arange(64) % 2
x = torch.randn(64, 1, 12, 12) + y.view(-1, 1, 1, 1)
step = torch.optim.Adam(net.parameters(), 0.01)
losses = []
for _ in range(20):
    losses.append(nn.functional.cross_entropy(net(x), y))
    step.zero_grad()
    losses[-1].backward()
    step.step()
assert losses[-1] < losses[0] / 2
assert swap_pools(net, "max", (1, 12, 12)) == ["stage1.pool", "stage2.pool"]
assert swap_pools(net, "toy", (1, 12, 12)) == ["stage1.pool", "stage2.pool"]
verify(summarize(net, (1, 12, 12)), net)
print("trained")
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A copy of the lab with one more pooling at the end of one file."""
    for folder in ("src", "conf", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "src" / "pooling" / "windows.py").open("a") as file:
        file.write(TOY)
    return tmp_path


def python(lab: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(lab), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=lab, env=environment, capture_output=True, text=True, check=False)


def test_a_toy_pooling_in_one_file_is_known_everywhere(lab: Path) -> None:
    shapes = python(lab, "-m", "src.shapes", "model.pool=toy")
    assert shapes.returncode == 0, shapes.stderr
    assert "stage1.pool" in shapes.stdout
    trained = python(lab, "-c", TRAIN)
    assert trained.stdout == "trained\n", trained.stderr


SETTING = ("size=8", "depth=1", "images=1", "shifts=2")


def test_the_list_of_pools_has_a_toy_pooling(lab: Path) -> None:
    done = python(lab, "-m", "src.pools", *SETTING)
    assert done.returncode == 0, done.stderr
    assert all(one in done.stdout for one in ("min(x_R)", "is -max(-x)", "nobody 2026"))
    assert done.stdout.count("\ntoy ") >= 3 + 4, "in every table"
    done = python(lab, "-m", "src.pools", *SETTING, "out=page.md")
    assert done.returncode == 0, done.stderr
    assert "| toy | min(x_R) | 0 | 0 | · |" in (lab / "page.md").read_text()


def test_a_pooling_without_its_facts_runs_and_the_list_says_in_one_line_what_is_missing(lab: Path) -> None:
    file = lab / "src" / "pooling" / "windows.py"
    file.write_text(file.read_text().replace(TOY, TOY.replace('    exact = "is -max(-x)"\n', "")))
    assert python(lab, "-m", "src.shapes", "model.pool=toy").returncode == 0
    done = python(lab, "-m", "src.pools", *SETTING)
    assert done.returncode == 2
    assert done.stderr == "error: pool toy: its class Toy has no exact; a line each, as class attributes\n"
