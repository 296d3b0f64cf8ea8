"""Studies: refused before the first job where their runs cannot decide them; their variants, presets and seeds."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from src import train
from src.claims import record
from src.claims.check import check_study
from src.common.errors import UserError
from src.config import Config, Study, from_dict
from src.launch import sweep
from src.launch.compose import compose_jobs
from src.results import files
from tests.test_comparison import leave_run

# before the first job


def jobs(**settings: Any) -> dict[Path, Config]:
    cfgs = [
        from_dict({"seed": seed, "model": {"pool": pool, "depth": 2}, **settings})
        for seed in range(5)
        for pool in ("max", "none")
    ]
    return {Path(str(number)): cfg for number, cfg in enumerate(cfgs)}


def change(**fields: Any) -> Callable[[], Study]:
    """A study with one contrast, max - none, with some fields changed."""
    tree = {"a": {"where": "pool=max", "measure": "accuracy"}, "b": {"where": "pool=none"}, "margin": 0.01, **fields}
    claims = [{"text": "a claim", "contrasts": [tree]}]
    return lambda: OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), {"claims": claims}))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (change(a={"where": "pool=blur", "measure": "accuracy"}), "no run has it; model.pool is max, none"),
        (change(a={"where": "pool=max", "measure": "acuracy"}), "did you mean accuracy?"),
        (change(a={"where": "pool=max", "measure": "probe_r2", "layer": "stage2"}), "measure.what=[layers]"),
        (change(a={"where": "pool=max", "measure": "cosine", "layer": "stage9", "protocol": "crop", "amount": 1}),
         "did you mean stage"),
        (change(a={"where": "pool=max", "measure": "output_distance", "protocol": "crop", "amount": 9}), "max_shift=8"),
        (change(a={"where": "pool=max", "measure": "output_distance", "protocol": "crop", "amount": 0.5}),
         "shifts are of 1, 2, 3, 4, 5, 6, 7, 8 px"),
        (change(a={"where": "pool=max", "measure": "output_distance", "protocol": "crop", "transform": "rotate"}),
         "choose one of disc, quarter"),
        (change(a={"where": "pool=max", "history": "val_accuracy"}), "no column of history.csv"),
        (change(a={"where": "pool=max", "fact": "parameter"}), "did you mean parameters?"),
        (change(a={"where": "pool=max,seed=0", "measure": "accuracy"}), "1 seed, and a verdict needs 5"),
        (change(slope="model.widht"), "did you mean model.width?"),
        (change(slope="model.width"), "all jobs of a seed have model.width=16; sweep over it"),
        (change(slope="model.pool"), "must be a setting that holds numbers"),
        (change(slope="seed"), "slope=seed: no such setting"),
        (change(a={"where": "pool=max", "measure": "accuracy", "protocol": "trian"}), "did you mean train?"),
        (change(a={"where": "pool=max", "measure": "accuracy", "protocol": "train_clean"}), "did you mean train?"),
        (change(a={"where": "pool=max", "measure": "accuracy", "layer": "stage1"}), "accuracy is of the output"),
        (change(a={"where": "pool=max", "measure": "r2"}), "with data.task=what choose one of accuracy, "),
        (change(a={"where": "pool=max", "history": "val/r2"}), "choose one of accuracy, calibration_error, loss"),
        (change(a={"where": "pool=max", "history": "train/prediction_change"}), "measure.follow=[prediction_change]"),
        (change(a={"where": "pool=max", "history": "train/lss"}), "did you mean loss?"),
        (change(a={"where": "pool=max", "history": "layers/stage7/cosine"}), "did you mean stage"),
        (change(a={"where": "pool=max", "history": "layers/stage1/cosine"}), "choose one of effective_rank"),
    ],
)  # fmt: skip
def test_a_study_that_its_jobs_could_not_decide_is_refused(study: Callable[[], Study], words: str) -> None:
    with pytest.raises(UserError, match=r"study\.claims\[0\]\.contrasts\[0\]") as caught:
        check_study(study(), jobs(measure={"what": ["shift"]}))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (change(margin=None), "state the smallest difference that matters"),
        (change(expect="a=b", margin=0.0), "equality needs a margin above 0"),
        (change(expect="a>c"), "choose one of a<b, a>b, a=b"),
        (change(a={"where": "pool=max"}), "name a number"),
        (change(share="broken"), "choose one of collapsed, diverged, failed"),
        (change(margin=float("inf")), "state the smallest difference that matters"),
        (change(b={}), "a and b are the same"),
        (change(b={"where": "pool=max"}), "a and b are the same"),
        (change(a={"measure": "accuracy", "fact": "seconds"}), "names measure and fact; one of them is compared"),
        (change(against=0.5), "leave one of them out"),
    ],
)
def test_a_claim_that_does_not_say_what_it_expects_is_refused(study: Callable[[], Study], words: str) -> None:
    with pytest.raises(UserError, match=r"study\.claims\[0\]\.contrasts\[0\]") as caught:
        study().check()
    assert words in str(caught.value)


@pytest.mark.parametrize("column", ["train/effective_rank", "layers/stage1/prediction_change"])
def test_a_followed_statistic_is_of_layers_or_of_training(column: str) -> None:
    study = change(a={"where": "pool=max", "history": column})()
    with pytest.raises(UserError, match=rf"a\.history={column}: no column of history\.csv"):
        check_study(study, jobs(measure={"what": ["shift"], "follow": [column.rpartition("/")[2]]}))


def test_a_probe_at_the_output_is_refused() -> None:
    study = change(a={"where": "pool=max", "measure": "probe_accuracy"})()
    with pytest.raises(
        UserError, match=r"a\.layer=output: probe_accuracy is of layers; choose one of stage1, stage2, features, pixels"
    ):
        check_study(study, jobs(measure={"what": ["layers"]}))


def test_a_study_that_its_jobs_can_decide_passes() -> None:
    check_study(change()(), jobs(measure={"what": ["shift"]}))


# variants, presets, seeds


def folders(*arguments: str) -> list[str]:
    composed = compose_jobs(["-m", *arguments])
    assert composed is not None
    return [job.hydra.sweep.subdir for job in composed.jobs]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A named sweep of two variants and a preset."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/mine.yaml").write_text(
        "# @package _global_\nstudy:\n  variants: {pool: [model.pool=max], two: [model.pool=none, model.convs=1]}\n"
        "  presets: {full: {train.epochs: 9, seed: '3,4'}}\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper: {params: {seed: '0,1'}}\n"
    )
    monkeypatch.setattr("src.launch.compose.SEARCHPATH", f"hydra.searchpath=['file://{tmp_path}']")
    return "sweeps=mine"


def test_every_variant_is_run_with_the_whole_grid(study: str) -> None:
    pairs = [
        f"{variant},seed={seed}" for variant in ("model.pool=max", "model.convs=1,model.pool=none") for seed in (0, 1)
    ]
    assert folders(study) == pairs


def test_a_preset_replaces_settings_of_the_grid_and_the_command_line_those_of_a_preset(study: str) -> None:
    full = folders(study, "preset=full")
    assert full[:2] == [f"model.pool=max,seed={seed},train.epochs=9" for seed in (3, 4)]
    assert folders(study, "preset=full", "seed=7")[0] == "model.pool=max,seed=7,train.epochs=9"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["preset=fast"], "choose one of quick, full"),
        (["model.pool=avg"], "variant pool of the study sets it"),
        (["seeds=many"], "choose one of fixed, auto"),
        (["seeds=auto"], "this sweep states none"),
        (["train.lr=interval(0,1)"], "list the values"),
        (["hydra/sweeper=basic"], "leave out hydra/sweeper="),
    ],
)
def test_what_a_study_cannot_be_run_with_is_refused(study: str, arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        folders(study, *arguments)


def test_seeds_cannot_be_added_where_variants_set_their_own() -> None:
    with pytest.raises(UserError, match=r"seeds=auto: variants of this study set their seeds themselves, seed=range"):
        compose_jobs(["-m", "sweeps=q11_alarm", "seeds=auto"])


@pytest.mark.parametrize(("decided_at", "runs"), [(1, 1), (2, 2), (None, 3)])
def test_seeds_are_added_until_every_claim_is_decided(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, decided_at: int | None, runs: int
) -> None:
    """Each look has the seeds of those before and more, and spends its share of 5%; none follows a decided one."""
    done: list[tuple[str, float]] = []

    def run_sweep(made: sweep.Plan, arguments: list[str]) -> None:
        done.append((sys.argv[-1], made.alpha))

    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setattr(sweep, "plan", lambda arguments: sweep.Plan(tmp_path, {}, True, arguments))
    monkeypatch.setattr(train, "run_sweep", run_sweep)
    monkeypatch.setattr(record, "undecided", lambda folder: len(done) != decided_at)
    train.add_seeds_until_decided(["-m", "sweeps=mine"], [6, 10, 16])
    assert [words for words, _ in done] == [f"++hydra.sweeper.params.seed='range({n})'" for n in (6, 10, 16)][:runs]
    assert [alpha for _, alpha in done] == pytest.approx([0.05 * added / 16 for added in (6, 4, 6)][:runs])


@pytest.mark.parametrize(("largest", "first"), [(5, 6), (6, 10), (9, 10), (10, 16), (30, 16)])
def test_a_look_that_was_passed_before_an_interruption_is_not_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, largest: int, first: int
) -> None:
    """It decided nothing, else no run had a later seed; with some of these it would be one look more than planned."""
    done: list[str] = []
    for seed in (0, largest):
        leave_run(tmp_path / f"seed={seed}", 0.5, 0.1, seed=seed)
    files.write_json(tmp_path / files.SWEEP, {"jobs": ["seed=0", f"seed={largest}", "seed=31"]})
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setattr(sweep, "plan", lambda arguments: sweep.Plan(tmp_path, {}, True, arguments))
    monkeypatch.setattr(train, "run_sweep", lambda made, arguments: done.append(sys.argv[-1]))
    monkeypatch.setattr(record, "undecided", lambda folder: True)
    train.add_seeds_until_decided(["-m", "sweeps=mine"], [6, 10, 16])
    assert done[0] == f"++hydra.sweeper.params.seed='range({first})'" and done[-1].endswith("range(16)'")
