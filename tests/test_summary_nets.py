"""The model summary of nets that others wrote, against the running net, PyTorch's counter and published numbers."""

import operator
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from src.common.errors import UserError
from src.nets.hooks import record_outputs
from src.pooling import swap_pools
from src.summary import ShapeError, summarize, verify
from tests.summaries import held

Image = tuple[int, int, int]

# one of every way to build a net in torchvision
TORCHVISION = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 mnasnet0_5 mobilenet_v2 "
    "mobilenet_v3_small resnet18 resnet50 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_0 vgg16 vgg11_bn"
).split()
# … and in timm: padding by the size of the map, standardised weights, gates, slices, channels last, antialiasing
TIMM = (
    "convnext_atto convnextv2_atto cspdarknet53 dla34 dpn48b ecaresnet26t ghostnet_100 ghostnetv2_100 hgnet_tiny "
    "hrnet_w18_small inception_next_atto lcnet_050 mixnet_s mobilenetv4_conv_small nf_regnet_b0 nfnet_f0 "
    "poolformer_s12 regnetx_002 regnety_002 repvgg_a0 resnet26d resnetblur50 resnetv2_50x1_bit seresnet18 starnet_s1 "
    "tf_efficientnet_b0 vovnet39a"
).split()


def torchvision(name: str) -> nn.Module:
    """Without the second heads that only training reads."""
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        return models.get_model(name, weights=None, **options).eval()


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_nets_have_the_published_parameters_and_multiply_adds(name):
    weights = next(iter(models.get_model_weights(name)))  # what is published of them; nothing is loaded
    (side,) = weights.transforms().crop_size
    summary = held(torchvision(name), (3, side, side))
    assert round(summary.multiply_adds / 1e9, 3) == weights.meta["_ops"]
    if name != "inception_v3":  # published with its second head
        assert summary.parameters == weights.meta["num_params"]


def test_torchvisions_regnet_holds():
    """It reads its weights as it is made, so it cannot be made on the meta device."""
    summary = held(models.regnet_y_400mf(weights=None).eval().to("meta"), (3, 224, 224))
    assert (summary.parameters, round(summary.multiply_adds / 1e9, 3)) == (4_344_144, 0.402)


@pytest.mark.parametrize("name", TIMM)
def test_timms_nets_hold(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        net = timm.create_model(name, pretrained=False).eval()
    held(net, (3, 224, 224))


def test_small_and_odd_images_hold():
    for name in ("vgg11_bn", "googlenet", "shufflenet_v2_x0_5"):
        held(torchvision(name), (3, 45, 70))


# --- single calls ----------------------------------------------------------------------------------------------------


class Call(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.function, self.norm = nn.Conv2d(3, 8, 1), function, nn.LayerNorm(8)
        self.scale, self.last = nn.Parameter(torch.ones(8, 1, 1)), nn.LazyConv2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self, self.first(x)) * 1)


CALLS = {
    "max": lambda net, x: F.max_pool2d(x, 3, 2, 1),
    "max, rounded up": lambda net, x: F.max_pool2d(x, 3, stride=2, ceil_mode=True),
    "avg": lambda net, x: F.avg_pool2d(x, 2),
    "adaptive": lambda net, x: F.adaptive_avg_pool2d(x, (2, 3)),
    "mean": lambda net, x: x.mean((2, 3), keepdim=True),
    "over channels": lambda net, x: torch.cat([x.mean(1, keepdim=True), x.amax(dim=1, keepdim=True)], 1),
    "scale": lambda net, x: net.scale * x,
    "gate": lambda net, x: x * x.mean((-1, -2), keepdim=True).sigmoid(),
    "larger": lambda net, x: torch.maximum(x, net.scale) - x.minimum(x.mean((2, 3), keepdim=True)),
    "gate, by None": lambda net, x: x * x.mean((2, 3))[:, :, None, None],
    "gate, by unsqueeze": lambda net, x: x * x.mean((2, 3)).unsqueeze(-1).unsqueeze(-1).exp(),
    "rows, by None": lambda net, x: x + x.mean(2)[..., None, :] - torch.unsqueeze(x.mean(3), -1).abs(),
    "up from channels": lambda net, x: F.celu(F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)) - x.log_softmax(1),
    "channels last": lambda net, x: net.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "shuffle": lambda net, x: x.view(x.shape[0], 2, 4, x.size(2), x.size(3)).transpose(1, 2).reshape(x.size()),
    "split": lambda net, x: torch.cat([x.chunk(3, 1)[2], x.split([3, 5], dim=1)[0]], 1),
    "slices": lambda net, x: torch.cat([x[:, :4, :-1:2, 1::2], x[..., 1::2, 1::2].relu()[:, 3:]], dim=1),
    "pad": lambda net, x: F.pad(x, (1, 0, -2, 3)),
    "upsample": lambda net, x: F.interpolate(x, scale_factor=2) - F.interpolate(x, size=(20, 24)),
    "sizes": lambda net, x: F.avg_pool2d(x, x.shape[-1] // 4),
    "power": lambda net, x: (x**2 + 1e-3) / 2,
}


