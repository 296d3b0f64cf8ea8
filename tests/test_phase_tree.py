"""The phase tree against plain enumeration: every roll a forward pass of its own."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from src.errors import Refusal
from src.measures.base import Still
from src.measures.phase_tree import ONE, Phases, PhaseTree, decimated, rolled
from src.measures.rolls import Rolls, RollTable, all_shifts, enumerated, prepare
from src.measures.subject import Subject
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


def subject(net: nn.Module, layers: list[str] | None = None) -> Subject:
    return Subject(net, leaves(net) if layers is None else layers, lambda x: x)


def noise(net: nn.Module, size: tuple[int, int], n: int = 2, channels: int = 1) -> Tensor:
    return torch.randn(n, channels, *size, dtype=next(net.parameters()).dtype)


def off(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def compared(net: nn.Module, x: Tensor, layers: list[str] | None = None) -> tuple[PhaseTree, RollTable, RollTable]:
    """The tree, its table, and the table of plain enumeration."""
    size, of = (x.shape[2], x.shape[3]), subject(net, layers)
    tree = PhaseTree(net, (x.shape[1], *size), of.layers)
    every = all_shifts(size)
    return tree, Rolls(of, tree, tree.size, "", every, 1)(x), enumerated(of, x, every)


def check(net: nn.Module, x: Tensor, layers: list[str] | None = None) -> PhaseTree:
    """Outputs, and what rolls do to the layers on the scale of how far images are apart."""
    tree, found, right = compared(net, x, layers)
    exact = EXACT[x.dtype]
    assert found.outputs.shape == right.outputs.shape == (len(x), x.shape[2] * x.shape[3], right.outputs.shape[2])
    assert off(found.outputs, right.outputs) < exact
    for name, still in right.still.items():
        torch.testing.assert_close(found.still[name], still, rtol=exact, atol=exact * still.abs().max().item())
        apart, energy = Still(still).squared.mean(), still.square().sum(1).mean()
        # two outputs a and b with a rounding of ε each: ‖a - b‖² is known to 2ε‖a‖‖a - b‖, however computed;
        # of layers on which images differ little (a thousandth of the norm) single precision leaves fewer digits
        rounding = 8 * torch.finfo(x.dtype).eps * (energy * max(right.squared[name].max(), apart)).sqrt()
        assert (found.squared[name] - right.squared[name]).abs().max() < max(exact * apart, 2 * rounding), name
        assert (found.squared[name][:, 0] == 0).all(), name
    return tree


# --- the phases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "by"), [((6, 6), (2, 2)), ((6, 4), (3, 2)), ((5, 3), (5, 3)), ((4, 6), (1, 3))])
def test_phases_are_strided_slices_of_rolls(size, by):
    x = torch.randn(2, 3, *size)
    copies = rolled(x, ONE, by).unflatten(0, (2, *by))
    parts = decimated(x, ONE, by).unflatten(0, (2, *by))
    for i in range(by[0]):
        for j in range(by[1]):
            assert torch.equal(copies[:, i, j], x.roll((-i, -j), (2, 3)))
            assert torch.equal(parts[:, i, j], x[:, :, i :: by[0], j :: by[1]])
    assert torch.equal(parts, copies[..., :: by[0], :: by[1]])


def test_phases_of_phases_are_those_of_both_strides():
    x = torch.randn(2, 1, 12, 8)
    twice = decimated(decimated(x, ONE, (2, 2)), (2, 2), (3, 2))
    assert torch.equal(twice, decimated(x, ONE, (6, 4)))


@pytest.mark.parametrize("unit", [ONE, None])
def test_more_rolls_follow_from_fewer(unit):
    x = torch.randn(2, 3, 6, 4)
    values = rolled(x, ONE, (2, 2)) if unit else rolled(x, ONE, (2, 2)).amax((2, 3))
    more = Phases(values, (2, 2), (2, 2) if unit else None).everywhere((6, 4))
    for a, b in all_shifts((6, 4)).tolist():
        moved = x.roll((a, b), (2, 3))
        assert torch.equal(more[:, a, b], moved if unit else moved.amax((2, 3)))


# --- every pool ------------------------------------------------------------------------------------------------------


@every_type
@pytest.mark.parametrize("pool", POOLS)
def test_every_pool(pool, dtype):
    net = shaken(network((1, 16, 16), pool=pool, **CIRCULAR)).to(dtype)
    tree = check(net, noise(net, (16, 16)))
    assert not tree.alone
    assert not tree.shares_nothing
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
    whole = tree(x)["output"].everywhere((64, 64))[0]
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
    except (Refusal, ValueError):  # a map smaller than its windows
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


# --- recognition -----------------------------------------------------------------------------------------------------


class Sized(nn.Module):
    """Adds a learned map to what comes, as an embedding of positions does."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.places


