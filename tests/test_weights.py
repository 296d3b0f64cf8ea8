"""Weights from files: the same bit for bit whatever wraps them, or refused in one line, and never run."""

import pickle
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from src.common.errors import UserError
from src.nets.external import load_net
from src.nets.weights import load_pretrained, read_weights
from tests.test_nets import SMALL, TIMM, same, weights


@pytest.fixture(scope="module")
def shaken() -> dict[str, Tensor]:
    """Weights that no seed draws."""
    generator = torch.Generator().manual_seed(5)
    drawn = weights(load_net(SMALL, "none").net)
    return {key: one + torch.randn(one.shape, generator=generator) for key, one in drawn.items()}


class Settings(dict[str, Any]):
    """As yacs and EasyDict have them."""


FORMS: dict[str, Any] = {
    "net.pt": lambda tree: {"net": tree, "acc": 93.1},
    "model_ema.pt": lambda tree: {"model_ema": tree, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}},
    "weights.pt": lambda tree: {"weights": tree},
    "unknown.pt": lambda tree: {"the_weights": tree, "epoch": 3},
    "flat.pt": lambda tree: tree | {"epoch": 3},
    "omegaconf.ckpt": lambda tree: {
        "state_dict": tree,
        "hyper_parameters": OmegaConf.create({"lr": 0.1, "deep": {"list": [1, "${lr}"]}}),
    },
    "path.ckpt": lambda tree: {"state_dict": tree, "callbacks": {"best": Path("/tmp/best.ckpt")}},
    "numpy.ckpt": lambda tree: {
        "state_dict": tree,
        "best": np.float64(0.9),
        "all": np.arange(3),
        "kind": np.dtype("f4"),
    },
    "dict.pt": lambda tree: {"model": tree, "config": Settings(lr=0.1, deep=Settings(a=[1])), "best": np.float32(1)},
    "averaged.pt": lambda tree: {"n_averaged": torch.tensor(7)} | {f"module.{key}": one for key, one in tree.items()},
    "criterion.pt": lambda tree: (
        {f"model.{key}": one for key, one in tree.items()} | {"criterion.weight": torch.ones(9)}
    ),
    "criterion within.pt": lambda tree: {
        f"module.{key}": one for key, one in {"criterion.weight": torch.ones(9), **tree}.items()
    },
    "plain.pt": lambda tree: tree,
    "state_dict.ckpt": lambda tree: {"state_dict": tree, "epoch": 3},
    "model.pth": lambda tree: {"model": tree, "args": Namespace(lr=0.1)},
    "model_state_dict.pt": lambda tree: {"model_state_dict": tree},
    "module.pt": lambda tree: {f"module.{key}": one for key, one in tree.items()},
    "lightning.ckpt": lambda tree: {"state_dict": {f"model.net.{key}": one for key, one in tree.items()}},
}


