"""Feature analysis: max-activating images by brute force, patches by gradients, Grad-CAM and shifts by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.inspection import feature_analysis
from src.inspection.channels import FACTS, ChannelFacts, ranking
from src.inspection.feature_analysis import SHIFT, analyze_features
from src.inspection.grad_cam import class_activation, resize_to_image, scale_to_one
from src.inspection.max_activating import max_activating, patch, patch_size, receptive_field
from src.metrics.channel_health import ChannelCorrelation, Health, duplicate_share
from src.metrics.class_selectivity import Selectivity, class_selectivity
from src.models import ARCHITECTURES
from src.models.tasks import Task
from src.nets.hooks import record_outputs
from src.results import files
from src.summary import Axis, ModelSummary, summarize
from src.transforms import TRANSFORMS
from tests.helpers import every_architecture, network, shared

SIDE, MARGIN = 15, 3
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
CROP, ROLL = TRANSFORMS["shift/crop"], TRANSFORMS["shift/roll"]


def pixels(x: Tensor) -> Tensor:
    return x.float() / 255 - 0.5


def evaluation_set(n: int, channels: int = 1, side: int = SIDE, labels: bool = True, seed: int = 0) -> EvaluationSet:
    generator = torch.Generator().manual_seed(seed)
    canvas = torch.randint(0, 256, (n, channels, side + 2 * MARGIN, side + 2 * MARGIN), generator=generator)
    return EvaluationSet(canvas.to(torch.uint8), MARGIN, torch.arange(n) % 4 if labels else None, batch=5)


def images_of(one: EvaluationSet) -> Tensor:
    return one.padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def looked(
    net: nn.Module, on: EvaluationSet, probe: EvaluationSet, channels: int = 3, **options: Any
) -> tuple[dict[str, np.ndarray], ModelAdapter, ModelSummary]:
    """The feature analysis of a net whose norms have statistics."""
    images = images_of(probe)
    summary = summarize(net, tuple(images.shape[1:]))  # type: ignore[arg-type]
    adapter = ModelAdapter(net, net.stages, pixels, **{k: v for k, v in options.items() if k != "transform"})
    return analyze_features(adapter, summary, on, probe, options.get("transform", CROP), channels), adapter, summary


def outputs_of(net: nn.Module, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    with record_outputs(net, names) as maps, torch.no_grad():
        net(x)
        return dict(maps)


# --- exemplars -------------------------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 9), st.integers(1, 3), st.sampled_from([(), (1, 1), (2, 3)]), st.integers(1, 4))
def test_max_activating_images_do_not_depend_on_the_batches(data, n, channels, places, batch):
    shape = (n, channels, *places)
    count = int(np.prod(shape))
    numbers = data.draw(st.lists(st.integers(-2, 2), min_size=count, max_size=count))  # few values: many ties
    outputs = torch.tensor(numbers).view(shape).float()
    parts = [max_activating(part, first=i * batch) for i, part in enumerate(outputs.split(batch))]
    found = parts[0]
    for part in parts[1:]:
        found = found.join(part).top()
    for channel in range(channels):
        each = outputs[:, channel].reshape(n, -1).tolist()
        wanted = sorted(((-max(one), i, one.index(max(one))) for i, one in enumerate(each)))[:4]
        kept = zip(found.values[channel], found.images[channel], found.positions[channel], strict=True)
        assert [(-value.item(), image.item(), place.item()) for value, image, place in kept] == wanted


CONVOLUTIONAL = [name for name in ARCHITECTURES if name not in ("mlp", "pixels", "pca", "hog", "hog_kernel")]
#: so that every pixel of a field counts
SMOOTH = {"pool": "avg", "activation": "gelu", "norm": "batch", "head": "gap"}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("axes", [{}, {"padding": "valid", "pool": "max"}, {"padding": "full", "pool": "blur"}])
def test_a_patch_holds_exactly_the_pixels_with_a_gradient(name, axes):
    side = 80
    depth = {} if name == "vgg" else shared(name, depth=2, convs=1)
    net = network((1, side, side), name=name, **SMOOTH | depth | axes).double().eval()
    summary = summarize(net, (1, side, side))
    numbers = 1 + np.mgrid[:side, :side].astype(np.uint8)  # every pixel bears its row and column
    x = torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    with record_outputs(net, net.stages) as maps:
        net(x)
    for stage in net.stages[:2]:
        layer = summary[stage]
        for place in ((0, 0), (layer.rows.size // 2, layer.columns.size // 2), (layer.rows.size - 1, 0)):
            cut = patch(numbers, layer.rows, layer.columns, place)
            (gradient,) = torch.autograd.grad(maps[stage][0, :, place[0], place[1]].sum(), x, retain_graph=True)
            moving = {(row + 1, column + 1) for row, column in gradient[0, 0].nonzero().tolist()}
            held = set(zip(*cut.reshape(2, -1).tolist(), strict=True)) - {(0, 0)}
            assert moving <= held
            if not axes:
                assert moving == held and layer.rows.receptive_field < side, "and every pixel of it moves the unit"


def test_a_patch_is_black_outside_the_image_and_a_wide_field_is_the_whole_image():
    image = np.full((3, 6, 8), 7, np.uint8)
    near = patch(image, Axis(6, receptive_field=3), Axis(8, receptive_field=3), (0, 7))
    assert near.shape == (3, 3, 3)
    np.testing.assert_array_equal(near[0], [[0, 0, 0], [7, 7, 0], [7, 7, 0]])
    assert patch(image, Axis(1, receptive_field=20, offset=3), Axis(8, receptive_field=3), (0, 4)).shape == (3, 6, 3)
    np.testing.assert_array_equal(patch(image, Axis(1, receptive_field=20), Axis(1, receptive_field=99), (0, 0)), image)
    assert not patch(image, Axis(9, receptive_field=2, offset=-9), Axis(8), (0, 0)).any(), (
        "a unit that sees padding alone"
    )


@every_architecture
@pytest.mark.parametrize("n", [3, 13])
def test_the_patches_of_a_net_are_its_strongest_units_patches(name, n):
    net = network((3, SIDE, SIDE), 4, name=name)
    on = evaluation_set(n, channels=3)
    found, adapter, summary = looked(net, on, evaluation_set(2, channels=3, seed=1))
    maps = outputs_of(net, pixels(images_of(on)), adapter.layers)
    for stage in adapter.layers:
        outputs = maps[stage].reshape(*maps[stage].shape[:2], -1)
        layer, patches = summary[stage], found[f"{stage}/patches"]
        sides = [patch_size(axis, SIDE) for axis in (layer.rows, layer.columns)]
        assert patches.shape == (min(3, layer.channels), min(4, n), 3, *sides) and patches.dtype == np.uint8
        np.testing.assert_array_equal(found[f"{stage}/patch_channels"], found[f"{stage}/order"][:3])
        for i, channel in enumerate(found[f"{stage}/patch_channels"]):
            strongest = outputs[:, channel].amax(1)
            order = np.argsort(-strongest.numpy(), kind="stable")[:4]
            np.testing.assert_allclose(found[f"{stage}/patch_values"][i], strongest[order], rtol=1e-4, atol=1e-5)
            if len(strongest.unique()) == n:  # else rounding says who is first
                for j, image in enumerate(order):
                    place = divmod(int(outputs[image, channel].argmax()), layer.columns.size)
                    wanted = patch(images_of(on)[image].numpy(), layer.rows, layer.columns, place)
                    np.testing.assert_array_equal(patches[i, j], wanted)


# --- facts of channels -----------------------------------------------------------------------------------------------


def fed(facts: ChannelFacts, outputs: Tensor, labels: Tensor | None, batch: int) -> Tensor:
    for start in range(0, len(outputs), batch):
        facts.update(outputs[start : start + batch], None if labels is None else labels[start : start + batch])
    return facts.compute()


@pytest.mark.parametrize("batch", [7, 60])
@pytest.mark.parametrize("places", [(), (1, 1), (5, 4)])
def test_channel_statistics_agree_with_the_metrics(places, batch):
    outputs = torch.randn(60, 6, *places)
    outputs[:, 1] = -outputs[:, 1].abs()  # dead
    outputs[:, 4] = outputs[:, 2] * 2
    outputs[:, 5] = outputs[:, 2] + 1e-3
    filters = torch.randn(6, 9)
    filters[4:] = filters[2] * 3
    labels = torch.arange(60) % 3 + 1  # no image of class 0
    facts = fed(ChannelFacts(5, filters), outputs, labels, batch)
    column = dict(zip(FACTS, facts.double().unbind(1), strict=True))
    flat = outputs.reshape(60, 6, -1)
    torch.testing.assert_close(column["fires"], (flat.amax(2) > 0).double().mean(0), check_dtype=False)
    torch.testing.assert_close(column["energy"], flat.square().mean((0, 2)).double(), **CLOSE)
    pooled = flat.relu().mean(2).double()
    torch.testing.assert_close(column["selectivity"], class_selectivity(pooled, labels), equal_nan=True, **CLOSE)
    means = torch.stack([pooled[labels == label].mean(0) for label in (1, 2, 3)])
    assert column["best_class"].tolist() == [
        -1 if channel == 1 else 1 + int(means[:, channel].argmax()) for channel in range(6)
    ]
    assert column["repeats"].tolist() == [-1, -1, -1, -1, 2, 2]
    # … and so their means are the rows of measures.csv
    health, selectivity, correlation = Health(), Selectivity(), ChannelCorrelation()
    health.update(outputs)
    selectivity.update(outputs, labels)
    correlation.update(outputs)
    assert (column["fires"] == 0).double().mean() == health.compute()["dead_share"]
    assert column["selectivity"].nanmean().item() == pytest.approx(
        selectivity.compute()["class_selectivity"].item(), abs=1e-6
    )
    assert (column["repeats"] >= 0).double().mean().item() == pytest.approx(
        duplicate_share(filters, correlation.compute())
    )


@pytest.mark.parametrize("labels", [None, torch.zeros(8, dtype=torch.long)])
def test_without_classes_there_is_no_selectivity(labels):
    facts = fed(ChannelFacts(0 if labels is None else 1), torch.rand(8, 3, 2, 2), labels, 8)
    assert facts[:, 1].isnan().all()
    assert (facts[:, 2:4] == -1).all()
    assert ranking(facts).tolist() == facts[:, 4].argsort(descending=True).tolist()


@given(st.lists(st.tuples(st.sampled_from([0, 0.5, 1]), st.sampled_from([0.1, 0.2, 0.3])), min_size=1, max_size=8))
def test_channels_are_ranked_by_selectivity_and_the_dead_come_last(channels):
    nan = float("nan")
    facts = torch.tensor([[fires, value if fires else nan, 0, -1, 1] for fires, value in channels])
    wanted = sorted(range(len(channels)), key=lambda i: (not channels[i][0], -channels[i][1] * bool(channels[i][0]), i))
    assert ranking(facts).tolist() == wanted


# --- class activation maps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_before_a_global_mean_is_zhous_cam(frozen):
    net = network((3, 16, 16), 5).requires_grad_(not frozen)
    x, classes = torch.randn(6, 3, 16, 16), torch.tensor([0, 1, 2, 3, 4, 0])
    flags = {module: module.training for module in net.modules()}
    found = class_activation(net, "stage2", x, classes)
    assert {module: module.training for module in net.modules()} == flags
    assert not any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in net.modules()
    )
    assert all(parameter.grad is None for parameter in net.parameters())
    maps = outputs_of(net, x, ["stage2"])["stage2"]
    weights = net.logits.weight.detach()[classes]
    closed = (weights[:, :, None, None] * maps).sum(1).relu()
    torch.testing.assert_close(found * maps[0, 0].numel(), closed, **CLOSE)
    assert closed.amax((1, 2)).gt(0).any(), "or this shows nothing"


def test_grad_cam_of_a_multitask_net_explains_its_classes():
    task = Task("both", 4)
    net = network((1, 16, 16), task.outputs)
    x, classes = torch.randn(5, 1, 16, 16), torch.tensor([0, 1, 2, 3, 3])
    torch.testing.assert_close(
        class_activation(net, "stage2", x, classes, task.answer), class_activation(net, "stage2", x, classes)
    )


@given(st.integers(1, 7), st.sampled_from([1, 2, 3, 4]))
def test_maps_that_tile_an_image_are_resized_bilinearly(size, jump):
    maps, axis = torch.rand(2, size, size), Axis(size, jump=jump, offset=jump / 2)
    side = size * jump
    wanted = F.interpolate(maps[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(resize_to_image(maps, axis, axis, (side, side)), wanted, **CLOSE)


def test_a_map_is_scaled_to_1_and_a_map_of_zeros_is_kept():
    found = scale_to_one(torch.stack([torch.zeros(2, 2), torch.tensor([[0.0, 2], [1, 4]])]))
    assert found.tolist() == [[[0, 0], [0, 0]], [[0, 0.5], [0.25, 1]]]


# --- all of it -------------------------------------------------------------------------------------------------------


@every_architecture
def test_every_architecture_can_be_analyzed(name):
    net = network((3, SIDE, SIDE), 4, name=name)
    probe = evaluation_set(2, channels=3, seed=1)
    found, adapter, summary = looked(net, evaluation_set(13, channels=3), probe)
    np.testing.assert_array_equal(found["images"], images_of(probe))
    assert found["labels"].tolist() == [0, 1] and found["shift"].tolist() == list(SHIFT)
    with torch.no_grad():
        answers = net.eval()(pixels(images_of(probe))).argmax(1)
    np.testing.assert_array_equal(found["answers"], answers)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert ("filters" in found) == bool(convolutions)
    if convolutions:
        np.testing.assert_array_equal(found["filters"], convolutions[0].weight.detach())
    assert ("cam" in found) == any(summary[stage].rows.size > 1 for stage in adapter.layers)
    if "cam" in found:
        assert found["cam"].shape == (2, SIDE, SIDE) and found["cam"].dtype == np.float16
        assert found["cam"].min() >= 0 and set(found["cam"].max((1, 2))) <= {0, 1}
        np.testing.assert_array_equal(found["cam_classes"], answers)
    for stage in adapter.layers:
        layer = summary[stage]
        channels, p, q = layer.shape
        assert found[f"{stage}/facts"].shape == (channels, len(FACTS))
        assert found[f"{stage}/facts"].dtype == found[f"{stage}/field"].dtype == np.float32
        assert sorted(found[f"{stage}/order"]) == list(range(channels))
        top, left, bottom, right = found[f"{stage}/field"]
        assert (bottom - top, right - left) == (layer.rows.receptive_field, layer.columns.receptive_field)
        assert ((top + bottom) / 2, (left + right) / 2) == tuple(
            sum(receptive_field(axis, axis.size // 2)) / 2 for axis in (layer.rows, layer.columns)
        )
        there = {key for key in ("still", "moved", "back") if f"{stage}/{key}" in found}
        assert there == ({"still", "moved", "back"} if p * q > 1 else {"still", "moved"})
        for key in there:
            assert found[f"{stage}/{key}"].shape == (2, min(3, channels), p, q)
            assert found[f"{stage}/{key}"].dtype == np.float16


def test_a_localisation_net_has_no_class_activation_map():
    task = Task("where", 4)
    net = network((1, SIDE, SIDE), task.outputs)
    on = evaluation_set(6, labels=False)
    found, _, _ = looked(
        net, on, replace(on, padded=on.padded[:1]), select_output=task.answer, classifies=task.classifies
    )
    assert not {"answers", "cam", "cam_classes"} & found.keys()
    assert found["labels"].tolist() == [-1]
    facts = found["stage1/facts"]
    assert np.isnan(facts[:, 1]).all() and (facts[:, 2] == -1).all()
    alive = [channel for channel in np.argsort(-facts[:, 4], kind="stable") if facts[channel, 0] > 0]
    assert found["stage1/order"][: len(alive)].tolist() == alive


def test_class_activation_is_of_the_last_stage_with_positions():
    net = network((1, 8, 8), 4, depth=3)
    assert [summarize(net, (1, 8, 8))[stage].rows.size for stage in net.stages] == [4, 2, 1]
    probe = evaluation_set(3, side=8)
    found, _, summary = looked(net, probe, probe)
    x = pixels(images_of(probe))
    maps = class_activation(net, "stage2", x, torch.from_numpy(found["answers"]))
    wanted = scale_to_one(resize_to_image(maps, summary["stage2"].rows, summary["stage2"].columns, (8, 8)))
    np.testing.assert_allclose(found["cam"], wanted, atol=1e-3)
    assert "stage3/back" not in found and found["stage3/moved"].shape == (3, 3, 1, 1)


def test_the_maps_are_of_the_images_and_of_the_same_images_shifted():
    net = network((1, SIDE, SIDE), 4)
    probe = evaluation_set(3)
    found, adapter, _ = looked(net, probe, probe)
    down, right = SHIFT
    rows, columns = (slice(MARGIN - step, MARGIN - step + SIDE) for step in (down, right))
    reference = outputs_of(net, pixels(images_of(probe)), adapter.layers)
    transformed = outputs_of(net, pixels(probe.padded[:, :, rows, columns]), adapter.layers)
    for stage in adapter.layers:
        np.testing.assert_allclose(found[f"{stage}/still"], reference[stage][:, :3], rtol=2e-3, atol=1e-3)
        difference = (transformed[stage] - reference[stage])[:, :3]
        np.testing.assert_allclose(found[f"{stage}/moved"], difference, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("axes", "transform"),
    [
        ({"padding": "valid", "pool": "none", "stride": 1}, CROP),  # no border, so nothing but the image moves its maps
        ({"padding": "circular", "pool": "none", "stride": 1}, ROLL),
        ({"padding": "valid", "pool": "max", "stride": 3, "depth": 1, "convs": 1}, CROP),  # one step of its map
    ],
)
def test_maps_of_an_equivariant_net_can_be_shifted_back(axes, transform):
    side = 14  # 12 behind a convolution, which a stride of 3 divides
    net = network((1, side, side), 4, **axes)
    found, adapter, summary = looked(
        net, evaluation_set(6, side=side), evaluation_set(3, side=side), transform=transform
    )
    for stage in adapter.layers:
        transformed, back = found[f"{stage}/moved"].astype(float), found[f"{stage}/back"]
        beyond = int(SHIFT[1] / summary[stage].columns.jump) if transform is CROP else 0
        assert np.isnan(back).sum(3).max() == np.isnan(back).sum(3).min() == beyond
        assert np.isnan(back[..., back.shape[3] - beyond :]).all(), "they come back from the right"
        assert np.abs(transformed).max() > 0.05, "it is not invariant"
        assert np.nanmax(np.abs(back)) < 5e-3, "but equivariant, to float16"


def test_a_net_with_stride_2_shows_an_equivariance_error():
    found, _, _ = looked(
        network((1, SIDE, SIDE), 4, padding="circular"), evaluation_set(6), evaluation_set(3), transform=ROLL
    )
    assert np.nanmax(np.abs(found["stage1/back"])) > 0.05


@pytest.mark.parametrize("room", [2**13, 2**15, 2**18])
@pytest.mark.parametrize("name", ["resnet", "mlp", "convnext"])
def test_the_file_stays_below_its_size_limit(name, room, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_analysis, "MAX_FILE_BYTES", room)
    monkeypatch.setattr(feature_analysis, "MAX_BYTES", room - room // 16)
    net = network((3, SIDE, SIDE), 4, name=name, width=32)
    found, adapter, _ = looked(net, evaluation_set(8, channels=3), evaluation_set(40, channels=3, seed=1), channels=500)
    files.write_arrays(tmp_path / "inside.npz", found)
    assert sum(one.nbytes for one in found.values()) <= room - room // 16
    if room >= 2**15:  # below, an .npz's own headers count
        assert (tmp_path / "inside.npz").stat().st_size <= room
    if room == 2**18:
        assert all(f"{stage}/patches" in found for stage in adapter.layers), "each stage has its share"
    read = files.read_arrays(tmp_path / "inside.npz")
    assert read.keys() == found.keys()
    assert all(np.array_equal(read[key], found[key], equal_nan=read[key].dtype.kind == "f") for key in read)


def test_a_missing_file_has_no_arrays(tmp_path: Path):
    assert files.read_arrays(tmp_path / "inside.npz") == {}
