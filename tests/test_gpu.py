"""On a GPU: a CPU's numbers, exactness that TF32 would cost, and runs from end to end. Skipped where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.config import MEASURES
from src.evaluation.adapter import EvaluationSet, ModelAdapter, normaliser
from src.evaluation.all_rolls import one_by_one_rolls, prepare
from src.evaluation.families.crops import prepare as prepare_crops
from src.evaluation.suite import evaluate_families
from src.metrics import Heatmap, Row
from src.models import ARCHITECTURES
from src.nets.hooks import eval_mode
from src.pooling import POOLS
from src.results import files
from src.results.runs import FinishedRun
from src.training.run import hardware, run
from tests.helpers import ROOT, network, tiny
from tests.test_phase_tree import shaken
from tests.test_run import same_numbers

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("default"),  # Lightning's own
]
GPU = torch.device("cuda")
SIDE = 32


def test_set(n: int = 40) -> EvaluationSet:
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(0, 256, (n, 1, SIDE + 4, SIDE + 4), generator=generator).to(torch.uint8)
    return EvaluationSet(canvas, 2, torch.arange(n) % 5, torch.rand(n, 2, generator=generator), batch=16)


def adapter(device: torch.device, **axes: object) -> ModelAdapter:
    torch.manual_seed(0)
    net = shaken(network((1, SIDE, SIDE), **axes)).to(device)
    return ModelAdapter(net, ["stage1", "stage2", "features"], normaliser((0.5,), (0.5,)))


def images(of: ModelAdapter, device: torch.device, n: int = 2) -> Tensor:
    return of.normalise(test_set(n).padded[..., 2:-2, 2:-2].to(device))


def off(found: Tensor, right: Tensor) -> float:
    """The largest difference, as a share of the largest."""
    found, right = found.detach().cpu().double(), right.detach().cpu().double()
    return float((found - right).abs().max() / right.abs().max())


# --- precision -------------------------------------------------------------------------------------------------------


def test_what_is_measured_is_true_float32() -> None:
    conv, x = nn.Conv2d(64, 64, 3, device=GPU), torch.randn(8, 64, 32, 32, device=GPU)
    linear, z = nn.Linear(1024, 64, device=GPU), torch.randn(512, 1024, device=GPU)
    for layer, given in ((conv, x), (linear, z)):
        with torch.no_grad(), eval_mode(layer):
            found = layer(given)
        with torch.no_grad():
            assert off(found, layer.cpu().double()(given.cpu().double())) < 3e-6  # TF32: 3e-4


@pytest.mark.parametrize(("name", "pool"), [(name, pool) for name, pool in POOLS.items() if pool])
def test_a_pool_gives_and_learns_what_it_does_on_a_cpu(name, pool) -> None:
    one, x = pool(stride=2, channels=16).eval(), torch.randn(4, 16, 13, 18)
    if name in ("ideal", "flc", "wavelet"):
        x = x[..., 1:, :]
    found = []
    for device in (torch.device("cpu"), GPU):
        layer, given = one.to(device), x.to(device).detach().requires_grad_()
        layer.zero_grad()
        with eval_mode(layer):
            y = layer(given)
            y.square().sum().backward()
        grads = [parameter.grad for parameter in layer.parameters()]  # none for what lps chooses by
        found.append([y, given.grad, *(grad.clone() for grad in grads if grad is not None)])
    for right, other in zip(*found, strict=True):
        assert off(other, right) < 2e-5


# --- measures --------------------------------------------------------------------------------------------------------

AXES = [
    {"padding": "zeros"},
    {"padding": "circular", "pool": "aps"},
    {"padding": "valid", "pool": "avg"},
    {"padding": "circular", "head": "flatten", "pool": "blur"},
]


@pytest.mark.parametrize("axes", AXES, ids=lambda axes: "-".join(axes.values()))
def test_every_measure_gives_what_it_gives_on_a_cpu(axes) -> None:
    found: list[dict[tuple[object, ...], float]] = []
    for device in (torch.device("cpu"), GPU):
        table, planes = {}, {}
        for result in evaluate_families(adapter(device, **axes), test_set(), MEASURES):
            if isinstance(result, Row):
                table[result.values()[:5]] = result.estimate.value
            elif isinstance(result, Heatmap):
                planes[result.layer, result.measure, "mean"] = float(result.values.mean())
        found.append(table | planes)
    cpu, gpu = found
    assert list(cpu) == list(gpu)
    # where there is nothing to learn, as here, rounding decides which penalty of a probe is the best
    keys = [key for key in cpu if not str(key[-1]).startswith("probe_r2")]
    wrong = {key: (cpu[key], gpu[key]) for key in keys if gpu[key] != pytest.approx(cpu[key], 2e-3, 2e-3, nan_ok=True)}
    assert not wrong, f"{len(wrong)} of {len(cpu)}: {wrong}"


@pytest.mark.parametrize("pool", POOLS)
def test_the_phase_tree_is_as_exact_as_on_a_cpu(pool) -> None:
    cpu, gpu = (adapter(device, pool=pool, padding="circular") for device in (torch.device("cpu"), GPU))
    expected, rolls = prepare(cpu, images(cpu, torch.device("cpu"))), prepare(gpu, images(gpu, GPU))
    assert rolls.how == expected.how
    x = images(gpu, GPU, 3)
    some = rolls.shifts[[0, 1, 37, 500, 1023]]
    table, right = rolls(x), one_by_one_rolls(gpu, x, some)
    assert off(table.outputs[:, [0, 1, 37, 500, 1023]], right.outputs) < 1e-5
    for layer in gpu.layers:
        scale = right.norms[layer].square().max()
        assert (
            table.squared_difference[layer][:, some[:, 0] * SIDE + some[:, 1]] - right.squared_difference[layer]
        ).abs().max() < 1e-5 * scale


def test_fragments_are_exact() -> None:
    of = adapter(GPU, padding="valid")
    crops = prepare_crops(of, test_set(3).padded.to(GPU), 2)
    assert crops.fragments, crops.why


# --- runs ------------------------------------------------------------------------------------------------------------

SHORT = "data=shapes data.train_size=300 data.val_size=100 train.epochs=1 wandb.mode=disabled measure.images=40"


def told(*words: str) -> None:
    """``python -m`` …, which ends well."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_is_on_the_gpu_and_learns(tmp_path: Path) -> None:
    cfg = tiny(train={"epochs": 3}, measure={"what": list(MEASURES)})
    run(cfg, tmp_path / "run")
    done = FinishedRun(tmp_path / "run", {})
    assert done.facts["hardware"] == hardware(GPU) == torch.cuda.get_device_name()
    losses = [float(row["train/loss"]) for row in done.history]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("pool", POOLS)
