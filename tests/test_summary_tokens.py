"""The model summary of transformers, against the running net, PyTorch's counter, published numbers and gradients."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models
from torchvision.models.maxvit import PartitionAttentionLayer
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    ShiftedWindowAttention,
    SwinTransformer,
    SwinTransformerBlockV2,
)
from torchvision.models.vision_transformer import VisionTransformer

from src.summary import ModelSummary, ShapeError, graph, summarize, verify
from tests.summaries import edges, held_on_meta, touched


@pytest.fixture(autouse=True)
def counted_attention() -> Iterator[None]:
    """``nn.MultiheadAttention`` without its fast path, which PyTorch's counter does not see."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


# --- transformers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"])
def test_torchvisions_transformers_have_the_published_parameters_and_multiply_adds(name):
    weights = next(iter(models.get_model_weights(name)))
    (side,) = weights.transforms().crop_size
    with torch.device("meta"):
        net = models.get_model(name, weights=None)
    summary = held_on_meta(net, (3, side, side))
    assert summary.parameters == weights.meta["num_params"]
    assert round(summary.multiply_adds / 1e9, 3) == weights.meta["_ops"]


@settings(max_examples=8)
@given(st.integers(1, 4), st.sampled_from([2, 4, 5]), st.integers(1, 2), st.integers(1, 3))
def test_small_vision_transformers_hold(grid, patch, heads, depth):
    net = VisionTransformer(grid * patch, patch, depth, heads, 4 * heads, 6, num_classes=3)
    summary = held_on_meta(net, (3, grid * patch, grid * patch))
    block = summary["encoder.layers.encoder_layer_0"]
    assert (block.sizes, block.prefix) == ((1, grid**2 + 1, 4 * heads), 1)
    rows = {layer.name: layer for layer in summary.layers}
    attention = rows["encoder.layers.encoder_layer_0.self_attention"]
    assert attention.kind == "MultiheadAttention"
    assert attention.seen((grid * patch, grid * patch)) == 1
    assert f"{grid}×{grid} + 1" in str(summary) or grid == 1


def swin(version: int, window: tuple[int, int] = (3, 2)) -> SwinTransformer:
    more = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2} if version == 2 else {}
    return SwinTransformer([2, 2], 8, [2, 1], [2, 4], [*window], num_classes=3, **more)


@settings(max_examples=8)
@given(st.sampled_from([1, 2]), st.integers(8, 31), st.integers(8, 31), st.integers(1, 4), st.integers(2, 5))
def test_small_swin_transformers_hold(version, height, width, rows, columns):
    held_on_meta(swin(version, (2 * rows, columns)), (3, height, width))


class Heads(nn.Module):
    """Attention from its parts, with class and register tokens, as nets of one's own have it."""

    def __init__(self, products: bool, heads: int = 2, registers: int = 0) -> None:
        super().__init__()
        self.products, self.heads = products, heads
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.tokens = nn.Parameter(torch.zeros(1, 1 + registers, 8))
        self.norm, self.qkv, self.project = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.last, self.out = nn.RMSNorm(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.patches(x)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.tokens.expand(x.shape[0], -1, -1), tokens], dim=1)
        n, t, c = tokens.shape
        q, k, v = self.qkv(self.norm(tokens)).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.products:
            weights = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(dim=-1)
            y = torch.matmul(weights, v)
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        tokens = self.last(tokens + self.project(y.transpose(1, 2).reshape(n, t, c)))
        maps = tokens[:, self.tokens.shape[1] :].transpose(1, 2).reshape(maps.shape)
        return self.out(tokens[:, 0] + maps.mean((2, 3)))


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("registers", [0, 3])
def test_attention_written_out_holds(products, registers):
    net = Heads(products, registers=registers)
    summary = held_on_meta(net, (3, 12, 20))
    assert (summary["last"].prefix, summary["last"].shape) == (1 + registers, (8, 3, 5))
    assert summary["out"].seen((12, 20)) == 1


