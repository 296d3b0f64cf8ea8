"""All families at once: rows are those of each metric alone, have unique names, and hooks are removed."""

import gc
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.config import MEASURE_NAMES, MEASURES
from src.data.splits import split
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.families import ON_REQUEST, MetamerOptions
from src.evaluation.families.layers import against_rows
from src.evaluation.families.layers import rows as capture_rows
from src.evaluation.suite import FAMILIES, TRANSFORMS_OF, evaluate_families
from src.metrics import Heatmap, Note, Row
from src.metrics.base import layer_measures
from src.metrics.cka import CKAMatrix
from src.models import ARCHITECTURES
from src.models.layers import ACTIVATIONS, HEADS, NORMS, PADDINGS
from src.nets.hooks import record_outputs
from src.pooling import POOLS
from src.stats.bootstrap import bootstrap_weights
from src.training.evaluate_run import adapter_of_run, evaluation_set, measure
from src.training.lightning_module import module
from src.training.untrained import untrained
from src.transforms import TABLE, TRANSFORMS
from tests.helpers import network, only_rows, tiny

SIDE, MARGIN, N = 12, 2, 44
EVERYTHING = [*TRANSFORMS_OF, *FAMILIES]


def pixels(x: Tensor) -> Tensor:
    return x.float() / 255 - 0.5


def images_to_measure(n: int = N, labels: bool = True, positions: bool = False) -> EvaluationSet:
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(0, 256, (n, 1, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), generator=generator).to(torch.uint8)
    where = torch.rand(n, 2, generator=generator) if positions else None
    known = torch.arange(n) % 4 if labels else None
    sizes = torch.linspace(0.1, 0.2, n)
    sought = MetamerOptions(images=2, starts=2, steps=5)  # what they show has its own tests
    return EvaluationSet(canvas, MARGIN, known, where, batch=15, sizes=sizes, size_range=(0.1, 0.2), metamers=sought)


def adapter(**axes: object) -> ModelAdapter:
    net = network((1, SIDE, SIDE), 4, **axes)
    return ModelAdapter(net, [*net.stages, "features"], pixels)


def key(row: Row) -> tuple[object, ...]:
    return row.values()[:5]


# --- the layers as they are ------------------------------------------------------------------------------------------


def captured(of: ModelAdapter, on: EvaluationSet) -> dict[tuple[str, str], Row]:
    return {(row.layer, row.measure): row for row in capture_rows(of, on) if row.measure != "cka"}


def test_every_layer_metric_gives_what_it_gives_alone():
    of, on = adapter(), images_to_measure()
    found, checked = captured(of, on), 0
    x = pixels(on.padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN])
    with record_outputs(of.net, of.layers) as maps, torch.no_grad():
        of.net(x)
        kept = dict(maps)
    for kind in layer_measures():
        for layer in of.layers:
            if kind.of_maps and kept[layer].dim() != 4:
                assert not any((layer, name) in found for name in ("morans_i",))
                continue
            one = kind()
            for index in on.batches():
                one.update(kept[layer][index], on.labels[index], x[index])
            for name, estimate in one.estimates(bootstrap_weights(N, on.seed)):
                row = found[layer, name].estimate
                np.testing.assert_allclose(
                    [row.value, row.low, row.high], [estimate.value, estimate.low, estimate.high], rtol=1e-3, atol=1e-5
                )
                assert row.n == estimate.n
                checked += 1
    assert checked > 10


def test_similarities_are_the_matrix_alone():
    of, on = adapter(), images_to_measure()
    x = pixels(on.padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN])
    alone = CKAMatrix()
    with record_outputs(of.net, of.layers) as maps, torch.no_grad():
        for index in on.batches():
            of.net(x[index])
            alone.update([maps[layer] for layer in of.layers])
    values = alone.compute().view(len(of.layers), -1)
    found = {(row.layer, row.protocol): row.estimate.value for row in capture_rows(of, on) if row.measure == "cka"}
    assert len(found) == 3
    for (one, other), value in found.items():
        assert value == pytest.approx(values[of.layers.index(one), of.layers.index(other)].item(), abs=1e-5)


def test_a_net_against_another_is_the_matrix_of_both():
    one, on = adapter(), images_to_measure()
    other = replace(adapter(pool="avg", depth=3), normalise=lambda x: pixels(x) * 2)
    x = pixels(on.padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN])
    alone = CKAMatrix()
    with (
        record_outputs(one.net, one.layers) as ours,
        record_outputs(other.net, other.layers) as theirs,
        torch.no_grad(),
    ):
        for index in on.batches():
            one.net(x[index]), other.net(2 * x[index])
            alone.update([ours[layer] for layer in one.layers], [theirs[layer] for layer in other.layers])
    values, found = alone.compute().flatten().tolist(), list(against_rows(one, other, on))
    assert [(row.layer, row.protocol) for row in found] == [(a, b) for a in one.layers for b in other.layers]
    assert [row.estimate.value for row in found] == pytest.approx(values, abs=1e-5)


