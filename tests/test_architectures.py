"""What an architecture has not, and what is published of it: parameters, shapes, and the function of its layers."""

import re
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models.convnext import CNBlock
from torchvision.models.vgg import cfgs, make_layers

from src.common.errors import UserError
from src.models import ARCHITECTURES, architecture
from src.models import network as build
from src.models.convnext import Block
from src.models.layers import NORMS
from src.models.vgg import CONVS
from src.nets.hooks import record_outputs
from src.summary import summarize
from tests.helpers import Image, architectures, composed, every_architecture, model, network, on_paper, parameters

IMAGE = (1, 32, 32)


def published(name: str, image: Image, outputs: int, **axes: Any) -> nn.Module:
    """The net of an architecture's yaml at its full size, on the meta device: it costs neither memory nor time."""
    words = [f"model.{key}={str(value).lower()}" for key, value in axes.items()]
    with torch.device("meta"):
        return build(composed(f"model={name}", *words).model, image, outputs)


# --- what an architecture has not ------------------------------------------------------------------------------------

OTHER = {
    "variant": "x", "pool": "avg", "pool_at": [1], "extra_conv": True, "window": 5, "stride": 3, "depth": 4, "convs": 4,
    "max_width": 7, "padding": "circular", "head": "gmp", "norm": "group", "bias": False, "activation": "tanh",
    "width": 3, "parameters": 9,
}  # fmt: skip
FIXED = [(name, key) for name in ARCHITECTURES for key in architecture(name).unsupported_axes]


@pytest.mark.parametrize(("name", "key"), FIXED)
def test_an_axis_that_an_architecture_lacks_is_refused_and_the_advice_can_be_followed(name, key):
    with pytest.raises(UserError) as refusal:
        network(IMAGE, name=name, **{key: OTHER[key]})
    line = re.fullmatch(rf"model\.{key}=(.+): model={name} has no such axis, leave it at (.+)", str(refusal.value))
    asked, right = line.groups()
    assert yaml.safe_load(asked) == OTHER[key]
    assert (
        getattr(composed(f"model={name}", f"model.{key}={right}").model, key)
        == architecture(name).unsupported_axes[key]
    )


# each can be had, and shows, by itself: a variant has names of its own, a width may be given as parameters
HAD = [(name, key) for key in OTHER if key not in ("variant", "parameters") for name in architectures(key)]


@pytest.mark.parametrize(("name", "key"), HAD)
def test_an_axis_that_an_architecture_has_changes_its_net(name, key):
    shown = {"norm": "none"} if key == "bias" else {}  # a norm has a bias of its own
    usual, other = (str(on_paper((1, 48, 48), name=name, **shown | axes)) for axes in ({}, {key: OTHER[key]}))
    assert usual != other


@every_architecture
def test_the_yaml_of_an_architecture_is_a_net(name):
    cfg = composed(f"model={name}")
    assert {key: getattr(cfg.model, key) for key in architecture(name).unsupported_axes} == architecture(
        name
    ).unsupported_axes
    assert published(name, (3, 32, 32), 10).logits.out_features == 10


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if architecture(name).variants])
def test_an_unknown_variant_is_refused(name):
    choices = architecture(name).variants
    for choice in choices:
        assert parameters(published(name, IMAGE, 10, variant=choice)) > 0
    for wrong, written in (("x", "x"), ("", '""')):
        with pytest.raises(UserError) as refusal:
            network(IMAGE, name=name, variant=wrong)
        right = f"for model={name} choose one of {', '.join(choices)}"
        assert str(refusal.value) == f"model.variant={written}: {right}"


# --- All-CNN: Springenberg et al. 2015, tables 1 to 3 ----------------------------------------------------------------

Kernels = list[tuple[int, int, int]]  # (side, channels read, channels written)
BASE: dict[str, Kernels] = {
    "a": [(5, 3, 96), (5, 96, 192)],
    "b": [(5, 3, 96), (1, 96, 96), (5, 96, 192), (1, 192, 192)],
    "c": [(3, 3, 96), (3, 96, 96), (3, 96, 192), (3, 192, 192)],
}
TOP: Kernels = [(3, 192, 192), (1, 192, 192), (1, 192, 10)]
EXTRA: Kernels = [(3, 96, 96), (3, 192, 192)]
FORMS: dict[str, tuple[dict[str, Any], Kernels]] = {
    "base": ({}, []),
    "strided": ({"pool": "none"}, []),
    "ConvPool": ({"extra_conv": True}, EXTRA),
    "All-CNN": ({"pool": "conv"}, EXTRA),
}
#: of ConvPool and All-CNN; its 0.9, 1 and 1.3 M of the other two do not follow from its layers: 0.84, 0.89 and 0.95 M
PUBLISHED = {"a": 1.28e6, "b": 1.35e6, "c": 1.4e6}


def weights(*kernels: tuple[int, int, int]) -> int:
    return sum(side**2 * read * written + written for side, read, written in kernels)


@pytest.mark.parametrize("variant", BASE)
@pytest.mark.parametrize("form", FORMS)
def test_all_cnn_has_the_parameters_and_maps_of_the_paper(variant, form):
    axes, extra = FORMS[form]
    net = published("allconv", (3, 32, 32), 10, variant=variant, **axes)
    assert parameters(net) == weights(*BASE[variant], *extra, *TOP)
    summary = summarize(net, (3, 32, 32))
    assert [summary[stage].rows.size for stage in net.stages] == [16, 8, 8]
    if extra:
        assert parameters(net) == pytest.approx(PUBLISHED[variant], rel=0.04)


