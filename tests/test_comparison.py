"""The comparison against numbers worked out by hand, and the page against hostile names."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scipy import stats

from src.common.errors import UserError
from src.config import from_dict, to_dict
from src.metrics.rows import Estimate, Row
from src.reporting.columns import one_line
from src.reporting.comparison import difference, group_into_variants, select_baseline, shown_differences
from src.reporting.headline import headline
from src.reporting.page import build_report, render, write_run_page
from src.reporting.tables import comparison_rows, shown_columns, shown_rows
from src.reporting.terminal import console, show_comparison
from src.reporting.variant import Variant
from src.results import files
from src.results.identity import FORMAT, write_identity
from src.results.measures import write_measures
from src.results.runs import FinishedRun, find_runs
from tests.helpers import ROOT, words_of_page


def leave_run(folder: Path, accuracy: float, distance: float, **settings: object) -> None:
    """Write a finished run to disk."""
    files.write(folder / files.CONFIG, yaml.safe_dump(to_dict(from_dict(settings))))
    spots = [("test", 0, "accuracy", accuracy), ("train", 0, "accuracy", accuracy + 0.05)]
    for protocol in ("crop", "roll"):
        for name in ("output_distance", "output_distance_untrained", "consistency", "consistency_corrected"):
            spots.append((protocol, 1, name, distance))
    rows = [
        Row("output", "shift" if a else "none", p, a, m, Estimate(v, v - 0.01, v + 0.01, 100)) for p, a, m, v in spots
    ]
    write_measures(folder / files.MEASURES, rows)
    shape = {"layer": "stage1.conv", "kind": "Conv2d", "channels": 4, "height": 8, "width": 8, "receptive_field": 3.0,
             "jump": 1.0, "start": 0.5, "parameters": 40, "multiply_adds": 2304, "input_seen": 0.1}  # fmt: skip
    files.write_rows(folder / files.SHAPES, [shape])
    losses = {"train/loss": 1.0, "val/loss": 1.1, "train/accuracy": 0.5, "val/accuracy": 0.5}
    files.write_rows(folder / files.HISTORY, [{"epoch": 1, "step": 10, **losses, "seconds": 1.0}])
    facts = {"seconds": 3.0, "parameters": 40, "multiply_adds": 2304, "hardware": "<b>cpu</b>", "torch": "2",
             "split_checksum": "s", "probe_checksum": "p", "realised_label_noise": 0.0}  # fmt: skip
    files.write_json(folder / files.RUN, facts)


def found_below(folder: Path) -> list[FinishedRun]:
    """The finished runs, without the others."""
    return find_runs(folder)[0]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, (accuracy, distance) in enumerate([(0.90, 0.10), (0.92, 0.20), (0.94, 0.30)]):
        leave_run(tmp_path / f"max{seed}", accuracy, distance, seed=seed)
    leave_run(tmp_path / "<script>alert(1)</script>", 0.80, 0.05, model={"pool": "avg"})
    files.write(tmp_path / "broken" / files.CONFIG, yaml.safe_dump(to_dict(from_dict({"seed": 9}))))
    files.write(tmp_path / "broken" / files.FAILED, "Traceback\nRuntimeError: <i>boom</i>")
    files.write_json(
        tmp_path / files.SWEEP, {"command": "c", "question": "<q>?", "jobs": ["max0", "max1", "max2", "later"]}
    )
    return tmp_path


def test_variants_are_means_and_intervals_over_seeds(sweep: Path) -> None:
    runs, others = find_runs(sweep)
    rows = {row["variant"]: row for row in comparison_rows(group_into_variants(runs))}
    assert set(rows) == {"pool=max", "pool=avg"}
    best = rows["pool=max"]
    assert best["seeds"] == 3
    assert best["test_accuracy"] == pytest.approx(0.92)
    assert best["test_accuracy_sd"] == pytest.approx(0.02)
    assert best["crop_1px_output_distance"] == pytest.approx(0.2)
    assert best["crop_1px_output_distance_sd"] == pytest.approx(0.1)
    assert best["gap"] == pytest.approx(0.05)
    assert rows["pool=avg"]["test_accuracy_sd"] != rows["pool=avg"]["test_accuracy_sd"], (
        "one seed has no standard deviation"
    )
    assert others == {"broken": "RuntimeError: <i>boom</i>", "later": "not started"}
    assert shown_rows(group_into_variants(runs))[0]["test_accuracy"] == "0.920 ± 0.050"  # 4.303 · 0.02 / √3


def test_the_headline_names_the_winners_and_its_own_weakness(sweep: Path) -> None:
    text = headline(group_into_variants(find_runs(sweep)[0]))
    # intervals at 97.5 %, as the best is picked from two; 0.2 ± 0.25 over seeds overlaps, and 0.92 ± 0.05 does not
    best = "pool=avg is the most invariant to a 1-px crop (output distance): 0.050 [0.039, 0.061]"
    assert f"{best}; not distinguishable from pool=max with 0.200, behind by" in text
    assert "pool=max is the most accurate: 0.920 [0.848, 0.992] over 3 seeds; next is pool=avg with 0.800" in text
    assert "With 1 seed per variant this is preliminary: use at least 5 seeds." in text


def words_of(text: str) -> list[str]:
    """The words of a printed comparison, without numbers and intervals, which need the data of real runs."""
    text = re.sub(r"\[[^\]]*\] image by image|\[[^\]]*\]", "", " ".join(text.split()))
    return re.sub(r"\s+([.,;])", r"\1", re.sub(r"\b\d+(?:\.\d+)?(?: [kM]\b)?(?!-px)", "", text)).split()


def test_the_quick_start_shows_what_is_printed(tmp_path: Path) -> None:
    for pool, accuracy, distance in (("max", 0.913, 0.144), ("avg", 0.915, 0.113), ("none", 0.850, 0.171)):
        leave_run(tmp_path / pool, accuracy, distance, model={"pool": pool})
        write_identity(tmp_path / pool, from_dict({}))
    files.write_json(tmp_path / files.SWEEP, {"jobs": ["max", "avg", "none"]})
    variants = group_into_variants(found_below(tmp_path))
    columns = shown_columns(variants)
    with console.capture() as captured:
        show_comparison(shown_rows(variants), "model.pool=max,avg,none: 3 runs", columns)
    page = (ROOT / "docs" / "quickstart.md").read_text()
    shown = page.split("```text\n")[1].split("```")[0]
    assert words_of(shown) == words_of(f"{captured.get()} {headline(variants)}")
    assert [heading for heading in map(one_line, columns.values()) if heading not in page] == []


def test_names_on_the_page_are_text(sweep: Path) -> None:
    page = words_of_page(build_report(sweep))
    for hostile in ("<script>alert(1)", "<i>boom", "<b>cpu", "<q>"):
        assert hostile not in page
    assert "&lt;i&gt;boom" in page and "&lt;q&gt;?" in page
    assert "http" not in page, "nothing is fetched"


def test_a_single_run_is_compared_with_nothing(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", 0.9, 0.1)
    text = headline(group_into_variants(find_runs(tmp_path)[0]))
    assert text.startswith("Test accuracy 0.900 [0.890, 0.910]; output distance for a 1-px crop (0 = invariant, 1 =")
    assert text.endswith(
        "0.100 [0.090, 0.110]; untrained 0.100 [0.090, 0.110]. There is no other variant to compare it with."
    )


def test_one_run_has_a_page_of_its_own(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", 0.9, 0.1)
    text = words_of_page(write_run_page(tmp_path / "one"))
    assert "Test accuracy 0.900 [0.890, 0.910]" in text
    assert "Differences from" not in text and "The runs differ" not in text
    assert (tmp_path / "one" / files.PAGE).exists()


def test_two_folders_are_compared(tmp_path: Path) -> None:
    one, other = tmp_path / "here" / "one", tmp_path / "there" / "other"
    leave_run(one, 0.9, 0.1)
    leave_run(other, 0.8, 0.2, model={"pool": "avg"}, train={"epochs": 7})
    page = build_report(one, compare_with=other)
    assert page == one / "beside-other" / files.PAGE
    rows = files.read_rows(page.with_name(files.COMPARISON))
    assert [(row["model.pool"], row["train.epochs"], float(row["test_accuracy"])) for row in rows] == [
        ("max", "2", 0.9),
        ("avg", "7", 0.8),
    ]
    assert len(find_runs(one)[0]) == 1, "the folder of the page is not a run"


def test_the_page_lists_the_settings_that_all_runs_share(sweep: Path, tmp_path: Path) -> None:
    leave_run(tmp_path / "a" / "max", 0.9, 0.1, train={"lr": 0.05})
    leave_run(tmp_path / "a" / "avg", 0.8, 0.2, train={"lr": 0.05}, model={"pool": "avg"})
    text = build_report(tmp_path / "a").read_text()
    assert "The runs differ in model.pool; all have train.lr=0.05; the rest is the default." in text


def in_memory(accuracy: float, seed: int = 0, **model: object) -> FinishedRun:
    """A finished run that needs no disk; its distance is a tenth of its accuracy."""
    run = FinishedRun(Path(), {"model.name": "ladder", "seed": seed} | {f"model.{k}": v for k, v in model.items()})
    spots = {("output", "test", 0.0, "accuracy"): accuracy, ("output", "train", 0.0, "accuracy"): accuracy + 0.05,
             ("output", "crop", 1.0, "output_distance"): accuracy / 10}  # fmt: skip
    facts = {"seconds": 3.0, "parameters": 40, "multiply_adds": 2304}
    vars(run).update(measures={key: (one, one - 0.01, one + 0.01) for key, one in spots.items()}, facts=facts)
    return run


#: accuracies of two pools, by seed: what a seed does to both is ten times what the pool does
PAIRED = {"max": {0: 0.70, 1: 0.80, 2: 0.90}, "avg": {0: 0.71, 1: 0.82, 2: 0.91}}


def paired(*gone: tuple[str, int]) -> list[Variant]:
    """The two pools with their seeds in different orders: they are paired by seed, not by position."""
    orders = {"max": (0, 1, 2), "avg": (2, 0, 1)}
    runs = [(pool, seed) for pool, seeds in orders.items() for seed in seeds if (pool, seed) not in gone]
    return group_into_variants([in_memory(PAIRED[pool][seed], seed, pool=pool) for pool, seed in runs])


def test_differences_are_paired_by_seed() -> None:
    first, second = paired()
    found = difference(second, first, "test_accuracy")
    oracle = stats.ttest_rel(list(PAIRED["avg"].values()), list(PAIRED["max"].values())).confidence_interval(0.95)
    assert found.pairs == 3
    assert found.value == pytest.approx(0.04 / 3)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert shown_differences([first, second], first)[0]["test_accuracy"] == "+0.013 ± 0.014"


def test_an_interval_over_seeds_is_students_t() -> None:
    first, _ = paired()
    oracle = stats.ttest_1samp([0.7, 0.8, 0.9], 0).confidence_interval(0.95)
    assert oracle.high > 1, "beyond the range of accuracies"
    assert first.interval("test_accuracy") == pytest.approx((0.8, oracle.low, 1))
    assert first.point("output", "test", 0, "accuracy") == pytest.approx((0.8, oracle.low, 1))


def test_only_common_seeds_are_paired() -> None:
    first, second = paired(("avg", 1))
    assert difference(second, first, "test_accuracy").value == pytest.approx(0.01)
    assert difference(second, first, "test_accuracy").pairs == 2
    first, second = paired(("avg", 1), ("avg", 2))
    found = difference(second, first, "test_accuracy")
    assert found.value == pytest.approx(0.01) and found.pairs == 1
    assert math.isnan(found.low) and math.isnan(found.high), "one pair has no interval"
    assert shown_differences([first, second], first)[0]["test_accuracy"] == "+0.010"


def test_without_common_seeds_it_is_the_difference_of_means() -> None:
    first, second = paired(("max", 0), ("avg", 1), ("avg", 2))
    found = difference(second, first, "test_accuracy")
    assert found.value == pytest.approx(0.71 - 0.85) and found.pairs == 0 and math.isnan(found.low)


def test_the_headline_compares_the_best_with_the_next_seed_by_seed() -> None:
    best = "pool=avg is the most accurate: 0.813 [0.454, 1.000] over 3 seeds"
    untold = f"{best}; not distinguishable from pool=max with 0.800, behind by 0.013 [-0.001, 0.028] seed by seed."
    assert untold in headline(paired())
    ahead = [in_memory(accuracy, seed, pool=pool) for pool, plus in (("max", 0), ("avg", 0.01))
             for seed, accuracy in enumerate((0.7 + plus, 0.8 + plus, 0.9 + plus * 1.1))]  # fmt: skip
    assert "next is pool=max with 0.800, behind by 0.010 [0.009, 0.012] seed by seed" in headline(
        group_into_variants(ahead)
    )


def test_a_run_that_occurs_twice_counts_once() -> None:
    runs = [in_memory(0.7, seed, pool=pool) for pool in ("max", "avg") for seed in (0, 1, 0)]
    assert [variant.seeds for variant in group_into_variants(runs)] == [[0, 1], [0, 1]]


@pytest.fixture
def pools(tmp_path: Path) -> Path:
    for pool, accuracies in PAIRED.items():
        for seed in (0, 1):
            leave_run(tmp_path / f"{pool}{seed}", accuracies[seed], 0.1, seed=seed, model={"pool": pool})
    files.write_json(tmp_path / files.SWEEP, {"jobs": ["max0", "max1", "avg0", "avg1"]})
    return tmp_path


def test_a_baseline_is_chosen_by_its_name(pools: Path, tmp_path: Path) -> None:
    with console.capture() as shown:
        page = build_report(pools, tmp_path / "first")
    assert "differences from pool=max, paired by seed" in shown.get()
    rows = files.read_rows(tmp_path / "first" / files.DIFFERENCES)
    assert {(row["variant"], row["baseline"], row["pairs"]) for row in rows} == {("pool=avg", "pool=max", "2")}
    numbers = {row["measure"]: float(row["difference"]) for row in rows}
    assert numbers["test_accuracy"] == pytest.approx(0.015)
    assert {"gap", "seconds", "crop_1px_output_distance"} <= numbers.keys() and "test_r2" not in numbers
    assert re.search(r"<option selected>pool=max</option><option>pool=avg</option>", page.read_text())
    page = build_report(pools, tmp_path / "other", "pool=avg")
    (row, *_) = files.read_rows(tmp_path / "other" / files.DIFFERENCES)
    assert row["variant"] == "pool=max" and float(row["difference"]) == pytest.approx(-0.015)
    shown_bodies = re.findall(r"<tbody( hidden)?><tr[^>]*><td>(pool=\w+)</td>", page.read_text())
    assert (" hidden", "pool=avg") in shown_bodies and ("", "pool=max") in shown_bodies


def test_an_unknown_baseline_is_refused_before_anything_is_written(pools: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^baseline=max: no such variant; choose one of pool=max; pool=avg$"):
        build_report(pools, tmp_path / "out", "max")
    assert not (tmp_path / "out").exists()
    assert select_baseline(group_into_variants(find_runs(pools)[0]), None).name == "pool=max"


def test_differences_too_wide_for_a_terminal_leave_out_columns_and_say_so(
    pools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        model = {"pool": "avg", "padding": "circular", "dropout": 0.25, "activation": "leaky_relu"}
        leave_run(pools / f"wide{seed}", 0.8, 0.1, seed=seed, model=model)
    monkeypatch.setattr(console, "width", 60)
    with console.capture() as shown:
        page = build_report(pools)
    table = shown.get().partition("differences from")[2].partition("\n\n")[0]
    assert "accuracy" in table and "gap" not in table.partition("not shown")[0]
    assert "gap" in table.partition("not shown, too wide for 60 columns: ")[2].partition(". See differences.csv")[0]
    assert "<h3>Differences from" in page.read_text()


def test_names_in_the_differences_are_text(pools: Path) -> None:
    runs, _ = find_runs(pools)
    found = [replace(one, name=f"<script>alert({i})</script>") for i, one in enumerate(group_into_variants(runs))]
    text = render(pools, "pools", runs, found, {}, found[1])
    body = text[text.index("<body>") :]
    assert "<script>alert" not in body
    assert "<option selected>&lt;script&gt;alert(1)" in body and "<td>&lt;script&gt;alert(0)" in body


def test_settings_are_written_as_on_the_command_line(tmp_path: Path) -> None:
    leave_run(tmp_path / "early", 0.9, 0.1, model={"pool_at": [1, 2]}, measure={"what": ["shift", "rolls"]})
    leave_run(tmp_path / "all", 0.8, 0.2, measure={"what": ["shift"]})
    runs, _ = find_runs(tmp_path)
    names = {variant.name for variant in group_into_variants(runs)}
    assert names == {"pool_at=[1,2], measure.what=[shift,rolls]", "pool_at=null, measure.what=[shift]"}


# --- ranking within data sets and tasks -------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two pools on two data sets; the worse pool of the easy one beats the better of the hard one."""
    spots = {("mnist", "max"): 0.99, ("mnist", "avg"): 0.98, ("cifar10", "max"): 0.60, ("cifar10", "avg"): 0.70}
    for (name, pool), accuracy in spots.items():
        for seed in (0, 1):
            settings = {"data": {"name": name}, "model": {"pool": pool}, "seed": seed}
            leave_run(tmp_path / f"{name}{pool}{seed}", accuracy + seed / 100, 1 - accuracy, **settings)
    return tmp_path


