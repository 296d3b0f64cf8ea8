"""Architectures: every axis, the names that are their contract, seeds, and exact invariance to rolls."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from src.common.errors import UserError
from src.config import Config
from src.data.splits import split
from src.models import ARCHITECTURES, architecture
from src.models.blocks import CircularConv2d, Network
from src.models.layers import ACTIVATIONS, HEADS, NORMS, PADDINGS
from src.models.norm import calibrate, calibrated
from src.models.optimisers import OPTIMIZERS, SCHEDULES, optimiser
from src.models.tasks import Task
from src.nets.hooks import record_outputs
from src.pooling import POOLS
from src.summary import summarize
from src.training.lightning_module import module
from src.training.untrained import first_images, untrained
from tests.helpers import architectures, every_architecture, every_architecture_with, model, network, on_paper, tiny

IMAGE = (3, 17, 22)
BASELINES = ("hog", "hog_kernel", "pca", "pixels")  # a head on frozen features, without stages
LARGE = (3, 58, 61)  # what is left of it when every convolution has taken its border


def cases(*several: dict[str, Any]) -> pytest.MarkDecorator:
    """Every architecture with each of the axes that it has."""
    found = [(name, axes) for name in ARCHITECTURES for axes in several if name in architectures(*axes)]
    return pytest.mark.parametrize(("name", "axes"), found, ids=str)


# --- axes ------------------------------------------------------------------------------------------------------------

AXES = [
    {},
    *({"pool": pool} for pool in POOLS),
    *({"padding": padding} for padding in PADDINGS),
    *({"norm": norm} for norm in NORMS),
    *({"activation": activation} for activation in ACTIVATIONS),
    *({"head": head} for head in HEADS),
    *({"dropout": 0.3, "dropout_kind": kind} for kind in ("unit", "channel", "both")),
    *({"stride": stride} for stride in (1, 2, 3)),
    *({"convs": convs} for convs in (1, 2, 3)),
    *({"depth": depth} for depth in (1, 3)),
    {"window": 2},
    {"window": 3},
    {"pool_at": [2]},
    {"pool_at": []},
    {"extra_conv": True},
    {"width": 5},
    {"max_width": 5},
]


@cases(*AXES)
def test_every_axis_trains(name, axes):
    image = LARGE if axes.get("padding") == "valid" else IMAGE
    net = network(image, name=name, **axes)
    logits = net(torch.randn(4, *image))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.requires_grad)
    assert all(parameter.grad.any() for parameter in net.logits.parameters())


@every_architecture
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize(("kind", "head", "stages"), [("unit", 1, 0), ("channel", 0, 1), ("both", 1, 1)])
def test_dropout_is_where_its_kind_says(name, rate, kind, head, stages):
    net = network(IMAGE, name=name, dropout=rate, dropout_kind=kind)
    found = {key: layer for key, layer in net.named_modules() if isinstance(layer, (nn.Dropout, nn.Dropout2d))}
    ends = [f"{stage}.dropout" for stage in net.stages]
    assert list(found) == (ends * stages + ["dropout"] * head if rate else [])
    whole = nn.Dropout if name == "mlp" else nn.Dropout2d  # whole channels, where there are any
    assert all(type(layer) is (whole if key in ends else nn.Dropout) for key, layer in found.items())
    assert {layer.p for layer in found.values()} <= {rate}


@cases(*({"activation": activation, **pool} for activation in ACTIVATIONS for pool in ({}, {"pool": "conv"})))
def test_every_activation_is_the_one_asked_for(name, axes):
    net = network(IMAGE, name=name, **axes)
    found = {type(layer).__name__.lower() for layer in net.modules()} & {
        activation.replace("_", "") for activation in ACTIVATIONS
    }
    assert found == {axes["activation"].replace("_", "")}


@every_architecture_with("norm")
@pytest.mark.parametrize("norm", NORMS)
def test_a_layer_has_a_bias_only_without_norm(name, norm):
    net = network(IMAGE, name=name, norm=norm)
    layers = [layer for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer is not net.logits]
    assert {layer.bias is not None for layer in layers} == {norm == "none" or name == "convnext"}


@pytest.mark.parametrize(("norm", "axes"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3))])
def test_norms_normalise_over_their_axes(norm, axes):
    y = NORMS[norm](6)(5 + 3 * torch.randn(4, 6, 8, 8))
    torch.testing.assert_close(y.mean(axes), torch.zeros_like(y.mean(axes)), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(axes, correction=0), torch.ones_like(y.mean(axes)), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 4), (6, 2), (5, 1)])
def test_group_norm_takes_as_many_groups_as_divide(channels, groups):
    assert NORMS["group"](channels).num_groups == groups


@every_architecture_with("max_width")
def test_the_width_doubles_up_to_its_limit(name):
    net = network((1, 32, 32), name=name, width=4, max_width=10)
    widths = [summarize(net, (1, 32, 32))[stage].channels for stage in net.stages]
    assert widths == [4, 8, 10, 10, 10][: len(widths)]


@every_architecture_with("max_width")
def test_no_map_is_wider_than_the_limit(name):
    net = network((1, 32, 32), name=name, width=99, max_width=10)
    summary = summarize(net, (1, 32, 32))
    assert {summary[layer].channels for layer in net.order[:-1]} == {10}


# --- names and shapes ------------------------------------------------------------------------------------------------


@cases({}, {"depth": 1}, {"depth": 3})
def test_the_layers_have_their_names(name, axes):
    net = network(IMAGE, name=name, **axes)
    depth = 0 if name in BASELINES else model(name, **axes).depth
    assert net.stages == [f"stage{i}" for i in range(1, depth + 1)]
    assert net.order[-2:] == ["features", "logits"]
    with record_outputs(net, [*net.stages, "features", "logits"]) as maps:
        logits = net(torch.randn(2, *IMAGE))
    assert {maps[stage].ndim for stage in net.stages} <= {2 if name == "mlp" else 4}
    assert maps["features"].ndim == 2
    assert torch.equal(maps["logits"], logits)


@every_architecture_with("head")
@pytest.mark.parametrize(
    ("head", "vector"),
    [
        ("gap", lambda maps: maps.mean((2, 3))),
        ("gmp", lambda maps: maps.amax((2, 3))),
        ("flatten", lambda maps: maps.flatten(1)),
    ],
)
def test_the_head_reads_means_maxima_or_all_of_the_maps(name, head, vector):
    net = network(IMAGE, name=name, head=head)
    with record_outputs(net, [net.stages[-1], "features"]) as maps, torch.no_grad():
        net(torch.randn(2, *IMAGE))
    torch.testing.assert_close(maps["features"], vector(maps[net.stages[-1]]))


@every_architecture_with("pool")
@settings(max_examples=25)
@given(st.sampled_from(list(POOLS)), st.sampled_from(PADDINGS), st.integers(1, 3))
def test_all_pools_give_stages_of_one_shape(name, pool, padding, stride):
    assume((pool, padding) != ("conv", "valid"))  # refused by the schema, for just this reason
    assume(pool == "none" or stride in (POOLS[pool].strides or [stride]))
    image = (1, 131, 135)

    def shapes(pool: str) -> list[tuple[int, int, int]]:
        net = on_paper(image, name=name, pool=pool, padding=padding, stride=stride)
        summary = summarize(net, image)
        return [summary[stage].shape for stage in net.stages]

    assert shapes(pool) == shapes("max")


# --- LightningModules and seeds --------------------------------------------------------------------------------------


def lightning(name: str, seed: int) -> LightningModule:
    return module(Config(model=model(name), seed=seed), (1, 28, 28), 10)


@every_architecture
def test_a_module_is_a_lightning_module_and_its_architecture(name):
    net = lightning(name, seed=0)
    assert isinstance(net, LightningModule)
    assert isinstance(net, architecture(name))
    assert isinstance(net, Network)
    assert net.task == Task("what", 10)


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
every_pooled_architecture = every_architecture_with("pool", "padding", "head")
rolls = st.tuples(st.integers(0, 27), st.integers(0, 27))


def change(size: int, shift: tuple[int, int], **axes: object) -> Tensor:
    """How far a roll of the image moves the logits, at the most."""
    torch.manual_seed(0)
    net = network((1, size, size), **axes).double().eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as after training
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = torch.randn(3, 1, size, size, dtype=torch.float64)
    with torch.no_grad():
        return (net(x.roll(shift, (2, 3))) - net(x)).abs().max()


@every_pooled_architecture
@pytest.mark.parametrize("pool", ["aps", "lps"])
@pytest.mark.parametrize("head", ["gap", "gmp"])
@settings(max_examples=8)
@given(rolls)
def test_these_and_circular_padding_make_a_net_exactly_invariant(name, pool, head, shift):
    assert change(28, shift, name=name, **INVARIANT | {"pool": pool, "head": head}) < 1e-10


@every_pooled_architecture
@pytest.mark.parametrize("stride", [1, 3])
def test_a_stride_that_a_pool_is_not_defined_for_is_refused(name, stride):
    with pytest.raises(UserError, match=rf"^model\.pool=wavelet: .*stride 2 only, not {stride}$"):
        network(IMAGE, name=name, pool="wavelet", stride=stride)


@every_pooled_architecture
@pytest.mark.parametrize("head", ["gap", "gmp"])
@pytest.mark.parametrize("pool", [name for name, pool in POOLS.items() if not (pool and pool.strides)])
def test_stride_one_and_circular_padding_make_a_net_exactly_invariant(name, pool, head):
    assert change(12, (5, 3), name=name, **INVARIANT | {"pool": pool, "head": head, "stride": 1}) < 1e-10


@every_pooled_architecture
@pytest.mark.parametrize(
    ("size", "broken"),
    [(28, {"padding": "zeros"}), (28, {"head": "flatten"}), (28, {"pool": "max"}), (26, {})],  # 26: half of it is odd
    ids=str,
)
def test_invariance_breaks_without_any_one_of_its_conditions(name, size, broken):
    assert change(size, (9, 10), name=name, **INVARIANT | broken) > 1e-4


def test_a_net_that_shares_no_weights_is_not_invariant():
    assert change(12, (5, 3), name="mlp", depth=2) > 1e-2


@given(st.integers(1, 3), st.integers(3, 9), st.integers(3, 9), st.sampled_from([1, 3, 5]), st.integers(1, 3))
def test_a_circular_convolution_is_pytorchs_bit_for_bit_and_keeps_the_memory_format(n, h, w, kernel, stride):
    options = {"stride": stride, "padding": kernel // 2, "padding_mode": "circular"}
    ours, theirs = (kind(4, 6, kernel, **options) for kind in (CircularConv2d, nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(n, 4, h, w)
    assert torch.equal(ours(x), theirs(x))
    last = ours.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, theirs(x))
    assert last.is_contiguous(memory_format=torch.channels_last)


# --- the net that training starts from -------------------------------------------------------------------------------


def test_an_untrained_net_has_the_statistics_that_a_step_without_learning_gives_it():
    cfg = tiny(model={"norm": "batch", "dropout": 0.2, "dropout_kind": "channel"}, train={"batch_size": 32})
    splits = split(cfg.data)
    start, plain = untrained(cfg, splits, torch.device("cpu")), module(cfg, splits.image, len(splits.classes))
    with torch.no_grad():
        batches = list(first_images(cfg, splits, torch.device("cpu")))
        assert sum(map(len, batches)) == min(2000, len(splits.train))
        maps = [plain.stage1.conv1(batch) for batch in batches]
    norm = start.stage1.norm1
    torch.testing.assert_close(norm.running_mean, torch.stack([map.mean((0, 2, 3)) for map in maps]).mean(0))
    variances = torch.stack([map.transpose(0, 1).flatten(1).var(1) for map in maps])
    torch.testing.assert_close(norm.running_var, variances.mean(0))
    weights = {name: one for name, one in plain.state_dict().items() if "running" not in name and "num_" not in name}
    assert all(torch.equal(start.state_dict()[name], one) for name, one in weights.items())


@pytest.mark.parametrize("name", ["ladder", "mlp", "pca"])
def test_calibration_leaves_flags_momentum_and_random_stream_and_gives_statistics_back(name):
    cfg = replace(tiny(), model=model(name))
    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes)).eval()
    next(net.children()).train()
    flags, state, stream_outputs = (
        [module.training for module in net.modules()],
        net.state_dict(),
        torch.get_rng_state(),
    )
    before = {key: one.clone() for key, one in state.items()}
    with calibrated(net, first_images(cfg, splits, torch.device("cpu"))):
        norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        assert all((norm.running_mean != 0).any() and norm.momentum == 0.1 for norm in norms)
        assert [module.training for module in net.modules()] == flags
    assert all(torch.equal(one, before[key]) for key, one in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream_outputs)
    assert len(norms) > 0 or name == "pca"


def test_the_floor_of_a_fitted_net_is_fitted():
    cfg = replace(tiny(), model=model("pca"))
    splits = split(cfg.data)
    fitted = module(cfg, splits.image, len(splits.classes))
    fitted.fit(splits.train.images, splits.normalise)
    start = untrained(cfg, splits, torch.device("cpu"))
    assert torch.equal(start.components.project.weight, fitted.components.project.weight)


def test_an_interrupted_calibration_restores_momentum_and_flags():
    def batches():
        yield torch.randn(4, 1, 16, 16)
        raise KeyboardInterrupt

    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=0.3), nn.Flatten()).eval()
    with pytest.raises(KeyboardInterrupt):
        calibrate(net, batches())
    assert net[1].momentum == 0.3
    assert not any(module.training for module in net.modules())
