"""Numbers of pairs of nets whose seeds differ: disjoint pairs, named losses, and a study that could not be decided."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from src.claims.check import check_study
from src.claims.judge import judge_claim
from src.claims.readings import numbers_of
from src.claims.record import judge_sweep, state, undecided, write_verdict
from src.claims.rule import study_hash
from src.claims.seed_pairs import NUMBERS
from src.common.errors import UserError
from src.config import PAIRS, Claim, Config, Contrast, Reading, Study, from_dict
from src.launch.compose import compose_jobs
from src.models.blocks import Network
from src.models.options import Model
from src.reporting.answers import FOLDER, answers_page, collect, verdict_table
from src.reporting.verdicts import basis, page_of
from src.results import files
from src.results.runs import FinishedRun, find_runs
from src.results.saved_maps import maps_file
from src.stats.decisions import Verdict
from src.stats.matching import matched_correlation, matched_correlation_shuffled
from tests.test_claims import written_run
from tests.test_studies import change

SEEDS = range(12)
TRAINED = Reading(where="pool=max", pairs="matched_correlation", layer="stage1")
UNTRAINED = Reading(untrained=True)


def maps(name: str, seed: int, alike: float) -> np.ndarray:
    """Six images of four channels, in an order that depends on the seed; ``alike`` of them is that of all seeds."""
    common = np.random.default_rng(0).normal(size=(6, 4, 3, 3))
    own = np.random.default_rng([seed, *map(ord, name)])
    return (alike * common[:, own.permutation(4)] + own.normal(size=common.shape)).astype(np.float16)


def leave_maps(folder: Path, epoch: int, values: np.ndarray, images: int = 0) -> None:
    path = maps_file(folder, epoch)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, images=np.full((len(values), 1, 4, 4), images, np.uint8), stage1=values)


def leave_pairs(folder: Path, failed: tuple[str, ...] = (), pools: tuple[str, ...] = ("max", "none")) -> None:
    """Runs with maps before and after their training of three epochs; those of ``max`` are the more alike."""
    for seed in SEEDS:
        for pool in pools:
            run = folder / f"{pool}{seed}"
            outcome = "collapsed" if run.name in failed else "trained"
            written_run(run, 0.5, outcome=outcome, seed=seed, model={"pool": pool})
            leave_maps(run, 0, maps(f"{pool} untrained", seed, 0.5))
            leave_maps(run, 3, maps(pool, seed, 3.0 if pool == "max" else 1.0))


@pytest.fixture
def runs(tmp_path: Path) -> list[FinishedRun]:
    leave_pairs(tmp_path)
    return find_runs(tmp_path)[0]


def of_pair(pool: str, seed: int, alike: float) -> float:
    return matched_correlation(maps(pool, seed, alike), maps(pool, seed + 1, alike))


def test_each_number_of_pairs_has_its_function() -> None:
    assert {*NUMBERS} == {*PAIRS}
    assert NUMBERS["matched_correlation"] is matched_correlation
    assert NUMBERS["matched_correlation_shuffled"] is matched_correlation_shuffled


def test_each_run_is_in_one_pair_and_the_interval_is_that_of_their_differences(runs: list[FinishedRun]) -> None:
    contrast = Contrast(TRAINED, UNTRAINED, margin=0.05, floor=Reading(pairs="matched_correlation_shuffled"))
    (found,) = judge_claim(Claim("alike", [contrast]), runs).contrasts
    a = [of_pair("max", seed, 3.0) for seed in SEEDS[::2]]
    b = [of_pair("max untrained", seed, 0.5) for seed in SEEDS[::2]]
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.verdict, found.pairs, found.seeds_each) == (Verdict.HOLDS, 6, 2)
    assert (found.a, found.b, found.low, found.high) == pytest.approx(
        (np.mean(a), np.mean(b), interval.low, interval.high)
    )
    floors = [matched_correlation_shuffled(*(maps("max", one, 3.0) for one in (seed, seed + 1))) for seed in SEEDS[::2]]
    assert found.floor == pytest.approx(np.mean(floors))


def test_variants_are_paired_pair_by_pair_and_averaged_over_settings(runs: list[FinishedRun]) -> None:
    numbers = numbers_of(Contrast(TRAINED, Reading(where="pool=none"), margin=0.0), runs)
    assert numbers.paired == [*SEEDS[::2]]
    assert [*numbers.b.values()] == pytest.approx([of_pair("none", seed, 1.0) for seed in SEEDS[::2]])
    of_both = numbers_of(Contrast(replace(TRAINED, where=None), margin=0.0), runs)
    assert [of_both.a[seed] for seed in SEEDS[::2]] == pytest.approx(
        [(numbers.a[seed] + numbers.b[seed]) / 2 for seed in SEEDS[::2]]
    )


def test_a_side_at_its_floor_means_nothing(tmp_path: Path) -> None:
    """The maps of all images are the same but for noise: nets are alike by place alone."""
    for seed in SEEDS:
        written_run(tmp_path / f"max{seed}", 0.5, seed=seed)
        for epoch in (0, 3):
            noise = np.random.default_rng([seed, epoch]).normal(size=(6, 4, 3, 3))
            place = np.random.default_rng(epoch).normal(size=(1, 4, 3, 3))
            leave_maps(tmp_path / f"max{seed}", epoch, (epoch * place + noise).astype(np.float16))
    contrast = Contrast(TRAINED, UNTRAINED, margin=0.05, floor=Reading(pairs="matched_correlation_shuffled"))
    for held, verdict in ((contrast, Verdict.INADMISSIBLE), (replace(contrast, floor=None), Verdict.HOLDS)):
        assert judge_claim(Claim("alike", [held]), find_runs(tmp_path)[0]).verdict == verdict


def test_a_failed_run_takes_its_pair_along_by_name_and_no_other(tmp_path: Path) -> None:
    leave_pairs(tmp_path, failed=("max5",))
    numbers = numbers_of(Contrast(TRAINED, UNTRAINED, margin=0.05), find_runs(tmp_path)[0])
    assert numbers.paired == [0, 2, 6, 8, 10] and [*numbers.a.values()] == pytest.approx(
        [of_pair("max", seed, 3.0) for seed in (0, 2, 6, 8, 10)]
    )
    assert (numbers.failed, numbers.unmeasured) == (["max5"], ["max4"])
    leave_pairs(tmp_path, failed=("max5", "max6"))
    verdict = judge_claim(Claim("alike", [Contrast(TRAINED, UNTRAINED, margin=0.05)]), find_runs(tmp_path)[0])
    assert verdict.reasons == ["2 of 12 runs of pool=max do not have the number"]  # and two more failed


@pytest.mark.parametrize(("failed", "more"), [((), False), (("max5",), True), (("max5", "max6", "max8"), False)])
def test_seeds_are_added_where_one_failed_run_of_ten_leaves_four_pairs(
    tmp_path: Path, failed: tuple[str, ...], more: bool
) -> None:
    """As in the first look at a study of pairs; not where so many fail that the others are no fair sample."""
    leave_pairs(tmp_path, failed)
    runs = [run for run in find_runs(tmp_path)[0] if int(run.settings["seed"]) < 10]
    entry = state({}, Study(claims=[Claim("alike", [Contrast(TRAINED, UNTRAINED, margin=0.05)])]), "quick", [], 0)
    files.write_json(tmp_path / files.SWEEP, {"study": entry, "jobs": [], "command": "", "question": "?"})
    verdict = judge_sweep(tmp_path, runs, {})
    assert verdict is not None
    assert verdict.claims[0].verdict == (Verdict.INADMISSIBLE if failed else Verdict.HOLDS)
    write_verdict(tmp_path, verdict)
    assert undecided(tmp_path) == more


def test_a_run_that_is_not_there_leaves_the_other_pairs_as_they_are(runs: list[FinishedRun]) -> None:
    some = [run for run in runs if run.folder.name not in ("max1", "none8")]
    numbers = numbers_of(Contrast(TRAINED, Reading(where="pool=none"), margin=0.0), some)
    assert numbers.paired == [2, 4, 6, 10] and numbers.unmeasured == ["max0", "none9"]
    assert numbers.b[6] == pytest.approx(of_pair("none", 6, 1.0))


def test_a_seed_that_ran_twice_is_no_pair_with_itself(runs: list[FinishedRun], tmp_path: Path) -> None:
    """As in a sweep over a setting that is none of a run's identity, in which the other seed has not finished."""
    shutil.copytree(tmp_path / "max0", tmp_path / "again")
    twice = [run for run in find_runs(tmp_path)[0] if run.folder.name != "max1"]
    numbers = numbers_of(Contrast(TRAINED, UNTRAINED, margin=0.05), twice)
    assert numbers.paired == [2, 4, 6, 8, 10] and numbers.unmeasured == ["again", "max0"]