@pytest.mark.parametrize("call", CALLS)
def test_summaries_follow_calls_that_are_not_layers(call):
    net, image = Call(CALLS[call]), (3, 10, 12)
    net(torch.zeros(1, *image))
    summary = summarize(net, image)
    layers = {layer.name: layer for layer in summary.layers}
    used = [name for name in ("scale", "norm") if name in layers]
    with record_outputs(net, ["last"]) as outputs:
        net(torch.zeros(1, *image))
    assert layers["last"].shape == outputs["last"].shape[1:]
    expected = [module for name, module in net.named_children() if name != "norm" or name in used]
    count = sum(parameter.numel() for module in expected for parameter in module.parameters())
    assert summary.parameters == count + (8 if "scale" in used else 0)


@pytest.mark.parametrize("call", ["max", "avg", "slices", "scale", "pad", "channels last"])
def test_receptive_fields_of_calls_are_what_gradients_reach(call):
    net, image = Call(CALLS[call]), (3, 21, 27)
    x = torch.rand(1, *image, requires_grad=True)
    y = net(x)
    axis = summarize(net, image)["last"].rows
    middle = y.shape[2] // 2
    rows = torch.cat([torch.autograd.grad(y[0, c, middle].sum(), x, retain_graph=True)[0] for c in range(2)])
    touched = rows.abs().sum((0, 1, 3)).nonzero()
    centre = axis.offset + middle * axis.jump
    if call == "max":  # one of the three
        assert centre - axis.receptive_field / 2 <= touched.min() <= touched.max() < centre + axis.receptive_field / 2
    else:
        assert (touched.min(), touched.max() + 1) == (
            centre - axis.receptive_field / 2,
            centre + axis.receptive_field / 2,
        )


def test_a_layer_used_twice_has_two_rows_and_its_parameters_once():
    conv = nn.Conv2d(3, 3, 3)
    net = nn.Sequential(conv, nn.ReLU(), conv)
    summary = summarize(net, (3, 9, 9))
    assert [(layer.rows.size, layer.parameters) for layer in summary.layers] == [(7, 84), (7, 0), (5, 0)]
    verify(summary, net)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_weight_of_two_layers_is_counted_once(device):
    with torch.device(device):
        net = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 3))
    net[1].weight = net[0].weight
    summary = summarize(net, (4, 9, 9))
    assert [(layer.parameters, layer.multiply_adds) for layer in summary.layers] == [(144, 144 * 49), (4, 144 * 25)]
    verify(summary, net)


