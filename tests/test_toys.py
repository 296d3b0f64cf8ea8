"""A new pool, measure, data set or architecture works with no other file edited: tried on a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT


def listings(page: str) -> list[str]:
    """The files that a guide shows, without the line that names a file."""
    text = (ROOT / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:text|yaml)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"\A# [\w/]+\.\w+\n", "", block) for block in blocks]


#: the guides' own
POOL = listings("own-pool")[0]
PLAIN, PLAIN_YAML = listings("own-architecture")
DATA_SET = '''"""``data=toy``: images of noise."""

from pathlib import Path

import torch

from ..images import DataSet, Images, Source


def _load(root: Path, size: int) -> Source:
    images = torch.randint(0, 256, (60, 2, 20, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    part = Images(images, torch.arange(60) % 3)
    return Source(part, part, ["a", "b", "c"], "edge")


SETS = {"toy": DataSet(2, 20, 3, _load)}
'''

ARCHITECTURE = '''"""A toy architecture."""

from torch import nn

from .blocks import Network
from .options import Model


class Toy(Network):
    """One convolution."""

    def build(self, model: Model) -> None:
        """Add the convolution."""
        self.add("stage1", nn.Conv2d(self.image[0], model.width, 3))
'''

#: kind → the files that add it, and the words that use it
TOYS: dict[str, tuple[dict[str, str], str, str]] = {
    "pool": ({"src/pooling/toy.py": POOL}, "model.pool=toy", "stage1.pool"),
    "data set": (
        {"src/data/sets/toy.py": DATA_SET, "conf/data/toy.yaml": "name: toy\nval_size: 20\n"},
        "data=toy",
        "input 2×20×20",
    ),
    "architecture": (
        {"src/models/toy.py": ARCHITECTURE, "conf/model/toy.yaml": "name: toy\npool: none\n"},
        "model=toy",
        "stage1 ",
    ),
}
FILES = {"pool": 1, "data set": 2, "architecture": 2}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A copy of the project."""
    for folder in ("src", "conf", "tests", "sweeps", "hydra_plugins"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def python(lab: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(lab), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=lab, env=environment, capture_output=True, text=True, check=False)


def add(lab: Path, kind: str) -> str:
    files, word, _ = TOYS[kind]
    assert len(files) == FILES[kind], "files that a new one takes"
    for name, content in files.items():
        assert not (lab / name).exists(), "no file is edited"
        (lab / name).write_text(content)
    return word


@pytest.mark.parametrize("kind", TOYS)
def test_a_toy_is_known_from_the_command_line(lab: Path, kind: str) -> None:
    word = add(lab, kind)
    summary = python(lab, "-m", "src.shapes", word)
    assert summary.returncode == 0, summary.stderr
    assert TOYS[kind][2] in summary.stdout


TRAIN = """
import torch
from torch import nn
from src.summary import summarize, verify
from src.pooling import POOLS, swap_pools
from tests.helpers import network

x = torch.arange(16.0).view(1, 1, 4, 4)
assert POOLS["toy"](2)(x).flatten().tolist() == [0, 2, 8, 10]

torch.manual_seed(0)
net = network((1, 12, 12), outputs=2, pool="toy")
verify(summarize(net, (1, 12, 12)), net)
y = torch.arange(64) % 2
x = torch.randn(64, 1, 12, 12) + y.view(-1, 1, 1, 1)
optimizer = torch.optim.Adam(net.parameters(), 0.01)
losses = []
for _ in range(20):
    losses.append(nn.functional.cross_entropy(net(x), y))
    optimizer.zero_grad()
    losses[-1].backward()
    optimizer.step()
assert losses[-1] < losses[0] / 2
assert swap_pools(net, "max", (1, 12, 12)) == ["stage1.pool", "stage2.pool"]
assert swap_pools(net, "toy", (1, 12, 12)) == ["stage1.pool", "stage2.pool"]
verify(summarize(net, (1, 12, 12)), net)
print("trained")
"""

FILE_OF_MEASURE, USE_OF_MEASURE = listings("own-measure")[:2]
EVALUATE = """
import torch, whatwhere

torch.manual_seed(0)  # a filter whose outputs are all negative has no mean that changes
net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(72, 2))
images = torch.rand(4, 1, 8, 8)
table = whatwhere.evaluate(net, images, layers=["1"], max_shift=1, quiet=True)
rows = table[(table.measure == "mean_change") & (table.protocol == "roll")]
print(len(rows), "at", *rows.layer, float(rows.value.iloc[0]) > 0)
"""

LOAD = """
from src.data.options import Data
from src.data.splits import split

parts = split(Data(name="toy", val_size=20))
assert (len(parts.train), len(parts.val), len(parts.test)) == (40, 20, 60)
print(parts.image)
"""


def test_a_toy_pool_trains_and_replaces_others(lab: Path) -> None:
    add(lab, "pool")
    trained = python(lab, "-c", TRAIN)
    assert trained.stdout == "trained\n", trained.stderr


def test_the_measure_of_the_guide_is_part_of_every_evaluation(lab: Path) -> None:
    (lab / "src" / "metrics" / "mean_change.py").write_text(FILE_OF_MEASURE)
    (lab / "whatwhere").symlink_to(lab / "src", target_is_directory=True)
    done = python(lab, "-c", f"{USE_OF_MEASURE}\n{EVALUATE}")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"\{'mean_change': tensor\(0\.5000?.*\)\}", first)
    assert second == "1 at 1 True"


def test_a_toy_data_set_is_split(lab: Path) -> None:
    add(lab, "data set")
    done = python(lab, "-c", LOAD)
    assert done.stdout == "(2, 20, 20)\n", done.stderr


def test_the_architecture_of_the_guide_passes_the_tests_of_all_architectures(lab: Path) -> None:
    (lab / "src" / "models" / "plain.py").write_text(PLAIN)
    (lab / "conf" / "model" / "plain.yaml").write_text(PLAIN_YAML)
    shutil.copy(ROOT / "pyproject.toml", lab)
    done = python(lab, "-m", "pytest", "-k", "plain", "tests/test_architectures.py")
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= 12  # an axis each


SETTING = ("size=8", "depth=1", "images=1", "shifts=2")


def test_the_list_of_pools_has_a_toy_pool(lab: Path) -> None:
    add(lab, "pool")
    done = python(lab, "-m", "src.pools", *SETTING)
    assert done.returncode == 0, done.stderr
    assert all(fact in done.stdout for fact in ("min(x_R)", "is -max(-x)", "nobody 2026"))
    assert done.stdout.count("\ntoy ") >= 3 + 4, "in every table"
    done = python(lab, "-m", "src.pools", *SETTING, "out=page.md")
    assert done.returncode == 0, done.stderr
    assert "| toy | min(x_R) | 0 | 0 | · |" in (lab / "page.md").read_text()


def test_a_pool_without_documentation_runs_and_the_list_names_in_one_line_what_is_missing(lab: Path) -> None:
    add(lab, "pool")
    file = lab / "src" / "pooling" / "toy.py"
    file.write_text(POOL.replace('    exact = "is -max(-x)"\n', ""))
    assert python(lab, "-m", "src.shapes", "model.pool=toy").returncode == 0
    done = python(lab, "-m", "src.pools", *SETTING)
    assert done.returncode == 2
    assert done.stderr == "error: pool toy: class Toy lacks exact; state each as a class attribute, one line\n"
