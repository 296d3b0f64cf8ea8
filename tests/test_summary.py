"""The model summary against counting, hooks, the FLOP counter and gradients."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from src.models import ARCHITECTURES, architecture
from src.models.blocks import Network
from src.models.layers import HEADS, NORMS, PADDINGS
from src.nets.hooks import record_outputs
from src.pooling import POOLS
from src.summary import ModelSummary, ShapeError, summarize, verify
from tests.helpers import Image, architectures, every_architecture_with, network, parameters, shared

every_pool = pytest.mark.parametrize("pool", POOLS)
#: an architecture without pools is there once
every_net = pytest.mark.parametrize(
    ("name", "pool"),
    [(name, pool) for name in ARCHITECTURES for pool in (POOLS if name in architectures("pool") else ["none"])],
)


def multiply_adds(net: nn.Module, image: Image) -> int:
    """By PyTorch's own counter, which takes a multiply-add for two operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(1, *image, device=next(net.parameters()).device))
    return counter.get_total_flops() // 2


# --- known nets ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["vgg16", "alexnet", "resnet18"])
def known(request: pytest.FixtureRequest) -> nn.Module:
    """A net of torchvision's; on the meta device it has shapes, but costs neither memory nor time."""
    with torch.device("meta"):
        return models.get_model(request.param, weights=None).eval()


def test_known_nets_have_the_parameters_and_multiply_adds_that_torch_counts(known):
    summary = summarize(known, (3, 224, 224))
    assert summary.parameters == parameters(known)
    assert summary.multiply_adds == multiply_adds(known, (3, 224, 224))


def test_known_nets_have_the_shapes_that_hooks_see(known):
    summary = summarize(known, (3, 224, 224))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in known.named_modules():
        layer.register_forward_hook(lambda _, __, y, name=name: shapes.update({name: tuple(y.shape[1:])}))
    known(torch.zeros(1, 3, 224, 224, device="meta"))
    seen = [layer for layer in summary.layers if layer.name in shapes]
    leaves = [layer for layer in known.modules() if not list(layer.children())]
    assert len(seen) >= len(leaves)
    for layer in seen:
        shape = shapes[layer.name]
        assert layer.shape == (shape if len(shape) == 3 else (*shape, 1, 1))


def test_vgg16_has_the_published_receptive_field():
    with torch.device("meta"):
        last = summarize(models.vgg16(weights=None), (3, 224, 224))["features.30"].rows
    assert (last.size, last.receptive_field, last.jump, last.receptive_field / 2 - last.offset) == (7, 212, 32, 90)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv2d(4, 4, (1, 5), (2, 1), (0, 2), groups=4, bias=False),
        nn.Conv2d(4, 2, 3, padding="same", dilation=2),
        nn.Conv2d(4, 2, 3, padding="valid"),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1, dilation=2),
        nn.AvgPool2d(2, 3, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.LPPool2d(2, 3, 2),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.AdaptiveAvgPool2d((5, None)),
        nn.AdaptiveAvgPool2d(20),
        nn.Upsample(scale_factor=2),
        nn.Upsample(size=(5, 7)),
        nn.ReflectionPad2d((1, 2, 0, 3)),
        nn.Conv2d(4, 2, (4, 2), padding="same"),
        nn.LayerNorm([4, 12, 14]),
        nn.LayerNorm([4, 12, 14], bias=False),
        nn.PReLU(4),
        nn.AdaptiveMaxPool2d(1),
        nn.ZeroPad2d((1, -2, 3, 0)),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4),
        nn.InstanceNorm2d(4, affine=True),
        nn.GELU(),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_layers_that_our_nets_do_not_have_hold_too(layer):
    image = (4, 12, 14)
    net = nn.Sequential(layer, nn.Conv2d(layer(torch.zeros(1, *image)).shape[1], 3, 1))
    verify(summarize(net, image), net)
    assert summarize(net, image).multiply_adds == multiply_adds(net, image)


# --- our nets --------------------------------------------------------------------------------------------------------


