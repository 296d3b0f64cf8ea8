"""All transforms in one pass: with an identity, an equivariant and a constant net, and without side effects."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.data.splits import split
from src.evaluation.adapter import EvaluationSet, ModelAdapter, sampling_grids
from src.evaluation.pairs import FEWER_IMAGES, OUTPUT, _update_equivariance, every_metric, pair_rows, settings
from src.metrics import EquivarianceError, Row
from src.metrics.layer_outputs import LayerOutputs, TransformedOutputs
from src.pooling import POOLS
from src.summary import summarize
from src.training import evaluate_run
from src.training.lightning_module import module
from src.transforms import TRANSFORMS, SamplingGrid, crop_margin
from tests.helpers import network, only_rows, tiny

SIDE, MARGIN = 12, 4
MOVING = [name for name, one in TRANSFORMS.items() if one.is_spatial]
every_transform = pytest.mark.parametrize("name", TRANSFORMS)
every_motion = pytest.mark.parametrize("name", MOVING)


def smooth(n: int, side: int) -> Tensor:
    """Images of which interpolation leaves most."""
    noise = torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(0))
    blurred = F.avg_pool2d(F.pad(noise, (2,) * 4, mode="circular"), 5, 1)
    return (128 + 250 * blurred).clamp(0, 255).to(torch.uint8)


def evaluation_set(n: int = 10, batch: int = 125, labels: bool = True, seed: int = 0) -> EvaluationSet:
    return EvaluationSet(
        smooth(n, SIDE + 2 * MARGIN), MARGIN, torch.arange(n) % 3 if labels else None, seed=seed, batch=batch
    )


def pixels(x: Tensor) -> Tensor:
    return x.double() / 255


class Same(nn.Module):
    """Its maps are the pixels."""

    def __init__(self, jump: int = 1) -> None:
        super().__init__()
        self.maps = nn.AvgPool2d(jump) if jump > 1 else nn.Identity()
        self.read = nn.Linear((SIDE // jump) ** 2, 3, bias=False).double()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            nn.init.normal_(self.read.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.maps(x).flatten(1))


class Blind(nn.Module):
    """Answers by what it has learned alone; its maps have the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.weight = nn.Identity(), nn.Parameter(torch.randn(3).double())

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(len(x), 3) + 0 * self.maps(torch.ones_like(x)).mean()


def taken(net: nn.Module, name: str, on: EvaluationSet | None = None, layers: tuple[str, ...] = ("maps",)) -> list[Row]:
    return only_rows(pair_rows(ModelAdapter(net, list(layers), pixels), on or evaluation_set(), [name]))


def values(rows: list[Row], measure: str, layer: str = "maps") -> dict[float, float]:
    """By amount."""
    return {row.amount: row.estimate.value for row in rows if (row.layer, row.measure) == (layer, measure)}