def test_the_same_seed_gives_the_same_numbers_bit_for_bit(pool, tmp_path: Path) -> None:
    padding = "circular" if pool in ("aps", "lps", "tips") else "zeros"
    cfg = tiny(
        data={"train_size": 2000, "image_size": 32},
        model={"pool": pool, "padding": padding, "depth": 2, "width": 16, "convs": 2},
        train={"epochs": 1, "batch_size": 128},
        measure={"what": ["shift", "layers"]},
    )
    before = torch.are_deterministic_algorithms_enabled()
    for name in ("one", "other"):
        run(cfg, tmp_path / name)
    assert same_numbers(tmp_path / "one", tmp_path / "other")
    assert torch.are_deterministic_algorithms_enabled() == before


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_runs(name, tmp_path: Path) -> None:
    more = ["model.pool_at=[1,2,3]"] if name == "vgg" else []
    words = f"model={name} measure.what=[shift,layers] hydra.run.dir={tmp_path}/run".split()
    told("src.train", *SHORT.split(), *words, *more)
    assert FinishedRun(tmp_path / "run", {}).facts["hardware"] == torch.cuda.get_device_name()


def test_several_jobs_share_a_gpu(tmp_path: Path) -> None:
    words = (
        f"model.pool=max,avg,none hydra/launcher=local hydra.launcher.jobs_per_gpu=3 hydra.sweep.dir={tmp_path}/sweep"
    )
    told("src.train", "-m", *SHORT.split(), *words.split())
    done = [FinishedRun(path.parent, {}) for path in (tmp_path / "sweep").glob("*/run.json")]
    assert [one.facts["hardware"] for one in done] == 3 * [torch.cuda.get_device_name()]
    assert (tmp_path / "sweep" / files.PAGE).exists()


def test_a_net_of_a_library(tmp_path: Path) -> None:
    told(
        *f"src.measure net=torchvision/resnet18 weights=none data=shapes size=64 images=32 out={tmp_path}/m.csv".split()
    )
    assert len(files.read_rows(tmp_path / "m.csv")) > 100