@every_pool
@settings(max_examples=12)
@given(
    st.sampled_from(ARCHITECTURES),
    st.sampled_from(PADDINGS),
    st.sampled_from(list(HEADS)),
    st.sampled_from(list(NORMS)),
    st.integers(1, 3),
    st.tuples(st.integers(1, 3), st.integers(31, 37), st.integers(31, 37)),
)
def test_the_summary_of_our_nets_holds(pool, name, padding, head, norm, stride, image):
    assume(not (pool == "conv" and padding == "valid"))
    assume(pool == "none" or stride in (POOLS[pool].strides or [stride]))
    if padding == "valid":  # every convolution takes from the map
        image = (image[0], 4 * image[1], 4 * image[2])
    axes = shared(name, pool=pool, stride=stride, padding=padding, head=head, norm=norm)
    net = network(image, name=name, **axes)
    verify(summarize(net, image), net)


# What we count for each output and torch does not: weighted sums that are no convolution.
APART = {"TIPS": lambda pool: pool.stride**2, "DDAC": lambda pool: pool.kernel_size**2}
APART["Rank"] = APART["DDAC"]


@every_net
def test_our_nets_have_the_multiply_adds_that_torch_counts(name, pool):
    image = (3, 21, 26)
    net = network(image, name=name, pool=pool, **shared(name, padding="circular"))
    summary = summarize(net, image)
    pools = [layer for layer in summary.layers if layer.kind in APART]
    apart = sum(APART[layer.kind](net.get_submodule(layer.name)) * math.prod(layer.shape) for layer in pools)
    assert summary.multiply_adds == multiply_adds(net, image) + apart


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if architecture(name).__base__ is Network])
@pytest.mark.parametrize("pool", ["max", "conv"])
def test_every_wrong_entry_is_found(name, pool):
    image = (1, 12, 10)
    net = network(image, name=name, **shared(name, depth=1, width=2, pool=pool))
    summary = summarize(net, image)
    for i, layer in enumerate(summary.layers):
        if layer.kind == "add":  # a sum is no module: nothing to hold it against
            continue
        for wrong in (
            {"channels": layer.channels + 1},
            {"rows": replace(layer.rows, size=layer.rows.size + 1)},
            {"columns": replace(layer.columns, size=layer.columns.size + 1)},
            {"parameters": layer.parameters + 1},
        ):
            tampered = [*summary.layers[:i], replace(layer, **wrong), *summary.layers[i + 1 :]]
            with pytest.raises(ShapeError, match=layer.name):
                verify(ModelSummary(image, tampered), net)


def test_a_forgotten_layer_is_found():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with pytest.raises(ShapeError, match=r"0 parameters in all, the net has 20"):
        verify(ModelSummary((1, 8, 8), summarize(net, (1, 8, 8)).layers[1:]), net)


def test_the_table_has_a_row_a_layer():
    summary = summarize(nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 3 * 4, 2)), (1, 7, 9))
    assert summary.rows()[0] == {
        "layer": "0", "kind": "Conv2d", "channels": 4, "height": 3, "width": 4, "receptive_field": 3, "jump": 2,
        "start": 1.5, "parameters": 40, "multiply_adds": 36 * 12, "input_seen": round(9 / 63, 4),
    }  # fmt: skip
    assert [row["input_seen"] for row in summary.rows()[1:]] == [1, 1]


# --- receptive fields: what the gradient of one output reaches -------------------------------------------------------


def reached(net: nn.Module, layer: str, image: Image) -> list[tuple[int, int]]:
    """First and last + 1 input row, then column, that the layer's centre output depends on."""
    net = net.double()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.5, 1)  # nothing cancels
    x = torch.rand(1, *image, dtype=torch.float64, requires_grad=True)
    with record_outputs(net, [layer]) as maps:
        net(x)
    y = maps[layer]
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    touched = x.grad[0].abs().sum(0).nonzero()
    return [(one.min().item(), one.max().item() + 1) for one in touched.unbind(1)]


def predicted(summary: ModelSummary, layer: str) -> list[tuple[int, int]]:
    edges = []
    for axis, size in zip((summary[layer].rows, summary[layer].columns), summary.image[1:], strict=True):
        centre = axis.offset + axis.size // 2 * axis.jump
        edges.append((max(0, centre - axis.receptive_field / 2), min(size, centre + axis.receptive_field / 2)))
    return edges