def test_cka_with_itself_is_1_on_the_diagonal_and_symmetric():
    of = adapter()
    found = {
        (row.layer, row.protocol): row.estimate for row in against_rows(of, of, replace(images_to_measure(), batch=8))
    }
    within = {
        (row.layer, row.protocol): row.estimate.value
        for row in capture_rows(of, images_to_measure())
        if row.measure == "cka"
    }
    assert len(found) == 9 and len(within) == 3
    for (a, b), estimate in found.items():
        assert estimate.value == pytest.approx(found[b, a].value, abs=1e-5)
        assert estimate.low <= estimate.value <= estimate.high, "six batches give an interval"
        if a == b:
            assert estimate.value == pytest.approx(1, abs=1e-6)


def test_too_few_images_give_no_probes_and_no_similarities():
    measures = {row.measure for row in capture_rows(adapter(), images_to_measure(20))}
    assert "cka" not in measures
    assert not any("probe" in name for name in measures)
    assert "cka" in {row.measure for row in capture_rows(adapter(), images_to_measure())}


# --- the whole suite -------------------------------------------------------------------------------------------------


def test_what_can_be_measured_is_what_the_config_can_name():
    assert set(FAMILIES) | set(TRANSFORMS_OF) == {*MEASURES, *ON_REQUEST, "embed"} == set(MEASURE_NAMES)
    assert not set(MEASURES) & set(ON_REQUEST), "these are measured when they are named"
    assert len(MEASURE_NAMES) == len(set(MEASURE_NAMES)) and set(ON_REQUEST) <= set(FAMILIES)
    assert not set(FAMILIES) & set(TRANSFORMS_OF)
    assert sorted(name for names in TRANSFORMS_OF.values() for name in names) == sorted(TRANSFORMS)


def sound(found: list[Row]) -> None:
    """Each row has its own name, and an interval that holds its number."""
    assert max(Counter(map(key, found)).values()) == 1
    for row in found:
        one = row.estimate
        if math.isfinite(one.value) and math.isfinite(one.low):
            assert one.low <= one.value <= one.high, row
        assert math.isnan(one.low) == math.isnan(one.high)
        # of metamers none may have been found
        assert one.n >= 1 or (row.measure.startswith("metamer_") and math.isnan(one.value) and one.n == 0)


@pytest.mark.parametrize("axes", [{"padding": "circular"}, {"pool": "none", "head": "flatten"}], ids=["gap", "flatten"])
def test_every_row_has_its_own_name_and_an_interval_that_holds_its_number(axes):
    of = adapter(**axes)
    before = [module.training for module in of.net.modules()]
    found = list(evaluate_families(of, images_to_measure(), EVERYTHING))
    sound(only_rows(found))
    grids = [(one.layer, one.measure) for one in found if isinstance(one, Heatmap)]
    assert len(set(grids)) == len(grids) > 3
    assert {row.transform for row in only_rows(found)} >= {transform.name for transform in TRANSFORMS.values()} | {
        "velocity",
        "none",
    }
    assert [module.training for module in of.net.modules()] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in of.net.modules())
    assert all(parameter.grad is None for parameter in of.net.parameters())


@pytest.mark.parametrize("family", EVERYTHING)
def test_a_family_alone_gives_what_it_gives_with_the_others(family):
    of, on = adapter(padding="circular"), images_to_measure(N)
    alone = [row.values() for row in only_rows(evaluate_families(of, on, [family]))]
    assert alone
    whole = [row.values() for row in only_rows(evaluate_families(of, on, [family, "brightness"]))]
    kept = {values[:5]: values[5:] for values in whole}
    for values in alone:
        np.testing.assert_allclose(values[5:], kept[values[:5]], rtol=1e-6, atol=1e-9)


def test_a_net_of_vectors_runs_through_all():
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 8), nn.ReLU(), nn.Linear(8, 4))
    found = only_rows(evaluate_families(ModelAdapter(net, ["1", "2"], pixels), images_to_measure(), EVERYTHING))
    sound(found)
    assert not {"aliasing_fraction", "equivariance_error", "morans_i"} & {row.measure for row in found}
    assert {"invariance_error", "output_distance", "lee", "worst_case"} <= {row.measure for row in found}


def test_without_labels_there_are_no_measures_that_need_them():
    found = only_rows(evaluate_families(adapter(), images_to_measure(labels=False), EVERYTHING))
    sound(found)
    measures = {row.measure for row in found}
    assert not {"worst_case", "accuracy", "fidelity"} & measures
    assert "consistency" in measures


@pytest.mark.parametrize("task", ["where", "both"])
def test_positions_run_through_all(task):
    cfg = tiny(data={"task": task}, measure={"what": EVERYTHING, "images": 44})
    splits = split(cfg.data)
    torch.manual_seed(0)
    net = module(cfg, splits.image, len(splits.classes))
    of, on = adapter_of_run(net, splits), evaluation_set(cfg, splits)
    found = only_rows(evaluate_families(of, on, EVERYTHING))
    sound(found)
    measures = {row.measure for row in found}
    assert of.classifies == (task == "both")
    assert ("consistency" in measures) == (task == "both")
    assert any("r2" in name for name in measures), measures


