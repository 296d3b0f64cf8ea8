"""Every number that is written is declared in the file that computes it, with the range that it had before."""

import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from src.data.splits import split
from src.evaluation.families import ALWAYS, FAMILIES, family_of
from src.metrics import Row, quantities
from src.metrics.quantities import CONTROLS, Quantity, declared, quantity_of, range_of
from src.training.evaluate_run import measure
from src.training.lightning_module import module
from tests.helpers import ROOT, tiny

INF = math.inf
#: ranges when they were tables of names in one file, with the endings that these tables knew
BEFORE = {
    (0.0, 1.0): "accuracy aliasing_fraction calibration_error class_selectivity consistency constant_channels "
    "constant_share dead_share duplicate_share fidelity goodfellow_dead probe_accuracy stays_right worst_case",
    (0.0, INF): "effective_field effective_rank equivariance_error equivariance_floor goodfellow invariance_error lee "
    "lee_relative loss nvi output_distance participation_ratio position_equivariance_error position_error",
    (-INF, 1.0): "consistency_corrected probe_r2 r2",
    (-1.0, 1.0): "cosine cosine_random gap location_leak",
}
UNBOUNDED = ["morans_i", "morans_i_relative", "seconds", "epochs", "parameters", "anything_untrained", "untrained", ""]
FILES = [path for room in ("metrics", "evaluation") for path in sorted((ROOT / "src" / room).rglob("*.py"))]


@pytest.mark.parametrize("ending", ["", "_untrained", "_floor", "_shuffled", "_floor_untrained", "_shuffled_untrained"])
@pytest.mark.parametrize(("expected", "names"), BEFORE.items())
def test_ranges_of_measures_have_not_changed(expected, names, ending):
    for name in names.split():
        assert range_of(name + ending) == expected, name
        assert all(isinstance(end, float) for end in range_of(name + ending)), "an integer would change a table"


@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_is_not_declared_or_has_no_bounds_can_be_any_number(name):
    assert range_of(name) == (-INF, INF)


def test_only_these_numbers_got_a_range_that_they_did_not_have():
    before = {name for names in BEFORE.values() for name in names.split()}
    bounded = {name for name in quantities.quantities() if range_of(name) != (-INF, INF)}
    added = "accuracy_in_place cka cka_against max_filter_cosine participation_ratio_isotropic probe_dimension "
    added += "equal_dimension_accuracy equal_dimension_variance accuracy_small accuracy_medium accuracy_large "
    added += "class_divergence gradient_disparity local_dimension maximum_sampling_bias prediction_change "
    added += (
        "metamer_reached metamer_layer_distance metamer_pixel_distance metamer_spread metamer_energy metamer_error "
    )
    added += "metamer_displaced metamer_recognised metamer_recognised_against null_space_energy"
    assert bounded - before == set(added.split())
    assert before - bounded == {"cosine_random"}, "the control of a quantity"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_read_from_a_file_is_what_the_module_has(path: Path):
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    assert tuple(declared(path)) == getattr(import_module(name), "QUANTITIES", ())


def test_every_quantity_says_what_it_is():
    for quantity in quantities.quantities().values():
        assert quantity.formula, quantity.name
        assert quantity.low < quantity.high, quantity.name
        assert quantity.better in ("", "higher", "lower"), quantity.name


def test_a_control_is_the_quantity_under_its_endings():
    assert quantity_of("probe_accuracy_shuffled_untrained") is quantity_of("probe_accuracy")
    assert quantity_of("class_selectivity_null") is quantity_of("class_selectivity")
    assert quantity_of("equivariance_floor") is not quantity_of("equivariance_error"), "a quantity of its own"
    assert {quantity_of(f"accuracy_{ending}") for ending in CONTROLS} == {quantity_of("accuracy")}
    assert quantity_of("accuracy_elsewhere") is quantity_of("untrained") is None


def test_two_files_cannot_declare_one_name(monkeypatch):
    monkeypatch.setattr(quantities, "declared", lambda path: [Quantity("accuracy")])
    with pytest.raises(ValueError, match="accuracy is declared in another file too"):
        quantities.quantities.__wrapped__()


@pytest.mark.parametrize("task", ["what", "where", "both"])
def test_every_number_of_a_run_is_declared(task):
    cfg = tiny(data={"task": task}, measure={"what": ["shift", "rotate", *FAMILIES], "images": 44, "max_shift": 1})
    splits = split(cfg.data)
    found = {row.measure for row in measure(module(cfg, splits.image, len(splits.classes)), cfg, splits)
             if isinstance(row, Row)}  # fmt: skip
    assert len(found) > 40
    assert not {name for name in found if quantity_of(name) is None}


def test_ranges_are_known_without_importing_what_computes_them():
    script = (
        "import sys; from src.metrics.quantities import range_of; print(range_of('nvi'), 'torchmetrics' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "(0.0, inf) False\n"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("goodfellow", "units"), ("goodfellow_dead_untrained", "units"), ("effective_field/stage1", "field"),
        ("aliasing_fraction", "aliasing"), ("rolls", "rolls"), ("rolls_untrained", "rolls"),
        ("roll_map/stage1", "rolls"), ("roll_cosine_untrained/stage1", "rolls"), ("crops", "crops"),
        ("crop_map/stage1", "crops"), ("velocity", "velocity"), ("answers", ALWAYS), ("answers_untrained", ALWAYS),
        ("lee", None), ("accuracy", None), ("worst_case", None), ("cka", None), ("dead_share", None), ("", None),
    ],
)  # fmt: skip
def test_the_family_of_a_measure_has_not_changed(name, family):
    assert family_of(name) == family