def test_runs_of_two_data_sets_are_ranked_within_each(mixed: Path) -> None:
    text = headline(group_into_variants(found_below(mixed)))
    assert text.startswith("2 data sets or tasks, ranked within each, not with each other. ")
    assert "data.name=mnist: pool=max, data.name=mnist is the most invariant to a 1-px crop" in text
    assert "pool=max, data.name=mnist is the most accurate: 0.995" in text
    assert "pool=avg, data.name=cifar10 is the most accurate: 0.705" in text
    for sentence in text.split(". "):
        assert not ("mnist" in sentence and "cifar10" in sentence), sentence


def test_differences_are_within_a_data_set(mixed: Path) -> None:
    build_report(mixed)
    rows = files.read_rows(mixed / files.DIFFERENCES)
    assert {(row["variant"], row["baseline"]) for row in rows} == {
        (f"pool=max, data.name={name}", f"pool=avg, data.name={name}") for name in ("mnist", "cifar10")
    }
    build_report(mixed, baseline="pool=max, data.name=mnist")
    rows = files.read_rows(mixed / files.DIFFERENCES)
    assert {(row["variant"], row["baseline"]) for row in rows} == {
        ("pool=avg, data.name=mnist", "pool=max, data.name=mnist"),
        ("pool=max, data.name=cifar10", "pool=avg, data.name=cifar10"),
    }


