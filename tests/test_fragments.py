"""All windows of a padded image by fragments: the same as one by one, for any net; a reason if nothing is shared."""

import gc

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from src.common.errors import UserError
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.families import crops
from src.evaluation.families.crops import Crops, every_shift, one_by_one_crops, prepare
from src.evaluation.families.crops import rows as crop_rows
from src.evaluation.fragments import Fragments
from src.metrics import Heatmap, Note, Row
from src.models import ARCHITECTURES
from src.pooling import POOLS
from src.summary import ShapeError
from src.summary.layers import Layer
from tests.helpers import architectures, network
from tests.test_phase_tree import off, shaken
from tests.test_rolls import by_shift

MARGIN = 4
every_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def adapter(net: nn.Module) -> ModelAdapter:
    return ModelAdapter(net, [], lambda x: x.to(next(net.parameters()).dtype) / 255 - 0.5)


def canvas(size: tuple[int, int], n: int = 3, channels: int = 1, margin: int = MARGIN) -> Tensor:
    shape = (n, channels, size[0] + 2 * margin, size[1] + 2 * margin)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def check(net: nn.Module, size: tuple[int, int], channels: int = 1, margin: int = MARGIN) -> Crops:
    """All windows, both ways."""
    of, pixels, shifts = adapter(net), canvas(size, channels=channels, margin=margin), every_shift(margin)
    crops = prepare(of, pixels, margin)
    right = one_by_one_crops(of, pixels, shifts, margin).outputs
    if crops.fragments:
        assert crops.forwards < len(shifts)
        assert crops.why == ""
    else:
        assert crops.why
        assert crops.forwards == len(shifts)
    assert off(crops(pixels, shifts), right) < (1e-5 if right.dtype == torch.float32 else 1e-10)
    assert off(right, right[:, :1].expand_as(right)) > 1e-3  # shifts are seen
    return crops


def first_alone(crops: Crops) -> str:
    assert crops.fragments, crops.why
    return crops.fragments.first_alone


# --- exact -----------------------------------------------------------------------------------------------------------


@every_type
@pytest.mark.parametrize("head", ["gap", "gmp", "flatten"])
@pytest.mark.parametrize("pool", [name for name in POOLS if name != "conv"])  # which is refused with padding=valid
def test_every_pool_of_an_unpadded_net(pool, head, dtype):
    net = shaken(network((1, 20, 20), pool=pool, padding="valid", head=head, convs=1)).to(dtype)
    check(net, (20, 20))


@pytest.mark.parametrize("pool", ["max", "avg", "lp", "mixed", "soft", "none", "unshuffle", "wavelet"])
def test_pools_whose_windows_fit_are_shared_down_to_the_head(pool):
    net = shaken(network((1, 22, 22), pool=pool, padding="valid", convs=1)).double()
    assert first_alone(check(net, (22, 22))) == "features.gap"  # 22 → 20 → 10 → 8 → 4


@pytest.mark.parametrize(
    ("size", "axes", "alone"),
    [
        ((22, 30), {}, "features.gap"),
        ((21, 22), {}, "stage1.pool"),  # 19 rows: the last window of a pool is cut off
        ((20, 20), {}, "stage2.pool"),
        ((20, 29), {"stride": 3}, "stage2.pool"),  # 20 → 18 → 6 → 4: cut off
        ((23, 32), {"stride": 3}, "stage2.pool"),
        ((35, 35), {"stride": 3}, "features.gap"),  # 35 → 33 → 11 → 9 → 3
        ((22, 22), {"head": "flatten"}, "features"),
        ((22, 22), {"pool_at": [2]}, "features.gap"),
    ],
)
def test_sizes_that_windows_may_not_fit(size, axes, alone):
    net = shaken(network((1, *size), **{"padding": "valid", "convs": 1} | axes)).double()
    assert first_alone(check(net, size)) == alone


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name in architectures("padding")])
def test_every_architecture(name):
    for padding in ("valid", "zeros"):
        try:
            net = shaken(network((3, 40, 40), name=name, padding=padding)).double()
        except (UserError, ShapeError, ValueError):
            continue
        check(net, (40, 40), channels=3, margin=2)