@pytest.mark.parametrize("name", ["flip/mirror", "rotate/quarter"])
@pytest.mark.parametrize(("side", "stages"), [(12, 1), (12, 2), (13, 1), (14, 2), (16, 3)])
@pytest.mark.parametrize("border", ["circular", "clip"])
def test_a_symmetric_filter_is_equivariant_to_mirrors_and_turns_on_its_own_grid(name, side, stages, border):
    """Three taps with stride 2 on an even map: the grid's middle is half a pixel beside the image's, and more below."""
    net = nn.Sequential()
    for stage in range(stages):
        net.add_module(f"pool{stage}", POOLS["blur"](3, 2, border=border))
    net.add_module("read", nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))
    net = net.double()
    net(torch.zeros(1, 1, side, side).double())
    layers = [f"pool{stage}" for stage in range(stages)]
    adapter = ModelAdapter(net, layers, pixels, grids=sampling_grids(net, (1, side, side), layers))
    assert any(grid.center_offset((-(-side // 2),) * 2) != (0, 0) for grid in adapter.grids.values()) or side % 2
    on = EvaluationSet(smooth(10, side + 2 * MARGIN), MARGIN)
    rows = [row for row in pair_rows(adapter, on, [name]) if row.measure.startswith("equivariance")]
    assert {row.layer for row in rows} >= {*layers[:-1], layers[0]}
    for row in rows:
        if side % 2**stages == 0 or border == "clip" or stages == 1:
            assert math.isnan(row.estimate.value) or row.estimate.value < 1e-6, row


@pytest.mark.parametrize("shape", [(20, 13), (15, 22)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 3), (4, 2)])
def test_images_that_are_not_square_are_mirrored_exactly_too(shape, kernel, stride):
    """Only (down - right) of a quarter turn has to be whole; a mirror leaves rows as they are."""
    net = nn.Sequential(nn.Conv2d(1, 1, kernel, stride, bias=False), nn.Flatten(), nn.LazyLinear(3)).double()
    net(torch.zeros(1, 1, *shape).double())
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight + net[0].weight.flip(3))
    canvas = torch.randint(256, (8, 1, shape[0] + 8, shape[1] + 8), generator=torch.Generator().manual_seed(0))
    adapter = ModelAdapter(net, ["0"], pixels, grids=sampling_grids(net, (1, *shape), ["0"]))
    rows = pair_rows(adapter, EvaluationSet(canvas.to(torch.uint8), MARGIN), ["flip/mirror"])
    (error,) = (row.estimate.value for row in rows if row.measure == "equivariance_error")
    assert error < 1e-6


def test_a_wrong_grid_shows_a_spurious_equivariance_error():
    net = nn.Sequential(POOLS["blur"](3, 2, border="circular"), nn.Flatten(), nn.Linear(36, 3)).double()
    on = EvaluationSet(smooth(10, 12 + 2 * MARGIN), MARGIN)
    for grids, exact in (({}, False), (sampling_grids(net, (1, 12, 12), ["0"]), True)):
        rows = pair_rows(ModelAdapter(net, ["0"], pixels, grids=grids), on, ["flip/mirror"])
        (error,) = (row.estimate.value for row in rows if row.measure == "equivariance_error")
        assert (error < 1e-6) == exact


# --- nets of which all is known --------------------------------------------------------------------------------------


@every_motion
@pytest.mark.parametrize("jump", [1, 2])
def test_a_net_that_averages_pixels_is_its_own_floor(name, jump):
    rows = taken(Same(jump), name)
    error, floor = (values(rows, f"equivariance_{one}") for one in ("error", "floor"))
    assert error
    assert list(error.values()) == pytest.approx(list(floor.values()), rel=1e-5, abs=1e-6)


@every_motion
@pytest.mark.parametrize("jump", [1, 2])
def test_the_floor_is_0_where_a_motion_takes_the_layers_grid_onto_itself(name, jump):
    exact = jump == 1 or name in ("rotate/quarter", "flip/mirror")
    floor = values(taken(Same(jump), name), "equivariance_floor")
    assert (max(floor.values()) < 1e-5) == exact


@pytest.mark.parametrize("pool", ["max", "blur"])
def test_an_equivariant_net_has_error_0_only_for_multiples_of_its_stride(pool):
    net = network((1, SIDE, SIDE), 3, pool=pool, padding="circular", depth=1).double()
    error = values(taken(net, "shift/roll", layers=("stage1",)), "equivariance_error", "stage1")
    on = settings(evaluation_set(), ["shift/roll"])
    assert list(error) == [1, 2, 3, 4]
    for setting in on:  # both coordinates of a shift must be whole steps
        whole = (setting.parameters % 2 == 0).all()
        assert not whole or error[setting.amount] < 1e-7
    assert min(error[1], error[3]) > 0.01


def test_a_maps_grid_counts_its_borders():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    one, on = TRANSFORMS["shift/crop"], evaluation_set()
    steps = 2 * torch.randint(-1, 2, (len(on.padded), 2))
    images = one.images(on.padded, steps, MARGIN)
    maps, transformed = (net[0](pixels(x)).detach() for x in (crop_margin(on.padded, MARGIN), images))
    found = {}
    image, size = (SIDE, SIDE), (maps.shape[2], maps.shape[3])
    grids = {"even": SamplingGrid.even(image, size), "ledger": SamplingGrid(image, (2.0, 2.0), (1.5, 1.5))}
    for name, grid in grids.items():
        measure = EquivarianceError()
        both, pair = (crop_margin(on.padded, MARGIN), images), TransformedOutputs(LayerOutputs(maps), transformed)
        _update_equivariance(one, steps, "maps", measure, grid, both, None, "maps", pair)
        found[name] = measure.compute()["equivariance_error"].item()
    assert found["ledger"] < 1e-9
    assert found["even"] > 0.01, "the image over the map is more than 2 pixels"


def test_grids_of_a_run_are_those_of_its_model_summary():
    """28 → 14 → 7 → 4 in a default run: the third stage's outputs are 8 pixels apart, not 28 / 4."""
    cfg = tiny(model={"stride": 3})
    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes))
    seen = {}

    def look(adapter, *_):
        seen.update(adapter.grids)
        return iter(())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_run, "evaluate_families", look)
        list(evaluate_run.measure(net, cfg, splits))
    rows = {name: summarize(net, splits.image)[name].rows for name in net.stages}
    assert {name: one.jump for name, one in seen.items()} == {name: (one.jump, one.jump) for name, one in rows.items()}
    assert {name: one.offset for name, one in seen.items()} == {
        name: (one.offset, one.offset) for name, one in rows.items()
    }
    assert any(row.jump != splits.image[1] / row.size for row in rows.values()), "else the ratio would d"


