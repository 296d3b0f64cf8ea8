"""Figures, pages and pictures of measures, against a small table written by hand."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from src.common.errors import UserError
from src.measuring import checkpoint as saved
from src.measuring import net
from src.measuring.options import Images, Options, check_options
from src.metrics.rows import Estimate, Heatmap, Note, Row
from src.reporting import heatmaps, measure_figures, plots, sections
from src.reporting.maps import centred, heatmap_picture
from src.reporting.page import PLOTLY, build_report, write_measure_page
from src.reporting.reference_nets import REFERENCES
from src.reporting.terminal import console, show_closing, show_measured, show_notes
from src.reporting.variant import Variant
from src.reporting.wandb_logger import WandbLogger
from src.results import files
from src.results.measures import named_values, write_measures
from src.results.runs import FinishedRun
from src.training.run import run
from tests.helpers import figures_of, tiny, wandb_records, words_of_page
from tests.test_comparison import leave_run

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's and W&B's own

#: layer, transform, protocol, amount, measure, value
TABLE = [
    ("output", "none", "test", 0, "accuracy", 0.9),
    ("output", "shift", "crop", 1, "output_distance", 0.1),
    ("output", "shift", "crop", 2, "output_distance", 0.2),
    ("output", "shift", "crop", 1, "output_distance_untrained", 0.4),
    ("output", "shift", "roll", 2, "consistency", 0.75),
    ("output", "shift", "crop", 2, "position_equivariance_error", 0.35),
    ("output", "shift", "crop", 2, "position_equivariance_error_untrained", 1.0),
    ("output", "rotate", "disc", 15, "output_distance", 0.5),
    ("output", "rotate", "disc", 15, "output_distance_floor", 0.05),
    ("stage1", "shift", "all_crops", 9, "cosine_random", 0.6),
    ("stage1", "shift", "crop", 1, "invariance_error", 0.31),
    ("stage2", "shift", "crop", 1, "invariance_error", 0.32),
    ("stage1", "shift", "roll", 1, "equivariance_error", 0.11),
    ("stage1", "shift", "roll", 1, "equivariance_floor", 0.01),
    ("output", "shift", "all_rolls", 64, "accuracy", 0.8),
    ("output", "shift", "all_rolls", 64, "worst_case", 0.6),
    ("output", "shift", "all_rolls", 64, "accuracy_in_place", 0.85),  # that of the whole test set is another number
    ("output", "velocity", "down", 0, "lee_relative", 0.02),
    ("stage1.pool", "none", "subsampling", 0, "aliasing_fraction", 0.07),
    ("stage2.pool", "none", "subsampling", 0, "aliasing_fraction", 0.08),
    ("stage1.pool", "none", "test", 0, "null_space_energy", 0.23),
    ("stage1.pool", "none", "test", 0, "null_space_energy_null", 0.75),
    ("stage1", "none", "test", 0, "probe_accuracy", 0.55),
    ("stage2", "none", "test", 0, "probe_accuracy", 0.66),
    ("pixels", "none", "test", 0, "probe_accuracy", 0.44),
    ("stage2", "none", "test", 0, "probe_accuracy_shuffled", 0.12),
    ("stage1", "none", "test", 0, "effective_rank", 3.0),
    ("stage1", "none", "test", 0, "class_selectivity", 0.5),
    ("stage1", "none", "test", 0, "class_selectivity_null", 0.2),
    ("stage1", "none", "test", 0, "dead_share", 0.25),
    ("stage1", "shift", "crop", 4, "goodfellow", 60.0),
    ("stage2", "none", "stage1", 0, "cka", 0.7),
    ("stage2", "none", "stage3", 0, "cka_against", 0.6),
    ("stage1", "none", "test", 0, "effective_field", 5.5),
]
ROLLS = np.arange(12.0).reshape(3, 4)
CROPS = np.abs(np.arange(9.0) - 4).reshape(3, 3)
#: figure → title of a panel, end of the measure's name, x, y
EXPECTED: dict[Callable[..., go.Figure], list[tuple[str, list[object], list[float]]]] = {
    measure_figures.transform_curves: [
        ("crop (px)", [1, 2], [0.1, 0.2]),
        ("crop (px)", [1], [0.4]),
        ("rotate, disc (degrees)", [15], [0.5]),
        ("rotate, disc (degrees)", [15], [0.05]),
    ],
    measure_figures.flip_curves: [("roll (px)", [2], [0.25])],
    measure_figures.position_curves: [("crop (px)", [2], [0.35])],
    measure_figures.layer_curves: [("crop 1 px", ["stage1", "stage2"], [0.31, 0.32])],
    measure_figures.equivariance_curves: [("roll 1 px", ["stage1"], [0.11]), ("roll 1 px", ["stage1"], [0.01])],
    measure_figures.worst_case_bars: [
        ("no roll", ["all 64 rolls,<br>100 images"], [0.85]),
        ("mean over rolls", ["all 64 rolls,<br>100 images"], [0.8]),
        ("worst case over rolls", ["all 64 rolls,<br>100 images"], [0.6]),
    ],
    measure_figures.over_training: [
        ("output: output distance", [0, 2, 4], [0.4, 0.3, 0.2]),
        ("stage2: invariance error", [2, 4], [0.6, 0.5]),
    ],
    measure_figures.lie_derivatives: [("down", ["per pixel"], [0.02])],
    measure_figures.aliasing_curves: [("", ["stage1.pool", "stage2.pool"], [0.07, 0.08])],
    measure_figures.null_space_curves: [("", ["stage1.pool"], [0.23]), ("", ["stage1.pool"], [0.75])],
    measure_figures.probe_curves: [
        ("class: accuracy", ["stage1", "stage2"], [0.55, 0.66]),
        ("class: accuracy", ["stage1", "stage2"], [0.44, 0.44]),
        ("class: accuracy", ["stage1", "stage2"], [0.12, 0.12]),
    ],
    measure_figures.channel_curves: [
        ("effective rank", ["stage1"], [3.0]),
        ("selectivity above chance", ["stage1"], [0.3]),
        ("dead channels", ["stage1"], [0.25]),
    ],
    measure_figures.unit_invariance: [("crop 4 px", ["stage1"], [60.0])],
}


def rows(table: list[tuple[str, str, str, float, str, float]]) -> list[Row]:
    return [Row(*where, Estimate(value, value - 0.01, value + 0.02, 100)) for *where, value in table]


def grids() -> list[Heatmap]:
    crops = [Heatmap("stage1", "crop_map", CROPS), Heatmap("stage1", "crop_cosine", 1 - CROPS / 20)]
    return [Heatmap("stage1", "roll_map", ROLLS), Heatmap("stage1", "effective_field", np.eye(4)), *crops]


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    write_measures(tmp_path / "measures.csv", [*rows(TABLE), *grids()])
    files.write_rows(tmp_path / files.SHAPES, [{"layer": "stage1.conv", "receptive_field": 3.0},
                                               {"layer": "stage1.pool", "receptive_field": 6.0}])  # fmt: skip
    followed = "invariance/crop/1px/output_distance", "invariance/crop/1px/stage2/invariance_error"
    files.write_rows(tmp_path / files.HISTORY, [{"epoch": 1}, {"epoch": 2, followed[0]: 0.3, followed[1]: 0.6},
                                                {"epoch": 4, followed[0]: 0.2, followed[1]: 0.5}])  # fmt: skip
    return Variant("pool=max", {}, [FinishedRun(tmp_path, {})])


def drawn(figure: go.Figure) -> list[tuple[str, list[object], list[float]]]:
    """Panel title, x and y of every trace."""
    titles = [note.text for note in figure.layout.annotations] or [""]
    found = []
    for trace in figure.data:
        panel = int((trace.xaxis or "x")[1:] or 1) - 1
        found.append((titles[panel], list(trace.x), [pytest.approx(y) for y in trace.y]))
    return found


@pytest.mark.parametrize("figure", EXPECTED, ids=lambda one: one.__name__)
def test_figures_show_the_values_of_the_table(figure: Callable[..., go.Figure], variant: Variant) -> None:
    assert EXPECTED[figure] == drawn(figure([variant]))


def test_error_bars_are_the_intervals_of_the_table(variant: Variant) -> None:
    trace = measure_figures.layer_curves([variant]).data[0]
    assert list(trace.error_y.array) == pytest.approx([0.02, 0.02])
    assert list(trace.error_y.arrayminus) == pytest.approx([0.01, 0.01])


def test_the_zero_roll_is_in_the_middle_of_its_map(variant: Variant) -> None:
    trace = heatmaps.roll_maps([variant]).data[0]
    np.testing.assert_array_equal(trace.x, [-2, -1, 0, 1])
    np.testing.assert_array_equal(trace.y, [-1, 0, 1])
    assert trace.z[1][2] == ROLLS[0, 0]
    assert trace.z[1][3] == ROLLS[0, 1], "a roll by one pixel to the right"
    assert trace.zmax == ROLLS.max()


def test_crops_have_no_shift_in_the_middle_and_cosines_begin_at_that_of_two_images(variant: Variant) -> None:
    (errors,), (cosines,) = (one([variant]).data for one in (heatmaps.crop_maps, heatmaps.sensitivity_maps))
    for trace in (errors, cosines):
        np.testing.assert_array_equal(trace.x, [-1, 0, 1])
        np.testing.assert_array_equal(trace.y, [-1, 0, 1])
    np.testing.assert_array_equal(errors.z, CROPS)
    assert (errors.zmin, errors.zmax) == (0, CROPS.max())
    assert (cosines.zmin, cosines.zmax) == (0.6, 1)
    assert heatmaps.sensitivity_maps([variant]).layout.annotations[0].text == "stage1: 0.60 to 1"


def test_maps_of_a_layer_share_a_scale_over_variants(variant: Variant, tmp_path: Path) -> None:
    write_measures(tmp_path / "other" / files.MEASURES, [*rows(TABLE), Heatmap("stage1", "roll_map", 3 * ROLLS)])
    other = Variant("pool=avg", {}, [FinishedRun(tmp_path / "other", {})])
    assert {trace.zmax for trace in heatmaps.roll_maps([variant, other]).data} == {33}


def test_a_receptive_field_has_its_theoretical_size_in_the_title(variant: Variant) -> None:
    figure = heatmaps.receptive_fields([variant])
    assert figure.layout.annotations[0].text == "stage1: 5.5 of 6 px"
    np.testing.assert_array_equal(figure.data[0].z, np.eye(4))


def test_large_heatmaps_are_averaged() -> None:
    plane = np.arange(200.0 * 200).reshape(200, 200)
    small = heatmaps.coarse(plane)
    assert small.shape == (66, 66)
    assert small[0, 0] == plane[:3, :3].mean()


def test_cka_within_a_net_is_symmetric(variant: Variant) -> None:
    trace = heatmaps.layer_similarity([variant]).data[0]
    assert list(trace.x) == ["stage1", "stage2"]
    assert [list(row) for row in trace.z] == [[1, 0.7], [0.7, 1]]


@pytest.mark.parametrize("section", sections.MEASURED_SECTIONS, ids=lambda one: one.title)
def test_sections_without_measures_are_left_out(section: sections.Section, tmp_path: Path) -> None:
    write_measures(tmp_path / files.MEASURES, rows(TABLE[:1]))
    assert not section.figure([Variant("v", {}, [FinishedRun(tmp_path, {})])]).data


@pytest.mark.parametrize("name", ["layer_curves", "probe_curves", "channel_curves", "aliasing_curves"])
def test_nets_with_different_layers_share_a_figure(name: str, variant: Variant, tmp_path: Path) -> None:
    deeper = [(f"stage3{row[0].removeprefix('stage2')}", *row[1:]) for row in TABLE if row[0].startswith("stage2")]
    write_measures(tmp_path / "deep" / files.MEASURES, rows([*TABLE, *deeper]))
    figure = getattr(measure_figures, name)([variant, Variant("deep", {}, [FinishedRun(tmp_path / "deep", {})])])
    order = list(figure.layout.xaxis.categoryarray)
    assert order == sorted(order) and figure.data


def test_a_measure_without_a_figure_of_its_own_is_on_the_page(tmp_path: Path) -> None:
    new = [
        ("output", "shear", "disc", 5, "bendiness", 0.2),
        ("output", "shear", "disc", 10, "bendiness", 0.3),
        ("output", "shear", "disc", 10, "bendiness_untrained", 0.9),
        ("output", "shear", "disc", 10, "output_distance", 0.4),  # a known measure of a new transform
        ("stage1", "none", "test", 0, "colourfulness", 0.5),
        ("stage2", "none", "test", 0, "colourfulness", 0.6),
        ("stage1", "shift", "crop", 1, "wobble", 0.1),
        ("stage1", "shift", "crop", 2, "wobble", 0.2),
        ("stage1", "shift", "crop", 4, "wobble", 0.3),
    ]
    write_measures(tmp_path / files.MEASURES, [*rows([*TABLE, *new]), *grids()])
    found = figures_of(write_measure_page(FinishedRun(tmp_path, {}), "net", tmp_path / "measures.html"))
    by_amount, by_layer = (go.Figure(found[f"Other measures, by {what}"]) for what in ("amount", "layer"))
    assert drawn(by_amount) == [
        ("shear/disc<br>bendiness", [5, 10], [0.2, 0.3]),
        ("shear/disc<br>bendiness", [10], [0.9]),
    ]
    assert list(by_amount.data[0].error_y.array) == pytest.approx([0.02, 0.02])
    assert drawn(by_layer) == [
        ("shear/disc 10<br>output_distance", ["output"], [0.4]),
        ("test<br>colourfulness", ["stage1", "stage2"], [0.5, 0.6]),
        ("crop 1<br>wobble", ["stage1"], [0.1]),
        ("crop 4<br>wobble", ["stage1"], [0.3]),
    ]
    write_measures(tmp_path / files.MEASURES, [*rows(TABLE), *grids()])
    found = figures_of(write_measure_page(FinishedRun(tmp_path, {}), "net", tmp_path / "measures.html"))
    assert not [title for title in found if title.startswith("Other")], "every known measure has its figure"


def test_the_page_of_a_net_says_what_was_measured_beside_nets_for_scale(tmp_path: Path) -> None:
    for name, distance in (("one", 0.1), ("other", 0.2)):
        at = {("output", "shift", "crop", 1, "output_distance"): distance}
        write_measures(tmp_path / name / files.MEASURES, rows((*row[:5], at.get(row[:5], row[5])) for row in TABLE))
    one, other = (FinishedRun(tmp_path / name, {}) for name in ("one", "other"))
    text = words_of_page(write_measure_page(one, "net", tmp_path / "measures.html", " of photos, 64×64 pixels"))
    assert f"Measured on {max(one.counts.values())} images of photos, 64×64 pixels." in text
    section = text[text.index('id="comparison">In numbers') :]
    cells = re.findall(r'<th scope="row">([^<]+)</th>((?:<td>.*?</td>)+)', section)
    numbers = {name: [float(value) for value in re.findall(r"<td>(\d\.\d+)", values)] for name, values in cells}
    assert numbers["net"] == [0.9, 0.1] and numbers["net, random weights"] == [0.4]
    for name, pool in {"average pooling": "avg", "max pooling": "max", "strided convolutions": "none"}.items():
        kept = FinishedRun(REFERENCES[name].parent, {}, REFERENCES[name]).measures
        assert f"_{pool}.csv" in REFERENCES[name].name
        columns = ("test", 0, "accuracy"), ("crop", 1, "output_distance")
        assert numbers[name] == [round(kept["output", *key][0], 3) for key in columns]
    text = words_of_page(write_measure_page(one, "net", tmp_path / "measures.html", "", {"second net": other}))
    assert re.search(r'<th scope="row">second net</th><td>0.900', text) and "beside=TABLE" not in text
    figure = figures_of(tmp_path / "measures.html")["How far a 1-px shift moves each layer"]
    assert {trace["name"] for trace in figure["data"]} == {"net", "second net"}


def test_names_are_text_in_a_page_of_one_net(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>"
    table = tmp_path / "a<b>.csv"
    write_measures(table, rows([*TABLE, (hostile, "shift", "crop", 1, "invariance_error", 0.1)]))
    page = write_measure_page(FinishedRun(tmp_path, {}, table), f"net {hostile}", table.with_suffix(".html"))
    body = words_of_page(page)
    assert "<script>alert" not in body and "a<b>" not in body
    assert "http" not in body, "nothing is fetched"
    assert figures_of(page)["How far a 1-px shift moves each layer"]["data"][0]["x"][-1] == hostile
    assert not list(tmp_path.glob(".*")), "no half-written file stays behind"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers") / "one"
    run(tiny(measure={"what": ["layers"]}, train={"epochs": 1}), folder)
    return folder


def test_a_sweep_without_shifts_ends_with_a_table_and_a_page(done: Path) -> None:
    page = build_report(done.parent)
    assert "Shifts are measured" not in page.read_text()
    titles = set(figures_of(page))
    assert {"Linear probes of class and position, layer by layer", "Similarity of layers (CKA)", "Training"} <= titles
    assert "How far a transform moves the output" not in titles
    assert len(files.read_rows(done.parent / files.COMPARISON)) == 1


def test_a_checkpoint_is_measured_to_a_table_and_its_page(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again.csv"
    checkpoint = str(done / files.CHECKPOINTS / "best.ckpt")
    saved.measure_again(Options(checkpoint=checkpoint, out=str(out)))
    assert out.read_bytes() == (done / files.MEASURES).read_bytes()
    found = figures_of(tmp_path / "again.html")["Channels, layer by layer"]
    numbers = FinishedRun(tmp_path, {}, out).measures
    ranks = [numbers[layer, "test", 0, "effective_rank"][0] for layer in ("stage1", "stage2", "features")]
    assert found["data"][0]["y"] == pytest.approx(ranks)
    assert str(tmp_path / "again.html") in capsys.readouterr().out.replace("\n", "")


def test_styles_of_many_variants_are_distinct() -> None:
    assert len(set(plots.styles(72))) == 72


def test_a_net_without_a_run_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        net, "evaluate_families", lambda *_: iter([*rows(TABLE), *grids()])
    )  # measuring has its own tests
    out = tmp_path / "net" / files.MEASURES
    options = Options(net="torchvision/squeezenet1_1", weights="none", images=2, max_shift=1, size=32)
    options.out, options.data = str(out), Images("shapes", None)
    net.measure_net(options)
    found = figures_of(out.with_suffix(".html"))
    assert found["Effective receptive fields"]["layout"]["annotations"][0]["text"] == "stage1: 5.5 px", (
        "no model summary"
    )
    titles = {section.title for section in sections.MEASURED_SECTIONS}
    assert titles - {*found} == {title for title in titles if "etamers" in title}, "which the table has none of"


def test_notes_are_on_the_page_and_in_the_terminal(tmp_path: Path) -> None:
    found = [Note("rolls", "one by one: <conv> pads [with] zeros"), Note("rolls_untrained", "the twin's")]
    write_measures(tmp_path / "measures.csv", [*rows(TABLE), *found])
    run = FinishedRun(tmp_path, {})
    with console.capture() as shown:
        show_notes(run.notes)
    assert shown.get().strip() == "rolls: one by one: <conv> pads [with] zeros"
    text = words_of_page(write_measure_page(run, "net", tmp_path / "measures.html"))
    below = text[text.index("All rolls: worst case</h3>") :]
    assert "net: one by one: &lt;conv&gt; pads [with] zeros." in below[:2500]
    assert "the twin" not in text


def test_cka_of_two_nets_is_a_matrix_of_both(variant: Variant) -> None:
    (trace,) = heatmaps.layer_similarity_between([variant]).data
    assert (list(trace.y), list(trace.x), trace.z[0][0]) == (["stage2"], ["stage3"], 0.6)


def test_a_table_cannot_have_the_name_of_its_page() -> None:
    with pytest.raises(UserError, match=r"its page goes beside it, as again\.html"):
        check_options(Options(checkpoint="x", out="again.html"))


def test_closing_lines_show_only_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    show_closing(named_values(rows(TABLE[:1])), Path("here"))
    assert "test accuracy 0.900\n" in capsys.readouterr().out
    show_closing(named_values(rows(TABLE)), Path("here"))
    text = capsys.readouterr().out
    assert "output distance for a 1-px shift: 0.100 (crop); untrained 0.400" in text
    with console.capture() as shown:
        show_measured(rows(TABLE), Path("here"))
    assert "0.400" in shown.get() and "pixels" not in shown.get(), "layers without a measured shift"


def test_grids_are_pictures_with_the_zero_roll_in_the_middle() -> None:
    painted = heatmap_picture("roll_map_untrained/stage1", ROLLS)
    assert painted.shape == (3 * 56, 4 * 56, 3)
    np.testing.assert_array_equal(painted[56 + 28, 2 * 56 + 28], heatmap_picture("x", ROLLS)[0, 0])
    assert centred(ROLLS)[1, 2] == 0


def test_wandb_gets_the_grids(tmp_path: Path) -> None:
    tracker = WandbLogger(tiny(wandb={"mode": "offline"}), tmp_path / "sweep" / "one")
    (tmp_path / "sweep" / "one").mkdir(parents=True)
    tracker.log_grids({"roll_map/stage1": ROLLS, "effective_field/stage1": np.eye(4)})
    tracker.finish(failed=False)
    logged = [
        record["history"]["item"] for record in wandb_records(tmp_path / "sweep" / "one") if record["type"] == "history"
    ]
    kinds = {key: value for item in logged for key, value in item.items() if key.endswith("_type")}
    assert kinds == {"grids/roll_map/stage1._type": "image-file", "grids/effective_field/stage1._type": "image-file"}
    captions = {key: value for item in logged for key, value in item.items() if key.endswith(".caption")}
    assert captions == {
        "grids/roll_map/stage1.caption": f"roll map, stage1: dark 0, yellow {ROLLS.max():.3g}; no roll in the middle",
        "grids/effective_field/stage1.caption": "effective field, stage1: dark 0, yellow 1",
    }


def test_variants_differ_in_colour_and_mark_in_every_figure(tmp_path: Path) -> None:
    for name, pool in (("a", "max"), ("b", "avg")):
        leave_run(tmp_path / name, 0.9, 0.1, model={"pool": pool})
    page = figures_of(build_report(tmp_path))
    for figure in (page["How far a transform moves the output"], page["Training"]):
        pairs = {(one["name"], one["line"]["color"], one["marker"]["symbol"]) for one in figure["data"]}
        assert pairs == {("pool=max", *plots.styles(2)[0]), ("pool=avg", *plots.styles(2)[1])}


def test_measuring_again_removes_old_grids_and_notes(tmp_path: Path) -> None:
    table = tmp_path / "measures.csv"
    write_measures(table, [*rows(TABLE), *grids(), Note("rolls", "as they were")])
    assert (tmp_path / files.GRIDS).exists() and (tmp_path / files.NOTES).exists()
    write_measures(table, rows(TABLE))
    assert [path.name for path in tmp_path.iterdir()] == ["measures.csv"]


def test_the_library_of_the_page_is_that_of_the_python_package_and_draws_every_trace(tmp_path: Path) -> None:
    write_measures(tmp_path / files.MEASURES, [*rows(TABLE), *grids()])
    page = write_measure_page(FinishedRun(tmp_path, {}), "net", tmp_path / "measures.html")
    code = gzip.decompress(PLOTLY.read_bytes()).decode()
    version = r"plotly\.js(?: \(cartesian - minified\))? v(\d+)\."
    assert re.findall(version, code[:200]) == re.findall(version, get_plotlyjs()[:200])
    kinds = {trace["type"] for figure in figures_of(page).values() for trace in figure["data"]}
    assert kinds == {"scatter", "bar", "heatmap"}, "all of them are in the cartesian bundle"
    assert page.stat().st_size < 1_000_000
