"""Measuring again: what is asked for is replaced, all else stays; a report stands whatever runs were measured for."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import UserError
from src.config import MEASURE_NAMES, from_dict, to_dict
from src.data.splits import split
from src.evaluation.families import ALWAYS, family_of
from src.evaluation.suite import TRANSFORMS_OF
from src.measuring.checkpoint import compare_layers, measure_again
from src.measuring.options import Images, Options
from src.metrics import Heatmap, Note, Row
from src.reporting.page import build_report
from src.reporting.terminal import console
from src.results import files
from src.results.measures import families_in, family_of_row, write_measures
from src.results.runs import FinishedRun
from src.training.evaluate_run import measure
from src.training.lightning_module import module
from src.training.run import run
from tests.helpers import tiny
from tests.test_identity import leave_pictures, on

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own

Found = list[Row | Heatmap | Note]
#: images, so that likeness of layers and probes are measured too
ENOUGH = 64
#: what metamers look like has its own tests
FEW_METAMERS = {"metamer_images": 2, "metamer_steps": 10}
#: families of transforms have the same kinds of rows; in most reports two of them stand for all
FEW_TRANSFORMS = [name for name in MEASURE_NAMES if name not in {*TRANSFORMS_OF} - {"shift", "blur"}]


@pytest.fixture(scope="module")
def of_family() -> dict[str, Found]:
    """What a net gives for each family alone."""

    def found(name: str) -> Iterator[Row | Heatmap | Note]:
        cfg = tiny(data={"task": "both"}, measure={"what": [name], "images": ENOUGH, **FEW_METAMERS})
        splits = split(cfg.data)
        yield from measure(module(cfg, splits.image, len(splits.classes)).eval(), cfg, splits)

    return {name: list(found(name)) for name in MEASURE_NAMES}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that was measured for all families, and one of the same net for shifts alone."""
    folder = tmp_path_factory.mktemp("sweep")
    run(tiny(measure={"what": [*MEASURE_NAMES], "images": 20, **FEW_METAMERS}), folder / "all")
    return folder / "all"


@pytest.fixture
def whole(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "all"))


def again(folder: Path, **options: object) -> str:
    """Measure it again; what that says."""
    with console.capture() as shown:
        measure_again(Options(checkpoint=str(folder / "checkpoints/best.ckpt"), **options))  # type: ignore[arg-type]
    return shown.get()