def test_maps_of_an_equivariant_net_roll_with_the_image():
    net = network((1, SIDE, SIDE), 3, pool="max", padding="circular", depth=1).double()
    one = TRANSFORMS["shift/roll"]
    with torch.no_grad():
        x = pixels(crop_margin(evaluation_set().padded, MARGIN))
        steps = 2 * torch.randint(-3, 4, (len(x), 2))
        maps, transformed = net.eval().stage1(x), net.stage1(pixels(one.images(evaluation_set().padded, steps, MARGIN)))
    torch.testing.assert_close(transformed, one.maps(maps, steps, 2))


@pytest.mark.parametrize("name", ["rotate/quarter", "flip/mirror"])
def test_a_pointwise_net_is_exactly_equivariant(name):
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    rows = taken(net, name, layers=("1",))
    assert max(values(rows, "equivariance_error", "1").values()) < 1e-12
    assert max(values(rows, "output_distance", OUTPUT).values()) < 1e-12


@every_transform
def test_a_constant_net_is_invariant(name):
    rows = taken(Blind(), name)
    found = [row for row in rows if row.layer == OUTPUT]
    assert {row.estimate.value for row in found if row.measure == "consistency"} == {1}
    assert all(math.isnan(row.estimate.value) for row in found if row.measure.startswith("output_distance"))
    assert set(values(rows, "equivariance_error").values()) <= {0} or not TRANSFORMS[name].is_spatial or max(
        values(rows, "equivariance_error").values()
    ) < 1e-6  # fmt: skip


@every_transform
def test_every_transform_has_rows_of_all_measures(name):
    one, rows = TRANSFORMS[name], taken(Same(), name)
    amounts = [amount for amount in one.amounts if one.name != "shift" or amount <= MARGIN]
    assert {(row.transform, row.protocol) for row in rows} == {(one.name, one.protocol)}
    fresh = every_metric(ModelAdapter(Same(), ["maps"], pixels), evaluation_set())
    for amount in amounts:
        names = [row.measure for row in rows if row.amount == amount]
        assert len({row.values()[:5] for row in rows if row.amount == amount}) == len(names)
        assert "invariance_error" in names
        assert "output_distance" in names
        assert ("equivariance_error" in names) == one.is_spatial
        assert len(fresh(OUTPUT)) >= 2
        assert len(fresh("maps")) >= 2
    assert {row.amount for row in rows} == set(amounts)
    assert {row.estimate.n for row in rows} == {10}
    for row in rows:
        value, low, high = row.estimate.value, row.estimate.low, row.estimate.high
        assert math.isnan(value) or math.isnan(low) or low <= value <= high
        assert not math.isnan(low) or math.isnan(value) or row.measure == "constant_channels"


@every_transform
def test_only_transforms_that_interpolate_have_a_floor(name):
    one = TRANSFORMS[name]
    floors = {"output_distance_floor", "invariance_error_floor"}
    found = {row.measure for row in taken(Same(), name)} & floors
    interpolates = one.disc or name == "subpixel/fourier"
    assert found == (floors if interpolates else set())


def test_the_floor_is_the_error_of_the_round_trip():
    rows, on = taken(Same(), "scale/disc"), evaluation_set()
    one = TRANSFORMS["scale/disc"]
    for setting in settings(on, ["scale/disc"]):
        reference = one.reference(on.padded, MARGIN)
        back = one.reference(one.round_trip(on.padded, setting.parameters).clamp(0, 255), MARGIN)
        x, y = (pixels(part).flatten(1) for part in (reference, back))
        others = 2 * x.var(0).sum()
        expected = (x - y).square().sum(1).mean() / others
        assert values(rows, "invariance_error_floor")[setting.amount] == pytest.approx(expected.item(), rel=1e-6)
        assert 0 < expected < values(rows, "invariance_error")[setting.amount]


