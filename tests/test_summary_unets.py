"""The model summary of nets that enlarge their maps, against the running net, PyTorch's counter and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from src.summary import ShapeError, summarize
from tests.summaries import edges, held_on_meta, touched


class UNet(nn.Module):
    """Two steps down and up again, with skips."""

    def __init__(self, up: str) -> None:
        super().__init__()
        self.up = up
        self.first, self.second, self.middle = (nn.Conv2d(n, n + 2, 3, padding=1) for n in (2, 4, 6))
        self.pool, self.upsample = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.up1, self.up2 = nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose2d(6, 4, 4, 2, 1, bias=False)
        fewer = 2 if up == "transposed" else 0
        self.join1, self.join2 = nn.Conv2d(14 - fewer, 6, 3, padding=1), nn.Conv2d(10 - fewer, 3, 1)

    def enlarge(self, x: Tensor, layer: nn.Module, like: Tensor) -> Tensor:
        if self.up == "transposed":
            x = layer(x)
        x = self.upsample(x) if self.up == "upsample" else x
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        coarse = self.second(self.pool(fine))
        y = self.middle(self.pool(coarse)).relu()
        y = self.join1(torch.cat([self.enlarge(y, self.up1, coarse), coarse], dim=1))
        return self.join2(torch.cat([self.enlarge(y, self.up2, fine), fine], dim=1))


@pytest.mark.parametrize("up", ["transposed", "upsample", "interpolate"])
@pytest.mark.parametrize("image", [(2, 24, 32), (2, 27, 30)])
def test_u_nets_hold(up, image):
    net = UNet(up)
    if up != "transposed":
        del net.up1, net.up2
        net.up1 = net.up2 = None
    summary = held_on_meta(net, image)
    assert summary["join2"].shape == (3, *image[1:])
    assert summary["join2"].rows.jump == pytest.approx(1, abs=0.2)  # 1, but where odd sizes were rounded


def test_a_u_net_sees_what_gradients_reach():
    net, image = UNet("transposed"), (2, 48, 48)
    axis = summarize(net, image)["join2"].rows
    assert (axis.jump, axis.offset) == (1, 0.5)
    reached, bounds = touched(net, "join2", image), edges(axis, 48)
    assert all(low <= a and b <= high for (a, b), (low, high) in zip(reached, bounds, strict=True))
    assert max(b - a for a, b in reached) > 0.8 * axis.receptive_field  # a maximum selects one of its window


def test_positions_from_channels_and_back_hold():
    net = nn.Sequential(nn.Conv2d(3, 18, 3, 2), nn.PixelShuffle(3), nn.CELU(), nn.Conv2d(2, 2, 4), nn.PixelUnshuffle(3))
    summary = held_on_meta(net, (3, 22, 28))
    assert [(layer.shape, layer.rows.jump) for layer in summary.layers[1::3]] == [
        ((2, 30, 39), 2 / 3),
        ((18, 9, 12), 2),
    ]
    up, down = summary["1"].rows, summary["4"].rows
    assert (up.offset, up.receptive_field) == pytest.approx((1.5 - 2 / 3, 3))  # three positions around the centre, 1.5
    assert (down.offset, down.receptive_field) == pytest.approx((1.5 - 2 / 3 + 5 / 3, 3 + 5 * 2 / 3))
    for part, why in (
        (nn.PixelShuffle(4), "multiple of 16 channels"),
        (nn.PixelUnshuffle(2), "multiples of 2, gets 9×12"),
    ):
        with pytest.raises(ShapeError, match=why):
            summarize(nn.Sequential(net, part), (3, 22, 28))


def test_a_segmentation_net_of_torchvisions_holds():
    with torch.device("meta"):
        net = models.segmentation.fcn_resnet50(weights=None, weights_backbone=None)
    summary = held_on_meta(net, (3, 65, 90))
    assert [layer.shape for layer in summary.layers if layer.kind == "interpolate"] == [(21, 65, 90)]


TRANSPOSED = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(0, 1), st.integers(1, 2))


@settings(max_examples=30)
@given(TRANSPOSED, st.integers(1, 2), st.booleans())
def test_transposed_convolutions_hold_and_see_what_gradients_reach(sizes, groups, bias):
    kernel, stride, padding, more, dilation = sizes
    padding, more = min(padding, (kernel - 1) // 2), min(more, max(stride, dilation) - 1)
    up = nn.ConvTranspose2d(4, 6, kernel, stride, padding, more, groups, bias, dilation)
    held_on_meta(nn.Sequential(up), (4, 9, 11))
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.ConvTranspose2d(4, 6, kernel, stride, padding, more, 1, bias, dilation)
    )
    axis = summarize(net, (1, 41, 41))["1"].rows
    reaches = []
    for i, (low, high) in enumerate(touched(net, "1", (1, 41, 41))):
        centre = axis.offset + i * axis.jump
        if 12 < centre < 29 and high:  # away from the borders; a stride larger than the kernel leaves gaps
            reaches.append((centre - low, high - centre))
    half = axis.receptive_field / 2
    assert [max(reach) for reach in zip(*reaches, strict=True)] == pytest.approx([half, half])