def test_a_cropped_branch_is_shared():
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.read = nn.Conv2d(1, 3, 3), nn.Linear(3, 4)
            self.relu, self.narrow = nn.ReLU(inplace=True), nn.Conv2d(1, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.conv(x)) + self.narrow(x)[:, :, 1:-1, 1:-1]
            return self.read(nn.functional.max_pool2d(y, 2).mean((2, 3))) + x.mean((1, 2, 3))[:, None]

    assert first_alone(check(Skip().double(), (10, 12))) == "mean"


def test_a_stem_without_padding_is_shared_and_the_rest_is_not():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.AdaptiveMaxPool2d(1), nn.Flatten()
    ).double()
    crops = check(net, (12, 12))
    assert first_alone(crops) == "2"
    # by multiply-adds: the stem once on 16×16 for 81 windows of 8×8, the rest for each
    assert crops.forwards == pytest.approx((25 * 8 * 16**2 + 81 * 9 * 64 * 64) / (25 * 8 * 64 + 9 * 64 * 64))


@given(st.data())
def test_any_net(data):
    pool = data.draw(st.sampled_from(["max", "avg", "none", "blur", "aps", "lip", "soft"]))
    stride, depth, convs = (data.draw(st.integers(1, most)) for most in (3, 2, 2))
    size = (data.draw(st.integers(8, 22)), data.draw(st.integers(8, 22)))
    head = data.draw(st.sampled_from(["gap", "gmp", "flatten"]))
    axes = {"pool": pool, "stride": stride, "depth": depth, "convs": convs, "head": head, "width": 3}
    try:
        net = shaken(network((1, *size), padding="valid", norm="none", **axes)).double()
    except (UserError, ShapeError, ValueError):  # nothing is left of the map
        return
    of, pixels, shifts = adapter(net), canvas(size, n=2, margin=3), every_shift(3)
    assert off(prepare(of, pixels, 3)(pixels, shifts), one_by_one_crops(of, pixels, shifts, 3).outputs) < 1e-10


# --- recognised ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["zeros", "circular", "reflect", "replicate"])
def test_the_reason_names_the_padding(padding):
    crops = check(shaken(network((1, 12, 12), padding=padding)).double(), (12, 12))
    assert crops.why == f"stage1.conv1 pads with {padding}, so it sees where a window ends"


def test_a_net_of_torchvision_shares_its_stem():
    net = shaken(torchvision.models.squeezenet1_1(num_classes=4))
    # its first convolution has no padding, and the windows of its first pool fit: 40 → 19 → 9
    assert first_alone(check(net, (40, 40), channels=3, margin=3)) == "features.3.expand3x3"