def test_tasks_are_ranked_within_each(tmp_path: Path) -> None:
    for task in ("what", "both"):
        for pool, accuracy in (("max", 0.7), ("avg", 0.8)):
            data = {"name": "shapes", "task": task}
            leave_run(tmp_path / f"{task}{pool}", accuracy, 0.1, data=data, model={"pool": pool})
    text = headline(group_into_variants(found_below(tmp_path)))
    assert "data.task=what: " in text and "data.task=both: " in text and text.count("is the most accurate") == 2


def test_a_data_set_with_one_variant_is_ranked_with_nothing(mixed: Path) -> None:
    for path in mixed.glob("mnistavg*"):
        shutil.rmtree(path)
    text = headline(group_into_variants(found_below(mixed)))
    assert "data.name=mnist: Test accuracy 0.995" in text
    assert build_report(mixed).exists()


# --- selecting runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("data=mnist", ["mnistavg0", "mnistavg1", "mnistmax0", "mnistmax1"]),
        ("data.name=mnist,model.pool=avg", ["mnistavg0", "mnistavg1"]),
        ("pool=avg,seed=0", ["cifar10avg0", "mnistavg0"]),
        ("pool=avg,max,seed=1,data=cifar10", ["cifar10avg1", "cifar10max1"]),
        ("lr=1e-2,seed=0.0,data=mnist", ["mnistavg0", "mnistmax0"]),
        ("model=ladder,pool_at=null,epochs=2,data=mnist,seed=1", ["mnistavg1", "mnistmax1"]),
    ],
)
def test_runs_are_chosen_by_their_settings(where: str, names: list[str], mixed: Path) -> None:
    assert [run.folder.name for run in find_runs(mixed, where)[0]] == names


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("pol=max", r"^where=pol=max: no such key; did you mean pool\? the runs differ in model\.pool, .*seed$"),
        ("pool=mx", r"^where=pool=mx: no run has it; model\.pool is avg, max$"),
        ("images=8", r"^where=images=8: is it measure\.images or probe\.images\?$"),
        ("mnist", r"^where=mnist: is written key=value"),
        ("pool=", r"^where=pool=: is written key=value"),
        ("", r"^where=: is written key=value"),
    ],
)
def test_a_selection_without_runs_is_refused_and_lists_the_values(where: str, message: str, mixed: Path) -> None:
    with pytest.raises(UserError, match=message):
        find_runs(mixed, where)


