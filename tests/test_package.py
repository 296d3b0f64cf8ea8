"""The package as it is installed: what it holds, what importing it loads, and its commands from another folder."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers import ROOT, Command

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = "torchvision torchmetrics lightning hydra wandb captum submitit plotly pandas sklearn scipy timm".split()


def test_every_folder_of_the_package_is_installed() -> None:
    folders = {"whatwhere": ROOT / "src", "whatwhere.conf": ROOT / "conf", "whatwhere.sweeps": ROOT / "sweeps"}
    expected = {"hydra_plugins.whatwhere"} | {
        ".".join([package, *path.relative_to(folder).parts])
        for package, folder in folders.items()
        for path in [folder, *folder.rglob("*/")]
        if "__pycache__" not in path.parts
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


#: module → the heavy libraries that it needs
PARTS = {
    "src.pooling": set(),
    "src.summary": set(),
    "src.metrics": {"torchmetrics", "scipy", "torchvision"},
    "src.results.runs": {"scipy", "torchmetrics", "torchvision"},
    "src.config": {"torchvision", "torchmetrics", "scipy"},
}
#: imports torch, which all parts need and which takes longest, once, and then each part in a process of its own
IMPORT_PARTS = """
import importlib, os, sys, torch

print("torch", *(name for name in {heavy} if name in sys.modules), flush=True)
for part in {parts}:
    if not os.fork():
        importlib.import_module(part)
        print(part, *(name for name in {heavy} if name in sys.modules), flush=True)
        os._exit(0)
    os.wait()
"""


def test_importing_a_part_loads_no_heavy_library_that_it_does_not_need() -> None:
    code = IMPORT_PARTS.format(heavy=HEAVY, parts=[*PARTS])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {part: {*names} for part, *names in map(str.split, done.stdout.splitlines())}
    assert loaded.pop("torch") == set(), "or it is not known which part has loaded it"
    assert loaded.keys() == PARTS.keys(), done.stderr
    assert {part: names - PARTS[part] for part, names in loaded.items()} == {part: set() for part in PARTS}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source = folder / "source"  # a build leaves files beside what it builds
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "src", "conf", "sweeps", "hydra_plugins"):
        if (ROOT / name).exists():
            (source / name).symlink_to(ROOT / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheel"), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], check=True
    )
    return folder / "site"


def elsewhere(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python in a folder that is no checkout, with the installed package."""
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, "-P", *words]  # -P: not even the folder itself is searched
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


FIVE_LINES = """
import torch, whatwhere
from whatwhere.metrics import InvarianceError
from whatwhere.pooling import POOLS, swap_pools

assert "site" in whatwhere.__file__
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(196, 5))
assert swap_pools(net, "blur", (3, 16, 16)) == ["1"]
whatwhere.verify(whatwhere.summarize(net, (3, 16, 16)), net)
table = whatwhere.evaluate(net, torch.rand(8, 3, 16, 16), torch.arange(8) % 5, max_shift=1)
print(*table.columns, len(table[table.layer == "output"]) > 5)
"""


def test_the_api_from_another_folder(site: Path, tmp_path: Path) -> None:
    done = elsewhere(site, tmp_path, "-c", FIVE_LINES)
    assert done.stdout == "layer transform protocol amount measure value low high n True\n", done.stderr