@pytest.mark.parametrize(
    "kind", ["no file", "no layer", "other images", "few images", "not a number", "other settings"]
)
def test_a_pair_without_maps_to_compare_lacks_the_number(tmp_path: Path, kind: str) -> None:
    leave_pairs(tmp_path, pools=("max",))
    values, run = maps("max", 3, 3.0), tmp_path / "max3"
    if kind == "no file":  # that of an earlier epoch is none of the trained net
        maps_file(run, 3).rename(maps_file(run, 2))
    if kind == "no layer":
        np.savez(maps_file(run, 3), images=np.zeros((6, 1, 4, 4), np.uint8), stage2=values)
    if kind == "other images":
        leave_maps(run, 3, values, images=1)
    if kind == "few images":
        for seed in (2, 3):
            leave_maps(tmp_path / f"max{seed}", 3, values[:3])
    if kind == "not a number":
        leave_maps(run, 3, np.full_like(values, np.nan))
    if kind == "other settings":
        written_run(run, 0.5, seed=3, train={"lr": 0.5})
    numbers = numbers_of(Contrast(TRAINED, margin=0.0, against=0.1), find_runs(tmp_path)[0])
    assert [*numbers.a] == [0, 4, 6, 8, 10] and numbers.unmeasured == ["max2", "max3"]