def test_a_combination_that_no_run_has_is_refused(mixed: Path) -> None:
    shutil.rmtree(mixed / "mnistavg1")
    with pytest.raises(UserError, match="each is there, but no run has all of it"):
        find_runs(mixed, "data=mnist,pool=avg,seed=1")


def test_runs_are_selected_by_lists(tmp_path: Path) -> None:
    for name, stages in (("early", [1, 2]), ("late", [2, 3])):
        leave_run(tmp_path / name, 0.9, 0.1, model={"pool_at": stages})
    assert [run.folder.name for run in find_runs(tmp_path, "pool_at=[2,3],seed=0")[0]] == ["late"]


def test_a_comparison_of_selected_runs_does_not_change_that_of_all(mixed: Path) -> None:
    build_report(mixed)
    before = (mixed / files.COMPARISON).read_bytes()
    files.write(mixed / "broken" / files.CONFIG, yaml.safe_dump(to_dict(from_dict({"seed": 7}))))
    page = build_report(mixed, where="data=mnist,seed=0")
    assert page == mixed / "where-data=mnist,seed=0" / files.PAGE
    rows = files.read_rows(page.with_name(files.COMPARISON))
    assert [row["variant"] for row in rows] == ["pool=avg", "pool=max"], "runs that were not selected are not missing"
    assert (mixed / files.COMPARISON).read_bytes() == before


