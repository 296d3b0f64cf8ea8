"""Which nets the phase tree is right for: recognised by trying, caught where they lie, left as they were."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.common.errors import UserError
from src.evaluation.adapter import ModelAdapter
from src.evaluation.all_rolls import one_by_one_rolls, prepare
from src.evaluation.phase_tree import PhaseTree
from tests.helpers import network
from tests.test_phase_tree import CIRCULAR, adapter, check, leaves, noise, off, shaken

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
def test_the_kind_of_a_layer_is_found_by_running_it(what):
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
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "0 is not equivariant to rolls"),
        (nn.Sequential(Sized(1, 1, 8, 8), nn.Flatten(), nn.Linear(64, 3)), "add is not equivariant to rolls"),
    ],
    ids=["zero padding", "flatten", "embedding"],
)
def test_each_roll_is_a_forward_pass_if_nothing_can_be_shared(net, why):
    rolls = prepare(adapter(net), torch.randn(2, 1, 8, 8))
    assert rolls.tree is None
    assert why in rolls.why
    assert rolls.forwards == 64


def test_a_net_with_zero_padding_in_its_first_layer_is_not_approximated():
    net = shaken(network((1, 16, 16)))
    x = noise(net, (16, 16))
    rolls = prepare(adapter(net), x)
    right = one_by_one_rolls(adapter(net), x, rolls.shifts)
    assert "not equivariant" in rolls.why
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
def test_nets_that_cannot_be_traced_run_one_by_one_with_a_reason(net, why):
    of = ModelAdapter(net, ["conv"], lambda x: x, lambda outputs: outputs[0] if isinstance(outputs, tuple) else outputs)
    x = torch.randn(3, 1, 8, 8)
    rolls = prepare(of, x)
    assert rolls.tree is None
    assert why in rolls.why
    assert rolls(x).outputs.shape[:2] == (3, 64)
    for (a, b), outputs in zip(
        rolls.shifts[[0, 9, 35]].tolist(), rolls(x).outputs[:, [0, 9, 35]].unbind(1), strict=True
    ):
        if not isinstance(net, Apart):
            torch.testing.assert_close(outputs, of.select_output(net.eval()(x.roll((a, b), (2, 3)))))


def test_a_layer_that_is_not_called_is_refused():
    net = nn.Sequential(conv(1, 2), nn.Sequential(), nn.Flatten())
    with pytest.raises(UserError, match="1: no call"):
        PhaseTree(net, (1, 8, 8), ["1"])
    assert "1: no call" in prepare(ModelAdapter(net, ["1"], lambda x: x), torch.randn(2, 1, 8, 8)).why


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
def test_a_layer_that_differs_on_noise_is_detected_on_the_images(kind, when):
    net = nn.Sequential(conv(1, 1), nn.ReLU(), kind(when), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    nn.init.constant_(net[0].weight, 1.0)
    nn.init.zeros_(net[0].bias)
    of, quiet = adapter(net), torch.rand(2, 1, 8, 8) + 0.1
    assert prepare(of, quiet).tree is not None  # nothing in these images tells
    loud = quiet.clone()
    loud[1, :, :4], loud[1, :, 4:] = 0, 100
    rolls = prepare(of, loud)
    if kind is Secret:
        assert "is off by" in rolls.why
    found, right = rolls(loud), one_by_one_rolls(of, loud, rolls.shifts)
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


def test_a_wrong_layer_output_is_detected():
    net = nn.Sequential(Returns(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert prepare(ModelAdapter(net, ["0"], lambda x: x), torch.randn(2, 1, 8, 8)).why.startswith(
        "0: the tree's is off by"
    )


# --- it leaves no trace ----------------------------------------------------------------------------------------------


def traces(net: nn.Module) -> tuple[Any, ...]:
    flags = [module.training for module in net.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()]
    state = copy.deepcopy(net.state_dict())
    strides = [getattr(module, "stride", None) for module in net.modules()]
    return flags, hooks, strides, {key: value.tolist() for key, value in state.items()}, torch.get_rng_state().tolist()


def test_the_net_and_the_random_stream_are_not_changed():
    net = shaken(network((1, 16, 16), dropout=0.5, dropout_kind="both", pool="stochastic", **CIRCULAR)).train()
    net.stage1.eval()
    x = torch.randn(2, 1, 16, 16)
    before, image = traces(net), x.clone()
    rolls = prepare(adapter(net), x)
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
def test_the_net_and_the_random_stream_are_restored_after_an_exception(calls, monkeypatch):
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
        tree(x, lambda *_: None)
    assert traces(net) == before


def test_dropout_is_off_in_every_pass():
    net = shaken(network((1, 8, 8), dropout=0.5, dropout_kind="both", **CIRCULAR)).double()
    check(net.train(), noise(net, (8, 8)))
    assert net.training


def test_dropout_that_cannot_be_turned_off_is_detected():
    class Drops(Forks):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.conv(x), 0.5).mean((2, 3))

    net = Drops()
    rolls = prepare(adapter(net), torch.randn(2, 1, 8, 8))
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
    rolls = prepare(adapter(net), x.clone())
    assert rolls.tree is not None, rolls.why
    torch.testing.assert_close(rolls(x.clone()).outputs, one_by_one_rolls(adapter(net), x, rolls.shifts).outputs)


def test_a_layer_that_cannot_be_copied_runs_as_it_is():
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


def test_costs_without_a_model_summary_are_nan():
    class Odd(Forks):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.expit(self.conv(x)).mean((2, 3))

    net = Odd()
    assert math.isnan(PhaseTree(net, (1, 8, 8)).forwards)
    assert prepare(adapter(net), torch.randn(2, 1, 8, 8)).forwards == 64
