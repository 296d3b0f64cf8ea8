"""Architectures: every axis, the names that are their contract, seeds, and exact invariance to rolls."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from src.activations import watch
from src.config import from_dict
from src.errors import Refusal
from src.ledger import ledger
from src.models import ARCHITECTURES, architecture, module
from src.models.blocks import ACTIVATIONS, HEADS, NORMS, PADDINGS, Network
from src.models.optimisers import OPTIMIZERS, SCHEDULES, optimiser
from src.pooling import POOLS
from tests.helpers import network

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
IMAGE = (3, 17, 22)


def count(net: nn.Module, kind: type[nn.Module]) -> int:
    return sum(type(layer) is kind for layer in net.modules())


# --- axes ------------------------------------------------------------------------------------------------------------

AXES = [
    *({"pool": pool} for pool in POOLS),
    *({"padding": padding} for padding in PADDINGS),
    *({"norm": norm} for norm in NORMS),
    *({"activation": activation} for activation in ACTIVATIONS),
    *({"head": head} for head in HEADS),
    *({"dropout": 0.3, "dropout_kind": kind} for kind in ("unit", "channel", "both")),
    *({"stride": stride} for stride in (1, 2, 3)),
    *({"convs": convs} for convs in (1, 2, 3)),
    *({"depth": depth} for depth in (1, 3)),
    {"window": 3},
]


@every_architecture
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_every_axis_trains(name, axes):
    net = network(IMAGE, name=name, **axes)
    logits = net(torch.randn(4, *IMAGE))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    assert all(parameter.grad.any() for parameter in net.logits.parameters())


@every_architecture
@pytest.mark.parametrize(
    ("rate", "kind", "units", "channels"),
    [(0.3, "unit", 1, 0), (0.3, "channel", 0, 2), (0.3, "both", 1, 2), (0.0, "both", 0, 0)],
)
def test_dropout_is_where_its_kind_says(name, rate, kind, units, channels):
    net = network(IMAGE, name=name, dropout=rate, dropout_kind=kind)
    assert (count(net, nn.Dropout), count(net, nn.Dropout2d)) == (units, channels)
    assert all(layer.p == rate for layer in net.modules() if isinstance(layer, (nn.Dropout, nn.Dropout2d)))


@every_architecture
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pool", ["max", "conv"])
def test_every_activation_is_the_one_asked_for(name, pool, activation):
    net = network(IMAGE, name=name, pool=pool, activation=activation)
    found = {type(layer).__name__.lower() for layer in net.modules()} & {one.replace("_", "") for one in ACTIVATIONS}
    assert found == {activation.replace("_", "")}


@every_architecture
@pytest.mark.parametrize("norm", NORMS)
def test_a_convolution_has_a_bias_only_without_norm(name, norm):
    convolutions = [layer for layer in network(IMAGE, name=name, norm=norm).modules() if isinstance(layer, nn.Conv2d)]
    assert {conv.bias is not None for conv in convolutions} == {norm == "none"}


@pytest.mark.parametrize(("norm", "axes"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3))])
def test_norms_normalise_over_their_axes(norm, axes):
    y = NORMS[norm](6)(5 + 3 * torch.randn(4, 6, 8, 8))
    torch.testing.assert_close(y.mean(axes), torch.zeros_like(y.mean(axes)), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(axes, correction=0), torch.ones_like(y.mean(axes)), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 4), (6, 2), (5, 1)])
def test_group_norm_takes_as_many_groups_as_divide(channels, groups):
    assert NORMS["group"](channels).num_groups == groups


@every_architecture
def test_the_width_doubles_up_to_its_limit(name):
    net = network((1, 32, 32), name=name, depth=4, width=4, max_width=10)
    assert [ledger(net, (1, 32, 32))[stage].channels for stage in net.stages] == [4, 8, 10, 10]


# --- names and shapes ------------------------------------------------------------------------------------------------


@every_architecture
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_layers_have_their_names(name, depth):
    net = network(IMAGE, name=name, depth=depth)
    assert net.stages == [f"stage{i}" for i in range(1, depth + 1)]
    assert net.order[-2:] == ["features", "logits"]
    with watch(net, [*net.stages, "features", "logits"]) as maps:
        logits = net(torch.randn(2, *IMAGE))
    assert all(maps[stage].ndim == 4 for stage in net.stages)
    assert maps["features"].ndim == 2
    assert torch.equal(maps["logits"], logits)


@every_architecture
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_all_pools_give_stages_of_one_shape(name, padding, stride):
    shapes = set()
    for pool in POOLS:
        if (pool, padding) == ("conv", "valid"):  # refused by the schema, for just this reason
            continue
        if pool != "none" and stride not in (POOLS[pool].strides or [stride]):
            continue
        net = network((1, 31, 35), name=name, pool=pool, padding=padding, stride=stride)
        book = ledger(net, (1, 31, 35))
        shapes.add(tuple(book[stage].shape for stage in net.stages))
    assert len(shapes) == 1


# --- LightningModules and seeds --------------------------------------------------------------------------------------


def lightning(name: str, seed: int) -> LightningModule:
    return module(from_dict({"model": {"name": name, "width": 4}, "seed": seed}), (1, 28, 28), 10)


@every_architecture
def test_a_module_is_a_lightning_module_and_its_architecture(name):
    net = lightning(name, seed=0)
    assert isinstance(net, LightningModule)
    assert isinstance(net, architecture(name))
    assert isinstance(net, Network)
    assert net.num_outputs == 10


@every_architecture
def test_the_weights_are_those_of_the_seed(name):
    one, same, other = (lightning(name, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    drawn = [key for key in one if key.endswith("weight") and one[key].ndim > 1]
    assert drawn
    assert all(not torch.equal(one[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_lowers_the_loss_and_decays_weights_alone(name):
    layer = nn.Linear(3, 2)
    x, y = torch.randn(64, 3), torch.randn(64, 2)
    optimizer = optimiser(name, layer.parameters(), lr=0.05, weight_decay=0.1)
    decays = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert decays == {layer.weight: 0.1, layer.bias: 0.0}
    losses = []
    for _ in range(20):
        losses.append((layer(x) - y).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_start_and_end_where_they_should(name):
    last = {"onecycle": 0, "cosine": 0, "constant": 0.1}[name]
    optimizer = optimiser("sgd", nn.Linear(1, 1).parameters(), lr=0.1, weight_decay=0)
    schedule = SCHEDULES[name](optimizer, 0.1, 50)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.1, rel=1e-2)
    assert rates[-1] == pytest.approx(last, abs=1e-3)


# --- exact invariance to rolls ---------------------------------------------------------------------------------------

INVARIANT = {"pool": "aps", "padding": "circular", "head": "gap", "width": 3}
rolls = st.tuples(st.integers(0, 27), st.integers(0, 27))


def change(size: int, shift: tuple[int, int], **axes: object) -> Tensor:
    """How far a roll of the image moves the logits, at the most."""
    torch.manual_seed(0)
    net = network((1, size, size), **INVARIANT | axes).double().eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as after training
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = torch.randn(3, 1, size, size, dtype=torch.float64)
    with torch.no_grad():
        return (net(x.roll(shift, (2, 3))) - net(x)).abs().max()


@every_architecture
@pytest.mark.parametrize("pool", ["aps", "lps"])
@settings(max_examples=10)
@given(rolls)
def test_these_and_circular_padding_make_a_net_exactly_invariant(name, pool, shift):
    assert change(28, shift, name=name, pool=pool) < 1e-10


@every_architecture
@pytest.mark.parametrize("stride", [1, 3])
def test_a_stride_that_a_pool_is_not_defined_for_is_refused(name, stride):
    with pytest.raises(Refusal, match=rf"^model\.pool=wavelet: .*stride 2 alone, not {stride}$"):
        network(IMAGE, name=name, pool="wavelet", stride=stride)


@every_architecture
@pytest.mark.parametrize("pool", [name for name, pool in POOLS.items() if not (pool and pool.strides)])
def test_stride_one_and_circular_padding_make_a_net_exactly_invariant(name, pool):
    assert change(12, (5, 3), name=name, pool=pool, stride=1) < 1e-10


@every_architecture
@pytest.mark.parametrize("broken", [{"padding": "zeros"}, {"head": "flatten"}, {"depth": 3}, {"pool": "max"}], ids=str)
def test_invariance_breaks_without_any_one_of_its_conditions(name, broken):
    assert change(28, (9, 10), name=name, **broken) > 1e-4  # depth 3: the map of 7 is odd