def test_a_verdict_counts_pairs_of_seeds_and_says_how_many_seeds_would_decide(
    runs: list[FinishedRun], tmp_path: Path
) -> None:
    """Two nets a pair, so twice as many seeds as pairs."""
    numbers = np.array([of_pair("max", seed, 3.0) for seed in SEEDS[::2]])
    margin = float(numbers.std(ddof=1)) / 10
    claims = [
        Claim("alike", [Contrast(TRAINED, UNTRAINED, margin=0.05)]),
        Claim("so alike", [Contrast(TRAINED, against=float(numbers.mean()), expect="a=b", margin=margin)]),
    ]
    entry = state({}, Study(number="pairs", claims=claims), "quick", [], 0)
    files.write_json(tmp_path / files.SWEEP, {"study": entry, "jobs": [], "command": "", "question": "?"})
    verdict = judge_sweep(tmp_path, runs, {})
    assert verdict is not None
    first, second = (claim.contrasts[0] for claim in verdict.claims)
    number = "matched_correlation of two seeds, stage1"
    assert first.number == f"a: {number}; b: {number}, untrained net" and second.number == number
    assert basis(first).startswith("n = 6 pairs of seeds; detectable")
    assert basis(replace(first, pairs=1)).startswith("n = 1 pair of seeds;")
    assert page_of(verdict)["claims"][0]["contrasts"][0]["basis"] == basis(first)
    assert verdict_table({"pairs": verdict}).splitlines()[2].endswith("| 6 pairs |")
    # of 80% of decisions 5% are false, as the interval misses 0; in 75% the whole interval is within the margin, and
    # the estimate leaves room for 1.96 errors at both ends
    pairs = ((stats.norm.ppf(0.875) + stats.norm.ppf(0.975)) * 10) ** 2
    assert second.verdict == Verdict.UNDECIDED and second.needed == pytest.approx(2 * pairs, rel=0.01)
    assert f"{second.needed:,} seeds would decide" in basis(second)
    write_verdict(tmp_path, verdict)
    collect("pairs", tmp_path, tmp_path / "docs")
    page = answers_page(tmp_path / "docs" / FOLDER, ["pairs"])
    assert "- `matched_correlation`: correlation of the channels of two nets" in page and "n = 6 pairs of seeds" in page