def test_all_cnn_c_has_1369738_parameters():
    assert parameters(published("allconv", (3, 32, 32), 10, pool="conv")) == 1_369_738


# --- VGG: Simonyan & Zisserman 2015, by torchvision ------------------------------------------------------------------

LETTERS = {"11": "A", "13": "B", "16": "D", "19": "E"}
MEASURED = (nn.Conv2d, nn.BatchNorm2d)  # what has weights


@pytest.mark.parametrize("variant", CONVS)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_vgg_has_the_parameters_and_shapes_of_torchvisions(variant, norm):
    net = published("vgg", (3, 224, 224), 10, variant=variant, norm=norm)
    with torch.device("meta"):
        theirs = make_layers(cfgs[LETTERS[variant]], batch_norm=norm == "batch")
    biases = sum(layer.bias.numel() for layer in theirs if isinstance(layer, nn.Conv2d))
    assert parameters(net) - parameters(net.logits) == parameters(theirs) - (biases if norm == "batch" else 0)
    summary, other = summarize(net, (3, 224, 224)), summarize(theirs, (3, 224, 224))
    pooled = [layer.shape for layer in other.layers if layer.kind == "MaxPool2d"]
    assert [summary[stage].shape for stage in net.stages] == pooled
    assert summary["stage5"].rows == other.layers[-1].rows  # receptive field, jump and start as well


def copy(ours: nn.Module, theirs: nn.Module) -> None:
    """Give our net the weights of another that has the same layers."""
    pairs = [[layer for layer in net.modules() if isinstance(layer, MEASURED)] for net in (ours, theirs)]
    for one, other in zip(*pairs, strict=True):
        one.load_state_dict({key: other.state_dict()[key] for key in one.state_dict()})


@pytest.mark.parametrize("variant", CONVS)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_vgg_is_the_function_that_torchvisions_is(variant, norm):
    narrow = [size if size == "M" else size // 16 for size in cfgs[LETTERS[variant]]]
    theirs = make_layers(narrow, batch_norm=norm == "batch").double().eval()
    for layer in theirs:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        if isinstance(layer, nn.Conv2d):  # with a norm, ours has no bias
            nn.init.uniform_(layer.bias, -0.5, 0.5) if norm == "none" else nn.init.zeros_(layer.bias)
    axes = {"width": 4, "max_width": 32, "pool_at": None}
    net = network((3, 64, 64), name="vgg", variant=variant, norm=norm, **axes).double()
    copy(net, theirs)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with record_outputs(net, ["stage5"]) as maps, torch.no_grad():
        net(x)
        expected = theirs(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(maps["stage5"], expected)


# --- ConvNeXt: Liu et al. 2022, by torchvision -----------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 6, 16])
def test_a_convnext_block_has_the_parameters_of_torchvisions_but_for_its_layer_scale(channels):
    theirs = CNBlock(channels, layer_scale=1e-6, stochastic_depth_prob=0)
    assert parameters(Block(model("convnext"), channels)) == parameters(theirs) - theirs.layer_scale.numel()


@pytest.mark.parametrize(("norm", "side"), [("none", 9), ("layer", 1)])  # both mean the same by layer on one position
def test_a_convnext_block_is_the_function_that_torchvisions_is(norm, side):
    ours = Block(model("convnext", norm=norm), 6).double()
    theirs = CNBlock(6, 1.0, 0.0, nn.Identity if norm == "none" else nn.LayerNorm).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    others = [parameter for name, parameter in theirs.named_parameters() if name != "layer_scale"]
    with torch.no_grad():
        for one, other in zip(ours.parameters(), others, strict=True):
            other.copy_(one.view_as(other))
    x = torch.randn(2, 6, side, side, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


# --- the others, in closed form --------------------------------------------------------------------------------------


@given(st.sampled_from(list(NORMS)), st.integers(1, 4), st.integers(1, 40), st.integers(1, 12))
def test_an_mlp_has_the_parameters_of_its_formula(norm, depth, width, outputs):
    pixels = 3 * 5 * 7
    net = on_paper((3, 5, 7), outputs, name="mlp", depth=depth, width=width, norm=norm)
    offsets = width if norm == "none" else 2 * width  # biases; or scales and offsets
    hidden = pixels * width + (depth - 1) * width**2 + depth * offsets
    assert parameters(net) == hidden + (width + 1) * outputs


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8, 12, 16, 64])
def test_no_unit_of_an_mlp_is_a_group_of_its_own(width):
    layer = network((1, 8, 8), name="mlp", width=width, norm="group").stage1.norm
    assert width // layer.num_groups >= min(width, 2)
    assert layer.num_groups == max(groups for groups in (8, 4, 2, 1) if width % (2 * groups) == 0 or groups == 1)


TRUNK: Kernels = [(3, 1, 16), (3, 16, 16), (3, 16, 32), (3, 32, 32), (3, 32, 64), (3, 64, 64)]
SHORTCUTS: Kernels = [(3, 16, 16), (1, 16, 32), (1, 32, 64)]  # and the stem's fellow, behind it


@pytest.mark.parametrize(("name", "kernels"), [("ladder", TRUNK), ("resnet", [*TRUNK, *SHORTCUTS])])
def test_parameters_of_the_first_two_architectures_are_those_of_their_layers(name, kernels):
    convolutions = sum(side**2 * read * written + 2 * written for side, read, written in kernels)  # and their norms
    assert parameters(published(name, (1, 28, 28), 10)) == convolutions + weights((1, 64, 10))
