"""The axes of where and by how much: pool_at, extra_conv, a width by the number of parameters, full padding."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from torch import Tensor, nn

from src.common.errors import UserError
from src.config import Config, from_dict, to_dict
from src.models import TOLERANCE
from src.models import network as build
from src.models.blocks import convolution
from src.models.layers import ACTIVATIONS, NORMS, PADDINGS
from src.summary import summarize
from src.training.lightning_module import module
from tests.helpers import Image, every_architecture_with, model, network, on_paper, parameters, shared

IMAGE = (1, 32, 32)


def sizes(net: nn.Module, image: Image) -> list[int]:
    """Heights of the maps of the stages."""
    summary = summarize(net, image)
    return [summary[stage].rows.size for stage in net.stages]


# --- where a net shrinks ---------------------------------------------------------------------------------------------


@st.composite
def some_stages(draw: st.DrawFn, last: int) -> list[int]:
    return draw(st.permutations(sorted(draw(st.sets(st.integers(1, last))))))


@every_architecture_with("pool_at")
@settings(max_examples=8)
@given(st.data(), st.sampled_from(["none", "max", "conv"]))
def test_the_stages_that_pool_at_names_shrink_and_no_others(name, data, pool):
    depth = len(on_paper(IMAGE, name=name, **shared(name, depth=4)).stages)
    at = data.draw(some_stages(depth))
    net = on_paper((1, 64, 64), name=name, pool=pool, pool_at=at, **shared(name, depth=4))
    summary = summarize(net, (1, 64, 64))
    strides = [2 ** len([one for one in at if one <= stage]) for stage in range(1, depth + 1)]
    assert [summary[stage].rows.jump for stage in net.stages] == strides  # the last: the same, early or late
    assert sizes(net, (1, 64, 64)) == [64 // stride for stride in strides]
    pools = {layer.name.split(".")[0] for layer in summary.layers if ".pool" in layer.name}
    assert pools == (set() if pool == "none" else {f"stage{stage}" for stage in at})


@every_architecture_with("pool_at")
def test_the_place_of_a_pool_changes_no_parameters(name):
    depth = len(on_paper(IMAGE, name=name, **shared(name, depth=3)).stages)
    nets = [on_paper(IMAGE, name=name, pool_at=at, **shared(name, depth=3)) for at in ([1, 2], [depth - 1, depth], [])]
    assert len({parameters(net) for net in nets}) == 1


@every_architecture_with("pool_at")
def test_a_null_pool_at_is_every_stage_and_the_first_two_of_all_cnn(name):
    depth = len(on_paper(IMAGE, name=name).stages)
    every = [1, 2] if name == "allconv" else list(range(1, depth + 1))
    null, named = (summarize(on_paper(IMAGE, name=name, pool_at=at), IMAGE).rows() for at in (None, every))
    assert null == named


@every_architecture_with("pool_at")
@pytest.mark.parametrize("at", [[0], [-1], [1, 1], [9], [1, 2, 9]])
def test_a_stage_that_is_not_there_is_refused(name, at):
    with pytest.raises(UserError) as refusal:
        network(IMAGE, name=name, pool_at=at)
    depth = len(on_paper(IMAGE, name=name).stages)
    assert str(refusal.value) == f"model.pool_at={at}: must name stages from 1 to {depth}, each at most once"


# --- the extra convolution: the control as large as pool=conv --------------------------------------------------------


@every_architecture_with("extra_conv")
@settings(max_examples=8)
@given(
    st.sampled_from(list(NORMS)),
    st.sampled_from([padding for padding in PADDINGS if padding != "valid"]),
    st.sampled_from([None, 2, 3, 4]),
    st.integers(1, 4),
)
def test_a_pool_behind_the_extra_convolution_is_as_large_as_the_convolution_instead(
    name, norm, padding, window, stride
):
    axes = {"name": name, "norm": norm, "padding": padding, "window": window, "stride": stride}
    image = (1, 75, 80)
    both, instead = (on_paper(image, **axes, **form) for form in ({"extra_conv": True}, {"pool": "conv"}))
    assert parameters(both) == parameters(instead)
    assert sizes(both, image) == sizes(instead, image)


@every_architecture_with("extra_conv")
def test_the_extra_convolution_stands_before_each_pool(name):
    net = on_paper(IMAGE, name=name, extra_conv=True, pool_at=[2])
    stage = list(dict(net.stage2.named_children()))
    found = [key for key in stage if key.startswith(("extra", "pool"))]
    assert found == ["extra", "extra_norm", "extra_act", "pool"]
    assert "extra" not in dict(net.stage1.named_children())


@every_architecture_with("extra_conv")
@pytest.mark.parametrize(("key", "wrong"), [("pool", "none"), ("padding", "valid")])
def test_an_extra_convolution_without_pool_or_padding_is_refused(name, key, wrong):
    with pytest.raises(UserError, match=rf"^model\.extra_conv=true: does not go with model\.{key}={wrong}; take "):
        network((1, 80, 80), name=name, extra_conv=True, **{key: wrong})


# --- a width by the number of parameters -----------------------------------------------------------------------------

WIDEST = 24
SMALL_IMAGE = (1, 16, 16)


@cache
def counts(name: str, max_width: int) -> list[int]:
    """Parameters of all widths, from 1."""
    limit = shared(name, max_width=max_width)
    return [parameters(on_paper(SMALL_IMAGE, name=name, width=width, **limit)) for width in range(1, WIDEST + 1)]


@every_architecture_with("parameters")
@settings(max_examples=5)
@given(st.integers(100, 5_000), st.sampled_from([8, 64]))
@example(1, 64)
@example(5_000, 8)
def test_the_width_is_the_one_that_comes_nearest(name, wanted, max_width):
    found = counts(name, max_width)
    nearest = min(abs(count - wanted) for count in found)
    axes: dict[str, Any] = {"name": name, "parameters": wanted, **shared(name, max_width=max_width)}
    if nearest <= TOLERANCE * wanted:
        net = on_paper(SMALL_IMAGE, **axes)
        assert abs(parameters(net) - wanted) == nearest
        return
    with pytest.raises(UserError) as refusal:
        on_paper(SMALL_IMAGE, **axes)
    line = rf"model\.parameters={wanted}: the nearest that model={name} comes to is (\d+), at width (\d+); change .*"
    count, width = map(int, re.fullmatch(line, str(refusal.value)).groups())
    assert abs(count - wanted) == nearest
    assert found[min(width, WIDEST) - 1] == count


@every_architecture_with("parameters")
def test_a_net_of_so_many_parameters_is_the_net_of_that_width(name):
    width = 13
    explicit = model(name, width=width)
    torch.manual_seed(5)
    expected = build(explicit, SMALL_IMAGE, 5)
    torch.manual_seed(5)
    net = build(replace(explicit, width=1, parameters=parameters(expected)), SMALL_IMAGE, 5)
    assert net.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), expected.parameters(), strict=True))


@every_architecture_with("parameters")
def test_a_saved_config_keeps_the_number_and_makes_the_same_net_again(name):
    wanted = parameters(on_paper(SMALL_IMAGE, name=name, width=11))
    cfg = Config(model=model(name, parameters=wanted), seed=3)
    saved = to_dict(cfg)
    assert (saved["model"]["parameters"], saved["model"]["width"]) == (wanted, cfg.model.width)
    nets = [module(one, SMALL_IMAGE, 5) for one in (cfg, from_dict(saved))]
    assert parameters(nets[0]) == wanted
    assert all(torch.equal(one, other) for one, other in zip(*(net.parameters() for net in nets), strict=True))


# --- padding=full ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize(("padding", "mode"), [("full", "full"), ("zeros", "same"), ("valid", "valid")])
def test_a_convolution_is_the_one_that_scipy_calls_by_its_paddings_name(kernel, padding, mode):
    conv = convolution(model(padding=padding), 1, 1, kernel=kernel).double()
    x = torch.randn(1, 1, 9, 12, dtype=torch.float64)
    expected = correlate2d(x[0, 0].numpy(), conv.weight.detach()[0, 0].numpy(), mode)
    torch.testing.assert_close(conv(x)[0, 0].detach(), torch.from_numpy(expected))


@every_architecture_with("padding")
@pytest.mark.parametrize(("padding", "grows"), [("full", 1), ("zeros", 0), ("valid", -1)])
def test_a_map_grows_or_shrinks_by_what_its_kernels_read(name, padding, grows):
    image = (1, 45, 52)
    net = on_paper(image, name=name, padding=padding, pool="none", stride=1)
    for stage in net.stages:
        rows, columns = summarize(net, image)[stage].rows, summarize(net, image)[stage].columns
        assert rows.size == 45 + grows * (rows.receptive_field - 1)  # the field is 1 + Σ (k - 1)
        assert columns.size == 52 + grows * (columns.receptive_field - 1)


# --- an object on black ----------------------------------------------------------------------------------------------


def zero(net: nn.Module) -> None:
    """Take away all biases but those behind the head, so that black stays 0."""
    for name, parameter in net.named_parameters():
        if name.endswith("bias") and not name.startswith("logits"):
            nn.init.zeros_(parameter)


def offset(net: nn.Module) -> None:
    """Biases and norms as after training, so that black does not stay 0."""
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, -0.5, 0.5)
    for name, statistics in net.named_buffers():
        if name.endswith("mean"):
            nn.init.uniform_(statistics, -0.5, 0.5)
        if name.endswith("var"):
            nn.init.uniform_(statistics, 0.5, 1.5)


def moved(net: nn.Module, side: int, places: Sequence[tuple[int, int]]) -> Tensor:
    """How far the logits move, at the most, when an object of 3×3 on black moves from one place to another."""
    thing = torch.randn(3, 3, dtype=torch.float64)
    images = torch.zeros(3, 1, side, side, dtype=torch.float64)
    for image, (row, column) in zip(images[:2], places, strict=True):
        image[0, row : row + 3, column : column + 3] = thing
    with torch.no_grad():
        one, other, black = net.double().eval()(images)
    assert (one - black).abs().max() > 1e-6  # the net sees it
    return (one - other).abs().max()


def still(name: str, side: int, **axes: Any) -> nn.Module:
    """A net without strides."""
    return network((1, side, side), **{"name": name, "pool": "none", "stride": 1, "padding": "full"} | axes)


@every_architecture_with("padding", "head")
@pytest.mark.parametrize("head", ["gap", "gmp"])
@settings(max_examples=6)
@given(st.sampled_from(list(ACTIVATIONS)), *[st.tuples(st.integers(0, 10), st.integers(0, 10))] * 2)
@example("relu", (0, 0), (10, 5))
def test_full_padding_without_biases_gives_the_same_output_wherever_an_object_is(name, head, activation, one, other):
    net = still(name, 13, norm="none", head=head, activation=activation)
    zero(net)
    assert moved(net, 13, [one, other]) < 1e-12


@every_architecture_with("padding", "head")
@pytest.mark.parametrize("broken", [{"padding": "zeros"}, {"head": "flatten"}, {"stride": 2, "pool": "max"}], ids=str)
def test_that_breaks_without_any_one_of_its_conditions(name, broken):
    net = still(name, 13, **{"norm": "none"} | broken)
    zero(net)
    assert moved(net, 13, [(0, 0), (5, 4)]) > 1e-4


@every_architecture_with("padding", "head")
@pytest.mark.parametrize("head", ["gap", "gmp"])
@pytest.mark.parametrize("norm", NORMS)
def test_with_biases_and_norms_it_holds_for_objects_that_keep_away_from_the_border(name, head, norm):
    """What a layer makes of black is then no more 0, as it is beyond the map: the next layer sees a frame there."""
    image = (1, 64, 64)
    paper = on_paper(image, name=name, pool="none", stride=1)
    away = (
        int(summarize(paper, image)[paper.stages[-1]].rows.receptive_field) - 1
    )  # half of it the object's trace, half the frame
    side = 2 * away + 3 + 4
    net = still(name, side, norm=norm, head=head)
    offset(net)
    assert moved(net, side, [(away, away), (away + 4, away + 1)]) < 1e-12
    assert moved(net, side, [(away, away), (0, 0)]) > 1e-6
