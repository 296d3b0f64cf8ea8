"""Maps in the outputs of layers that give tokens, or channels last, against reshapes by hand."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from src.common.errors import UserError
from src.evaluation.adapter import EvaluationSet, adapt_model
from src.evaluation.evaluate import evaluate
from src.inspection.feature_analysis import analyze_features
from src.inspection.grad_cam import class_activation, resize_to_image, scale_to_one
from src.nets.external import LoadedNet
from src.nets.hooks import record_outputs
from src.summary import Axis, summarize
from src.summary.views import MapView, map_views
from src.transforms import TRANSFORMS

BLOCK = "encoder.layers.encoder_layer_0"


def vit(grid: int = 3, heads: int = 2) -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(4 * grid, 4, 2, heads, 4 * heads, 8, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    return net.eval()


def swin() -> SwinTransformer:
    torch.manual_seed(0)
    return SwinTransformer([2, 2], 8, [2, 1], [1, 2], [2, 2], num_classes=5).eval()


def tokens_as_maps(tokens: Tensor, size: tuple[int, int], prefix: int = 1) -> Tensor:
    """The ``reshape_transform`` of pytorch-grad-cam's documentation, for vision transformers."""
    maps = tokens[:, prefix:].reshape(tokens.shape[0], *size, tokens.shape[2])
    return maps.transpose(2, 3).transpose(1, 2)


def last_as_maps(output: Tensor) -> Tensor:
    """… and for Swin transformers."""
    return output.transpose(2, 3).transpose(1, 2)


def by_hand(net: nn.Module, layer: str, images: Tensor, classes: Tensor, reshape) -> Tensor:
    """Grad-CAM of reshaped outputs and gradients."""
    kept: list[Tensor] = []
    hook = net.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output))
    scores = net(images.clone().requires_grad_())
    hook.remove()
    (gradient,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), kept)
    maps, gradient = reshape(kept[0]), reshape(gradient)
    return (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()


@pytest.mark.parametrize("layer", [BLOCK, f"{BLOCK}.mlp", f"{BLOCK}.ln_1", "encoder.dropout"])
@pytest.mark.parametrize("grid", [2, 3])
def test_grad_cam_of_a_vision_transformer_is_that_of_its_reshaped_tokens(layer, grid):
    net, images, classes = vit(grid), torch.randn(6, 3, 4 * grid, 4 * grid), torch.arange(6) % 5
    found = class_activation(net, layer, images, classes)
    torch.testing.assert_close(found, by_hand(net, layer, images, classes, lambda x: tokens_as_maps(x, (grid, grid))))
    assert found.shape == (6, grid, grid)
    assert found.any()
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("layer", ["features.0", "features.1", "features.1.0.attn", "features.2", "features.3", "norm"])
def test_grad_cam_of_a_swin_transformer_is_that_of_its_maps_of_channels_first(layer):
    net, images, classes = swin(), torch.randn(4, 3, 20, 28), torch.arange(4)
    found = class_activation(net, layer, images, classes)
    torch.testing.assert_close(found, by_hand(net, layer, images, classes, last_as_maps))
    assert found.any()


@pytest.mark.parametrize("layer", ["encoder.layers.encoder_layer_1", "encoder.ln"])
def test_grad_cam_of_a_layer_of_which_only_the_class_token_is_read_is_refused(layer):
    net, images, classes = vit(), torch.randn(2, 3, 12, 12), torch.tensor([0, 3])
    with pytest.raises(UserError, match=r"reads the class token alone, so no place supports a class"):
        class_activation(net, layer, images, classes)
    assert not any(module._forward_hooks for module in net.modules())
    nn.init.zeros_(net.heads.head.weight)  # nothing supports a class: a map of zeros says so
    assert not class_activation(net, BLOCK, images, classes).any()


def test_grad_cam_of_a_layer_that_the_net_has_not_is_refused():
    with pytest.raises(UserError, match=r"encoder\.ln_2: the net has none"):
        class_activation(vit(), "encoder.ln_2", torch.randn(2, 3, 12, 12), torch.zeros(2, dtype=torch.long))


def test_grad_cam_of_a_vector_is_refused():
    with pytest.raises(UserError, match=r"heads: gives no maps, nor tokens"):
        class_activation(vit(), "heads", torch.randn(2, 3, 12, 12), torch.zeros(2, dtype=torch.long))


@settings(max_examples=20)
@given(
    st.sampled_from(["ntc", "nct", "tnc", "nhwc", "nwhc", "nchw"]), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 2), st.integers(1, 3),
)  # fmt: skip
def test_views_can_be_put_back(layout, height, width, prefix, channels):
    prefix = prefix if "t" in layout else 0
    sizes = {"n": 2, "c": channels, "h": height, "w": width, "t": height * width + prefix}
    output = torch.randn([sizes[letter] for letter in layout])
    view = MapView(layout, (height, width), prefix)
    maps = view(output)
    assert maps.shape == (2, channels, height, width)
    torch.testing.assert_close(view.put_back(maps, output), output, rtol=0, atol=0)
    zero = view.put_back(torch.zeros_like(maps), output)
    assert (view(zero) == 0).all()
    assert (zero != 0).sum() == 2 * channels * prefix