def test_runs_csv_has_a_row_per_run_with_differing_settings_and_every_value(mixed: Path) -> None:
    leave_run(mixed / "cpu", 0.5, 0.2, seed=5, trainer={"accelerator": "cpu"})
    build_report(mixed)
    table = files.read_rows(mixed / files.RUNS)
    columns = set(table[0])
    assert len(table) == 9
    assert {"run", "variant", "seed", "model.pool", "data.name", "trainer.accelerator"} <= columns
    assert not {"train.lr", "model.depth"} & columns, "the same in all"
    numbers = {name for run in found_below(mixed) for name in run.numbers}
    assert numbers | {"parameters", "multiply_adds", "seconds", "split_checksum"} <= columns
    (row,) = (one for one in table if one["run"] == str(mixed / "cifar10avg1"))
    assert float(row["test/accuracy"]) == pytest.approx(0.71)
    assert float(row["invariance/crop/1px/output_distance"]) == pytest.approx(0.3)
    for line in files.read_rows(mixed / files.COMPARISON):
        found = [float(one["test/accuracy"]) for one in table if one["variant"] == line["variant"]]
        assert sum(found) / len(found) == pytest.approx(float(line["test_accuracy"]))


def test_runs_of_an_earlier_version_are_counted_in_the_headline(sweep: Path) -> None:
    runs, _ = find_runs(sweep)
    assert "4 of 4 runs were measured by an earlier version" in headline(group_into_variants(runs))
    for run in runs:
        write_identity(run.folder, from_dict({}))
    assert "earlier version" not in headline(group_into_variants(find_runs(sweep)[0]))
    files.write_json(runs[0].folder / files.IDENTITY, {"format": FORMAT - 1, "contents": {}})
    assert "1 of 4 runs were measured by an earlier version" in headline(group_into_variants(find_runs(sweep)[0]))


def test_where_only_one_variant_has_values_the_headline_gives_them(tmp_path: Path) -> None:
    leave_run(tmp_path / "good", 0.9, 0.1, train={"lr": 0.1})
    leave_run(tmp_path / "diverged", math.nan, math.nan, train={"lr": 1e12})
    words = headline(group_into_variants(find_runs(tmp_path)[0]))
    assert "Only train.lr=0.1 has values: Test accuracy 0.900 [0.890, 0.910]" in words


def test_the_title_counts_a_duplicated_run_once(tmp_path: Path) -> None:
    for name in ("one", "again"):
        leave_run(tmp_path / name, 0.9, 0.1, seed=0)
    leave_run(tmp_path / "two", 0.9, 0.1, seed=1)
    with console.capture() as said:
        build_report(tmp_path)
    assert ": 2 runs" in said.get()