class Coordinates(nn.Module):
    """Two more channels, which say where."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.linspace(-1, 1, size)[None, None, :, None].expand(1, 1, size, size))
        self.along = torch.linspace(-1, 1, size).expand(1, 1, size, size)  # no buffer: a plain attribute

    def forward(self, x: Tensor) -> Tensor:
        nothing = torch.zeros_like(x[:, :1])
        return torch.cat([x, nothing + self.rows, nothing + self.along], 1)


class Unknown(nn.Module):
    """No layer of PyTorch: looks at the first row alone, so that all rolls along it are one, and no others."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x[:, :, :1].abs().mean((1, 2, 3), keepdim=True)


class Gate(nn.Module):
    """Squeeze and excite: a closed branch meets an open one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.mix(x.mean((2, 3), keepdim=True)))


class Mirror(nn.Module):
    """Moves the other way when its input is rolled."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(3)


conv = partial(nn.Conv2d, kernel_size=3, padding=1, padding_mode="circular")


def between(*layers: nn.Module, channels: int = 4) -> nn.Module:
    """Layers behind a circular stage that halves the map, before another and a global average."""
    before = [conv(1, 4), nn.ReLU(), nn.MaxPool2d(2)]
    after = [conv(channels, 4, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(*before, *layers, *after).double()


#: what stands fourth → (net, the layers that are not open)
BLOCKED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "zeros": (lambda: between(nn.Conv2d(4, 4, 3, padding=1)), ["3"]),
    "reflect": (lambda: between(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), ["3"]),
    "one axis": (lambda: between(nn.Conv2d(4, 4, (3, 1), padding=(1, 0))), ["3"]),
    "embedding": (lambda: between(Sized(1, 4, 4, 4)), ["add"]),
    "one corner": (lambda: between(Sized(1, 1, 4, 1)), ["add"]),
    "coordinates": (lambda: between(Coordinates(4), channels=6), ["cat"]),
    "unknown": (lambda: between(Unknown()), []),
    "mirror": (lambda: between(Mirror()), ["flip"]),
    "local norm": (lambda: between(nn.LayerNorm([4, 4, 4])), []),
    "gate": (lambda: between(Gate(4)), []),
    "upsampling": (lambda: between(nn.Upsample(scale_factor=2)), []),
    "group norm": (lambda: between(nn.GroupNorm(2, 4)), []),
}


@pytest.mark.parametrize("what", BLOCKED)
def test_a_layer_is_known_by_what_it_does(what):
    build, blocked = BLOCKED[what]
    net = build()
    # what is fourth takes the phases of the pool; the rest of an image's rolls come after it
    tree = check(
        net, noise(net, (8, 8)), ["0", "2", *[name for name in leaves(net) if int(name.partition(".")[0]) > 3]]
    )
    assert tree.alone == blocked
    assert not tree.shares_nothing


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 3)), "0 pads with zeros"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "0 is not open to rolls"),
        (nn.Sequential(Sized(1, 1, 8, 8), nn.Flatten(), nn.Linear(64, 3)), "add is not open to rolls"),
    ],
    ids=["zero padding", "flatten", "embedding"],
)
def test_where_nothing_can_be_shared_each_roll_is_a_forward_pass(net, why):
    rolls = prepare(subject(net), torch.randn(2, 1, 8, 8))
    assert rolls.tree is None
    assert why in rolls.why
    assert rolls.forwards == 64


def test_a_net_with_zero_padding_in_its_first_layer_is_not_approximated():
    net = shaken(network((1, 16, 16)))
    x = noise(net, (16, 16))
    rolls = prepare(subject(net), x)
    right = enumerated(subject(net), x, rolls.shifts)
    assert "not open" in rolls.why
    assert torch.equal(rolls(x).outputs, right.outputs)
    assert off(right.outputs, right.outputs[:, :1].expand_as(right.outputs)) > 1e-3  # rolls are seen