@pytest.mark.parametrize("form", [*FORMS, "plain.safetensors"])
def test_weights_from_a_file_are_the_same_bit_for_bit(form: str, shaken: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / form
    if form in FORMS:
        torch.save(FORMS[form](shaken), path)
    else:
        save_file(shaken, path)
    assert same(weights(load_net(SMALL, str(path)).net), shaken)


def test_weights_of_timm_come_from_a_file_too(tmp_path: Path) -> None:
    tree = {key: one + 1 for key, one in weights(load_net(TIMM, "none").net).items()}
    torch.save(tree, tmp_path / "own.pt")
    assert same(weights(load_net(TIMM, str(tmp_path / "own.pt")).net), tree)


def test_a_file_with_the_librarys_name_is_taken_for_what_it_is(shaken: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(shaken, tmp_path / "squeezenet1_1-b8a52dc0.pth")
    torch.save(shaken, tmp_path / "own.pth")
    classes = load_net(SMALL, str(tmp_path / "squeezenet1_1-b8a52dc0.pth")).classes
    assert classes is not None
    assert classes[0] == "tench"
    assert load_net(SMALL, str(tmp_path / "own.pth")).classes is None


def test_googlenets_file_may_hold_what_only_training_asks_for(tmp_path: Path) -> None:
    torch.manual_seed(9)
    tree = models.googlenet(weights=None, init_weights=False).state_dict()
    assert any(key.startswith("aux1.") for key in tree)
    for file, transforms in {"googlenet-1378be20.pth": True, "own.pth": False}.items():
        torch.save(tree, tmp_path / file)
        net = load_net("torchvision/googlenet", str(tmp_path / file)).net
        assert net.transform_input == transforms
        assert same(weights(net), {key: one for key, one in tree.items() if not key.startswith("aux")})


def test_names_of_older_files_are_known() -> None:
    dense = nn.Module()
    dense.denselayer1 = nn.ModuleDict({"norm1": nn.BatchNorm2d(2)})
    old = {f"denselayer1.norm.1.{key}": torch.full((2,), 3.0) for key in "weight bias running_mean running_var".split()}
    load_pretrained(dense, old, "")
    assert dense.denselayer1["norm1"].running_var.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("form", "left"),
    [
        ("averaged.pt", "n_averaged"),
        ("criterion.pt", "criterion.weight"),
        ("criterion within.pt", "module.criterion.weight"),
    ],
)
def test_what_no_part_of_the_net_has_is_named(form: str, left: str, shaken: dict[str, Tensor], tmp_path: Path, caplog):
    torch.save(FORMS[form](shaken), tmp_path / form)
    load_net(SMALL, str(tmp_path / form))
    path = tmp_path / form
    assert caplog.messages == [f"weights={path}: ignored, as no part of the net has it: {left}"]


def test_layers_that_the_nets_parts_do_not_have_are_refused(tmp_path: Path) -> None:
    """All of resnet18's names are resnet34's too, with the same shapes."""
    torch.save(models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pt")
    with pytest.raises(UserError, match=r"resnet18: \d+ unexpected \(layer1\.2\.conv1\.weight, "):
        load_net("torchvision/resnet18", str(tmp_path / "resnet34.pt"))


def test_of_several_weights_one_is_taken_and_the_others_are_named(shaken, tmp_path, caplog) -> None:
    path, other = tmp_path / "timm.pth", {key: one + 1 for key, one in shaken.items()}
    torch.save({"epoch": 3, "state_dict_ema": other, "state_dict": shaken}, path)
    assert same(weights(load_net(SMALL, str(path)).net), shaken)
    assert caplog.messages == [
        f"weights={path}: those of state_dict are taken; for others write weights={path}:state_dict_ema"
    ]
    assert same(weights(load_net(SMALL, f"{path}:state_dict_ema").net), other)
    assert same(weights(load_net(SMALL, f"{path}:state_dict").net), shaken)
    assert len(caplog.messages) == 1, "what is chosen needs no word"
    with pytest.raises(UserError, match=r"no weights under ema; there are state_dict_ema, state_dict$"):
        load_net(SMALL, f"{path}:ema")
    torch.save({"a": shaken, "b": other}, path)
    with pytest.raises(UserError, match=r"holds weights under a, b: choose one, as weights=.*:KEY$"):
        load_net(SMALL, str(path))


def test_a_prefix_can_be_chosen(shaken, tmp_path, caplog) -> None:
    path, other = tmp_path / "student.pth", {key: one + 1 for key, one in shaken.items()}
    both = {f"student.{key}": one for key, one in shaken.items()} | {
        f"teacher.{key}": one for key, one in other.items()
    }
    torch.save({"state_dict": both}, path)
    assert same(weights(load_net(SMALL, str(path)).net), shaken)
    assert "ignored, as no part of the net has it: teacher." in caplog.text
    assert same(weights(load_net(SMALL, f"{path}:teacher").net), other)


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "it ran"
    pickle.loads(pickle.dumps(Malicious(proof)))
    assert proof.exists(), "it would"
    proof.unlink()
    for path in (tmp_path / "evil.pt", tmp_path / "evil.pth"):
        tree = {"state_dict": Malicious(proof)}
        torch.save(tree, path) if path.suffix == ".pt" else path.write_bytes(pickle.dumps(tree))
        with pytest.raises(UserError, match="cannot be read as plain data"):
            load_net(SMALL, str(path))
        assert not proof.exists()


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_what_a_file_holds_beside_its_weights_is_never_run(shaken, tmp_path, monkeypatch) -> None:
    """Neither calls, nor imports, nor what a class does when it is made or filled."""
    proof = tmp_path / "it ran"
    run = f"__import__('pathlib').Path({str(proof)!r}).touch()"
    code = f"{run}\nclass Thing:\n    def __init__(self): self.a = 1\n    def __setstate__(self, state): {run}\n"
    (tmp_path / "hostile.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import hostile

    things = {
        "call": Call(subprocess.check_call, ["touch", str(proof)]),
        "copy": Call(shutil.copyfile, __file__, str(proof)),
        "eval": Call(eval, run),
        "import": hostile.Thing(),
    }
    for name, thing in things.items():
        torch.save({"state_dict": shaken, "args": thing}, tmp_path / f"{name}.pt")
        proof.unlink(missing_ok=True)
        torch.load(tmp_path / f"{name}.pt", weights_only=False)
        assert proof.exists(), "it would"
    del sys.modules["hostile"]
    proof.unlink(missing_ok=True)
    for name in things:
        assert same(read_weights(tmp_path / f"{name}.pt")[0], shaken)
        assert not proof.exists()
        assert "hostile" not in sys.modules
    allowed = torch.serialization.get_safe_globals()
    assert not any(isinstance(one, tuple) for one in allowed), "nothing is allowed for good"


@pytest.mark.parametrize("tree", [{"epoch": 3}, {}, [1, 2], {"state_dict": {"a": "b"}}])
def test_a_file_without_weights_is_refused(tree: object, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no state_dict"):
        read_weights(tmp_path / "other.pt")


def test_a_whole_net_or_no_file_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"save net.state_dict\(\), not the net"):
        read_weights(tmp_path / "net.pt")
    with pytest.raises(UserError, match="no such file"):
        load_net(SMALL, str(tmp_path / "nothing.pt"))


def test_a_mismatch_says_how_many_and_names_three() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    before = weights(net)
    found = before | {"2.weight": torch.zeros(5, 4)} | {f"3.w{i}": torch.zeros(1) for i in range(5)}
    del found["0.weight"], found["1.num_batches_tracked"]
    with pytest.raises(UserError) as refusal:
        load_pretrained(net, found, "it does not fit")
    assert str(refusal.value) == (
        "it does not fit: 1 missing (0.weight); 5 unexpected (3.w0, 3.w1, 3.w2 …); "
        "1 of other shape (2.weight 5×4 for 2×4)"
    )
    assert same(weights(net), before), "all or none"