# --- measures --------------------------------------------------------------------------------------------------------


class ThroughMaps(nn.Module):
    """Tokens made maps, and tokens again."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        n, _, c = tokens.shape
        maps = self.maps(tokens[:, 1:].transpose(1, 2).reshape(n, c, 3, 3))
        return torch.cat([tokens[:, :1], maps.flatten(2).transpose(1, 2)], 1)


class ThroughChannelsFirst(nn.Module):
    """Maps of channels last made maps of channels first, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def measured(net: nn.Module, layer: str, side: int, what: list[str]):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, side, side), dtype=torch.uint8, generator=generator)
    table = evaluate(net, images, torch.arange(8) % 5, what, layer, max_shift=2, quiet=True)
    table["layer"] = table.layer.str.replace(f"{layer}", "layer", regex=False)
    return table.set_index(["layer", "transform", "protocol", "amount", "measure"]).sort_index()


WHAT = ["shift", "rotate", "rolls", "crops", "layers", "field", "units", "equal_dimension"]


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_measures_of_tokens_and_of_channels_last_are_those_of_their_maps(kind):
    if kind == "vit":
        net, layer, side = vit(), BLOCK, 12
        wrapped = vit()
        wrapped.encoder.layers[0] = nn.Sequential(wrapped.encoder.layers[0], ThroughMaps())
    else:
        net, layer, side = swin(), "features.1", 16
        wrapped = swin()
        wrapped.features[1] = nn.Sequential(wrapped.features[1], ThroughChannelsFirst())
    found, expected = measured(net, layer, side, WHAT), measured(wrapped, f"{layer}.1.maps", side, WHAT)
    assert list(found.index) == list(expected.index)
    numbers = ["value", "low", "high", "n"]
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-4, atol=1e-5)
    assert {"equivariance_error", "morans_i"} <= {*found.reset_index().query("layer == 'layer'").measure}


def test_a_layer_called_output_has_maps_too():
    net = nn.Sequential()
    net.patches, net.output, net.head = Patches(1), nn.LayerNorm(8), Classes()
    images = torch.rand(6, 3, 12, 12)
    found = evaluate(net, images, what="flip", layers=["output"], quiet=True)
    assert "equivariance_error" in set(found[found.layer == "output (module)"].measure)


def test_features_of_token_layers_are_analysed():
    net, image = vit(), (3, 12, 12)
    pixels = torch.randint(256, (6, 3, 18, 18), dtype=torch.uint8)
    images = EvaluationSet(pixels, 3, torch.arange(6) % 5)
    adapter = adapt_model(LoadedNet(net, image, (0.5,) * 3, (0.5,) * 3, None), image, [BLOCK])
    arrays = analyze_features(adapter, summarize(net, image), images, images, TRANSFORMS["shift/crop"], channels=2)
    x = adapter.normalise(pixels[..., 3:-3, 3:-3])
    with record_outputs(net, [BLOCK]) as outputs, torch.no_grad():
        classes = net(x).argmax(1)
    maps = tokens_as_maps(outputs[BLOCK], (3, 3))[:, :2]
    np.testing.assert_allclose(arrays[f"{BLOCK}/still"], maps, rtol=1e-2, atol=1e-2)  # half precision
    energies = tokens_as_maps(outputs[BLOCK], (3, 3)).square().mean((0, 2, 3))
    np.testing.assert_allclose(arrays[f"{BLOCK}/facts"][:, 4], energies, rtol=1e-5)
    cam, axis = class_activation(net, BLOCK, x, classes), Axis(3, jump=4, offset=2)
    expected = scale_to_one(resize_to_image(cam, axis, axis, (12, 12)))
    np.testing.assert_allclose(arrays["cam"], expected, atol=1e-3)


