"""Nets of libraries: by name, layer by layer, measured on a folder of images."""

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from src import measure, train
from src.common.errors import UserError
from src.data.checksums import folder_checksum
from src.data.external import resized, sample
from src.data.sets import MARGIN, Images
from src.evaluation.adapter import EvaluationSet, adapt_model, normaliser
from src.evaluation.suite import evaluate_families
from src.measuring.options import numbers_of
from src.metrics import Row
from src.nets.external import (
    LoadedNet,
    default_layers,
    list_layers,
    load_net,
    logits_of,
    output_size,
    pick_layers,
    run_once,
)
from src.reporting import wandb_logger as views_wandb
from src.results import files
from src.results.measures import summary_values
from src.results.runs import FinishedRun
from tests.helpers import ROOT, only_rows, wandb_records
from tests.test_commands import command
from tests.test_hooks import flags, hooks

TIMM = "timm/test_resnet.r160_in1k"  # half a million parameters
SMALL = "torchvision/squeezenet1_1"  # a million


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {key: one.clone() for key, one in net.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- by name -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side", "layers"),
    [
        ("torchvision/resnet18", 64, "relu layer1 layer2 layer3 layer4 avgpool"),
        ("torchvision/alexnet", 64, "features.1 features.4 features.11 avgpool classifier.5"),
        ("torchvision/googlenet", 64, "conv1 conv3 inception3b inception4e inception5b dropout"),
        (TIMM, 160, "act1 layer1 layer2 layer3 layer4 global_pool"),
        ("timm/test_vit.r160_in1k", 160, "patch_embed " + " ".join(f"blocks.{i}" for i in range(6)) + " head_drop"),
    ],
)
def test_a_net_comes_in_eval_mode_and_its_layers_stand_for_it(name: str, side: int, layers: str) -> None:
    loaded = load_net(name, "none")
    assert not any(flags(loaded.net))
    assert loaded.image == ((3, 160, 160) if side == 160 else (3, 224, 224))
    assert len(loaded.mean) == len(loaded.std) == 3
    assert loaded.classes is None, "random weights know none"
    assert output_size(loaded.net, (3, side, side)) == 1000
    assert default_layers(loaded.net, (3, side, side)) == layers.split()


def test_vgg_has_a_layer_for_each_resolution() -> None:
    with torch.device("meta"):  # its half a gigabyte of weights is not what is asked about
        net = models.vgg11()
    assert default_layers(net.features, (3, 64, 64)) == "1 4 9 14 19 20".split()
    assert output_size(net, (3, 32, 32)) == 1000


def test_random_weights_are_the_same_each_time_and_leave_the_random_stream_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = weights(load_net(SMALL, "none").net)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert same(one, weights(load_net(SMALL, None).net))


def test_a_net_may_have_other_outputs() -> None:
    for name in (SMALL, TIMM):
        assert output_size(load_net(name, "none", classes=7).net, (3, 64, 64)) == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision/resnet81", "torchvision has no such net; did you mean .*resnet18"),
        ("timm/resnet18.a1_in2k", "timm has no such net; did you mean .*resnet18.a1_in1k"),
        ("torchvision/raft_large", "torchvision has no such net"),
        ("keras/resnet18", "write torchvision/NAME, timm/NAME or MODULE:NAME"),
        ("resnet18", "write torchvision/NAME, timm/NAME or MODULE:NAME"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        load_net(name, "none")
    assert "\n" not in str(refusal.value)


def test_without_timm_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install timm"):
        load_net(TIMM, "none")


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise OSError("no network\nand a second line")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(no network\); take weights=FILE") as refusal:
        load_net(SMALL, "default")
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match=r"classes=5: .* with weights=none or weights=FILE"):
        load_net(SMALL, "default", classes=5)


# --- answers and layers --------------------------------------------------------------------------------------------


def test_the_logits_are_found_in_tuples_and_dicts() -> None:
    right, wrong = torch.ones(2, 3), torch.zeros(2, 3)
    given: list[Any] = [
        right,
        (right, wrong),
        [right, wrong],
        {"aux": wrong, "out": right},
        {"hidden": wrong, "logits": right},
        SimpleNamespace(loss=wrong, logits=right),
    ]
    assert all(logits_of(one) is right for one in given)
    for bad in (None, (), {"hidden": right}, torch.ones(2, 3, 4, 4), "text"):
        with pytest.raises(UserError, match=r"the net gives a .* where a vector for each image is needed"):
            logits_of(bad)