def test_another_image_instead_of_the_transformed_one_is_about_1():
    """The shuffled control: a transform that puts the next image there."""
    on = evaluation_set(300)

    class Next(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.calls, self.weight = nn.Identity(), 0, nn.Parameter(torch.ones(1).double())

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.maps(x if self.calls % 2 else x.roll(1, 0)).flatten(1)

    on = EvaluationSet(on.padded, MARGIN, on.labels, batch=300)
    rows = [
        row for row in pair_rows(ModelAdapter(Next(), ["maps"], pixels), on, ["flip/mirror"])
        if row.measure in ("invariance_error", "output_distance")
    ]  # fmt: skip
    assert len(rows) == 2
    for row in rows:
        assert row.estimate.value == pytest.approx(1, abs=0.1)


# --- parameters ------------------------------------------------------------------------------------------------------


@every_transform
def test_parameters_do_not_depend_on_other_settings(name):
    one = {(s.transform.name, s.amount): s.parameters for s in settings(evaluation_set(), [name])}
    all_of_them = settings(evaluation_set(), list(TRANSFORMS))
    chosen = [s for s in all_of_them if s.transform is TRANSFORMS[name]]
    assert len(chosen) == len(one)
    for setting in chosen:
        assert torch.equal(setting.parameters, one[setting.transform.name, setting.amount])
    for setting, only in zip(chosen, [settings(evaluation_set(), [name], [s.amount]) for s in chosen], strict=True):
        assert torch.equal(only[0].parameters, setting.parameters)


@pytest.mark.parametrize("name", ["shift/crop", "rotate/disc", "noise/gaussian", "erase/mean"])
def test_every_image_has_its_own_parameters_by_the_seed(name):
    first, same, other = (settings(evaluation_set(60, seed=seed), [name])[0].parameters for seed in (0, 0, 1))
    assert len(first) == 60
    assert len(first.unique(dim=0)) > 1
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@every_transform
def test_batches_change_no_image(name):
    """Only the other images of a batch differ, so metrics without a population are the same."""
    whole, parts = (taken(Same(), name, evaluation_set(11, batch)) for batch in (11, 4))
    for measure, layer in (("consistency", OUTPUT), ("equivariance_error", "maps"), ("fidelity", OUTPUT)):
        one, other = (values(rows, measure, layer) for rows in (whole, parts))
        assert list(one.values()) == pytest.approx(list(other.values()), rel=1e-9, abs=1e-9)


def test_a_shift_beyond_the_margin_is_left_out():
    assert [s.amount for s in settings(evaluation_set(), ["shift/crop"])] == [1, 2, 3, 4]
    assert [s.amount for s in settings(evaluation_set(), ["shift/crop"], [2.0, 7.0])] == [2]


def test_equivariance_and_floors_are_taken_on_the_first_images():
    rows = taken(Same(), "subpixel/fourier", evaluation_set(FEWER_IMAGES + 60, batch=50))
    found = {row.measure: row.estimate for row in rows}
    for one in ("equivariance_error", "invariance_error_floor"):
        assert FEWER_IMAGES <= found[one].n < FEWER_IMAGES + 60
    assert found["invariance_error"].n == FEWER_IMAGES + 60
    assert found["equivariance_error"].low <= found["equivariance_error"].value <= found["equivariance_error"].high


def test_without_labels_metrics_that_need_them_are_left_out():
    measures = {row.measure for row in taken(Same(), "flip/mirror", evaluation_set(labels=False))}
    assert "consistency" in measures
    assert "fidelity" not in measures


# --- what it leaves --------------------------------------------------------------------------------------------------


class Breaks(Same):
    """At the n-th forward pass."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise ZeroDivisionError
        return super().forward(self.dropout(x))


def state(net: nn.Module) -> list[tuple[bool, int]]:
    return [(module.training, len(module._forward_hooks)) for module in net.modules()]


@pytest.mark.parametrize("at", [0, 1, 2, 5])
def test_hooks_and_flags_are_as_before_after_an_exception(at):
    net = Breaks(at).train()
    net.read.eval()
    before = state(net)
    with pytest.raises(ZeroDivisionError):
        taken(net, "rotate/disc")
    assert state(net) == before


def test_hooks_and_flags_are_restored_also_if_only_half_of_the_rows_are_read():
    net = Breaks(1000).train()
    net.read.eval()
    before = state(net)
    taken(net, "flip/mirror")
    assert state(net) == before
    next(iter(pair_rows(ModelAdapter(net, ["maps"], pixels), evaluation_set(), ["flip/mirror"])))
    gc.collect()
    assert state(net) == before


def most_at_once(n: int) -> int:
    """How many batches of images live while the net runs, whatever refers to them; a layer's maps are the same."""

    class Looks(Same):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[weakref.ref[Tensor]] = []
            self.most = 0

        def forward(self, x: Tensor) -> Tensor:
            self.seen = [one for one in self.seen if one() is not None] + [weakref.ref(x)]
            self.most = max(self.most, len(self.seen))
            return super().forward(x)

    net = Looks().eval()
    names = ["flip/mirror", "rotate/disc", "brightness/offset"]
    list(pair_rows(ModelAdapter(net, ["maps"], pixels), evaluation_set(n, batch=5), names))
    return net.most


def test_memory_does_not_depend_on_the_number_of_images():
    assert most_at_once(15) == most_at_once(60) <= 5  # in place, the same on a disc, moved, and there and back


def test_rows_are_the_same_each_time():
    one, same = ([row.values() for row in taken(Same(), "noise/gaussian")] for _ in range(2))
    np.testing.assert_equal(one, same)