# --- nets that the summary cannot follow -----------------------------------------------------------------------------


class Untraced(nn.Module):
    """A net whose code branches on its input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x) if x.isfinite().all() else x
        return x


class Patches(nn.Module):
    """Patches as tokens, after learned ones."""

    def __init__(self, prefix: int, channels: int = 8) -> None:
        super().__init__()
        self.conv, self.extra = nn.Conv2d(3, channels, 4, 4), nn.Parameter(torch.zeros(1, prefix, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return torch.cat([self.extra.expand(len(x), -1, -1), tokens], 1)


class Classes(nn.Module):
    """A class from the mean token."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(1))


class Linears(nn.Module):
    """Patches without a convolution."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 8)
        vars(self).update(attributes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2))


class Last(nn.Module):
    """Channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_the_grid_of_tokens_is_that_of_the_convolution(prefix, caplog):
    net = Untraced(Patches(prefix), nn.LayerNorm(8))
    with caplog.at_level(logging.INFO):
        views = map_views(net, (3, 12, 20), ["layers.0", "layers.1", "layers.0.conv"])
    assert views == dict.fromkeys(["layers.0", "layers.1"], MapView("ntc", (3, 5), prefix))
    assert f"layers.0 3×5 + {prefix}; layers.1 3×5 + {prefix}" in caplog.text


def test_the_grid_of_tokens_is_that_of_a_patch_size_and_unknown_without():
    assert map_views(Untraced(Linears(patch_size=(4, 4))), (3, 12, 20), ["layers.0"])["layers.0"].size == (3, 5)
    assert map_views(Untraced(Linears()), (3, 12, 12), ["layers.0"]) == {}


def test_channels_last_are_known_by_the_last_layer_with_channels():
    net = Untraced(
        nn.Conv2d(3, 6, 1), Last(), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 8), nn.Sequential(nn.Identity())
    )
    names = [f"layers.{i}" for i in range(6)]
    expected = dict.fromkeys([name for name in names if name != "layers.0"], MapView("nhwc", (4, 5)))
    assert map_views(net, (3, 4, 5), names) == expected


def test_a_width_that_is_a_number_of_channels_by_chance_is_none_of_channels_last():
    net = Untraced(nn.Conv2d(3, 4, 1), nn.Linear(9, 9))
    assert map_views(net, (3, 9, 9), ["layers.0", "layers.1"]) == {}


@pytest.mark.parametrize("side", [5, 6])
def test_convolutional_nets_have_no_views(side):
    net = Untraced(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(3))
    net(torch.zeros(2, 3, side, side))
    assert map_views(net, (3, side, side), [f"layers.{i}" for i in range(6)]) == {}


def test_ambiguous_input_is_refused_in_one_line():
    two = Untraced(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)), Patches(0), nn.Identity())
    two.patch_size = (3, 4)
    two.layers[1].extra = nn.Parameter(torch.zeros(1, 4, 8))
    with pytest.raises(
        UserError, match=r"layers\.2: its 13 tokens may be 3×3 \+ 4 or 4×3 \+ 1, and the model"
    ) as caught:
        map_views(two, (3, 12, 12), ["layers.2"])
    assert len(str(caught.value).splitlines()) == 1
    square = Untraced(Last(), nn.Linear(3, 6))
    with pytest.raises(
        UserError, match=r"layers\.1: of its output \(6, 5, 6\), the first or the last may be the 6 channels"
    ):
        map_views(square, (3, 6, 5), ["layers.1"])


def test_timms_transformers_without_a_summary_have_maps():
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_vit").eval()
    assert map_views(net, (3, 160, 160), ["blocks.0"]) == {"blocks.0": MapView("ntc", (10, 10), 1)}
