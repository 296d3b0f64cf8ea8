"""Metamers against closed forms: layers whose null space is known, and rolls of nets that cannot see them."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.common.errors import UserError
from src.config import from_dict
from src.evaluation import inversion
from src.evaluation.adapter import OUTPUT, EvaluationSet, ModelAdapter
from src.evaluation.differences import band_energies, displacement_residuals, with_random_phases
from src.evaluation.families import MetamerOptions
from src.evaluation.families.metamers import against_rows, rows
from src.evaluation.inversion import LEAK, THRESHOLD, activations_of, match, median_distance, noise
from src.evaluation.suite import ALL
from src.evaluation.without_pools import without_pools
from src.metrics import Heatmap, Note, Pictures, Row
from src.pooling import POOLS
from src.pooling.windows import Max
from src.reporting.metamers import columns_of, metamer_pictures, write_slide
from src.reporting.variant import Variant
from src.results import files
from src.results.measures import family_of_row, read_beside, write_measures
from src.results.runs import FinishedRun
from tests.helpers import network

N, SIDE = 12, 8
IMAGES = torch.rand(N, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
STARTS = noise(N, (1, SIDE, SIDE), 0, 0)


def adapter(*layers: nn.Module, observed: str = "0") -> ModelAdapter:
    return ModelAdapter(nn.Sequential(*layers, nn.Flatten()).eval(), [observed], lambda pixels: pixels / 255)


def images(**options: object) -> EvaluationSet:
    padded = nn.functional.pad(IMAGES * 255, (1, 1, 1, 1))
    return EvaluationSet(padded, 1, metamers=MetamerOptions(**{"images": 8, "steps": 60} | options))  # type: ignore[arg-type]


def measured(of: ModelAdapter, **options: object) -> dict[tuple[str, str, str], Row]:
    found = [row for row in rows(of, images(**options)) if isinstance(row, Row)]
    named = {(row.layer, row.protocol, row.measure.removeprefix("metamer_")): row for row in found}
    assert len(named) == len(found), "each number has its own name"
    return named


def value(found: dict[tuple[str, str, str], Row], measure: str, protocol: str = "test", layer: str = "0") -> float:
    return found[layer, protocol, measure].estimate.value


# --- oracles ---------------------------------------------------------------------------------------------------------


def test_an_invertible_layer_gives_the_image_back() -> None:
    rotation = nn.Linear(SIDE**2, SIDE**2)
    nn.init.orthogonal_(rotation.weight, generator=torch.Generator().manual_seed(0))
    found = measured(adapter(nn.Flatten(), rotation, observed="1"), steps=150)
    assert value(found, "reached", layer="1") == 1
    for name in ("pixel_distance", "layer_distance"):
        assert value(found, name, layer="1") < THRESHOLD
    assert value(found, "spread", layer="1") < 2 * THRESHOLD
    assert value(found, "spread_null", layer="1") > 0.9, "starts are as far apart as images, which are noise here"


def test_a_global_average_keeps_the_mean_alone() -> None:
    of = adapter(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with activations_of(of, "0") as activations:
        targets, order = activations(IMAGES), torch.randperm(SIDE**2)
        permuted = IMAGES.flatten(1)[:, order].view_as(IMAGES)
        assert torch.allclose(activations(permuted), targets, atol=1e-6), "a permuted image is a metamer"
        scale = median_distance(targets)
        matched = match(activations, targets, STARTS, scale, 60)
    assert matched.reached.all()
    assert ((matched.images.mean((1, 2, 3)) - IMAGES.mean((1, 2, 3))).abs() < THRESHOLD * scale).all()
    found = measured(of)
    assert value(found, "pixel_distance") > 0.9, "as far as another image"
    assert value(found, "pixel_distance") == pytest.approx(value(found, "pixel_distance_null"), abs=0.15)


def test_a_linear_layer_gives_the_projection_of_the_start_by_plain_gradient_descent() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(SIDE**2, 10, bias=False)
    grey = 0.4 + 0.2 * STARTS  # so that no pixel is clamped
    targets = 0.4 + 0.2 * IMAGES
    _, _, basis = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    with activations_of(adapter(nn.Flatten(), layer, observed="1"), "1") as activations:
        descent = partial(torch.optim.SGD, lr=0.05)
        found = match(activations, activations(targets), grey, 1.0, 600, 0.002, descent).images.flatten(1)
        adam = match(activations, activations(targets), grey, 1.0, 600, 0.02, partial(torch.optim.Adam, lr=0.02))
    x0, x = grey.flatten(1), targets.flatten(1)
    projection = x0 + (x - x0) @ basis.T @ basis
    assert torch.allclose(found, projection, atol=0.01) and (projection - x0).abs().max() > 0.1
    for metamer in (found, adam.images.flatten(1)):
        assert ((metamer - x) @ basis.T).abs().max() < 0.1, "it differs from the image in the null space alone"
        assert (x0 - x).norm(dim=1).min() > 0.5
        assert (metamer - x).norm(dim=1).min() > 0.1


def test_rolls_are_metamers_of_a_net_that_cannot_see_them() -> None:
    torch.manual_seed(0)
    pool = POOLS["aps"]
    assert pool is not None
    layers = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), pool(stride=2, border="circular")
    of = adapter(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    rolled = IMAGES.roll((2, -4), (2, 3))
    for layer in ("3", "4", OUTPUT):
        with activations_of(of, layer) as activations, torch.no_grad():
            assert torch.allclose(activations(rolled), activations(IMAGES), atol=1e-6)
    with activations_of(of, "2") as activations, torch.no_grad():
        maps, of_rolled = (activations(x).view(N, 4, SIDE // 2, SIDE // 2) for x in (IMAGES, rolled))
        assert torch.allclose(of_rolled, maps.roll((1, -2), (2, 3)), atol=1e-6)
        assert not torch.allclose(of_rolled, maps, atol=1e-2)


def test_max_pooling_keeps_the_maximum_of_each_window_and_lets_the_others_go() -> None:
    found = measured(adapter(nn.MaxPool2d(2)), steps=150)
    assert value(found, "reached") == 1
    assert 0.3 < value(found, "pixel_distance") < value(found, "pixel_distance_null")
    assert value(found, "pixel_distance", "no_pools") < THRESHOLD, "without its pool the net is the identity"


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), Max(2, 2), Max(3, 2, border="circular")], ids=str
)
def test_gradients_reach_all_values_of_a_max_pool_and_activations_stay(pool: nn.Module) -> None:
    x = IMAGES[:, :, :7].clone().requires_grad_()
    plain = pool(x * 255 / 255).flatten(1)  # as the adapter rounds
    (through_winners,) = torch.autograd.grad(plain.sum(), x)
    with activations_of(adapter(pool), "0") as activations:
        leaky = activations(x, LEAK)
        (gradient,) = torch.autograd.grad(leaky.sum(), x)
    assert torch.equal(leaky, plain)
    one_hot = torch.eye(7 * SIDE).view(-1, 1, 7, SIDE)
    windows = pool(one_hot).flatten(1).sum(1).view(7, SIDE)  # that a pixel lies in
    assert torch.allclose(gradient, (1 - LEAK) * through_winners + LEAK * windows, atol=1e-5)
    assert (gradient > 0).equal((windows > 0).expand_as(gradient)) and (through_winners == 0).any()


class MaskedAndRaised(nn.Module):
    """Of each 2×2 window of pixels, one stays and the others are 0.5, whatever the image."""

    def forward(self, x: Tensor) -> Tensor:
        stays = torch.zeros(SIDE, SIDE)
        stays[::2, ::2] = 1
        return x * stays + 0.5 * (1 - stays)


def test_a_pixel_below_the_largest_of_its_window_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    of = adapter(MaskedAndRaised(), nn.MaxPool2d(2), observed="1")
    with activations_of(of, "1") as activations:
        targets, starts = activations(torch.full_like(IMAGES, 0.9)), torch.full_like(IMAGES, 0.2)
        found = match(activations, targets, starts, 1.0, 60)
        monkeypatch.setattr(inversion, "LEAK", 0.0)
        stuck = match(activations, targets, starts, 1.0, 60)
    assert found.reached.all() and torch.allclose(found.images[..., ::2, ::2], torch.tensor(0.9), atol=0.1)
    assert not stuck.reached.any() and torch.equal(stuck.images, starts), "its own gradient is 0"


# --- the optimisation ------------------------------------------------------------------------------------------------


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    torch.manual_seed(0)
    of = adapter(nn.Conv2d(1, 4, 3), nn.ReLU())
    with activations_of(of, "1") as activations:
        targets = activations(IMAGES).detach()
        together = match(activations, targets, STARTS, 5.0, 30)
        alone = match(activations, targets[3:4], STARTS[3:4], 5.0, 30)
    assert len(set(together.steps.tolist())) > 1 or not together.reached.all(), "some stop before others"
    assert torch.allclose(together.images[3:4], alone.images, atol=1e-4)
    assert together.steps[3] == alone.steps[0]


def test_an_optimisation_that_fails_is_seen_and_not_counted() -> None:
    found = measured(adapter(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), observed="1"), steps=1)
    assert value(found, "reached", layer="1") == 0
    assert value(found, "layer_distance", layer="1") > THRESHOLD
    row = found["1", "test", "pixel_distance"].estimate
    assert math.isnan(row.value) and row.n == 0
    (pictures,) = (one for one in rows(adapter(nn.MaxPool2d(2)), images(steps=1)) if isinstance(one, Pictures)
                   and one.layer == "0")  # fmt: skip
    (column,) = columns_of({"metamers/0": pictures.values, "metamers/0/distance": pictures.distance})
    assert column.words == "0 of 16"
    assert (column.shown == np.array([214, 39, 40])).all(2).any(), "it is crossed out"


def test_a_layer_that_is_constant_has_no_metamers() -> None:
    found = list(rows(adapter(nn.ReLU(), nn.Threshold(9, 0), observed="1"), images()))
    assert not any(isinstance(one, Row) for one in found)
    assert any(isinstance(one, Note) and "the same for all images" in one.words for one in found)


def test_noise_is_the_same_whatever_the_number_of_images() -> None:
    assert torch.equal(noise(3, (1, 4, 4), 5, 1), noise(8, (1, 4, 4), 5, 1)[:3])
    assert not torch.equal(noise(3, (1, 4, 4), 5, 1), noise(3, (1, 4, 4), 5, 2))


def test_nothing_is_left_behind() -> None:
    net = network((1, SIDE, SIDE), 4).train()
    of = ModelAdapter(net, [*net.stages, "features"], lambda pixels: pixels / 255)
    list(rows(of, images(steps=2)))
    assert net.training and all(parameter.requires_grad for parameter in net.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_layer_that_runs_twice_counts_as_it_ends() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.constant_(self.layer.weight, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)).mean((2, 3))

    with activations_of(ModelAdapter(Twice(), ["layer"], lambda pixels: pixels / 255), "layer") as activations:
        for _ in range(2):
            assert torch.allclose(activations(IMAGES), 4 * IMAGES.flatten(1))


# --- what differs ----------------------------------------------------------------------------------------------------


def test_the_energies_of_the_bands_add_up_to_that_of_the_difference() -> None:
    difference = torch.randn(5, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(band_energies(difference).sum(1), difference.square().sum(1).mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(("period", "band"), [(16, 0), (8, 1), (6, 1), (4, 2), (2, 2)])
def test_a_wave_is_counted_in_the_band_of_its_period(period: int, band: int) -> None:
    wave = torch.cos(2 * math.pi * torch.arange(48) / period).expand(1, 1, 48, 48)
    energies = band_energies(wave)[0]
    assert energies[band] == pytest.approx(float(energies.sum()), rel=1e-4)


def test_a_displacement_is_distinguished_from_other_differences() -> None:
    x = nn.functional.avg_pool2d(torch.rand(6, 1, 30, 30, generator=torch.Generator().manual_seed(0)), 5, 1)
    moved = x.roll((1, -2), (2, 3))

    def displaced(other: Tensor) -> float:
        best, still = displacement_residuals(x[..., 4:-4, 4:-4], other[..., 4:-4, 4:-4]).sum(0)
        return float(1 - best / still)

    assert displaced(moved) > 0.9
    assert displaced(x + with_random_phases(moved - x, 0)) < 0.7 < displaced(moved)


def test_random_phases_keep_the_spectrum() -> None:
    surrogate = with_random_phases(IMAGES, 0)
    assert torch.allclose(torch.fft.fft2(surrogate).abs(), torch.fft.fft2(IMAGES).abs(), atol=1e-4)
    assert torch.allclose(band_energies(surrogate), band_energies(IMAGES), atol=1e-5)


# --- as a family -----------------------------------------------------------------------------------------------------


def test_the_family_is_measured_only_if_it_is_named_and_owns_its_numbers() -> None:
    assert "metamers" not in ALL
    net = network((1, SIDE, SIDE), 4, pool="avg")
    of = ModelAdapter(net, [*net.stages, "features"], lambda pixels: pixels / 255)
    found = list(rows(of, images(steps=20)))
    for row in (one for one in found if isinstance(one, Row)):
        assert family_of_row(row) == "metamers"
        low, high = row.estimate.low, row.estimate.high
        assert math.isnan(low) or low <= row.estimate.value <= high
    pools = {row.layer for row in found if isinstance(row, Row) and row.measure == "null_space_energy"}
    assert pools == {"stage1.pool", "stage2.pool"}
    assert {one.layer for one in found if isinstance(one, Heatmap)} <= {*net.stages, "features"}


def test_white_noise_shows_the_share_of_dimensions() -> None:
    found = {
        row.measure: row.estimate for row in rows(adapter(nn.AvgPool2d(2)), images(steps=1)) if isinstance(row, Row)
    }
    assert found["null_space_energy_null"].value == pytest.approx(3 / 4, abs=0.05)
    within = IMAGES[:8] - nn.functional.interpolate(nn.functional.avg_pool2d(IMAGES[:8], 2), scale_factor=2)
    total = IMAGES[:8] - IMAGES[:8].mean((2, 3), keepdim=True)
    assert found["null_space_energy"].value == pytest.approx(
        float(within.square().sum() / total.square().sum()), abs=1e-3
    )


def test_a_net_recognises_its_own_metamers_and_another_that_is_blind_all_images() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 5))
    of = ModelAdapter(net, ["1"], lambda pixels: pixels / 255)
    found = list(rows(of, images(steps=150)))
    pictures = {f"metamers/{one.layer}": one.values for one in found if isinstance(one, Pictures)}
    pictures |= {f"metamers/{one.layer}/distance": one.distance for one in found if isinstance(one, Pictures)}

    def recognised(adapter: ModelAdapter) -> list[float]:
        return [row.estimate.value for row in against_rows(pictures, adapter, images().seed)]

    own = {row.measure: row.estimate.value for row in found if isinstance(row, Row)}
    expected = [own["metamer_recognised"], own["metamer_recognised_null"]]
    assert recognised(of) == pytest.approx(expected, abs=0.07), "but for the rounding of pixels"
    blind = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 5))
    nn.init.zeros_(blind[1].weight)
    assert recognised(replace(of, net=blind)) == [1, 1]
    assert not list(against_rows({}, of, images().seed))


@pytest.mark.parametrize(("name", "said"), [("stage9", "no such layer"), ("", "no such layer")])
def test_a_layer_that_the_net_lacks_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"^measure\.metamer_layers={name}: {said}; choose among .*output$"):
        next(rows(adapter(nn.MaxPool2d(2)), images(layers=(name,))))


@pytest.mark.parametrize("key", ["images", "starts", "steps"])
def test_sizes_below_one_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"^measure\.metamer_{key}=0: must be a whole number of at least 1, "):
        from_dict({"measure": {f"metamer_{key}": 0}})


def test_a_net_without_pools_has_no_control() -> None:
    assert without_pools(nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.AdaptiveAvgPool2d(1))) is None
    found = list(rows(adapter(nn.Conv2d(1, 2, 3, stride=2)), images(steps=1)))
    assert not [one for one in found if isinstance(one, Row) and one.protocol == "no_pools"]
    assert any(isinstance(one, Note) and one.measure == "metamer_control" for one in found)


# --- pictures --------------------------------------------------------------------------------------------------------


def finished(folder: Path) -> FinishedRun:
    of = adapter(nn.MaxPool2d(2), nn.AvgPool2d(2))
    write_measures(folder / "measures.csv", rows(replace(of, layers=["0", "1"]), images()))
    return FinishedRun(folder, {"seed": 0})


def test_pictures_are_kept_and_drawn(tmp_path: Path) -> None:
    run = finished(tmp_path)
    assert {*run.pictures} == {f"metamers/{name}{end}" for name in ("image", "0", "1") for end in ("", "/distance")}
    assert run.pictures["metamers/0"].shape == (8, 2, 1, SIDE, SIDE)
    assert np.abs(run.pictures["metamers/image"][:, 0] / 255 - IMAGES[:8].numpy()).max() < 1 / 255
    path = write_slide(tmp_path / "metamers.svg", {"max & avg": run.pictures})
    assert path is not None
    root = ElementTree.fromstring(path.read_text())
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "max & avg" in words and "16 of 16 reached" in words
    assert sum(element.tag.endswith("image") for element in root.iter()) == 3
    figure = metamer_pictures([Variant("net", {}, [run])])
    assert [trace.type for trace in figure.data] == ["image"] * 3


def test_a_run_without_metamers_has_no_slide(tmp_path: Path) -> None:
    write_measures(tmp_path / "measures.csv", [])
    assert read_beside(tmp_path / "measures.csv", files.PICTURES) == {}
    assert write_slide(tmp_path / "metamers.svg", {"net": {}}) is None and not (tmp_path / "metamers.svg").exists()
    assert not metamer_pictures([Variant("net", {}, [FinishedRun(tmp_path, {"seed": 0})])]).data


def test_pictures_of_a_table_that_is_written_again_are_replaced(tmp_path: Path) -> None:
    run = finished(tmp_path)
    write_measures(tmp_path / "measures.csv", [], ["shift"])
    assert read_beside(tmp_path / "measures.csv", files.PICTURES).keys() == run.pictures.keys()
    write_measures(tmp_path / "measures.csv", [], ["metamers"])
    assert not read_beside(tmp_path / "measures.csv", files.PICTURES)