@pytest.mark.parametrize("name", MEASURE_NAMES)
def test_a_row_says_which_family_it_is_of(name: str, of_family: dict[str, Found]) -> None:
    rows = [one for one in of_family[name] if isinstance(one, Row)]
    assert {family_of_row(row) for row in rows} == {ALWAYS, name}
    untransformed_batches = [row for row in rows if family_of_row(row) == ALWAYS]
    other = "flip" if name == "shift" else "shift"
    expected = [one for one in of_family[other] if isinstance(one, Row) and family_of_row(one) == ALWAYS]
    assert [str(row) for row in untransformed_batches] == [str(row) for row in expected]
    if name == "layers":
        assert {"cka", "probe_accuracy", "probe_r2"} <= {row.measure for row in rows}
    assert {family_of(one.measure) for one in of_family[name] if isinstance(one, Heatmap | Note)} <= {name, ALWAYS}


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the page of the table, which takes longer than measuring: the next test draws it."""
    monkeypatch.setattr("src.measuring.checkpoint.show_page", lambda *_: None)


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("name", MEASURE_NAMES)
def test_measuring_a_family_again_gives_the_same_table_byte_for_byte(name: str, whole: Path) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    grids = FinishedRun(whole, {}).grids
    again(whole, what=name)
    after = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    assert after[files.MEASURES] == before[files.MEASURES]
    assert json.loads(after[files.NOTES]) == json.loads(before[files.NOTES])
    found = FinishedRun(whole, {}).grids
    assert found.keys() == grids.keys()
    for key, plane in grids.items():
        np.testing.assert_array_equal(found[key], plane)


def test_what_is_replaced_and_what_stays_is_said_and_the_page_shows_all(whole: Path) -> None:
    counts = families_in(whole / files.MEASURES)
    said = " ".join(again(whole, what="shift").split())
    assert (whole / files.MEASURES).with_suffix(".html").exists()
    assert f"replaced in measures.csv: {counts['shift']} numbers of shift " in said
    kept = sum(counts.values()) - counts["shift"] - counts[ALWAYS]
    assert f"kept in measures.csv: {kept:,} numbers of" in said


def test_what_is_asked_for_is_replaced_whole_and_what_is_new_comes_last(
    of_family: dict[str, Found], tmp_path: Path
) -> None:
    table = tmp_path / files.MEASURES
    write_measures(table, [*of_family["shift"], *of_family["rolls"]])
    few = [one for one in of_family["shift"] if not isinstance(one, Row) or one.amount < 2]
    write_measures(table, few, ["shift"])
    assert {row["amount"] for row in files.read_rows(table) if row["protocol"] in ("roll", "crop")} == {"1"}
    assert families_in(table)["rolls"] == sum(
        family_of_row(one) == "rolls" for one in of_family["rolls"] if isinstance(one, Row)
    )
    before = files.read_rows(table)
    write_measures(table, of_family["field"], ["field"])
    assert files.read_rows(table)[: len(before)] == before
    assert families_in(table)["field"] > 0
    grids = {key.partition("/")[0].removesuffix("_untrained") for key in FinishedRun(tmp_path, {}).grids}
    assert grids == {"roll_map", "roll_cosine", "effective_field"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 30}, r"^images=30, the run has measure\.images=20: .*give out="),
        ({"max_shift": 1}, r"^max_shift=1, the run has measure\.max_shift=2"),
        ({"seed": 5}, r"^seed=5, the run has measure\.seed=0"),
        ({"checkpoint": "last"}, r"^last\.ckpt, the run has train\.keep=best"),
    ],
)
def test_a_runs_own_table_takes_no_numbers_that_were_had_otherwise(
    options: dict[str, object], message: str, whole: Path, tmp_path: Path
) -> None:
    before = (whole / files.MEASURES).read_bytes()
    weights = whole / "checkpoints" / f"{options.pop('checkpoint', 'best')}.ckpt"
    given = Options(checkpoint=str(weights), what="flip", **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        measure_again(given)
    assert (whole / files.MEASURES).read_bytes() == before
    given.out = str(whole / "maps" / ".." / files.MEASURES)
    with pytest.raises(UserError, match=message):
        measure_again(given)
    given.out = str(tmp_path / "out" / "other.csv")
    measure_again(given)
    assert (tmp_path / "out" / "other.csv").exists()


def test_nor_of_other_pictures(tmp_path: Path) -> None:
    run(on(leave_pictures(tmp_path / "here")), tmp_path / "run")
    there = leave_pictures(tmp_path / "there", seed=1)
    with pytest.raises(UserError, match=r"^data\.root=.*there holds other pictures than the run's .*here did"):
        again(tmp_path / "run", data=Images(root=str(there)))


def test_tables_in_one_folder_keep_their_grids_apart(whole: Path) -> None:
    before = FinishedRun(whole, {}).grids
    out = whole / "other.csv"
    again(whole, what="field", images=10, out=str(out))
    assert {key.partition("/")[0] for key in FinishedRun(whole, {}, out).grids} == {
        "effective_field", "effective_field_untrained",
    }  # fmt: skip
    checkpoint = str(whole / "checkpoints/best.ckpt")
    compare_layers(Options(checkpoint=checkpoint, against=checkpoint))
    assert FinishedRun(whole, {}).grids.keys() == before.keys()
    assert FinishedRun(whole, {}).notes


def test_a_table_elsewhere_grows_by_families_but_not_by_another_way_to_measure(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    again(whole, what="flip", images=10, out=str(out))
    again(whole, what="noise", images=10, out=str(out))
    assert set(families_in(out)) == {ALWAYS, "flip", "noise"}
    said = again(whole, what="noise", images=12, out=str(out))
    assert "replaced in out.csv" in said and "flip, noise" in said and "kept" not in said
    assert set(families_in(out)) == {ALWAYS, "noise"}, "numbers of 10 and of 12 images are not mixed"
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("mine,too\n1,2\n")
    with pytest.raises(UserError, match="is no table of measures"):
        again(whole, what="noise", out=str(foreign))
    assert foreign.read_text() == "mine,too\n1,2\n"


def test_a_table_that_was_not_named_is_not_replaced_by_one_that_was_had_otherwise(whole: Path, tmp_path: Path) -> None:
    weights = tmp_path / "moved" / "best.ckpt"  # away from its run, so that no config says how its table was had
    weights.parent.mkdir()
    shutil.copy(whole / "checkpoints/best.ckpt", weights)
    measure_again(Options(checkpoint=str(weights), what="flip", images=10))
    with pytest.raises(UserError, match=r"is there already, and was measured with images=10, not 12; give out="):
        measure_again(Options(checkpoint=str(weights), what="flip", images=12))


# --- a report, whatever was measured ---------------------------------------------------------------------------------


def write_measure_page(done: Path, folder: Path, found: Found, what: list[str], **settings: object) -> None:
    """The run, as if it had been measured for some families."""
    shutil.copytree(done, folder)
    tree = to_dict(tiny(data={"task": "both"}, measure={"what": what}, **settings))
    files.write(folder / files.CONFIG, json.dumps(tree))
    write_measures(folder / files.MEASURES, found)
    from_dict(tree)


@pytest.mark.parametrize("name", FEW_TRANSFORMS)
def test_a_report_of_runs_with_one_family_alone(
    name: str, of_family: dict[str, Found], done: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        for pool in ("max", "avg"):
            write_measure_page(
                done, tmp_path / f"{pool}{seed}", of_family[name], [name], seed=seed, model={"pool": pool}
            )
    assert build_report(tmp_path).exists()
    assert {row["variant"] for row in files.read_rows(tmp_path / files.COMPARISON)} == {"pool=max", "pool=avg"}


def test_a_report_of_runs_with_none_of_the_usual_numbers(done: Path, tmp_path: Path) -> None:
    for pool in ("max", "avg"):
        write_measure_page(done, tmp_path / pool, [], ["shift"], model={"pool": pool})
    assert build_report(tmp_path).exists()
    for pool in ("max", "avg"):
        (tmp_path / pool / files.MEASURES).unlink()
    assert build_report(tmp_path).exists()


def test_a_report_of_runs_that_each_have_another_family(
    of_family: dict[str, Found], done: Path, tmp_path: Path
) -> None:
    for name in MEASURE_NAMES:
        write_measure_page(done, tmp_path / name, of_family[name], [name])
    assert build_report(tmp_path).exists()
    assert len(files.read_rows(tmp_path / files.COMPARISON)) == len(MEASURE_NAMES)


def test_a_report_where_the_seeds_of_a_variant_have_other_families(
    of_family: dict[str, Found], done: Path, tmp_path: Path
) -> None:
    everything = [one for found in of_family.values() for one in found]
    for seed, name in enumerate(("all", *MEASURE_NAMES)):
        for pool in ("max", "avg"):
            found = everything if name == "all" and pool == "max" else of_family.get(name, [])
            write_measure_page(done, tmp_path / f"{pool}{seed}", found, ["shift"], seed=seed, model={"pool": pool})
    assert build_report(tmp_path).exists()


@pytest.mark.parametrize(
    ("name", "seeds", "others"),
    [("shift", 2, MEASURE_NAMES), ("layers", 1, FEW_TRANSFORMS), ("rolls", 2, FEW_TRANSFORMS)],
)
def test_a_report_of_crossed_axes_where_one_run_has_one_family_alone(
    name: str, seeds: int, others: Sequence[str], of_family: dict[str, Found], done: Path, tmp_path: Path
) -> None:
    everything = [one for other in others for one in of_family[other]]
    for seed in range(seeds):
        for pool in ("max", "avg"):
            for padding in ("zeros", "circular"):
                found = of_family[name] if (pool, padding, seed) == ("max", "zeros", 0) else everything
                model = {"pool": pool, "padding": padding}
                write_measure_page(done, tmp_path / f"{pool}{padding}{seed}", found, ["shift"], seed=seed, model=model)
    assert build_report(tmp_path).exists()