class Reads(nn.Module):
    """Reads a weight that a layer has counted."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 4)
        self.scale = self.norm.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.scale.view(1, -1, 1, 1)


def test_a_weight_of_a_layer_that_the_net_reads_too_is_counted_once():
    net = Reads()
    assert summarize(net, (4, 9, 9)).parameters == 8
    verify(summarize(net, (4, 9, 9)), net)


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_that_are_computed_from_others_are_counted_as_these(norm):
    net = nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(8 * 49, 5)))
    summary = summarize(net, (3, 9, 9))
    learned = {id(parameter): parameter.numel() for parameter in net.parameters()}
    assert summary.parameters == sum(learned.values())
    assert summary.multiply_adds == 8 * 27 * 49 + 8 * 49 * 5
    verify(summary, net)


@pytest.mark.parametrize("side", [1, 2, 8, 16, 17, 32])
def test_every_image_that_a_net_takes_has_its_summary(side):
    net = torchvision("resnet18").eval()
    summary = held(net, (3, side, side))
    assert summary.parameters == 11_689_512


@pytest.mark.parametrize("pool", ["max", "blur", "maxblur", "stochastic", "ideal"])
@pytest.mark.parametrize("side", [16, 32])
def test_pools_larger_than_their_maps_have_theirs_too(pool, side):
    net = models.resnet18(weights=None, num_classes=2)
    swap_pools(net, pool, (3, side, side), convs=True)
    verify(summarize(net, (3, side, side)), net)


def test_a_compiled_net_is_followed_as_itself_and_a_scripted_one_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    compiled = torch.compile(net, backend="eager")
    assert summarize(compiled, (3, 9, 9)) == summarize(net, (3, 9, 9))
    verify(summarize(compiled, (3, 9, 9)), compiled)
    assert swap_pools(compiled, "blur", (3, 9, 9)) == ["1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)))
    for net in (scripted, nn.Sequential(scripted)):
        with pytest.raises(UserError, match=r"is scripted: its layers cannot be seen; give the nn\.Module"):
            summarize(net, (3, 9, 9))


def test_half_double_and_no_parameters_hold():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2))
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        held(net.to(kind), (3, 9, 9))
    held(nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), (3, 9, 9))


def test_rows_of_calls_carry_the_name_of_the_layer_around_them():
    with torch.device("meta"):
        summary = summarize(models.resnet18(), (3, 64, 64))
    assert [layer.name for layer in summary.layers if layer.kind == "add"][:2] == ["layer1.0.add", "layer1.1.add_1"]


# --- refusals --------------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda net, x: x.cumsum(2), r"cumsum: the summary has no formula for cumsum"),
        (lambda net, x: torch.cat([x, x], 2), r"cat: works along dimension 2 of \(n, c, h, w\)"),
        (lambda net, x: x + x[:, :3], r"add: joins first \(8, 5, 7\) and getitem \(3, 5, 7\)"),
        (lambda net, x: x.flatten(), r"flatten: flattens dimensions 0 to -1, which mixes the images of a batch"),
        (lambda net, x: x.flatten(2), r"last: takes maps \(n, c, h, w\), gets \(n, c, t\)"),
        (lambda net, x: x.mean(), r"mean: a mean, sum or maximum over all dimensions"),
        (lambda net, x: x.view(1, 4, 14, 5), r"view: reshapes \(8, 5, 7\) to \(4, 14, 5\)"),
        (lambda net, x: x[0], r"getitem: takes \[0\] of a map"),
        (lambda net, x: net.norm(x), r"norm: takes maps that end in \(8,\), gets \(1, 8, 5, 7\)"),
        (lambda net, x: net.last(x.permute(0, 2, 3, 1)), r"last: takes maps \(n, c, h, w\), gets \(n, h, w, c\)"),
        (lambda net, x: x.mean(4), r"mean: the summary cannot follow mean: range object index out of range"),
        (lambda net, x: F.max_pool2d(x, 9), r"max_pool2d: nothing is left: floor\(\(5 \+ 2·0 - 9\)/9\) \+ 1 = 0"),
        (lambda net, x: operator.matmul(x, x), r"matmul: multiplies \(1, 8, 5, 7\) by \(1, 8, 5, 7\), which"),
    ],
)
def test_calls_that_it_cannot_follow_are_refused_by_name(function, message):
    net = Call(function)
    net.last = nn.Conv2d(8, 2, 1)
    with pytest.raises(ShapeError, match=message) as caught:
        summarize(net, (3, 5, 7))
    assert len(str(caught.value).splitlines()) == 1


def test_a_branch_that_depends_on_the_map_is_refused_by_name():
    with pytest.raises(ShapeError, match=r"^1: torch.fx cannot follow it: .*control flow"):
        summarize(nn.Sequential(nn.ReLU(), Branching()), (3, 5, 7))


def test_a_net_that_splits_its_maps_into_windows_is_refused_in_one_line():
    net = Call(lambda net, x: x.reshape(1, 8, 2, 4, 3, 4))
    with pytest.raises(ShapeError, match=r"reshape: reshapes \(8, 8, 12\)") as caught:
        summarize(net, (3, 8, 12))
    assert len(str(caught.value).splitlines()) == 1


def test_a_head_that_only_training_reads_is_named():
    with torch.device("meta"):
        net = models.googlenet(weights=None, init_weights=False)
    with pytest.raises(ShapeError, match=r"not in the summary: aux1\.conv\.conv\.weight"):
        verify(summarize(net, (3, 64, 64)), net)
