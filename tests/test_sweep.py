"""A command's jobs: where they go, and that a wrong one stops all of them before anything is written."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from src.common.errors import UserError
from src.config import Config, from_dict
from src.launch.sweep import Plan, plan, study_names, summarize_config, sweep_name
from src.models import ARCHITECTURES
from src.pooling import POOLS
from src.results import files
from tests.helpers import ROOT

SMALL = ["data=shapes", "data.image_size=16"]
#: as much of a set as is asked for before a sweep
SPLITS = SimpleNamespace(train=range(1000))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_sweep_has_a_job_for_every_combination_and_a_folder_that_stays() -> None:
    command = ["-m", *SMALL, "model.pool=max,avg,none", "seed=0,1"]
    made = plan(command)
    assert made is not None and made.multirun
    assert made.folder == Path("outputs/data=shapes,data.image_size=16,model.pool=max,avg,none,seed=0,1")
    assert [(cfg.model.pool, cfg.seed) for cfg in made.jobs.values()] == [
        (pool, seed) for pool in ("max", "avg", "none") for seed in (0, 1)
    ]
    again = plan(command)
    assert again is not None and list(again.jobs) == list(made.jobs)


@pytest.mark.parametrize(
    "axis",
    [
        "model.stride=1,2",
        "model.depth=2,3",
        "model.dropout=0,0.5",
        "model.padding=zeros,circular,reflect,replicate",
        "model=ladder,resnet",
        "seed=0,1,2",
    ],
)
def test_any_axis_is_swept_the_same_way(axis: str) -> None:
    made = plan(["-m", "data=shapes", axis])
    assert made is not None and len(made.jobs) == axis.count(",") + 1


def test_data_is_an_axis_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.launch.sweep.split", lambda data: SPLITS)
    made = plan(["-m", "data=shapes,cifar10"])
    assert made is not None and [cfg.data.name for cfg in made.jobs.values()] == ["shapes", "cifar10"]


def test_folders_that_the_user_gives_are_honoured() -> None:
    made = plan(["-m", *SMALL, "model.pool=max,avg", "hydra.sweep.dir=here"])
    assert made is not None and made.folder == Path("here")
    single = plan([*SMALL, "hydra.run.dir=there/run"])
    assert single is not None and list(single.jobs) == [Path("there/run")] and not single.multirun


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["-m", "model.pool=max,avgg"], r"model\.pool=avgg: did you mean avg\? choose one of none, max"),
        (["-m", "model.pol=max,avg"], r"model\.pol: no such key; did you mean model\.pool\?"),
        (["model.depth=three"], r"model\.depth: Value 'three'"),
        (["-m", "model=ladder,laddr"], rf"model=laddr: did you mean ladder\? choose one of {', '.join(ARCHITECTURES)}"),
        (["model.dropout=1.5"], r"model\.dropout=1\.5: must be a rate in \[0, 1\)"),
        (["model.stride=0"], r"model\.stride=0: must be a whole number of at least 1"),
        (["model.pool=max,avg"], r"model\.pool=max,avg: a list of values is a sweep; add -m"),
        (["-m", "sweeps=nothing"], r"sweeps=nothing: choose one of .*pooling"),
        (["-m", *SMALL, "model.depth=3,9"], r"depth=9: stage5\.pool: its window of 2 is larger than its map of 1;"),
        ([*SMALL, "model.padding=valid"], r"stage\d\.conv\d: nothing is left: floor\("),
        ([*SMALL, "model.pool=wavelet", "model.stride=3"], r"^model\.pool=wavelet: .*stride 2 only, not 3$"),
        ([*SMALL, "model.padding=valid", "model.pool=conv"], r"pool=conv cannot do without padding"),
        (["-m", *SMALL, "trainer.devices=2"], r"trainer\.devices=2, .* add hydra/launcher=local"),
        (["data=folder", "data.root=nowhere"], r"data=folder: data\.root=nowhere must hold CLASS"),
        (["data=shapes", "data.train_size=99999"], r"12000 training images: too few"),
        ([*SMALL, "model=mlp", "train.batch_size=1"], r"every batch is one image, .* batch norm stage1\.norm; take"),
        ([*SMALL, "model=mlp", "data.train_size=1"], r"train\.batch_size=\d+, 1 training images: every batch is one"),
        ([*SMALL, "trainer.precision=bf16-true"], r"precision=bf16-true: did you mean bf16-mixed\? choose one of 32"),
        (["-m", *SMALL, "seed=range(1000000000)"], r"more than 10,000 jobs: seed \(over 10,000\); sweep over fewer"),
        (["-m", *SMALL, "seed=range(200)", "model.width=range(4,104)"], r"jobs: seed \(200\) × model\.width \(100\)"),
        (["-m", *SMALL, "seed=0,1", "hydra/launcher=local", "hydra.launcher.threads=100000"], r"machine has \d+ cores"),
        (["seed=-1"], r"seed=-1: must be a whole number"),
        ([*SMALL, "-m", "seed=0,1"], r"unrecognized arguments: seed=0,1; write -m before all key=value"),
        (["-m", "sweeps=sweeps/pooling.yaml"], r"^sweeps=sweeps/pooling\.yaml: did you mean pooling\? choose one of"),
        (["hydra/launcher=loca"], r"^hydra/launcher=loca: did you mean local\? choose one of local, slurm"),
        (["question=プール"], r"text with such characters is quoted: \"question='プール'\"$"),
        (["hydra.run.dir=a=b"], r"text with such characters is quoted: \"hydra\.run\.dir='a=b'\"$"),
        (["-m", *SMALL, "seed=0,1", f"model.variant={'why' * 90}"], r"…: a job's folder would have a name of over 255"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    command: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        plan(command)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_run_and_a_sweep_have_no_folder_in_common(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "run").mkdir(parents=True)
    (tmp_path / "sweep" / files.SWEEP).write_text("{}", encoding="utf-8")
    (tmp_path / "sweep" / "run" / files.CONFIG).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"hydra\.run\.dir=sweep: is the folder of a sweep; .* as sweep/mine"):
        plan([*SMALL, "hydra.run.dir=sweep"])
    with pytest.raises(UserError, match=r"hydra\.sweep\.dir=sweep/run: is the folder of a run"):
        plan(["-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep/run"])
    with pytest.raises(UserError, match=r"hydra\.sweep\.subdir=sweep: is the folder of a sweep"):
        plan(["-m", *SMALL, "seed=0", "hydra.sweep.dir=.", "hydra.sweep.subdir=sweep"])


def test_a_long_command_still_has_a_folder_of_its_own() -> None:
    long, other = (["model.width=" + ",".join(map(str, range(1, n)))] for n in (90, 91))
    assert len(sweep_name(long).encode()) < 200
    assert sweep_name(long) != sweep_name(other)


@pytest.mark.parametrize("file", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_named_sweeps_say_what_they_ask_and_compose(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    for word in ("Question", f"Command   python -m src.train -m sweeps={file.stem}", "Cost", "Expect"):
        assert any(word in line for line in header), word
    monkeypatch.setattr("src.launch.sweep.split", lambda data: SPLITS)  # the data need not be here
    # few seeds: the others compose alike, and take their time; a claim has the least number that decides it
    seeds = ["seed=0,1,2,3,4" if file.stem in study_names() else "seed=0"]
    if "pairs:" in file.read_text():
        seeds = ["seed=range(10)"]
    if "seed=range" in file.read_text():  # its variants have seeds of their own
        seeds = []
    made = plan(["-m", f"sweeps={file.stem}", *seeds])
    assert made is not None and len(made.jobs) > 1 and made.folder == Path("outputs") / ",".join([file.stem, *seeds])
    for cfg in _nets(made):
        assert cfg.question
        assert summarize_config(cfg).parameters > 0
    if file.stem not in study_names("all"):
        return
    full = plan(["-m", f"sweeps={file.stem}", *seeds, "preset=full"])
    assert full is not None and made.folder != full.folder and len(full.jobs) >= len(made.jobs)
    cost = [sum(summarize_config(cfg).multiply_adds for cfg in _nets(one)) for one in (made, full)]
    length = [max((cfg.train.steps or 0, cfg.train.epochs) for cfg in one.jobs.values()) for one in (made, full)]
    assert cost[0] <= cost[1] and length[0] < length[1], "larger nets, trained for longer"


def _nets(made: Plan) -> list[Config]:
    """A job for each net that a sweep has."""
    return [*{(repr(cfg.model), cfg.data.name): cfg for cfg in made.jobs.values()}.values()]


def test_the_sweep_of_every_pool_has_every_pool() -> None:
    made = plan(["-m", "sweeps=every_pool"])
    assert made is not None
    assert [str(cfg.model.pool) for cfg in made.jobs.values()] == list(POOLS)


@pytest.mark.parametrize(("task", "outputs"), [("what", 8), ("where", 2), ("both", 10)])
def test_the_ledger_of_a_config_has_the_outputs_of_its_task(task: str, outputs: int) -> None:
    cfg = from_dict({"data": {"name": "shapes", "task": task}})
    assert summarize_config(cfg)["logits"].channels == outputs