@pytest.fixture
def net() -> nn.Sequential:
    """With in-place modules, a block, mixed flags, and an attention that gives a tuple."""
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True))
    whole = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), block, nn.Flatten(), nn.Linear(64, 5))
    whole.train()
    block.eval()
    return whole


def test_layers_are_picked_by_name_and_pattern_in_the_nets_order(net: nn.Sequential) -> None:
    assert pick_layers(net, ["3", "2.*"]) == ["2.0", "2.1", "3"]
    assert pick_layers(net, ["?", "1"]) == ["0", "1", "2", "3", "4"]
    with pytest.raises(UserError, match=r"layers=2\.7: the net has none; did you mean 2\.\d"):
        pick_layers(net, ["1", "2.7"])


def test_layers_are_listed_with_shape_and_parameters(net: nn.Sequential) -> None:
    listed = list_layers(net, (3, 8, 8))
    assert [row["name"] for row in listed] == ["0", "1", "2", "2.0", "2.1", "3", "4"]
    assert listed[2] == {"name": "2", "kind": "Sequential", "shape": (4, 4, 4), "parameters": 4 * 4 * 9 + 4}
    assert default_layers(net, (3, 8, 8)) == ["0", "2", "3"]


def test_hooks_and_flags_are_as_before_also_after_an_exception(net: nn.Sequential) -> None:
    before = flags(net)
    assert set(before) == {True, False}
    list_layers(net, (3, 8, 8))
    assert (flags(net), hooks(net)) == (before, 0)
    with pytest.raises(UserError, match=r"the net does not take 3×9×12 images \(.*\)$"):
        run_once(net, (3, 9, 12))
    assert (flags(net), hooks(net)) == (before, 0)


def test_a_layer_that_gives_no_tensor_is_refused() -> None:
    loaded = load_net("timm/test_vit.r160_in1k", "none")
    loaded.net.add_module("idle", nn.ReLU())
    with pytest.raises(UserError, match="layers=idle: gives no single tensor"):
        adapt_model(loaded, patterns=["blocks.0", "idle"])
    assert adapt_model(loaded, patterns=["blocks.[02]"]).layers == ["blocks.0", "blocks.2"]


