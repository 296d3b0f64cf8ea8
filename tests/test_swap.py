"""Pools of other people's nets replaced: sizes, states and counts kept, and clear words where that cannot be."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from src.common.errors import UserError
from src.pooling import BORDERS, POOLS, swap_pools
from src.summary import summarize, verify
from tests.helpers import network

NAMES = [name for name, pool in POOLS.items() if pool]
LEARNED = [name for name in NAMES if list(POOLS[name](channels=4).parameters())]
TILED = "fractional aps lps tips unshuffle ideal flc diffstride wavelet".split()
IMAGE = (3, 64, 64)

every_pool = pytest.mark.parametrize("pool", NAMES)


def shape(net: nn.Module, image: tuple[int, int, int] = IMAGE) -> torch.Size:
    with torch.no_grad():
        return net(torch.zeros(2, *image, device=next(net.parameters()).device)).shape


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


# --- other people's nets ---------------------------------------------------------------------------------------------

FOUND = {
    "resnet18": ["maxpool"],
    "vgg11": ["features.2", "features.5", "features.10", "features.15", "features.20"],
    "densenet121": [
        "features.pool0", "features.transition1.pool", "features.transition2.pool", "features.transition3.pool"
    ],
    "squeezenet1_1": ["features.2", "features.5", "features.8"],
    "googlenet": ["maxpool1", "maxpool2", "maxpool3", "maxpool4"],
}  # fmt: skip


def torchvision(name: str) -> nn.Module:
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return models.get_model(name, weights=None, **options).eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return torchvision("resnet18")


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("pool", ["aps", "lip"])
def test_the_pools_of_torchvisions_nets_are_replaced_and_the_summary_holds(name, pool):
    with torch.device("meta"):
        net = torchvision(name)
    image = (3, 75, 50)
    sizes = [layer.shape for layer in summarize(net, image).layers]
    assert swap_pools(net, pool, IMAGE) == FOUND[name]
    assert all(type(net.get_submodule(one)) is POOLS[pool] for one in FOUND[name])
    assert all(parameter.is_meta for parameter in net.parameters())
    summary = summarize(net, image)
    verify(summary, net)
    assert [layer.shape for layer in summary.layers] == sizes


@every_pool
def test_every_pool_finds_its_place_in_a_resnet(resnet, pool):
    net = copy.deepcopy(resnet)
    before = summarize(net, IMAGE)
    swap_pools(net, pool, IMAGE)
    summary = summarize(net, IMAGE)
    verify(summary, net)
    assert [layer.shape for layer in summary.layers] == [layer.shape for layer in before.layers]
    assert summary.parameters == 11_689_512 + POOLS[pool](3, 2, channels=64).parameters_by_formula(64)
    assert summary.parameters == 11_689_512 or pool in LEARNED
    assert all(torch.equal(net.state_dict()[key], value) for key, value in resnet.state_dict().items())


@pytest.mark.parametrize("name", ["resnet26d", "dla34", "seresnet18"])
def test_the_pools_of_timms_nets_are_replaced_and_the_summary_holds(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        net = timm.create_model(name, pretrained=False)
    sizes = [layer.shape for layer in summarize(net, (3, 224, 224)).layers]
    assert swap_pools(net, "soft", (3, 224, 224))
    summary = summarize(net, (3, 224, 224))
    verify(summary, net)
    assert [layer.shape for layer in summary.layers] == sizes


def test_a_timm_net_without_pools_has_its_strided_convolutions_replaced():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        net = timm.create_model("cspdarknet53", pretrained=False)
    with pytest.raises(UserError, match="nothing to replace"):
        swap_pools(net, "blur", (3, 64, 64))
    assert len(swap_pools(net, "blur", (3, 64, 64), convs=True)) == 5
    verify(summarize(net, (3, 64, 64)), net)


def test_max_for_max_changes_no_number():
    for name in ("squeezenet1_1", "googlenet"):
        old, x = torchvision(name), torch.randn(2, *IMAGE)
        net = copy.deepcopy(old)
        swap_pools(net, "max", IMAGE)
        with torch.no_grad():
            assert torch.equal(net(x), old(x))


@every_pool
def test_our_own_pools_are_replaced_too(pool):
    for old in ("max", "maxblur", "mixed", "lip"):
        net = network((1, 21, 26), pool=old)
        sizes = {name: summarize(net, (1, 21, 26))[name].shape for name in net.stages}
        assert swap_pools(net, pool, (1, 21, 26), border="circular") == ["stage1.pool", "stage2.pool"]
        assert net.stage1.pool.border == "circular"
        verify(summarize(net, (1, 21, 26)), net)
        assert {name: summarize(net, (1, 21, 26))[name].shape for name in net.stages} == sizes


# --- sizes -----------------------------------------------------------------------------------------------------------


@every_pool
@given(
    st.integers(1, 4), st.integers(2, 3), st.booleans(), st.integers(8, 15), st.integers(8, 15),
    st.sampled_from(BORDERS), st.data(),
)  # fmt: skip
def test_a_swap_keeps_the_sizes_of_all_maps_or_is_refused(pool, kernel, stride, ceil, height, width, border, data):
    padding = data.draw(st.integers(0, kernel // 2))
    old = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    net = nn.Sequential(old)
    try:
        swap_pools(net, pool, (4, 12, 12), border=border)
    except UserError as refusal:
        assert "cannot keep the sizes" in str(refusal) or "stride 2 only" in str(refusal)
        assert net[0] is old
        assert pool in (*TILED, "maxblur") or stride in (POOLS[pool].strides or [stride])
        return
    assert net[0].kernel_size == kernel
    x = torch.randn(1, 4, height, width)
    assert net(x).shape == old(x).shape


@pytest.mark.parametrize("pool", TILED)
def test_tiles_stand_in_for_padded_windows_of_three(pool):
    net = nn.Sequential(nn.MaxPool2d(3, 2, 1))
    swap_pools(net, pool, (4, 12, 12))
    assert [net(torch.zeros(1, 4, n, n)).shape[-1] for n in range(6, 12)] == [3, 4, 4, 5, 5, 6]


@pytest.mark.parametrize("old", [nn.MaxPool2d(2), nn.AvgPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 2, 1)], ids=str)
def test_another_window_keeps_the_sizes(old):
    for window in (2, 3, 4, 5):
        net = nn.Sequential(old)
        swap_pools(net, "blur", (4, 12, 12), window=window)
        assert net[0].kernel_size == window
        for n in range(8, 16):
            assert net(torch.zeros(1, 4, n, n)).shape == old(torch.zeros(1, 4, n, n)).shape


def test_a_callable_makes_the_pools():
    net = nn.Sequential(nn.MaxPool2d(2))
    swap_pools(net, partial(POOLS["maxblur"], taps=5), (4, 12, 12))
    assert net[0].blur.kernel_size == 5


# --- strided convolutions --------------------------------------------------------------------------------------------


@given(
    st.integers(1, 5), st.integers(2, 3), st.integers(0, 2), st.integers(1, 2), st.integers(9, 15), st.integers(9, 15)
)
def test_subsampling_behind_a_convolution_is_its_stride(kernel, stride, padding, dilation, height, width):
    old = nn.Conv2d(3, 4, kernel, stride, padding, dilation)
    net = nn.Sequential(copy.deepcopy(old))
    assert swap_pools(net, "blur", (3, 12, 12), window=1, convs=True) == ["0"]  # one tap: [::s]
    x = torch.randn(1, 3, height, width)
    torch.testing.assert_close(net(x), old(x))


@every_pool
def test_strided_convolutions_of_a_resnet_keep_their_weights_and_sizes(resnet, pool):
    net = copy.deepcopy(resnet)
    names = swap_pools(net, pool, IMAGE, convs=True)
    assert names[:3] == ["conv1", "maxpool", "layer2.0.conv1"]
    assert len(names) == 8
    verify(summarize(net, IMAGE), net)
    assert shape(net) == shape(resnet)
    assert torch.equal(net.layer2[0].conv1.conv.weight, resnet.layer2[0].conv1.weight)
    assert net.layer2[0].conv1.pool.kernel_size == POOLS[pool](stride=2, channels=1).kernel_size


# --- state -----------------------------------------------------------------------------------------------------------


@every_pool
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_type_mode_and_memory_format_are_handed_on(pool, dtype):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2))
    net.to(dtype).to(memory_format=torch.channels_last).train()
    net[3].eval()
    flags, before = [one.training for one in net], state(net)
    swap_pools(net, pool, (3, 16, 16))
    assert [one.training for one in net] == flags
    assert all(module.training for module in net[2].modules())
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items()), "no statistics"
    for tensor in (*net.parameters(), *(buffer for buffer in net.buffers() if buffer.is_floating_point())):
        assert tensor.dtype == dtype
        assert tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    net(torch.randn(2, 3, 16, 16, dtype=dtype)).sum().backward()


def test_a_swap_leaves_global_pools_and_pools_of_stride_one():
    net = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    assert swap_pools(net, "avg", (3, 8, 8)) == ["1"]
    assert swap_pools(net, "avg", (3, 8, 8), names=["0"]) == ["0"]
    assert isinstance(net[2], nn.AdaptiveAvgPool2d)


def test_a_pool_with_two_names_stays_one():
    pool = nn.MaxPool2d(2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.Conv2d(4, 4, 3), pool)
    assert swap_pools(net, "lip", (3, 20, 20)) == ["1", "3"]
    assert net[1] is net[3]
    verify(summarize(net, (3, 20, 20)), net)


def test_the_new_weights_are_those_of_the_seed():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2, 1))
    torch.manual_seed(3)
    swap_pools(net, "conv", IMAGE)
    torch.manual_seed(3)
    assert torch.equal(net[1].conv.weight, POOLS["conv"](3, 2, 1, channels=8).conv.weight)


# --- refusals --------------------------------------------------------------------------------------------------------


class Function(nn.Module):
    """A net that calls a pool as a function."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.pool, self.stride = nn.MaxPool2d(2), stride

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.max_pool2d(self.pool(x), 3, self.stride, padding=1), 2)