class NonLocal(nn.Module):
    """A block of Wang et al. (2018), whose keys and values are those of a smaller map."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(3, 4, 1) for _ in range(3))
        self.pool, self.out = nn.MaxPool2d(2), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        k, v = (self.pool(part(x)).flatten(2) for part in (self.k, self.v))
        weights = F.softmax(torch.bmm(self.q(x).flatten(2).transpose(1, 2), k), dim=-1)
        y = torch.bmm(weights, v.transpose(1, 2))
        return x + self.out(y.transpose(1, 2).reshape(n, 4, h, w))


def test_a_non_local_block_holds():
    summary = held_on_meta(NonLocal(), (3, 6, 10))
    assert summary["out"].shape == (3, 6, 10)
    assert summary["out"].seen((6, 10)) == 1


@pytest.mark.parametrize("options", [{"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {}], ids=str)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_multihead_attention_of_every_kind_holds(options, first, weights):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=first, **options)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2).permute(*((0, 2, 1) if first else (2, 0, 1)))
            return self.attention(x, x, x, need_weights=weights)[0]

    held_on_meta(Net(), (6, 3, 5))


class Encoder(nn.Module):
    """PyTorch's own encoder, over patches."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        layer = nn.TransformerEncoderLayer(8, 2, 12, **options)
        self.first = options.get("batch_first", False)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=False)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).permute(*((0, 2, 1) if self.first else (2, 0, 1)))
        return self.out(self.encoder(tokens).mean(1 if self.first else 0))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("options", [{"norm_first": True}, {"activation": "gelu"}, {"bias": False}], ids=str)
def test_pytorchs_encoder_holds(first, options):
    net = Encoder(batch_first=first, **options)
    summary = held_on_meta(net, (3, 12, 16))
    assert summary["encoder.layers.1"].shape == (8, 3, 4)
    traced, x = torch.fx.GraphModule(net.to_empty(device="cpu"), graph(net)), torch.randn(2, 3, 12, 16)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(traced(x), net(x))


def test_timms_vision_transformer_holds():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        net = timm.create_model("vit_tiny_patch16_224", depth=2)
    held_on_meta(net, (3, 224, 224))


# --- receptive fields of attention -----------------------------------------------------------------------------------


def test_attention_sees_the_whole_image_from_everywhere():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.attention = nn.Conv2d(1, 4, 5, 4), nn.MultiheadAttention(4, 1, batch_first=True)
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.first(x)
            tokens = maps.flatten(2).transpose(1, 2)
            for _ in range(2):
                tokens, _ = self.attention(tokens, tokens, tokens)
            return self.last(tokens.transpose(1, 2).reshape(maps.shape))

    summary = summarize(Net(), (1, 21, 21))
    assert touched(Net(), "last", (1, 21, 21)) == edges(summary["last"].rows, 21) == [(0, 21)] * 5
    assert summary["last"].rows.offset == summary["first"].rows.offset == 2.5  # positions stay where they are


@pytest.mark.parametrize("dims", [(2, 3), (2,), (3,)], ids=str)
@pytest.mark.parametrize("map_first", [True, False])
def test_a_gate_sees_the_whole_image_and_leaves_positions_where_they_are(dims, map_first):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate = nn.Conv2d(1, 4, 5, 4), nn.Sigmoid()
            self.last = nn.Conv2d(4, 2, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.first(x)
            gate = self.gate(maps.mean(dims, keepdim=True))
            return self.last(maps * gate if map_first else gate * maps)

    summary = summarize(Net(), (1, 25, 25))
    last = summary["last"]
    assert (last.rows.offset, last.rows.jump) == (last.columns.offset, last.columns.jump) == (6.5, 8)
    reached = touched(Net(), "last", (1, 25, 25))
    assert reached == edges(last.rows, 25) == ([(0, 25)] * 2 if 2 in dims else [(0, 13), (8, 21)])
    assert (last.columns.receptive_field >= 25) == (3 in dims)


def test_one_place_that_is_broadcast_is_not_taken_for_the_whole_image():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 4, 2, 2), nn.MultiheadAttention(4, 1, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.first(x)
            tokens = (maps + maps[:, :, 1:2, 1:2]).flatten(2).transpose(1, 2)
            return self.last(tokens, tokens, tokens)[0]

    assert edges(summarize(Net(), (1, 20, 20))["last"].rows, 20) == [(0, 20)] * 10


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("side", [24, 30])
def test_attention_in_windows_sees_what_gradients_reach_of_any_output(shift, side):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 8, 2, 2)
            self.attention = ShiftedWindowAttention(8, [4, 4], [shift, shift], 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(self.first(x).permute(0, 2, 3, 1))

    held_on_meta(Net(), (1, side, side))
    axis = summarize(Net(), (1, side, side))["attention"].rows
    reached = touched(Net(), "attention", (1, side, side), last=True)
    bounds = edges(axis, side)
    assert all(low <= a and b <= high for (a, b), (low, high) in zip(reached, bounds, strict=True))
    centres = [axis.offset + i * axis.jump for i in range(axis.size)]
    reach = max(max(c - a, b - c) for c, (a, b) in zip(centres, reached, strict=True))
    assert reach == axis.receptive_field / 2 == 7  # 3 positions and half of one


@pytest.mark.parametrize(("kind", "grid"), [("window", (6, 4)), ("window", (2, 2)), ("grid", (6, 6)), ("grid", (8, 8))])
def test_attention_of_maxvit_sees_what_gradients_reach_of_any_output(kind, grid):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 8, 3, 2, 1)
            options = (grid, 3, nn.GELU, nn.LayerNorm, 0.0, 0.0, 0.0)
            self.attention = PartitionAttentionLayer(8, 4, 2, kind, *options)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(self.first(x))

    image = (1, 2 * grid[0], 2 * grid[1])
    held_on_meta(Net(), image)
    axis = summarize(Net(), image)["attention"].rows
    reached, bounds = touched(Net(), "attention", image), edges(axis, image[1])
    assert all(low <= a and b <= high for (a, b), (low, high) in zip(reached, bounds, strict=True))
    reach = max(b - (axis.offset + i * axis.jump) for i, (_, b) in enumerate(reached))
    assert reach == axis.receptive_field / 2