def test_a_run_measures_its_net_and_the_untrained_twin():
    cfg = tiny(measure={"what": ["shift", "rolls", "aliasing"], "images": 30})
    splits = split(cfg.data)
    torch.manual_seed(0)
    net = module(cfg, splits.image, len(splits.classes))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # as if trained
    found = only_rows(measure(net, cfg, splits))
    sound(found)
    own = {key(row): row for row in found if not row.measure.endswith("_untrained")}
    twin = {key(row): row for row in found if row.measure.endswith("_untrained")}
    assert len(twin) > 20
    for values, row in twin.items():
        name = row.measure.removesuffix("_untrained")
        assert (*values[:4], name) in own
    distance = ("output", "shift", "roll", 1, "output_distance")
    assert own[distance].estimate.value != twin[(*distance[:4], "output_distance_untrained")].estimate.value


def test_the_untrained_net_has_all_images_where_their_number_matters():
    """A probe fitted on fewer images is worse; a mean over fewer images is only noisier."""
    cfg = tiny(measure={"what": ["shift", "layers", "units", "aliasing"], "images": 150})
    splits = split(cfg.data)
    net = untrained(cfg, splits, torch.device("cpu"))
    found = {key(row): row for row in only_rows(measure(net, cfg, splits))}
    twin = {values: row for values, row in found.items() if row.measure.endswith("_untrained")}
    fewer = set()
    for values, row in twin.items():
        own = found[(*values[:4], row.measure.removesuffix("_untrained"))]
        if own.estimate.n != row.estimate.n:
            assert (own.estimate.n, row.estimate.n) == ((2000, 250) if values[2] == "test" else (150, 125)), values
            fewer.add(values[4])
        else:  # the same weights and the same images
            assert own.estimate.value == pytest.approx(row.estimate.value, rel=1e-5, abs=1e-6, nan_ok=True), values
    assert {"output_distance_untrained", "aliasing_fraction_untrained", "accuracy_untrained"} <= fewer
    counted = {row.measure for row in twin.values()} - fewer
    assert {"probe_accuracy_untrained", "goodfellow_untrained", "effective_rank_untrained"} <= counted


# --- memory ----------------------------------------------------------------------------------------------------------


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects())


def test_maps_are_not_kept_in_memory():
    of, on = adapter(depth=1), replace(images_to_measure(4), batch=4)

    def capture() -> None:
        with record_outputs(of.net, of.layers) as maps:
            of.net(pixels(on.padded))
            assert len(maps) == len(of.layers)

    for one, times in ((capture, 100), (lambda: list(capture_rows(of, on)), 10)):
        one()
        before = tensors()
        for _ in range(times):
            one()
        assert tensors() <= before


def test_pixels_that_a_transform_made_are_not_overwritten():
    """Interpolated images come as floats; what a run's net takes is a copy of them."""
    splits = split(tiny().data)
    images = (255 * torch.rand(3, *splits.image)).to(memory_format=torch.channels_last)
    before = images.clone()
    found = splits.normalise(images)
    assert torch.equal(images, before)
    assert found.data_ptr() != images.data_ptr()
    torch.testing.assert_close(
        splits.normalise(images.to(torch.uint8)), splits.normalise(images.to(torch.uint8).float())
    )


CHOICES = {"pool": [pool for pool in POOLS if pool != "max"], "norm": NORMS, "activation": ACTIVATIONS, "head": HEADS}
PADDED = [padding for padding in PADDINGS if padding != "valid"]
#: nets in which every choice of every axis is met at least once, each axis in turn; one alone has no padding
NETS = [
    {axis: list(choices)[i % len(choices)] for axis, choices in (CHOICES | {"padding": PADDED}).items()}
    for i in range(max(map(len, (*CHOICES.values(), PADDED))))
]
NETS += [{"pool": "max", "padding": "valid", "depth": 1}, *({"name": name} for name in ARCHITECTURES)]


def test_every_choice_is_in_one_of_the_nets():
    for axis, choices in (CHOICES | {"pool": POOLS, "padding": PADDINGS, "name": ARCHITECTURES}).items():
        assert {net[axis] for net in NETS if axis in net} >= {*choices}, axis


@pytest.mark.parametrize("axes", NETS, ids=lambda axes: " ".join(map(str, axes.values())))
def test_every_family_takes_nets_of_every_choice_laid_out_as_in_runs(axes):
    of = adapter(**axes)
    of.net.to(memory_format=torch.channels_last)
    of = replace(of, normalise=lambda x: pixels(x).to(memory_format=torch.channels_last))
    found = list(evaluate_families(of, images_to_measure(8), EVERYTHING))
    assert not [one.words for one in found if isinstance(one, Note) and one.words.startswith("not measured")]
    assert {row.transform for row in only_rows(found)} == {"none", "velocity", *(one.name for one in TABLE)}