def test_a_layer_that_differs_on_noise_is_detected_on_images():
    class Sly(nn.Module):
        """Local on noise, which has values below 0, and not on images."""

        def summary_rule(self, layer: Layer) -> Layer:
            return layer

        def forward(self, x: Tensor) -> Tensor:
            return x if x.min() < 0 else x - x.mean((2, 3), keepdim=True)

    net = nn.Sequential(Sly(), nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    of = ModelAdapter(net, [], lambda x: x.double() / 255)
    found = prepare(of, canvas((8, 8)), MARGIN)
    assert found.fragments is None
    assert found.why.startswith("the result of fragments is off by ")


def test_a_net_that_ignores_its_image_is_refused():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight

    with pytest.raises(UserError, match="one tensor, of the image"):
        Fragments(Constant(), (1, 8, 8), 1)


# --- rows ------------------------------------------------------------------------------------------------------------


def rows(of: ModelAdapter, forwards: int, monkeypatch: pytest.MonkeyPatch | None = None) -> tuple[dict, str]:
    if monkeypatch:
        monkeypatch.setattr(crops, "Fragments", refuse)
    found = list(crop_rows(of, EvaluationSet(canvas((12, 12), n=20), MARGIN, torch.arange(20) % 5), forwards))
    (note,) = (one.words for one in found if isinstance(one, Note))
    return {row.measure: row for row in found if isinstance(row, Row)}, note


def refuse(*_: object) -> Fragments:
    raise UserError("not today")


def test_fragments_and_one_by_one_give_the_same_rows(monkeypatch):
    of = adapter(shaken(network((1, 12, 12), padding="valid", convs=1)).double())
    shared, note = rows(of, 82 * 20)
    alone, other = rows(of, 82 * 20, monkeypatch)
    assert shared.keys() == alone.keys() >= {"worst_case", "output_distance"}
    for name, row in shared.items():
        other_row = alone[name]
        assert row.estimate.value == pytest.approx(other_row.estimate.value, rel=1e-9), name
        assert (row.protocol, row.amount, row.estimate.n) == ("all_crops", 81, 20)
    assert note.startswith("all 81 windows by fragments of the padded image; all cost ")
    assert note.endswith(" forward passes per image (20 images)")
    assert other == "all 81 windows, one by one: not today (20 images)"


@pytest.mark.parametrize("padding", ["valid", "zeros"])
def test_maps_of_layers_by_hand(padding):
    net = shaken(network((1, 12, 12), padding=padding, convs=1)).double()
    of = ModelAdapter(net, ["stage1"], lambda x: x.double() / 255 - 0.5)
    pixels = canvas((12, 12), n=5, margin=2)
    found = list(crop_rows(of, EvaluationSet(pixels, 2)))
    grids = {one.measure: one.values for one in found if isinstance(one, Heatmap)}
    rows = {row.measure: row for row in found if isinstance(row, Row) and row.layer == "stage1"}
    places = [(2, 2), *((a, b) for a in range(5) for b in range(5) if (a, b) != (2, 2))]
    with torch.no_grad():
        cut = [net.stage1(pixels[..., a : a + 12, b : b + 12].double() / 255 - 0.5).flatten(1) for a, b in places]
    error, cosine, random = by_shift(np.stack([one.numpy() for one in cut], 1))
    for (a, b), e, c in zip(places, error, cosine, strict=True):
        # the window at (a, b) is the image moved by (2 - a, 2 - b), at its place around the middle
        assert grids["crop_map"][4 - a, 4 - b] == pytest.approx(e, rel=1e-5, abs=1e-9)
        assert grids["crop_cosine"][4 - a, 4 - b] == pytest.approx(c, rel=1e-5)
    assert grids["crop_map"].argmin() == 12, "no shift in the middle"
    expected = {"invariance_error": error.mean(), "cosine": cosine.mean(), "cosine_random": random}
    assert {name: row.estimate.value for name, row in rows.items()} == pytest.approx(expected, rel=1e-9)
    assert {(row.protocol, row.amount, row.estimate.n) for row in rows.values()} == {("all_crops", 25, 5)}


def test_windows_are_sampled_if_even_few_images_cost_too_much():
    of = adapter(shaken(network((1, 12, 12))).double())
    found, note = rows(of, 8 * 10)
    assert {(row.protocol, row.amount, row.estimate.n) for row in found.values()} == {("sampled_crops", 9, 8)}
    why = "one by one: stage1.conv1 pads"
    assert note.startswith(f"9 of 81 windows, drawn at random, {why}")


def test_hooks_and_flags_are_restored():
    net = shaken(network((1, 12, 12), padding="valid", convs=1)).double().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    prepare(adapter(net), canvas((12, 12)), MARGIN)(canvas((12, 12)), every_shift(MARGIN))
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_memory_does_not_grow_over_a_hundred_runs():
    of, pixels = adapter(shaken(network((1, 12, 12), padding="valid", convs=1)).double()), canvas((12, 12))
    crops = prepare(of, pixels, MARGIN)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(value), Tensor) for value in gc.get_objects())

    crops(pixels, every_shift(MARGIN))
    before = tensors()
    for _ in range(100):
        crops(pixels, every_shift(MARGIN)[:9])
    assert tensors() == before
