"""Claims of a study: read from runs of known numbers, judged, and recorded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from src.claims.checks import Checks, checks_of
from src.claims.judge import judge_claim
from src.claims.readings import numbers_of
from src.claims.record import judge_sweep, read_verdict, state, write_verdict
from src.claims.rule import study_hash
from src.config import Claim, Contrast, Reading, Study, from_dict, to_dict
from src.metrics.rows import Estimate, PerImage, Row
from src.reporting.page import build_report
from src.reporting.verdicts import remarks
from src.reporting.wandb_report import compose, definition_of
from src.results import files
from src.results.measures import write_measures
from src.results.runs import FinishedRun, find_runs
from src.stats.decisions import MINIMUM_SEEDS, Verdict
from tests.test_comparison import leave_run

SEEDS = range(8)


def written_run(
    folder: Path, accuracy: float, distance: float = 0.1, outcome: str = "trained", images: Any = None, **settings: Any
) -> None:
    """A finished run with chosen numbers: accuracy on the test set, output distance of a 1-px crop (untrained: 0.5)."""
    leave_run(folder, accuracy, distance, **settings)
    rows: list[Any] = [
        Row("output", "none", "test", 0, "accuracy", Estimate(accuracy, accuracy, accuracy, 100)),
        Row("output", "none", "train", 0, "accuracy", Estimate(accuracy + 0.05, 0, 0, 100)),
        Row("output", "shift", "crop", 1, "output_distance", Estimate(distance, distance, distance, 100)),
        Row("output", "shift", "crop", 1, "output_distance_untrained", Estimate(0.5, 0.5, 0.5, 100)),
    ]
    if images is not None:
        rows.append(PerImage("output", "test", 0, "accuracy", images[:, None]))
    write_measures(folder / files.MEASURES, rows)
    facts = json.loads((folder / files.RUN).read_text()) | {"outcome": outcome, "diverged_in_epoch": 1}
    files.write_json(folder / files.RUN, facts)
    history = [{"epoch": epoch, "val/accuracy": accuracy - 0.1 * (3 - epoch)} for epoch in (1, 2, 3)]
    files.write_rows(folder / files.HISTORY, history)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[FinishedRun]:
    """max and none at two depths, paired by seed: max is better by .05 ± .01, and by .02 more at the larger depth."""
    folder = tmp_path_factory.mktemp("study")
    generator = np.random.default_rng(0)
    for seed in SEEDS:
        common, own = generator.normal(0, 0.1), generator.normal(0, 0.01, 4)
        for i, (pool, depth) in enumerate([("max", 2), ("max", 4), ("none", 2), ("none", 4)]):
            accuracy = 0.5 + common + own[i] + 0.05 * (pool == "max") + 0.02 * (pool == "max") * (depth == 4)
            settings = {"seed": seed, "model": {"pool": pool, "depth": depth}}
            written_run(folder / f"pool={pool},depth={depth},seed={seed}", accuracy, 0.1 + 0.01 * depth, **settings)
    return find_runs(folder)[0]


def accuracies(runs: list[FinishedRun], pool: str, depth: int) -> np.ndarray:
    """By seed."""
    chosen = [run for run in runs if run.settings["model.pool"] == pool and run.settings["model.depth"] == depth]
    return np.array([run.estimate("output", "test", 0, "accuracy")[0] for run in chosen])


MAX, NONE = Reading(where="pool=max,depth=2", measure="accuracy"), Reading(where="pool=none,depth=2")


def test_a_paired_contrast_has_the_interval_of_a_paired_t_test(runs: list[FinishedRun]) -> None:
    verdict = judge_claim(Claim("max is better", [Contrast(MAX, NONE, margin=0.01)]), runs)
    (contrast,) = verdict.contrasts
    expected = stats.ttest_rel(accuracies(runs, "max", 2), accuracies(runs, "none", 2))
    interval = expected.confidence_interval(0.95)
    assert verdict.verdict == contrast.verdict == Verdict.HOLDS
    assert (contrast.low, contrast.high) == pytest.approx((interval.low, interval.high))
    assert contrast.pairs == len(SEEDS) and contrast.paired and contrast.images == 0


def test_a_difference_of_differences_is_that_of_each_seed(runs: list[FinishedRun]) -> None:
    contrast = Contrast(
        Reading(where="pool=max,depth=4", measure="accuracy"), Reading(where="pool=max,depth=2"),
        Reading(where="pool=none,depth=4"), Reading(where="pool=none,depth=2"), margin=0.01,
    )  # fmt: skip
    numbers = numbers_of(contrast, runs)
    by_hand = (accuracies(runs, "max", 4) - accuracies(runs, "none", 4)) - (
        accuracies(runs, "max", 2) - accuracies(runs, "none", 2)
    )
    assert [numbers.a[seed] - numbers.b[seed] for seed in SEEDS] == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ({"b": {"where": "pool=none"}}, "accuracy"),
        ({"b": {"untrained": True}}, "a: accuracy; b: accuracy, untrained net"),
        ({"a_minus": {"protocol": "train"}, "b": {"where": "pool=none"}, "b_minus": {"where": "pool=none"}},
         "accuracy − accuracy, train"),
        ({"a_minus": {"where": "pool=none"}, "b": {"untrained": True}, "b_minus": {"where": "pool=none"}},
         "a: accuracy of pool=max − pool=none; b: accuracy, untrained net − accuracy of pool=max − pool=none"),
        ({"a_minus": {"where": "depth=2"}, "b": {"where": "pool=none,depth=4"},
          "b_minus": {"where": "pool=none,depth=2"}},
         "a: accuracy of pool=max − depth=2; b: accuracy of pool=none,depth=4 − pool=none,depth=2"),
    ],
)  # fmt: skip
def test_the_number_of_a_contrast_names_each_side_that_differs(
    runs: list[FinishedRun], sides: dict[str, Any], words: str
) -> None:
    readings = {side: Reading(**fields) for side, fields in sides.items()}
    contrast = Contrast(Reading(where="pool=max", measure="accuracy"), margin=0.0, **readings)
    assert judge_claim(Claim("", [contrast]), runs).contrasts[0].number == words


def test_a_slope_is_the_difference_by_the_step_where_an_axis_has_two_levels(runs: list[FinishedRun]) -> None:
    contrast = Contrast(Reading(where="pool=max", measure="accuracy"), slope="model.depth", margin=0.0)
    by_hand = (accuracies(runs, "max", 4) - accuracies(runs, "max", 2)) / 2
    assert [numbers_of(contrast, runs).a[seed] for seed in SEEDS] == pytest.approx(by_hand)


def test_a_net_is_compared_with_itself_before_training(runs: list[FinishedRun]) -> None:
    reading = Reading(where="depth=2", measure="output_distance", protocol="crop", amount=1)
    numbers = numbers_of(Contrast(reading, Reading(untrained=True), margin=0.0), runs)
    assert [*numbers.a.values()] == pytest.approx([0.12] * 8) and [*numbers.b.values()] == pytest.approx([0.5] * 8)


@pytest.mark.parametrize(
    ("look", "value"), [("last", 0.0), ("first", -0.2), ("best", 0.0), ("min", -0.2), ("max", 0.0), ("mean", -0.1)]
)
def test_a_history_column_is_read_at_a_look(runs: list[FinishedRun], look: str, value: float) -> None:
    numbers = numbers_of(
        Contrast(Reading(where="pool=max,depth=2", history="val/accuracy", look=look), margin=0.0), runs
    )
    assert [*numbers.a.values()] == pytest.approx(accuracies(runs, "max", 2) + value)


def test_a_fact_of_a_run_is_read(runs: list[FinishedRun]) -> None:
    assert {*numbers_of(Contrast(Reading(fact="parameters"), margin=0.0), runs).a.values()} == {40.0}


def test_where_images_have_values_the_interval_is_over_seeds_and_images(tmp_path: Path) -> None:
    """Nets of all seeds err on the same images: over seeds alone, the interval would be far too short."""
    generator = np.random.default_rng(1)
    hard = generator.random(100) < 0.3
    for seed in SEEDS:
        right = ~hard & (generator.random(100) < 0.98)
        written_run(tmp_path / str(seed), float(right.mean()), images=right, seed=seed)
    contrast = Contrast(Reading(measure="accuracy"), against=0.5, margin=0.01)
    (verdict,) = judge_claim(Claim("accurate", [contrast]), find_runs(tmp_path)[0]).contrasts
    values = [run.estimate("output", "test", 0, "accuracy")[0] for run in find_runs(tmp_path)[0]]
    half = stats.sem(values) * stats.t.ppf(0.975, len(SEEDS) - 1)
    assert verdict.images == 100 and verdict.value == pytest.approx(np.mean(values) - 0.5)
    of_images = 1.98 * np.sqrt(0.3 * 0.7 / 100)  # of a share of about .7 of 100 images
    assert (verdict.high - verdict.low) / 2 == pytest.approx(np.hypot(half, of_images), rel=0.15)


def test_seeds_that_the_sides_do_not_share_are_not_paired(tmp_path: Path) -> None:
    for seed in SEEDS:
        written_run(tmp_path / str(seed), 0.5 + seed / 100, seed=seed, model={"pool": "max" if seed < 4 else "none"})
    for seed in (20, 21, 22, 23):
        written_run(tmp_path / str(seed), 0.5 + seed / 100, seed=seed, model={"pool": "max" if seed < 22 else "none"})
    contrast = Contrast(Reading(where="pool=max", measure="accuracy"), Reading(where="pool=none"), margin=0.01)
    found = find_runs(tmp_path)[0]
    (verdict,) = judge_claim(Claim("max", [contrast]), found).contrasts
    sides = [[run.estimate("output", "test", 0, "accuracy")[0] for run in found if run.settings["model.pool"] == pool]
             for pool in ("max", "none")]  # fmt: skip
    interval = stats.ttest_ind(*sides, equal_var=False).confidence_interval(0.95)
    assert not verdict.paired and (verdict.low, verdict.high) == pytest.approx((interval.low, interval.high))


def test_failed_runs_are_left_out_and_counted_and_too_many_make_a_claim_inadmissible(tmp_path: Path) -> None:
    for seed in range(10):
        outcome = "collapsed" if seed == 0 else "trained"
        written_run(tmp_path / f"max{seed}", 0.9, outcome=outcome, seed=seed)
        written_run(tmp_path / f"none{seed}", 0.8 + seed / 1000, seed=seed, model={"pool": "none"})
    claim = Claim(
        "max", [Contrast(Reading(where="pool=max", measure="accuracy"), Reading(where="pool=none"), margin=0.01)]
    )
    verdict = judge_claim(claim, find_runs(tmp_path)[0])
    assert verdict.contrasts[0].failed == ["max0"] and verdict.contrasts[0].pairs == 9
    assert verdict.verdict == Verdict.HOLDS
    for seed in range(1, 5):
        written_run(tmp_path / f"max{seed}", 0.9, outcome="diverged", seed=seed)
    verdict = judge_claim(claim, find_runs(tmp_path)[0])
    assert verdict.verdict == Verdict.INADMISSIBLE and verdict.reasons == ["5 of 10 runs of pool=max failed to train"]


def uneven_runs(folder: Path) -> list[FinishedRun]:
    """Two pools that are equally good, at three depths that are not; the deepest net of one pool failed for a seed."""
    generator = np.random.default_rng(0)
    for seed in SEEDS:
        for pool in ("max", "none"):
            for depth in (2, 3, 4):
                failed = (pool, depth, seed) == ("max", 4, 1)
                settings = {"seed": seed, "model": {"pool": pool, "depth": depth}}
                outcome = "collapsed" if failed else "trained"
                accuracy = 0.1 * depth + generator.normal(0, 1e-3)
                written_run(folder / f"{pool}{depth}{seed}", accuracy, outcome=outcome, **settings)
    return find_runs(folder)[0]


def test_a_seed_without_one_of_the_variants_that_are_averaged_does_not_count(tmp_path: Path) -> None:
    """Over the runs that are left, its mean would be that of shallower nets."""
    sides = Reading(where="pool=max", measure="accuracy"), Reading(where="pool=none")
    numbers = numbers_of(Contrast(*sides, margin=0.0), uneven_runs(tmp_path))
    assert numbers.paired == [seed for seed in SEEDS if seed != 1]
    assert [*numbers.a.values()] == pytest.approx([0.3] * 7, abs=0.003)
    slopes = numbers_of(Contrast(sides[0], margin=0.0, slope="model.depth"), find_runs(tmp_path)[0])
    assert 1 not in slopes.a and [*slopes.a.values()] == pytest.approx([0.1] * 7, abs=0.003)


def test_a_slope_over_a_level_that_has_not_run_yet_is_no_number(tmp_path: Path) -> None:
    few = [run for run in uneven_runs(tmp_path) if run.settings["model.depth"] == 2]
    contrast = Contrast(Reading(where="pool=max", measure="accuracy"), margin=0.0, slope="model.depth")
    assert judge_claim(Claim("rises", [contrast]), few).reasons == ["0 seeds, and the rule needs 5"]


def test_runs_without_the_number_count_as_missing(tmp_path: Path) -> None:
    for seed in range(10):
        written_run(tmp_path / f"max{seed}", 0.9 + seed / 1000, seed=seed)
        written_run(tmp_path / f"none{seed}", 0.8, seed=seed, model={"pool": "none"})
        if seed < 3:
            write_measures(tmp_path / f"max{seed}" / files.MEASURES, [])
    contrast = Contrast(Reading(where="pool=max", measure="accuracy"), Reading(where="pool=none"), margin=0.01)
    verdict = judge_claim(Claim("max", [contrast]), find_runs(tmp_path)[0])
    assert verdict.reasons == ["3 of 10 runs of pool=max do not have the number"]


def test_the_same_difference_for_every_seed_has_no_interval(tmp_path: Path) -> None:
    for seed in SEEDS:
        written_run(tmp_path / f"max{seed}", 0.9, seed=seed)
    contrast = Contrast(Reading(measure="accuracy"), margin=0.01, against=0.5)
    (reason,) = judge_claim(Claim("max", [contrast]), find_runs(tmp_path)[0]).reasons
    assert reason == "the difference is 0.4 for every seed, which says nothing of its error"


def test_shares_of_failed_runs_are_compared_exactly(tmp_path: Path) -> None:
    for seed in range(10):
        written_run(tmp_path / f"max{seed}", 0.9, outcome="collapsed" if seed < 9 else "trained", seed=seed)
        written_run(tmp_path / f"none{seed}", 0.9, seed=seed, model={"pool": "none"})
    contrast = Contrast(
        Reading(where="pool=max"), Reading(where="pool=none"), share="collapsed", expect="a>b", margin=0.1
    )
    verdict = judge_claim(Claim("max collapses more often", [contrast]), find_runs(tmp_path)[0])
    assert verdict.verdict == Verdict.HOLDS
    assert (verdict.contrasts[0].a, verdict.contrasts[0].b) == (0.9, 0.0)


@pytest.mark.parametrize(("floor", "verdict"), [(0.95, Verdict.INADMISSIBLE), (0.1, Verdict.HOLDS)])
def test_a_difference_between_sides_at_their_floor_means_nothing(
    tmp_path: Path, floor: float, verdict: Verdict
) -> None:
    for seed in SEEDS:
        for pool, accuracy in (("max", 0.9 + seed / 1000), ("none", 0.8)):
            folder = tmp_path / f"{pool}{seed}"
            written_run(folder, accuracy + seed / 1000, seed=seed, model={"pool": pool})
            rows = [Row("output", "none", "test", 0, "accuracy_shuffled", Estimate(floor, 0, 0, 9))]
            write_measures(folder / files.MEASURES, [*find_runs(folder)[0][0].results, *rows])
    contrast = Contrast(
        Reading(where="pool=max", measure="accuracy"), Reading(where="pool=none"), margin=0.01,
        floor=Reading(measure="accuracy_shuffled"),
    )  # fmt: skip
    assert judge_claim(Claim("max", [contrast]), find_runs(tmp_path)[0]).verdict == verdict


def test_too_few_seeds_make_a_claim_inadmissible(runs: list[FinishedRun]) -> None:
    few = [run for run in runs if run.settings["seed"] < MINIMUM_SEEDS - 1]
    verdict = judge_claim(Claim("max", [Contrast(MAX, NONE, margin=0.01)]), few)
    assert verdict.verdict == Verdict.INADMISSIBLE
    assert verdict.reasons == [f"{MINIMUM_SEEDS - 1} seeds, and the rule needs {MINIMUM_SEEDS}"]


def test_a_tuned_setting_is_chosen_by_validation_scores_not_by_those_that_are_compared(tmp_path: Path) -> None:
    for seed in SEEDS:
        for lr, accuracy, validation in ((0.1, 0.7, 0.9), (0.01, 0.8, 0.6), (1.0, 0.9, 0.95)):
            folder = tmp_path / f"{lr},{seed}"
            outcome = "diverged" if lr == 1.0 and seed == 0 else "trained"
            written_run(folder, accuracy + seed / 1000, outcome=outcome, seed=seed, train={"lr": lr})
            files.write_rows(folder / files.HISTORY, [{"epoch": 1, "val/accuracy": validation}])
    found = find_runs(tmp_path)[0]
    numbers = numbers_of(Contrast(Reading(measure="accuracy", tuned="train.lr"), margin=0.0), found)
    assert [*numbers.a.values()] == pytest.approx([0.7 + seed / 1000 for seed in SEEDS]) and not numbers.failed


# the record


def test_an_edit_of_the_claims_shows_on_the_verdict(runs: list[FinishedRun], tmp_path: Path) -> None:
    first = Study(number="Q0", claims=[Claim("max is better", [Contrast(MAX, NONE, margin=0.01)])])
    later = Study(number="Q0", claims=[Claim("max is better", [Contrast(MAX, NONE, margin=0.001)])])
    assert study_hash(first) != study_hash(later)
    entry = state({}, first, "quick", [], finished=0)
    assert state(entry, first, "quick", [], finished=3)["edits"] == []
    entry = state(entry, later, "quick", [], finished=3)
    files.write_json(tmp_path / files.SWEEP, {"study": entry, "jobs": [], "command": ""})
    verdict = judge_sweep(tmp_path, runs, {})
    assert verdict is not None and verdict.hash == study_hash(first)
    assert [edit["finished"] for edit in verdict.edits] == [3]
    entry["claims"][0]["contrasts"][0]["margin"] = 0.0  # by hand, in the file
    files.write_json(tmp_path / files.SWEEP, {"study": entry, "jobs": [], "command": ""})
    verdict = judge_sweep(tmp_path, runs, {})
    assert verdict is not None and [edit["date"] for edit in verdict.edits][1:] == ["not on record"]
    write_verdict(tmp_path, verdict)
    assert repr(read_verdict(tmp_path / files.VERDICT)) == repr(verdict)


def test_a_variant_that_was_added_when_runs_had_finished_shows_on_the_verdict(
    runs: list[FinishedRun], tmp_path: Path
) -> None:
    claims = Study(number="Q0", claims=[Claim("max is better", [Contrast(MAX, NONE, margin=0.01)])])
    first, wider = ["seed=0,train.lr=.1"], ["seed=0,train.lr=1"]
    more_seeds = [*first, "seed=1,train.lr=.1"]
    entry = state({}, claims, "quick", first, finished=0)
    entry = state(entry, claims, "quick", more_seeds, finished=1)
    assert not entry["added"]  # a seed is no variant
    assert not state(entry, claims, "quick", more_seeds + wider, finished=0)["added"]  # no result was known
    for _ in range(2):  # the same command again adds nothing
        entry = state(entry, claims, "quick", more_seeds + wider, finished=2)
        assert [(late["variants"], late["finished"]) for late in entry["added"]] == [(["train.lr=1"], 2)]
    files.write_json(tmp_path / files.SWEEP, {"study": entry, "jobs": [], "command": ""})
    verdict = judge_sweep(tmp_path, runs, {})
    assert verdict is not None and "1 variant was added when 2 runs had finished" in " ".join(remarks(verdict))
    write_verdict(tmp_path, verdict)
    assert repr(read_verdict(tmp_path / files.VERDICT)) == repr(verdict)


def test_the_page_and_the_terminal_of_a_sweep_begin_with_its_verdicts(
    runs: list[FinishedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs[0].folder.parent
    text = "<b>max</b> is better"
    study = Study(number="Q0", claims=[Claim(text, [Contrast(MAX, NONE, margin=0.01)])], untested="much")
    files.write_json(
        folder / files.SWEEP, {"study": state({}, study, "quick", [], 2), "jobs": [], "command": "", "question": "?"}
    )
    page = build_report(folder).read_text()
    shown = capsys.readouterr().out
    assert "HOLDS" in shown and "Not tested: much" in shown
    assert "&lt;b&gt;max&lt;/b&gt; is better" in page and text not in page
    assert page.index('id="verdict"') < page.index('id="comparison"')
    assert json.loads((folder / files.VERDICT).read_text())["finished_before"] == 2
    report = definition_of(compose(folder, *[find_runs(folder)[0]] * 2, {}))
    assert "HOLDS: <b>max</b> is better" in report and "Not tested: much" in report
    assert to_dict(from_dict({})).keys().isdisjoint({"study", "preset", "seeds"})


# what every run is checked for


def test_nets_and_example_images_are_counted_over_runs(tmp_path: Path) -> None:
    for seed in range(2):
        for width in (4, 8):
            folder = tmp_path / f"{width}{seed}"
            written_run(folder, 0.9, seed=seed, model={"width": width}, data={"permute": width == 8})
            rows = [{"layer": name, "kind": "Conv2d", "channels": width} for name in ("a", "b")]
            files.write_rows(folder / files.SHAPES, rows)
            facts = json.loads((folder / files.RUN).read_text())
            files.write_json(folder / files.RUN, facts | {"probe_checksum": f"images of {width}"})
    runs = find_runs(tmp_path)[0]
    assert checks_of(runs, {}) == Checks(nets=2, layers=4, refused=0, runs=4, views=2, changed=0)
    facts = json.loads((tmp_path / "41" / files.RUN).read_text())
    files.write_json(tmp_path / "41" / files.RUN, facts | {"probe_checksum": "others"})
    reasons = {"c": "ShapeError: conv1: the summary says (4, 8), the net gives (4, 7)", "d": "not started"}
    checks = checks_of(find_runs(tmp_path)[0], reasons)
    assert (checks.changed, checks.of_images) == (1, Verdict.REFUTED)
    assert (checks.refused, checks.of_shapes) == (1, Verdict.REFUTED)
    assert checks_of([], {}).of_shapes == checks_of([], {}).of_images == Verdict.INADMISSIBLE