class Same(nn.MaxPool2d):
    """A pool whose sizes may be its own."""


@pytest.mark.parametrize(
    ("net", "pool", "message"),
    [
        (nn.MaxPool2d(2), "avgg", r"pool=avgg: did you mean avg\? choose one of max, avg, lp"),
        (nn.MaxPool2d(2), "none", r"pool=none: choose one of max"),
        (nn.ReLU(), "avg", "nothing to replace: no pooling layer has a stride above 1"),
        (nn.MaxPool2d(2, dilation=2), "avg", r"0: dilation=2, which no pool here has"),
        (nn.AvgPool2d(2, divisor_override=1), "max", r"0: divisor_override=1, which"),
        (nn.MaxPool2d((2, 3)), "avg", r"0: kernel_size=\(2, 3\) differs between the axes"),
        (nn.MaxPool2d(3, (1, 2)), "avg", r"0: stride=\(1, 2\) differs"),
        (nn.MaxPool2d(3, 2, (0, 1)), "avg", r"0: padding=\(0, 1\) differs"),
        (nn.MaxPool2d(3, 2), "aps", r"0: APS cannot keep .* a map of 4 becomes one of 2, not 1"),
        (nn.MaxPool2d(3), "wavelet", r"0: .* stride 2 only, not 3"),
        (Same(2), "avg", r"0: Same is not one of the layers replaced \(MaxPool2d, AvgPool2d, Conv2d, Pool\)"),
        (Function(2), "avg", r"0: max_pool2d is called as a function, which cannot be replaced"),
    ],
)
def test_what_cannot_be_swapped_is_refused_in_one_line_and_left_as_it_was(net, pool, message):
    whole = nn.Sequential(net)
    with pytest.raises(UserError, match=message) as caught:
        swap_pools(whole, pool, (3, 16, 16))
    assert len(str(caught.value).splitlines()) == 1
    assert whole[0] is net