def test_pixels_are_normalised_by_the_nets_own_mean_and_std() -> None:
    pixels = torch.arange(24).view(2, 3, 2, 2) * 10
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    expected = (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    for given in (pixels.to(torch.uint8), pixels.float()):
        before = given.clone()
        torch.testing.assert_close(normaliser(mean, std)(given), expected)
        assert torch.equal(given, before), "floats are not normalised in place"


# --- images --------------------------------------------------------------------------------------------------------


def test_images_are_resized_to_the_nets_side_whatever_the_margin() -> None:
    ramp = torch.arange(28).expand(2, 1, 28, 28).mul(9).to(torch.uint8)
    for side in (56, 21, 45, 28):
        small, large = (resized(Images(ramp, torch.zeros(2).long()), side, margin, "edge") for margin in (1, 4))
        assert small.shape == (2, 1, side + 2, side + 2)
        assert (small.int() - large[..., 3:-3, 3:-3].int()).abs().max() <= 1, "up to rounding"
        centres = (torch.arange(side) + 0.5) * 28 / side - 0.5  # what a resized ramp is, away from the border
        assert (large[0, 0, side // 2, 8:-8].float() - 9 * centres[4:-4]).abs().max() <= 1


def test_true_pixels_around_an_image_are_resized_with_it() -> None:
    canvas = torch.full((2, 1, 16 + 2 * MARGIN, 16 + 2 * MARGIN), 200, dtype=torch.uint8)
    inner = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    canvas[..., MARGIN:-MARGIN, MARGIN:-MARGIN] = inner
    wide = resized(Images(inner, torch.zeros(2).long(), canvas), 32, 4, "black")
    assert wide.shape[-1] == 40
    assert (wide[..., :2, :] == 200).all()
    assert (wide[..., 6:-6, 6:-6] == 0).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 classes × 6 images; each of one colour, so that it is known again."""
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(("ants", "bees")):
        (root / name).mkdir()
        for i in range(6):
            pixels = np.full((40, 50, 3), (100 * label, 20 * i, 7), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_a_folder_gives_as_many_images_as_asked_for_with_their_classes(folder: Path, tmp_path: Path) -> None:
    found = sample("folder", str(folder), 32, 3, 2, 8, 0)
    assert found.padded.shape == (8, 3, 36, 36)
    assert found.classes == ["ants", "bees"]
    assert torch.equal(found.padded[:, 0, 20, 20], found.labels * 100)
    assert len(sample("folder", str(folder), 32, 3, 2, 99, 0).labels) == 12, "all of them, not a part held out"
    loose = sample("folder", str(folder / "ants"), 32, 3, 2, 99, 0)
    assert (len(loose.labels), loose.classes) == (6, [])
    with pytest.raises(UserError, match=r"no images in data\.root="):
        sample("folder", str(tmp_path), 32, 3, 2, 8, 0)


def test_grey_images_fill_every_channel_of_a_net_for_colours() -> None:
    found = sample("shapes", "", 32, 3, 1, 4, 0)
    assert found.padded.shape == (4, 3, 34, 34)
    assert torch.equal(found.padded[:, 0], found.padded[:, 2])
    assert found.padded.float().std() > 5
    assert found.positions.shape == (4, 2)
    with pytest.raises(UserError, match="images of 3 channels, where the net takes 1"):
        sample("red_green", "", 32, 1, 1, 4, 0)


def test_no_number_depends_on_the_batch_size() -> None:
    loaded = load_net(TIMM, "none", classes=4)
    adapter = adapt_model(loaded, (3, 32, 32), ["layer1", "layer2"])
    canvas = torch.randint(256, (6, 3, 34, 34), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    seen: list[int] = []
    loaded.net.register_forward_hook(lambda net, given, output: seen.append(len(output)))
    test_set = EvaluationSet(canvas, 1, labels=torch.arange(6) % 4, batch=2)
    found = only_rows(evaluate_families(adapter, test_set, ["shift"]))
    assert set(seen) == {2}
    assert {row.layer for row in found} == {"layer1", "layer2", "output"}
    assert {row.estimate.n for row in found} == {6}
    for one, other in zip(
        found, only_rows(evaluate_families(adapter, replace(test_set, batch=6), ["shift"])), strict=True
    ):
        assert one.estimate.value == pytest.approx(other.estimate.value, rel=1e-3, abs=1e-6, nan_ok=True), one


EVERY = ["shift", "rolls", "crops", "layers", "units", "field", "aliasing", "velocity", "noise"]


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    maps = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def measured(net: nn.Module) -> list[str]:
    """All numbers of a net that somebody has made, in order."""
    canvas = torch.randint(256, (12, 3, 20, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    adapter = adapt_model(LoadedNet(net, (3, 16, 16), (0.5,) * 3, (0.25,) * 3, None))
    return [
        str(family)
        for family in evaluate_families(adapter, EvaluationSet(canvas, 2, labels=torch.arange(12) % 4), EVERY)
        if type(family) is Row
    ]


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("std", "0,0,0", "above 0"),
        ("std", "nan,1,1", "finite"),
        ("mean", "inf,0,0", "finite"),
        ("mean", "124,116,104", "255"),
    ],
)
def test_mean_and_std_of_the_command_line_are_those_of_pixels_from_0_to_1(key: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=f"{key}=.*{words}"):
        numbers_of(key, text, 3)


def test_image_files_may_have_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd, other = (tmp_path / os.fsdecode(name) for name in (b"\xff.png", b"\xfe.png"))
    odd.write_bytes(b"a picture")
    before = folder_checksum(tmp_path)
    odd.rename(other)
    assert len(before) == 16 and folder_checksum(tmp_path) not in ("", before)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_net_of_other_floats_is_measured_as_a_float32_copy_with_a_warning(kind: torch.dtype) -> None:
    net = plain().to(kind)
    with pytest.warns(UserWarning, match=f"numbers are {str(kind)[6:]}: a float32 copy of it is measured"):
        found = measured(net)
    assert found == measured(plain().to(kind).float())
    assert {parameter.dtype for parameter in net.parameters()} == {kind}, "it is as it was"


def test_a_compiled_net_is_measured_as_the_original() -> None:
    expected = measured(plain())
    calls: list[None] = []

    def backend(module: Any, _: Any) -> Any:
        calls.append(None)
        return module

    assert measured(torch.compile(plain(), backend=backend)) == expected  # type: ignore[arg-type]
    net = plain()
    net.compile(backend=backend)
    assert measured(net) == expected
    assert not calls, "nothing is compiled"
    assert net._compiled_call_impl is not None, "it is as it was"


class Pools(nn.Module):
    """Nothing is learned, and nothing kept."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.vector = nn.AvgPool2d(2), nn.MaxPool2d(2), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.vector(self.two(self.one(x)))


def test_a_net_without_parameters_is_measured() -> None:
    found = measured(Pools())
    assert any("layer='two'" in one and "invariance_error" in one for one in found)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_net_is_refused_in_one_line() -> None:
    part = plain()
    part[4] = torch.jit.script(part[4])
    for net, name in (
        (torch.jit.script(plain()), "the net"),
        (torch.jit.trace(plain(), torch.zeros(1, 3, 16, 16)), "the net"),
        (part, "4"),
    ):
        for look in (measured, lambda net: list_layers(net, (3, 16, 16)), lambda net: pick_layers(net, ["0"])):
            with pytest.raises(UserError, match=rf"^{name} is scripted: .* give the nn\.Module that it was made from$"):
                look(net)


# --- the command ---------------------------------------------------------------------------------------------------


def test_a_folder_is_measured_from_the_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = weights(load_net("torchvision/resnet18", "none", classes=2).net)
    torch.save({"model": tree}, tmp_path / "own.pth")
    out = tmp_path / "new" / "measures.csv"
    words = f"net=torchvision/resnet18 size=32 images=8 max_shift=1 data=folder data.root={folder} out={out}".split()
    done = command("src.measure", *words, "weights=none", "layers=layer?,avgpool", "what=shift,flip")
    assert done.returncode == 0, done.stderr
    assert "1000 outputs, the data 2 classes: measured without labels" in done.stdout
    assert str(out) in done.stdout
    without = files.read_rows(out)
    assert {row["layer"] for row in without} == {"layer1", "layer2", "layer3", "layer4", "avgpool", "output"}
    assert {row["n"] for row in without} == {"8"}
    assert not any(row["measure"].endswith("_untrained") for row in without), "these weights are the floor"

    words += [f"weights={tmp_path / 'own.pth'}", "classes=2", "what=shift"]
    monkeypatch.setattr(sys, "argv", ["src.measure", *words])
    measure.main()
    assert "without labels" not in capsys.readouterr().out
    trained = {(r["layer"], r["protocol"], r["measure"]): r["value"] for r in files.read_rows(out)}
    names = {key for key in trained if not key[2].endswith("_untrained")}
    assert {(*key[:2], f"{key[2]}_untrained") for key in names} == trained.keys() - names
    floors = {key: trained[*key[:2], f"{key[2]}_untrained"] for key in names}
    assert any(trained[key] != floor for key, floor in floors.items()), "the same weights, with the images' statistics"


def test_a_net_is_compared_with_one_that_was_measured_on_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(out: str, *words: str) -> None:
        given = [f"net={SMALL}", "weights=none", "data=shapes", "size=32", "images=4", "max_shift=1", "what=shift"]
        monkeypatch.setattr(sys, "argv", ["src.measure", *given, f"out={tmp_path / out}", *words])
        measure.main()

    run("one/measures.csv", "layers=features.3")
    beside = f"beside={tmp_path / 'one' / 'measures.csv'}"
    run("two/measures.csv", "net=torchvision/resnet18", beside)
    text = (tmp_path / "two" / "measures.html").read_text()
    assert all(f'<th scope="row">{net}, weights none</th>' in text for net in (SMALL, "torchvision/resnet18"))
    for words, message in (
        ([beside, "size=33"], "was measured with pixels=32, not 33; nets are compared on the same images"),
        ([beside, "images=5"], "was measured with images=4, not 5"),
        (["beside=none.csv"], "beside=none.csv: is no table of a net that was measured"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            run("three/measures.csv", *words)
        assert message in capsys.readouterr().err
        assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("end", ["raise ValueError('spent')", "raise SystemExit(3)"])
def test_an_own_net_that_fails_in_a_later_call_is_reported_in_one_line(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"late_{len(end)}"
    code = (
        "from torch import nn\n\nclass Late(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n\n    def forward(self, x):\n"
        f"        if len(x) > 2:\n            {end}\n        return self.conv(x).mean((2, 3))\n"
    )
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    words = f"net={name}:Late size=16 data=shapes images=8 what=shift,flip out={tmp_path / 'measures.csv'}"
    monkeypatch.setattr(sys, "argv", ["src.measure", *words.split()])
    with pytest.raises(SystemExit, match="2"):
        measure.main()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: net={name}:Late: {tmp_path / name}.py, line 10: ")


def test_the_size_of_metamers_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"net={SMALL} weights=none data=shapes size=32 images=4 max_shift=1 layers=features.3 what=metamers"
    size = ["metamer_images=3", "metamer_starts=1", "metamer_steps=2", f"out={tmp_path / 'measures.csv'}"]
    monkeypatch.setattr(sys, "argv", ["src.measure", *words.split(), *size])
    measure.main()
    assert re.search(r"within 2 steps:\s+features\.3 \d of 3", capsys.readouterr().out)


@pytest.mark.filterwarnings("default")  # W&B's own
def test_what_is_measured_goes_to_wandb_where_it_is_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net" / "measures.csv"
    words = f"net={SMALL} weights=none size=32 images=4 max_shift=1 data.root={folder} layers=features.3 out={out}"
    monkeypatch.setattr(sys, "argv", ["src.measure", *words.split(), "what=shift,field"])
    measure.main()
    assert not (out.parent / "wandb").exists()
    sys.argv += ["wandb.mode=offline", "wandb.project=elsewhere"]
    measure.main()
    (log,) = out.parent.glob("wandb/offline-run-*")
    assert f"wandb sync {log}" in capsys.readouterr().out
    records = wandb_records(out.parent)
    (started,) = [record["run"] for record in records if record["type"] == "run"]
    assert started["display_name"] == f"{SMALL}, weights none"
    assert (started["run_group"], started["job_type"], started["project"]) == ("measure", "measure", "elsewhere")
    settings = started["config"]["update"]
    assert (settings["net"], settings["images"], settings["seed"], settings["what"]) == (
        SMALL,
        4,
        0,
        ["shift", "field"],
    )
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [row["measures.nrows"] for row in history if "measures.nrows" in row] == [len(files.read_rows(out))]
    left = FinishedRun(out.parent, {}, out)
    pictures = [key for row in history for key, value in row.items() if value == "image-file"]
    assert sorted(pictures) == sorted(f"grids/{name}._type" for name in left.grids)
    summary = {
        k: v for record in records if record["type"] == "summary" for k, v in record["summary"]["update"].items()
    }
    expected = summary_values(left.results)
    assert expected and {key: summary[key] for key in expected} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("words", [["src.measure", f"net={SMALL}", "data.root=nowhere"], ["src.train", "data=shapes"]])
def test_online_without_a_login_is_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(views_wandb, "logged_in", lambda: False)
    monkeypatch.setattr(sys, "argv", [*words, "wandb.mode=online"])
    with pytest.raises(SystemExit) as exited:
        (measure if words[0] == "src.measure" else train).main()
    assert exited.value.code == 2
    said = "error: wandb.mode=online: not logged in to W&B; `wandb login` first, or wandb.mode=offline"
    assert capsys.readouterr().err.strip() == said


def test_layers_are_listed_without_lightning_data_or_weights() -> None:
    script = f"import sys, runpy; sys.argv = ['src.measure', 'net={SMALL}', 'size=64', 'layers=list']; "
    script += "runpy.run_module('src.measure', run_name='__main__'); "
    script += "print([m for m in ('lightning', 'torchmetrics', 'wandb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "features.12.expand3x3" in done.stdout
    assert "features.1 *" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("images=8", "give one of checkpoint=PATH"),
        (f"net={SMALL} checkpoint=x.ckpt", "give one of checkpoint=PATH"),
        ("checkpoint=x.ckpt layers=a", "layers= goes with net="),
        (f"net={SMALL} weights=none", "data=folder needs data.root="),
        (f"net={SMALL} weights=none data.root=nowhere", "data.root=nowhere: no such folder"),
        (f"net={SMALL} weights=none metamer_steps=0", "metamer_steps=0: must be a whole number of at least 1"),
        (f"net={SMALL} weights=none data=shape", "data=shape: choose one of"),
        (f"net={SMALL} weights=none images=1", "images=1: must be a whole number of at least 2"),
        (
            f"net={SMALL} data.root=nowhere wandb.mode=off",
            "wandb.mode=off: did you mean offline? choose one of auto, online",
        ),
        (f"net={SMALL} data.root=nowhere wandb=offline", "valid here: mode, project, entity"),
        (f"net={SMALL} weights=none data=shapes size=2", "the net does not take 3×2×2 images"),
        (f"net={SMALL} weights=none data=shapes layers=*fire", "layers=*fire: the net has none"),
    ],
)
def test_incompatible_options_are_refused(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exited:
        patch.setattr(sys, "argv", ["src.measure", *words.split()])
        measure.main()
    assert exited.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