@st.composite
def layers(draw: st.DrawFn) -> list[nn.Module]:
    """Up to four convolutions and average poolings, ours and PyTorch's."""
    net: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        kernel = draw(st.integers(1, 4))
        stride, padding = draw(st.integers(1, min(kernel, 2))), draw(st.integers(0, kernel // 2))
        net += draw(
            st.sampled_from(
                [
                    [nn.Conv2d(1, 1, kernel, stride, padding, dilation=draw(st.integers(1, 2)))],
                    [nn.AvgPool2d(kernel, stride, padding)],
                    [nn.ZeroPad2d((padding, -1, 0, padding))],
                    [POOLS["avg"](kernel, stride)],
                    [POOLS["blur"](kernel, stride, padding)],
                ]
            )
        )
    return net


@given(layers())
def test_receptive_fields_are_what_gradients_reach(net):
    image = (1, 64, 71)
    summary = summarize(nn.Sequential(*net), image)
    assert reached(nn.Sequential(*net), str(len(net) - 1), image) == predicted(summary, str(len(net) - 1))


@every_architecture_with("pool", "padding")
@pytest.mark.parametrize("pool", ["none", "avg", "blur", "conv"])
@pytest.mark.parametrize("padding", ["zeros", "valid"])
def test_receptive_fields_of_our_stages_are_what_gradients_reach(name, pool, padding):
    if (pool, padding) == ("conv", "valid"):
        pytest.skip("refused by the schema")
    image = (1, 61, 66)
    net = network(image, name=name, pool=pool, width=2, norm="none", activation="leaky_relu", padding=padding)
    for stage in net.stages:
        assert reached(net, stage, image) == predicted(summarize(net, image), stage)


class Branches(nn.Module):
    """Two convolutions that see differently far, side by side or summed."""

    def __init__(self, join: str) -> None:
        super().__init__()
        self.join = join
        self.near, self.far = nn.Conv2d(1, 2, 3, 2, padding=1), nn.Conv2d(1, 2, 7, 2, padding=3)
        self.out = nn.Conv2d(4 if join == "cat" else 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.near(x), self.far(x)
        return self.out(torch.cat([near, far], 1) if self.join == "cat" else near + far)


@pytest.mark.parametrize("join", ["cat", "sum"])
def test_joined_branches_see_what_either_sees(join):
    image = (1, 21, 25)
    assert reached(Branches(join), "out", image) == predicted(summarize(Branches(join), image), "out")


@every_architecture_with("head")
@pytest.mark.parametrize("head", HEADS)
def test_the_head_sees_the_whole_image(name, head):
    summary = summarize(network((1, 20, 27), name=name, head=head), (1, 20, 27))
    assert summary["features"].seen((20, 27)) == 1
    assert 0 < summary["stage1"].seen((20, 27)) < summary["stage2"].seen((20, 27)) <= 1


# --- refusals --------------------------------------------------------------------------------------------------------


@every_architecture_with("depth", "pool")
def test_too_deep_a_net_is_refused_with_the_arithmetic(name):
    with pytest.raises(ShapeError, match=r"stage5\.pool: .*window of 2 .* map of 1.* 16×16 → 8×8 → 4×4 → 2×2 → 1×1"):
        network((1, 16, 16), name=name, depth=9)
    network((1, 16, 16), name=name, depth=4)


@pytest.mark.parametrize(("mode", "size"), [("reflect", 1), ("reflect", 2), ("circular", 1)])
def test_padding_is_refused_where_torch_refuses_it(mode, size):
    conv = nn.Conv2d(1, 1, 3, padding=2, padding_mode=mode)
    with pytest.raises(RuntimeError):
        conv(torch.zeros(1, 1, size, size))
    with pytest.raises(ShapeError, match=f"{mode} padding of 2 needs a map .* has {size}"):
        summarize(nn.Sequential(conv), (1, size, size))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (nn.Conv2d(2, 1, 1), "takes 2 channels, gets 3"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 1)), "takes 9 numbers, gets 75"),
        (nn.Softmax2d(), "no formula for Softmax2d"),
        (nn.Conv2d(3, 1, 6), r"floor\(\(5 \+ 2·0 - 6\)/1\) \+ 1 = 0"),
        (nn.ZeroPad2d(-3), "leaves nothing of a map of 5"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ShapeError, match=message):
        summarize(nn.Sequential(wrong), (3, 5, 5))


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError, match="stage9"):
        summarize(nn.Sequential(nn.ReLU()), (1, 5, 5))["stage9"]