def test_the_rule_of_pairs_is_part_of_the_hash_of_studies_that_read_them() -> None:
    study = Study(number="pairs", claims=[Claim("alike", [Contrast(TRAINED, UNTRAINED, margin=0.05)])])
    before = study_hash(study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.claims.rule.PAIR_RULE", "another rule")
        assert study_hash(study) != before
        other = Study(number="Q0", claims=[Claim("a", [Contrast(Reading(measure="accuracy"), margin=0.05)])])
        hashed = study_hash(other)
    assert study_hash(other) == hashed


# before the first job


def jobs(seeds: Sequence[int] = range(10), **settings: Any) -> dict[Path, Config]:
    cfgs = [
        from_dict({"seed": seed, "model": {"pool": pool, "depth": 2}, **settings})
        for seed in seeds
        for pool in ("max", "none")
    ]
    return {Path(str(number)): cfg for number, cfg in enumerate(cfgs)}


MATCHED = {"where": "pool=max", "pairs": "matched_correlation", "layer": "stage1"}


@pytest.mark.parametrize(
    ("fields", "settings", "words"),
    [
        ({}, {"seeds": range(8)}, "4 pairs of seeds, and a verdict needs 5 pairs, 10 seeds"),
        ({}, {"seeds": range(11)}, "a: seed 10 has no run to be paired with"),
        ({}, {"seeds": range(1, 21, 2)}, "a: seeds 1, 3, 5, 7, 9, 11, 13, 15, 17, 19 have no run"),
        ({}, {"seeds": range(11)}, "seeds 0 and 1, 2 and 3, … make pairs; add seed 11, as in"),
        ({}, {"seeds": [*range(8), 8, 11]}, "a: seeds 8, 11 have no run to be paired with"),
        ({}, {"seeds": [*range(8), 8, 11]}, "make pairs; add seeds 9, 10, as in"),
        ({"b": {"where": "pool=none,seed=0,1,2"}}, {}, "b: seed 2 has no run to be paired with"),
        ({"a": MATCHED | {"layer": "stage3"}}, {}, "a.layer=stage3: maps are saved of stages; choose one of stage1"),
        ({"a": {"pairs": "matched_correlation"}}, {}, "a.layer=output: maps are saved of stages"),
        ({"a": MATCHED | {"layer": "features"}}, {}, "a.layer=features: maps are saved of stages"),
        ({"a": MATCHED | {"layer": "stage2"}}, {}, "of 16 are saved; all are matched, set probe.channels=32"),
        ({"floor": {"layer": "stage2"}}, {}, "floor of a: stage2 has 32 channels"),
        ({}, {"probe": {"images": 3}}, "maps of 3 images are saved; matching takes probe.images=4"),
    ],
)  # fmt: skip
def test_pairs_that_the_jobs_do_not_make_are_refused(
    fields: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    study = change(**({"a": MATCHED} | fields))()
    study.check()
    with pytest.raises(UserError, match=r"study\.claims\[0\]\.contrasts\[0\]") as caught:
        check_study(study, jobs(**settings))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_seeds_are_added_in_pairs() -> None:
    """Refused before the first look, not by the second, when the runs of the first are done."""
    with pytest.raises(UserError, match=r"study\.looks=\[10, 15\]: .* 15 leaves a seed without another"):
        compose_jobs(["-m", "sweeps=vocabulary", "seeds=auto", "study.looks=[10,15]"])
    composed = compose_jobs(["-m", "sweeps=vocabulary", "seeds=auto"])
    assert composed is not None and min(composed.study.looks) == 10


def test_pairs_that_the_jobs_make_pass() -> None:
    check_study(change(a=MATCHED, floor={"pairs": "matched_correlation_shuffled"})(), jobs())
    check_study(change(a=MATCHED | {"layer": "stage2"})(), jobs(probe={"channels": 32}))
    check_study(change(a=MATCHED, b={"where": "pool=none"}, slope="model.depth")(), jobs_of_depths())


class Joined(nn.Module):
    """Its output has the channels of both of its layers, and none of them has as many."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(1, 6, 1), nn.Conv2d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.other(x)], 1)


@pytest.mark.parametrize("layer", [lambda: nn.Conv2d(1, 10, 1), Joined])
def test_all_channels_of_a_stage_must_be_saved_whatever_layers_it_has(
    layer: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An architecture of one's own: a stage is a layer itself, or joins maps of several."""

    class Own(Network):
        unsupported_axes: ClassVar = {}

        def build(self, model: Model) -> None:
            self.add("stage1", layer())

    monkeypatch.setattr("src.claims.check.network", Own)
    monkeypatch.setattr("src.claims.check._NAMES", {})  # of the nets that these configs have otherwise
    with pytest.raises(UserError, match="stage1 has 10 channels, and maps of 9 are saved"):
        check_study(change(a=MATCHED)(), jobs(probe={"channels": 9}))
    check_study(change(a=MATCHED)(), jobs(probe={"channels": 10}))


def jobs_of_depths() -> dict[Path, Config]:
    shallow = jobs()
    deep = {Path(f"deep{path}"): from_dict({"seed": cfg.seed, "model": {"pool": cfg.model.pool, "depth": 3}})
            for path, cfg in shallow.items()}  # fmt: skip
    return shallow | deep


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (change(a={"pairs": "matched_corelation", "layer": "stage1"}), "did you mean matched_correlation?"),
        (change(a=MATCHED, share="failed"), "counts runs, and pairs= is of two"),
        (change(a=MATCHED, share="alarm"), "counts runs, and pairs= is of two"),
        (change(a=MATCHED, b={"measure": "accuracy"}), "b is a number of one run"),
        (change(b=MATCHED), "a is a number of one run"),
        (change(a=MATCHED, floor={"measure": "accuracy"}), "floor of a is a number of one run"),
        (change(a=MATCHED | {"measure": "accuracy"}), "names measure and pairs; one of them is compared"),
        (change(a=MATCHED | {"protocol": "crop", "amount": 1}), "leave out transform, protocol and amount"),
        (change(a=MATCHED | {"direction": "rise"}), "direction and threshold are of an alarm"),
    ],
)
def test_pairs_where_they_do_not_belong_are_refused(study: Callable[[], Study], words: str) -> None:
    with pytest.raises(UserError, match=r"study\.claims\[0\]\.contrasts\[0\]") as caught:
        study().check()
    assert words in str(caught.value)