def test_the_commands_from_another_folder(site: Path, tmp_path: Path) -> None:
    shown = elsewhere(site, tmp_path, "-m", "whatwhere", "shapes", "model.depth=2")
    assert "stage2.pool" in shown.stdout, shown.stderr
    words = "data=shapes data.image_size=16 data.train_size=100 data.val_size=20 train.epochs=1 model.width=2"
    words += " measure.images=8 measure.what=[shift] probe.images=2 wandb.mode=disabled trainer.accelerator=cpu"
    sweep = ["-m", "whatwhere", "train", "-m", "model.pool=max,avg", *words.split(), "name=mine"]
    done = elsewhere(site, tmp_path, *sweep, "hydra/launcher=local", "hydra.launcher.jobs=1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "mine" / "report.html").exists()
    assert '"command": "whatwhere train -m ' in (tmp_path / "outputs" / "mine" / "sweep.json").read_text()


OWN = """
from torch import nn

class MyNet(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(196, 8))
"""


def test_a_net_of_ones_own_from_another_folder(site: Path, tmp_path: Path) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_module.py").write_text(OWN)
    net = ["-m", "whatwhere", "measure", "net=my_package.my_module:MyNet", "size=16"]
    done = elsewhere(site, tmp_path, *net, "data=shapes", "images=8", "what=shift", "max_shift=1")
    assert done.returncode == 0, done.stderr
    (table,) = (tmp_path / "outputs" / "measure").glob("*/measures.csv")
    assert "output,shift,roll,1,output_distance," in table.read_text()


FILES_OF_ONES_OWN = """
from whatwhere.common.errors import UserError
from whatwhere.launch.compose import compose_jobs, compose_one

assert compose_one(["model=mine"]).model.width == 3
assert compose_one(["model=mlp"]).model.width == 5, "the package's file wins over the user's"
for name in ("mine", "pooling"):
    composed = compose_jobs(["-m", f"sweeps={name}", "model=mine"])
    assert [(job.seed, job.model.width) for job in composed.jobs] == [(7, 3), (8, 3)], name
for words in (["model=nosuch"], ["-m", "sweeps=nosuch"]):
    try:
        compose_jobs(words)
    except UserError as error:
        print(error)
"""


def test_configs_and_sweeps_of_ones_own(site: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "sweeps").mkdir()
    for name, width in (("mine", 3), ("mlp", 5)):
        (tmp_path / "conf" / "model" / f"{name}.yaml").write_text(f"name: ladder\nwidth: {width}\n")
    for name in ("mine", "pooling"):
        sweep = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '7,8'}}}\n"
        (tmp_path / "sweeps" / f"{name}.yaml").write_text(sweep)
    done = elsewhere(site, tmp_path, "-c", FILES_OF_ONES_OWN)
    assert done.returncode == 0, done.stderr
    model, sweeps = done.stdout.splitlines()
    assert model.startswith("model=nosuch: choose one of") and " mine, " in model and " pca, " in model
    assert sweeps.startswith("sweeps=nosuch: choose one of") and " mine," in sweeps and " red_green," in sweeps


def test_a_conf_of_another_application_is_left_alone(site: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_text("something: else\n")
    (tmp_path / "conf" / "model" / "mlp.yaml").write_text("_target_: somewhere.Else\n")
    code = "from whatwhere.launch.compose import compose_one; print(compose_one(['model=mlp']).model.width)"
    assert elsewhere(site, tmp_path, "-c", code).stdout == "83\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "error: trian: no such command; did you mean train?"),
        (
            ["measure", "net=nowhere:Net", "data=shapes"],
            "error: net=nowhere:Net: there is no module nowhere, in this folder or installed",
        ),
    ],
)
def test_bad_input_is_one_line(site: Path, tmp_path: Path, words: list[str], message: str) -> None:
    done = elsewhere(site, tmp_path, "-m", "whatwhere", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(message)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("os:getcwd", "error: net=os:getcwd: gives a str, where an nn.Module"),
        ("a/b:c", "error: net=a/b:c: write MODULE:NAME"),
    ],
)
def test_an_object_that_is_no_net_is_refused_in_one_line(net: str, message: str, in_process: Command) -> None:
    done = in_process("src.measure", f"net={net}", "data=shapes")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(message)


def test_another_application_of_hydra_gets_nothing_from_the_plugin(site: Path, tmp_path: Path) -> None:
    code = "import hydra_plugins.whatwhere as p, sys; print(hasattr(p, 'LocalLauncher'), 'src' in sys.modules)"
    assert elsewhere(site, tmp_path, "-c", code).stdout == "False False\n"