def test_a_swin_transformer_never_sees_further_than_its_summary_says():
    net = SwinTransformer([2, 2], 8, [2, 1], [1, 2], [2, 2], num_classes=3)
    summary = summarize(net, (3, 48, 48))
    for layer in ("features.1", "features.0"):
        reached = touched(net, layer, (3, 48, 48), last=True)
        for (a, b), (low, high) in zip(reached, edges(summary[layer].rows, 48), strict=True):
            assert low <= a
            assert b <= high


# --- refusals --------------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.function, self.extra = nn.Conv2d(3, 8, 2, 2), function, nn.Parameter(torch.zeros(1, 2, 8))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(x).flatten(2).transpose(1, 2)
        return self.function(self, torch.cat([self.extra.expand(tokens.shape[0], -1, -1), tokens], 1))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda net, x: x[:, 2], r"takes tokens 2 to 2 of 14, of which 2 stand before the map"),
        (lambda net, x: x[:, 3:], r"takes tokens 3 to 13 of 14"),
        (
            lambda net, x: torch.cat([x, net.extra], 1),
            r"puts one after the other .*; the summary follows tokens before",
        ),
        (lambda net, x: x.transpose(1, 2).reshape(1, 8, 7, 2), r"reshapes \(8, 14\) to \(8, 7, 2\)"),
        (lambda net, x: x[:, 2:].transpose(1, 2).reshape(1, 8, 4, 3), r"reshapes \(8, 12\) to \(8, 4, 3\)"),
        (lambda net, x: x + net.extra, r"joins cat \(8, 3, 4\) and a learned tensor of \(1, 2, 8\)"),
        (
            lambda net, x: x.transpose(1, 2) @ x,
            r"multiplies \(1, 8, 14\) by \(1, 14, 8\), which the summary follows for",
        ),
    ],
)
def test_tokens_that_cannot_be_followed_are_refused_in_one_line(function, message):
    with pytest.raises(ShapeError, match=message) as caught:
        summarize(Tokens(function), (3, 6, 8))
    assert len(str(caught.value).splitlines()) == 1


def test_an_image_of_another_size_than_a_transformers_is_refused_with_its_own_words():
    with pytest.raises(ShapeError, match="Wrong image height! Expected 8 but got"):
        summarize(VisionTransformer(8, 4, 1, 1, 4, 4, num_classes=2), (3, 16, 16))


def test_every_wrong_entry_of_a_transformer_is_found():
    net = VisionTransformer(8, 4, 1, 1, 4, 4, num_classes=2)
    summary = summarize(net, (3, 8, 8))
    names = {name for name, _ in net.named_modules()}
    for i, layer in enumerate(summary.layers):
        if layer.name not in names:
            continue
        for wrong in (
            {"channels": layer.channels + 1},
            {"prefix": layer.prefix + 1},
            {"parameters": layer.parameters + 1},
        ):
            tampered = [*summary.layers[:i], replace(layer, **wrong), *summary.layers[i + 1 :]]
            with pytest.raises(ShapeError, match=layer.name):
                verify(ModelSummary(summary.image, tampered), net)
