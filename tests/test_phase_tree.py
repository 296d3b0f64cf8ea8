"""The phase tree against plain enumeration: every roll a forward pass of its own."""

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from src.common.errors import UserError
from src.evaluation.adapter import ModelAdapter
from src.evaluation.all_rolls import Rolls, ShiftTable, all_shifts, one_by_one_rolls
from src.evaluation.phase_tree import NO_STRIDE, Phases, PhaseTree, decimated, rolled
from src.metrics.layer_outputs import LayerOutputs
from src.models import ARCHITECTURES
from src.pooling import POOLS, Pool, swap_pools
from tests.helpers import SMALLER, architectures, network

EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}
every_type = pytest.mark.parametrize("dtype", EXACT, ids=["double", "single"])
CIRCULAR = {"padding": "circular"}


def shaken(net: nn.Module) -> nn.Module:
    """With the statistics of a trained net in its norms, and weights in what starts as zeros."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return net.eval()


def leaves(net: nn.Module) -> list[str]:
    """All layers that are made of no others; a pool is one, whatever it holds."""
    whole = [f"{name}." for name, one in net.named_modules() if isinstance(one, Pool | nn.MultiheadAttention)]
    layers = {name: one for name, one in net.named_modules() if name and not name.startswith(tuple(whole))}
    return [name for name, one in layers.items() if isinstance(one, Pool) or not [*one.children(), *_empty(one)]]


def _empty(layer: nn.Module) -> list[nn.Module]:
    return [layer] if type(layer) is nn.Sequential else []


def adapter(net: nn.Module, layers: list[str] | None = None) -> ModelAdapter:
    return ModelAdapter(net, leaves(net) if layers is None else layers, lambda x: x)


def noise(net: nn.Module, size: tuple[int, int], n: int = 2, channels: int = 1) -> Tensor:
    return torch.randn(n, channels, *size, dtype=next(net.parameters()).dtype)


def off(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def compared(net: nn.Module, x: Tensor, layers: list[str] | None = None) -> tuple[PhaseTree, ShiftTable, ShiftTable]:
    """The tree, its table, and the table of plain enumeration."""
    size, of = (x.shape[2], x.shape[3]), adapter(net, layers)
    tree = PhaseTree(net, (x.shape[1], *size), of.layers)
    every = all_shifts(size)
    return tree, Rolls(of, tree, tree.size, "", every, 1)(x), one_by_one_rolls(of, x, every)


def check(net: nn.Module, x: Tensor, layers: list[str] | None = None) -> PhaseTree:
    """Outputs, and what rolls do to the layers on the scale of how far images are apart."""
    tree, found, right = compared(net, x, layers)
    exact = EXACT[x.dtype]
    assert found.outputs.shape == right.outputs.shape == (len(x), x.shape[2] * x.shape[3], right.outputs.shape[2])
    assert off(found.outputs, right.outputs) < exact
    for name, still in right.reference.items():
        torch.testing.assert_close(found.reference[name], still, rtol=exact, atol=exact * still.abs().max().item())
        difference, energy = LayerOutputs(still).squared_distance.mean(), still.square().sum(1).mean()
        # two outputs a and b with a rounding of ε each: ‖a - b‖² is known to 2ε‖a‖‖a - b‖, however computed;
        # of layers on which images differ little (a thousandth of the norm) single precision leaves fewer digits
        rounding = (
            8 * torch.finfo(x.dtype).eps * (energy * max(right.squared_difference[name].max(), difference)).sqrt()
        )
        assert (found.squared_difference[name] - right.squared_difference[name]).abs().max() < max(
            exact * difference, 2 * rounding
        ), name
        assert (found.squared_difference[name][:, 0] == 0).all(), name
    return tree


# --- the phases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "by"), [((6, 6), (2, 2)), ((6, 4), (3, 2)), ((5, 3), (5, 3)), ((4, 6), (1, 3))])
def test_phases_are_strided_slices_of_rolls(size, by):
    x = torch.randn(2, 3, *size)
    copies = rolled(x, NO_STRIDE, by).unflatten(0, (2, *by))
    parts = decimated(x, NO_STRIDE, by).unflatten(0, (2, *by))
    for i in range(by[0]):
        for j in range(by[1]):
            assert torch.equal(copies[:, i, j], x.roll((-i, -j), (2, 3)))
            assert torch.equal(parts[:, i, j], x[:, :, i :: by[0], j :: by[1]])
    assert torch.equal(parts, copies[..., :: by[0], :: by[1]])


def test_phases_of_phases_are_those_of_both_strides():
    x = torch.randn(2, 1, 12, 8)
    twice = decimated(decimated(x, NO_STRIDE, (2, 2)), (2, 2), (3, 2))
    assert torch.equal(twice, decimated(x, NO_STRIDE, (6, 4)))


@pytest.mark.parametrize("unit", [NO_STRIDE, None])
def test_phases_of_more_rolls_follow_from_fewer(unit):
    x = torch.randn(2, 3, 6, 4)
    values = rolled(x, NO_STRIDE, (2, 2)) if unit else rolled(x, NO_STRIDE, (2, 2)).amax((2, 3))
    more = Phases(values, (2, 2), (2, 2) if unit else None).everywhere((6, 4))
    for a, b in all_shifts((6, 4)).tolist():
        transformed = x.roll((a, b), (2, 3))
        assert torch.equal(more[:, a, b], transformed if unit else transformed.amax((2, 3)))


# --- every pool ------------------------------------------------------------------------------------------------------


@every_type
@pytest.mark.parametrize("pool", POOLS)
def test_every_pool(pool, dtype):
    net = shaken(network((1, 16, 16), pool=pool, **CIRCULAR)).to(dtype)
    tree = check(net, noise(net, (16, 16)))
    assert not tree.shares_nothing
    if POOLS[pool] and not POOLS[pool].commutes_with_rolls:
        assert tree.alone == ["stage1.pool"]
        return
    assert not tree.alone
    assert tree.forwards < 8  # of 256


@pytest.mark.parametrize("pool", ["none", "max", "blur", "aps", "ideal", "lip"])
def test_a_deeper_net_on_larger_images(pool):
    net = shaken(network((1, 32, 32), pool=pool, depth=3, **CIRCULAR))
    assert not check(net, noise(net, (32, 32)), [*net.stages, "features"]).alone


@pytest.mark.parametrize("head", ["flatten", "gmp"])
@pytest.mark.parametrize("pool", ["max", "aps", "avg"])
def test_other_heads(pool, head):
    net = shaken(network((1, 16, 16), pool=pool, head=head, **CIRCULAR)).double()
    assert check(net, noise(net, (16, 16))).alone == (["features"] if head == "flatten" else [])


@pytest.mark.parametrize(
    ("size", "axes", "alone"),
    [
        ((28, 28), {"depth": 3}, ["stage3.pool"]),
        ((14, 14), {}, ["stage2.pool"]),
        ((14, 14), {"pool": "none"}, ["stage2.conv2"]),
        ((12, 20), {}, []),
        ((12, 20), {"depth": 3, "head": "flatten"}, ["stage3.pool"]),
        ((18, 9), {"stride": 3}, []),
        ((15, 15), {"stride": 3, "pool": "blur"}, ["stage2.pool"]),
        ((7, 7), {}, ["stage1.pool"]),
        ((8, 8), {"stride": 1}, []),
    ],
)
def test_sizes_that_the_stride_may_not_divide(size, axes, alone):
    net = shaken(network((1, *size), **CIRCULAR | axes)).double()
    assert check(net, noise(net, size)).alone == alone


@every_type
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name in architectures("padding")])
def test_every_architecture_that_has_maps(name, dtype):
    net = shaken(network((3, 16, 16), name=name, **CIRCULAR)).to(dtype)
    assert not check(net, noise(net, (16, 16), channels=3)).alone


def test_the_list_of_architectures_is_not_empty():
    assert {"ladder", "resnet", "vgg", "allconv", "convnext"} <= set(architectures("padding"))
    assert SMALLER  # they are small


@pytest.mark.parametrize("pool", ["blur", "aps"])
def test_a_net_of_torchvision(pool):
    net = torchvision.models.resnet18(num_classes=7)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    swap_pools(net, pool, (3, 64, 64), border="circular")
    shaken(net)
    x = torch.randn(1, 3, 64, 64)
    tree = PhaseTree(net, (3, 64, 64))
    outputs = {}
    tree(x, lambda name, phases: outputs.update({name: phases.everywhere((64, 64))}))
    whole = outputs["output"][0]
    assert not tree.alone
    for a, b in [(0, 0), (1, 0), (0, 31), (7, 2), (63, 63), (33, 14)]:
        with torch.no_grad():
            assert off(whole[a, b], net(x.roll((a, b), (2, 3)))[0]) < 1e-5


@given(st.data())
def test_any_net(data):
    pool = data.draw(st.sampled_from(["max", "avg", "none", "blur", "aps", "conv"]))
    stride, depth = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    size = (data.draw(st.integers(4, 12)), data.draw(st.integers(4, 12)))
    head = data.draw(st.sampled_from(["gap", "gmp", "flatten"]))
    axes = {"pool": pool, "stride": stride, "depth": depth, "head": head, "convs": 1, "width": 3, **CIRCULAR}
    try:
        net = shaken(network((1, *size), **axes)).double()
    except (UserError, ValueError):  # a map smaller than its windows
        return
    check(net, noise(net, size))


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_forwards_are_multiply_adds_by_hand():
    """Net M of performance.md: each layer once for every phase before it, a stage's 1/4 of the stage before."""
    net = network((1, 32, 32), 10, depth=3, convs=2, width=32, max_width=256, **CIRCULAR)
    places = [32 * 32, 16 * 16, 8 * 8]
    layers = [(9 * 1 * 32, 0), (9 * 32 * 32, 0), (9 * 32 * 64, 1), (9 * 64 * 64, 1), (9 * 64 * 128, 2), (9 * 128**2, 2)]
    plain = sum(weights * places[stage] for weights, stage in layers) + 128 * 10
    shared = sum(weights * places[0] for weights, _ in layers) + 64 * 128 * 10
    found = PhaseTree(net, (1, 32, 32)).forwards
    assert found == pytest.approx(shared / plain)
    assert found == pytest.approx(7.7, abs=0.1)


def test_the_peak_is_the_largest_value_of_all():
    wide = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 1, 3), nn.Flatten())
    assert PhaseTree(wide, (1, 8, 8)).peak == 64 * 4 * 64  # the unpadded layer is given four channels for each roll
    strided = nn.Conv2d(1, 4, 2, 2, padding_mode="circular")
    assert PhaseTree(nn.Sequential(strided), (1, 8, 8)).peak == 4 * 4 * 16
