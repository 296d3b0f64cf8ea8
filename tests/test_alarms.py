"""Alarms: their rule by simulation and by hand, and studies that read them from runs of known histories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy import stats

from src.claims.calibrate import FALSE_ALARMS
from src.claims.check import check_study
from src.claims.judge import judge
from src.claims.record import judge_sweep, read_verdict, state, write_verdict
from src.claims.rule import study_hash
from src.common.errors import UserError
from src.config import Config, Study, from_dict
from src.launch.compose import compose_jobs
from src.reporting.verdicts import basis
from src.results import files
from src.results.runs import FinishedRun, find_runs
from src.stats.alarms import (
    alarm_step,
    changes,
    conformal_threshold,
    first_alarm,
    largest_change,
    least_calibration_runs,
)
from src.stats.decisions import Verdict
from src.training.alarms import STUDY, SayAlarms, alarms
from src.training.callbacks import History
from src.training.run import run
from tests.helpers import ROOT, composed
from tests.test_comparison import leave_run

NAN = float("nan")


def walks(runs: int, looks: int, seed: int) -> np.ndarray:
    """Random walks, whose looks depend on each other, with steps that differ from run to run."""
    rng = np.random.default_rng(seed)
    return np.asarray(np.cumsum(rng.standard_t(3, (runs, looks)), 1) * rng.exponential(size=(runs, 1)))


# the rule


@pytest.mark.parametrize("direction", ["rise", "fall"])
def test_a_change_is_from_the_runs_own_extreme_so_far(direction: str) -> None:
    for walk in walks(5, 20, 0):
        extremes = [walk[: look + 1].min() if direction == "rise" else walk[: look + 1].max() for look in range(20)]
        assert changes(walk, direction) == pytest.approx(np.abs(walk - extremes))


def test_looks_without_a_number_are_passed_over() -> None:
    values = np.array([NAN, 3.0, NAN, 1.0, np.inf, 2.0])
    assert changes(values, "rise") == pytest.approx([NAN, 0, NAN, 0, NAN, 1], nan_ok=True)
    assert largest_change(values, "rise") == 1 and first_alarm(values, "rise", 0.5) == 5
    assert np.isnan(largest_change(np.array([NAN, NAN]), "rise"))
    with pytest.raises(ValueError, match="choose one of rise, fall"):
        changes(values, "up")


@pytest.mark.parametrize("n", [19, 25, 39, 60])
def test_a_new_run_exceeds_the_threshold_as_seldom_as_the_rule_says(n: int) -> None:
    """P = floor(α (n + 1)) / (n + 1) for changes without ties, whatever their distribution."""
    draws, exact = 2000, np.floor(0.05 * (n + 1) + 1e-9) / (n + 1)
    largest = np.array([largest_change(walk, "rise") for walk in walks(draws * 5, 8, n)])
    rng = np.random.default_rng(n)
    false = 0
    for _ in range(draws):
        chosen = largest[rng.choice(len(largest), n + 1, replace=False)]
        false += chosen[0] > conformal_threshold(chosen[1:], 0.05)
    assert stats.binomtest(false, draws, exact).pvalue > 0.001


@pytest.mark.parametrize(("alpha", "least"), [(0.05, 19), (0.1, 9), (0.2, 4), (1 / 3, 2)])
def test_too_few_runs_have_no_threshold(alpha: float, least: int) -> None:
    assert least_calibration_runs(alpha) == least
    assert conformal_threshold(np.arange(least, dtype=float), alpha) == least - 1  # the largest of all
    with pytest.raises(ValueError, match=f"needs {least}"):
        conformal_threshold(np.arange(least - 1, dtype=float), alpha)


def test_a_change_point_is_found_at_its_look() -> None:
    rng = np.random.default_rng(3)
    clean = rng.normal(0, 0.1, (39, 30))
    threshold = conformal_threshold(np.array([largest_change(run, "fall") for run in clean]), 0.05)
    for look in (5, 12, 29):
        changed = rng.normal(0, 0.1, 30)
        changed[look:] -= 3
        assert first_alarm(changed, "fall", threshold) == look
        assert first_alarm(changed, "rise", threshold) is None


def test_the_step_of_an_alarm_and_of_one_that_never_fires() -> None:
    steps = np.array([10.0, 20.0, 30.0])
    assert alarm_step(steps, np.array([1.0, 3.0, 5.0]), "rise", 2.0) == 30  # above, not at, the threshold
    assert alarm_step(steps, np.array([1.0, 3.1, 5.0]), "rise", 2.0) == 20
    assert alarm_step(steps, np.array([5.0, 3.0, 1.0]), "rise", 0.0) == 40
    assert alarm_step(steps[:1], np.array([5.0]), "rise", 0.0) == 20


def test_alarms_do_not_depend_on_the_units_of_a_column() -> None:
    runs = walks(30, 15, 7)

    def looks(columns: np.ndarray, direction: str) -> list[int | None]:
        threshold = conformal_threshold(np.array([largest_change(run, direction) for run in columns[:19]]), 0.05)
        return [first_alarm(run, direction, threshold / 4) for run in columns[19:]]

    assert any(look is not None for look in looks(runs, "rise"))
    assert looks(3 * runs - 40, "rise") == looks(runs, "rise")
    assert looks(-runs, "fall") == looks(runs, "rise")


# studies

CLEAN, NOISY = range(20, 39), range(5)
CALIBRATE = f"label_noise=0.0,seed={','.join(map(str, CLEAN))}"
RANK, LOSS = "layers/stage3/effective_rank", "val/loss"
NOISY_RANK = {"where": "label_noise=0.4", "alarm": RANK, "direction": "rise"}
TEST_CLEAN = "label_noise=0.0,seed=0,1,2,3,4"


def written_run(folder: Path, noise: float, seed: int, rank: list[float], loss: list[float], outcome: str) -> None:
    """A finished run with columns of ``history.csv``; its looks are ten steps apart."""
    leave_run(folder, 0.5, 0.1, seed=seed, data={"label_noise": noise})
    rows = [{"epoch": i + 1, "step": 10 * (i + 1), RANK: rank[i], LOSS: loss[i]} for i in range(len(rank))]
    files.write_rows(folder / files.HISTORY, rows)
    files.write_json(folder / files.RUN, {"outcome": outcome, "diverged_in_epoch": 1})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[FinishedRun]:
    """Clean runs rise by less than one; noisy ones by two, the rank at step 20, the loss at step 40. One fails."""
    folder = tmp_path_factory.mktemp("alarms")
    for seed in [*CLEAN, *NOISY]:
        rise = 0.5 + seed / 100
        written_run(folder / f"clean{seed}", 0.0, seed, [3, 3 + rise, 3, 3], [2, 1, 1 + rise, 1], "trained")
    for seed in NOISY:
        outcome = "collapsed" if seed == 4 else "trained"
        written_run(folder / f"noisy{seed}", 0.4, seed, [3, 5, 6, 7], [2, 1, 1.5, 3 - (seed == 3) * 2.5], outcome)
    return find_runs(folder)[0]


def study(calibrate: str | None = CALIBRATE, **fields: Any) -> Study:
    contrast = {"a": NOISY_RANK, "b": {"alarm": LOSS, "direction": "rise"}, "expect": "a<b", "margin": 10, **fields}
    tree = {"claims": [{"text": "a claim", "contrasts": [contrast]}], "calibrate": calibrate}
    found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), tree))
    assert isinstance(found, Study)
    found.check()
    return found


def test_a_lead_is_the_difference_of_steps_with_thresholds_of_clean_runs(runs: list[FinishedRun]) -> None:
    (contrast,) = judge(study(), runs)[0].contrasts
    assert contrast.thresholds == pytest.approx({f"rise of {RANK}": 0.88, f"rise of {LOSS}": 0.88})  # seed 38's
    assert contrast.a == 20 and contrast.b == pytest.approx(np.mean([40, 40, 40, 50, 40]))  # one loss never fires
    assert contrast.verdict == Verdict.HOLDS and contrast.value == pytest.approx(-22) and contrast.pairs == 5
    assert not contrast.failed, "a net at chance has a history"
    assert contrast.calibration == len(CLEAN) and "thresholds by 19 runs" in basis(contrast)


def test_shares_of_alarms_are_compared(runs: list[FinishedRun]) -> None:
    fields = {"share": "alarm", "expect": "a>b", "margin": 0.1}
    (contrast,) = judge(study(b={"where": TEST_CLEAN}, **fields), runs)[0].contrasts
    assert (contrast.a, contrast.b, contrast.verdict) == (1, 0, Verdict.HOLDS)
    loss = {"where": "label_noise=0.4", "alarm": LOSS, "direction": "rise"}
    (contrast,) = judge(study(a=loss, b={"where": TEST_CLEAN}, **fields), runs)[0].contrasts
    assert contrast.a == 0.8 and contrast.number == "share of runs with an alarm, rise of val/loss"


def test_a_stated_threshold_is_kept_and_that_of_0_is_the_first_rise(runs: list[FinishedRun]) -> None:
    (contrast,) = judge(study(None, a={**NOISY_RANK, "threshold": 2.5}, b={"threshold": 0.0}), runs)[0].contrasts
    assert (contrast.a, contrast.b, contrast.calibration) == (30, 20, 0)


def test_too_few_finished_calibration_runs_make_a_claim_inadmissible(runs: list[FinishedRun]) -> None:
    claim = judge(study(), [run for run in runs if run.settings["seed"] != CLEAN[0]])
    assert claim[0].verdict == Verdict.INADMISSIBLE
    assert claim[0].reasons == ["too few calibration runs have finished: a threshold needs 19"]


def test_calibration_is_part_of_the_statement_and_of_the_record(runs: list[FinishedRun], tmp_path: Path) -> None:
    stated = study()
    assert study_hash(stated) != study_hash(study(CALIBRATE.replace("38", "39")))
    files.write_json(tmp_path / files.SWEEP, {"study": state({}, stated, "quick", [], 0), "jobs": [], "command": ""})
    verdict = judge_sweep(tmp_path, runs, {})
    assert verdict is not None and not verdict.edits and verdict.claims == judge(stated, runs)
    write_verdict(tmp_path, verdict)
    assert repr(read_verdict(tmp_path / files.VERDICT)) == repr(verdict)


def jobs(follow: list[str], clean: range = CLEAN) -> dict[Path, Config]:
    cfgs = [from_dict({"seed": seed, "measure": {"follow": follow}}) for seed in [*NOISY, *clean]]
    cfgs += [from_dict({"seed": seed, "data": {"label_noise": 0.4}, "measure": {"follow": follow}}) for seed in NOISY]
    return {Path(str(number)): cfg for number, cfg in enumerate(cfgs)}


def test_a_study_whose_jobs_can_set_and_try_an_alarm_passes() -> None:
    check_study(study(), jobs(["effective_rank"]))


@pytest.mark.parametrize(
    ("make", "follow", "words"),
    [
        (lambda: study("label_noise=0.0,seed=20,21"), ["effective_rank"], "2 runs, .* needs 19"),
        (lambda: study("label_noise=0.0"), ["effective_rank"], "seed 0, 1, 2, 3, 4 also has runs that are compared"),
        (lambda: study("label_noise=0.3"), ["effective_rank"], "study.calibrate: .*data.label_noise is 0.0, 0.4"),
        (study, [], r"a.alarm=layers/stage3/effective_rank: is followed by measure.follow=\[effective_rank\]"),
        (lambda: study(b={"alarm": "vall/loss", "direction": "rise"}), ["effective_rank"], "no column of history.csv"),
        (lambda: study(None), [], "study.calibrate: step of the alarm, rise of layers.* needs a threshold"),
        (lambda: study(a={"where": "label_noise=0.4", "alarm": RANK}), [], "choose one of rise, fall"),
        (lambda: study(a={**NOISY_RANK, "direction": "up"}), [], "choose one of rise, fall"),
        (lambda: study(a={**NOISY_RANK, "threshold": -1}), [], "threshold=-1.0: must be 0 or a positive number"),
        (lambda: study(b={"history": LOSS, "direction": "rise"}), [], "name a column of history.csv, alarm="),
        (lambda: study(a={"where": "seed=1"}, b={}, share="alarm"), [], "name a column of history.csv, alarm="),
        (lambda: study(share="alarms"), [], "choose one of collapsed, diverged, failed, alarm"),
        (lambda: study(floor={"alarm": LOSS, "direction": "rise"}), [], "an alarm is no floor"),
        (lambda: study(a={"measure": "accuracy"}, b=None), [], "no claim reads an alarm"),
    ],
)  # fmt: skip
def test_an_alarm_that_jobs_cannot_set_or_that_is_not_stated_is_refused(
    make: Callable[[], Study], follow: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        check_study(make(), jobs(follow))
    assert "\n" not in str(caught.value)


def test_the_study_of_label_noise_calibrates_and_tests_by_other_seeds() -> None:
    composed = compose_jobs(["-m", "sweeps=q11_alarm"])
    assert composed is not None
    seeds: dict[bool, set[int]] = {True: set(), False: set()}
    clean = [int(seed) for seed in str(composed.study.calibrate).split("seed=")[1].split(",")]
    for job in composed.jobs:
        seeds[job.seed in clean].add(job.seed)
        assert job.data.label_noise == 0 or job.seed not in clean
    assert len(clean) == len(seeds[True]) >= least_calibration_runs(FALSE_ALARMS) and len(seeds[False]) == 10


# alarm=true


def test_the_thresholds_of_any_run_are_those_of_the_studys_calibration() -> None:
    verdict = read_verdict(ROOT / f"docs/answers/{STUDY}.json")
    contrasts = [contrast for claim in verdict.claims for contrast in claim.contrasts]
    published = {name: value for contrast in contrasts for name, value in contrast.thresholds.items()}
    assert {f"{alarm.direction} of {alarm.column}": alarm.threshold for alarm in alarms()} == pytest.approx(
        published, rel=1e-3
    )
    assert {alarm.runs for alarm in alarms()} == {contrast.calibration for contrast in contrasts}


def test_a_run_says_once_that_an_alarm_fires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "thresholds.csv"
    table.write_text("column,direction,threshold,runs\nval/loss,rise,0.5,20\nlayers/stage3/effective_rank,rise,1,20\n")
    monkeypatch.setattr("src.training.alarms.TABLE", table)
    history, said = History(tmp_path), list[str]()
    callback = SayAlarms(history, said.append)
    # a row of an earlier process is text; the rank is followed every other epoch
    columns = [(RANK, 3.0), ("", ""), (RANK, 3.5), ("", ""), (RANK, 4.2), ("", "")]
    for loss, (name, rank) in zip(["1.0", "0.0", 0.4, 0.6, 0.9, 0.2], columns, strict=True):
        history.rows.append({LOSS: loss} | ({name: rank} if name else {}))
        callback.look()
    assert [line.split(":")[0] for line in said] == ["epoch 4", "epoch 5"]
    assert "by the rise of val/loss: 0.6; in 20 clean runs (sweeps=q11_alarm) it was at most 0.5" in said[0]
    assert "by the rise of layers/stage3/effective_rank: 1.2" in said[1]


@pytest.mark.filterwarnings("default")  # Lightning's own
def test_an_alarm_changes_nothing_else_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "thresholds.csv"
    table.write_text("column,direction,threshold,runs\ntrain/prediction_change,rise,0,20\n")
    monkeypatch.setattr("src.training.alarms.TABLE", table)
    keys = "data=shapes data.image_size=16 data.train_size=128 data.val_size=64 model.width=4 measure.what=[shift]"
    words = [*keys.split(), "measure.images=20", "train.epochs=4", "measure.follow=[prediction_change]"]
    for folder, alarm in (("plain", []), ("alarm", ["alarm=true"])):
        run(composed(*words, "wandb.mode=disabled", *alarm), tmp_path / folder)
        assert ("may be learning label noise" in capsys.readouterr().out) == bool(alarm)
    measures = [(tmp_path / folder / files.MEASURES).read_bytes() for folder in ("plain", "alarm")]
    assert measures[0] == measures[1]