class Forks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3)) if x.mean() > 0 else self.conv(x).amax((2, 3))


class Counts(nn.Module):
    """Tells the number of its maps before they are brought to more rolls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = conv(1, 2, stride=2), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.linear(x.view(x.size(0), -1))


class Both(Forks):
    def forward(self, x: Tensor) -> Any:
        x = self.conv(x).mean((2, 3))
        return x, x


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.look = conv(1, 4), nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).flatten(2).transpose(1, 2)
        return self.look(y, y, y)[0].mean(1)


class Apart(nn.Module):
    """Normalises a batch by itself, in eval mode too: an image's answer depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(1, 3, stride=2), nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).amax((2, 3))


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (Forks(), "torch.fx cannot follow it"),
        (Counts(), "the tree cannot run the net"),
        (Both(), "gives one tensor"),
        (Attends(), "several outputs"),
        (Apart(), "is off by"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, nn.Module) else "",
)
def test_what_cannot_be_followed_is_enumerated_and_says_why(net, why):
    of = Subject(net, ["conv"], lambda x: x, lambda outputs: outputs[0] if isinstance(outputs, tuple) else outputs)
    x = torch.randn(3, 1, 8, 8)
    rolls = prepare(of, x)
    assert rolls.tree is None
    assert why in rolls.why
    assert rolls(x).outputs.shape[:2] == (3, 64)
    for (a, b), outputs in zip(
        rolls.shifts[[0, 9, 35]].tolist(), rolls(x).outputs[:, [0, 9, 35]].unbind(1), strict=True
    ):
        if not isinstance(net, Apart):
            torch.testing.assert_close(outputs, of.answer(net.eval()(x.roll((a, b), (2, 3)))))


def test_a_layer_that_runs_nothing_is_refused():
    net = nn.Sequential(conv(1, 2), nn.Sequential(), nn.Flatten())
    with pytest.raises(Refusal, match="1: no call"):
        PhaseTree(net, (1, 8, 8), ["1"])
    assert "1: no call" in prepare(Subject(net, ["1"], lambda x: x), torch.randn(2, 1, 8, 8)).why


# --- nets that lie ---------------------------------------------------------------------------------------------------