def test_a_later_refusal_leaves_the_first_layers_as_they_were():
    net = nn.Sequential(nn.Conv2d(3, 3, 3, 2), nn.MaxPool2d(2), nn.MaxPool2d(3, 2))
    before = str(net)
    with pytest.raises(UserError, match="2: APS"):
        swap_pools(net, "aps", (3, 16, 16), convs=True)
    assert str(net) == before


def test_a_pool_that_returns_indices_is_refused():
    class Indices(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[0](x)[0]

    with pytest.raises(UserError, match="0: return_indices=True, which no pool here has"):
        swap_pools(Indices(nn.MaxPool2d(2, return_indices=True)), "avg", (3, 8, 8))


def test_the_net_itself_and_unknown_names_are_refused():
    with pytest.raises(UserError, match="the net is itself a MaxPool2d"):
        swap_pools(nn.MaxPool2d(2), "avg", (3, 8, 8))
    with pytest.raises(UserError, match="pool9: no such layer"):
        swap_pools(nn.Sequential(nn.MaxPool2d(2)), "avg", (3, 8, 8), names=["pool9"])
    with pytest.raises(UserError, match=r"0: .*'zeros': choose one of clip"):
        swap_pools(nn.Sequential(nn.MaxPool2d(2)), "avg", (3, 8, 8), border="zeros")


def test_functions_that_shrink_nothing_stay_and_named_layers_are_replaced_all_the_same():
    assert swap_pools(Function(1), "avg", (3, 4, 4)) == ["pool"]  # the second pool leaves one place: a head
    assert swap_pools(Function(2), "avg", (3, 16, 16), names=["pool"]) == ["pool"]
    with torch.device("meta"):
        net = models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    with pytest.raises(UserError, match="Mixed_6a: max_pool2d is called as a function"):
        swap_pools(net, "blur", (3, 299, 299))


def test_learned_pools_need_one_number_of_channels():
    pool = nn.MaxPool2d(2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.Conv2d(4, 8, 3), pool)
    with pytest.raises(UserError, match=r"1: LIP has weights: it needs channels=; it was given 4 and 8"):
        swap_pools(net, "lip", (3, 20, 20))
    assert swap_pools(net, "soft", (3, 20, 20)) == ["1", "3"]
    net = nn.Conv2d(3, 4, 3)
    net.unused = nn.MaxPool2d(2)
    with pytest.raises(UserError, match=r"unused: LIP has weights: .*it was given no map at all"):
        swap_pools(net, "lip", (3, 20, 20))