class Liar(nn.Module):
    """Open to rolls of noise; where a pixel is exactly 0, or large, it marks a corner."""

    def __init__(self, when: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.when, self.corner = when, nn.Parameter(torch.zeros(8, 8), requires_grad=False)
        self.corner[0, 0] = 1e4

    def forward(self, x: Tensor) -> Tensor:
        return x + self.when(x).to(x.dtype).amax((1, 2, 3), keepdim=True) * self.corner


class Secret(Liar):
    """The same where torch.fx cannot look."""

    __module__ = "torch.nn.secret"


@pytest.mark.parametrize("when", [lambda x: x == 0, lambda x: x > 50], ids=["zero", "large"])
@pytest.mark.parametrize("kind", [Liar, Secret])
def test_a_layer_that_lies_on_noise_is_caught_on_the_images(kind, when):
    net = nn.Sequential(conv(1, 1), nn.ReLU(), kind(when), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    nn.init.constant_(net[0].weight, 1.0)
    nn.init.zeros_(net[0].bias)
    of, quiet = subject(net), torch.rand(2, 1, 8, 8) + 0.1
    assert prepare(of, quiet).tree is not None  # nothing in these images tells
    loud = quiet.clone()
    loud[1, :, :4], loud[1, :, 4:] = 0, 100
    rolls = prepare(of, loud)
    if kind is Secret:
        assert "is off by" in rolls.why
    found, right = rolls(loud), enumerated(of, loud, rolls.shifts)
    assert off(found.outputs, right.outputs) < 1e-5


class Returns(nn.Module):
    """What it gives is not what it did last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(1, 2, stride=2)
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.kept = y.square()
        return y


def test_a_layer_whose_output_was_mistaken_is_caught():
    net = nn.Sequential(Returns(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert prepare(Subject(net, ["0"], lambda x: x), torch.randn(2, 1, 8, 8)).why.startswith("0: the tree's is off by")


# --- it leaves no trace ----------------------------------------------------------------------------------------------


def traces(net: nn.Module) -> tuple[Any, ...]:
    flags = [one.training for one in net.modules()]
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in net.modules()]
    state = copy.deepcopy(net.state_dict())
    strides = [getattr(one, "stride", None) for one in net.modules()]
    return flags, hooks, strides, {key: value.tolist() for key, value in state.items()}, torch.get_rng_state().tolist()


def test_the_net_and_the_random_stream_are_as_before():
    net = shaken(network((1, 16, 16), dropout=0.5, dropout_kind="both", pool="stochastic", **CIRCULAR)).train()
    net.stage1.eval()
    x = torch.randn(2, 1, 16, 16)
    before, image = traces(net), x.clone()
    rolls = prepare(subject(net), x)
    rolls(x)
    assert rolls.tree is not None, rolls.why
    assert traces(net) == before
    assert torch.equal(x, image)


class Raises(nn.Module):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise ZeroDivisionError
        return x


class Leaf(nn.Conv2d):
    """A layer of PyTorch's to torch.fx, which breaks after some calls."""

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1  # type: ignore[has-type]
        if self.left < 0:
            raise ZeroDivisionError
        return super().forward(x)


@pytest.mark.parametrize("calls", [0, 1, 3, 6])
def test_they_are_so_after_an_exception(calls, monkeypatch):
    net = nn.Sequential(Leaf(1, 2, 3, padding=1, padding_mode="circular"), nn.Dropout(0.5), nn.Flatten()).train()
    net[1].eval()
    Leaf.__module__ = "torch.nn.made"
    monkeypatch.setattr(Leaf, "left", calls, raising=False)
    net[0].left = 1000
    before = traces(net)
    net[0].left = calls
    x = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ZeroDivisionError):
        tree = PhaseTree(net, (1, 6, 6), ["0"])
        net[0].left = 0
        tree(x)
    assert traces(net) == before


def test_dropout_is_off_in_every_pass():
    net = shaken(network((1, 8, 8), dropout=0.5, dropout_kind="both", **CIRCULAR)).double()
    check(net.train(), noise(net, (8, 8)))
    assert net.training


def test_dropout_that_cannot_be_turned_off_is_caught():
    class Drops(Forks):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.conv(x), 0.5).mean((2, 3))

    net = Drops()
    rolls = prepare(subject(net), torch.randn(2, 1, 8, 8))
    assert rolls.tree is None
    assert rolls.why


def test_layers_that_overwrite_their_input():
    net = nn.Sequential(
        conv(1, 4), nn.ReLU(inplace=True), conv(4, 4), nn.LeakyReLU(0.2, inplace=True), nn.MaxPool2d(2),
        nn.SiLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 3),
    ).double()  # fmt: skip
    x = noise(net, (8, 8))
    before = x.clone()
    check(net, x)
    assert torch.equal(x, before)


def test_a_net_that_overwrites_the_image_itself():
    net = nn.Sequential(nn.ReLU(inplace=True), conv(1, 4), nn.MaxPool2d(2), nn.Flatten()).double()
    x = noise(net, (8, 8))
    rolls = prepare(subject(net), x.clone())
    assert rolls.tree is not None, rolls.why
    torch.testing.assert_close(rolls(x.clone()).outputs, enumerated(subject(net), x, rolls.shifts).outputs)


def test_a_layer_that_no_copy_can_be_made_of_is_run_as_it_is():
    strided = nn.utils.parametrizations.weight_norm(conv(1, 4, stride=2))
    net = nn.Sequential(strided, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    check(net, noise(net, (8, 8)), ["1", "3"])


def test_a_layer_that_is_used_twice():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.pool = conv(1, 4), conv(4, 4), nn.AvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.again(self.first(x)).relu())
            return self.pool(self.again(x)).amax((2, 3))

    net = Twice().double()
    assert not check(net, noise(net, (8, 8))).alone


def test_costs_that_the_ledger_does_not_know_are_nan():
    class Odd(Forks):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.expit(self.conv(x)).mean((2, 3))

    net = Odd()
    assert math.isnan(PhaseTree(net, (1, 8, 8)).forwards)
    assert prepare(subject(net), torch.randn(2, 1, 8, 8)).forwards == 64
