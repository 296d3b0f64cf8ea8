"""Finished runs are found by what they are, and used: a sweep grows by seeds, by axes, by epochs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from src.common.errors import UserError
from src.config import Config
from src.launch import sweep
from src.launch.reuse import reuse
from src.launch.sweep import Plan, plan
from src.models.optimisers import EXTENSIBLE, OPTIMIZERS, SCHEDULES
from src.reporting.comparison import group_into_variants
from src.reporting.maps import epochs_of
from src.reporting.terminal import console
from src.results import files
from src.results.identity import FORMAT, read_config
from src.results.measures import summary_values
from src.results.runs import FinishedRun
from src.training.run import run
from tests.helpers import tiny, wandb_records
from tests.test_comparison import found_below
from tests.test_identity import leave_pictures
from tests.test_run import same_numbers

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own

SMALL = (
    "data=shapes data.image_size=16 data.train_size=256 data.val_size=100 model.depth=2 model.width=4 train.epochs=1 "
    "train.batch_size=64 measure.what=[shift] measure.images=40 measure.max_shift=2 probe.images=2 probe.channels=4 "
    "wandb.mode=disabled"
).split()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def command(*words: str) -> tuple[Plan, list[str]]:
    """What ``src.train`` does, but for the launcher; its plan, and the runs that it trained."""
    made = plan([*words])
    assert made is not None
    trained = []
    if made.multirun:
        made.folder.mkdir(parents=True, exist_ok=True)
        sweep.start(made, [*words])
    if made.store:
        reuse(made.jobs, made.store)
    for folder, cfg in made.jobs.items():
        if not (folder / files.RUN).exists():
            trained.append(folder.name)
            run(cfg, folder)
    return made, trained


def test_a_sweep_grows_by_seeds_and_by_a_pool() -> None:
    first, trained = command("-m", *SMALL, "seed=0,1")
    assert len(trained) == 2
    with console.capture() as shown:
        more, trained = command("-m", *SMALL, "seed=0,1,2")
    assert len(trained) == 1 and "seed=2" in trained[0]
    assert shown.get().count("reused, finished in outputs/") == 2
    assert [variant.seeds for variant in group_into_variants(found_below(more.folder))] == [[0, 1, 2]]
    for old, new in zip(first.jobs, more.jobs, strict=False):
        assert same_numbers(old, new)
        for name in ("checkpoints/best.ckpt", "inside.npz", "maps/epoch_001.npz", "run.json", "shapes.csv"):
            assert (old / name).read_bytes() == (new / name).read_bytes(), name
    shutil.rmtree(first.folder)
    _, trained = command("-m", *SMALL, "seed=0", "model.pool=max,avg")
    assert len(trained) == 1 and "model.pool=avg" in trained[0], "max is the default, named or not"


def test_a_named_sweep_grows_in_its_folder() -> None:
    made, trained = command("-m", *SMALL, "name=mine", "seed=0")
    assert made.folder == Path("outputs/mine") and len(trained) == 1
    made, trained = command("-m", *SMALL, "name=mine", "seed=1")
    assert len(trained) == 1
    assert [variant.seeds for variant in group_into_variants(found_below(made.folder))] == [[0, 1]]
    kept = json.loads((made.folder / files.SWEEP).read_text())
    assert len(kept["jobs"]) == 2 and kept["command"].count("python -m src.train") == 2
    assert command("-m", *SMALL, "seed=0,1")[1] == [], "what it is counts, not what it is called"
    single, trained = command(*SMALL, "name=mine", "seed=0")
    assert list(single.jobs) == [Path("outputs/single/mine")] and not trained


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-m", "single", "x y", "a" * 101, "~", "a*"])
def test_a_name_is_that_of_a_plain_folder(name: str) -> None:
    with pytest.raises(UserError, match=r"^name=.*: must be the name of a folder in outputs/") as caught:
        plan(["-m", *SMALL, f"name='{name}'", "seed=0,1"])
    assert "\n" not in str(caught.value)


def test_a_sweep_has_one_name() -> None:
    with pytest.raises(UserError, match="one name for the whole sweep"):
        plan(["-m", *SMALL, "name=a,b"])
    with pytest.raises(UserError, match="give one of them"):
        plan(["-m", *SMALL, "name=a", "seed=0,1", "hydra.sweep.dir=there"])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "outputs" / "one"
    run(tiny(), folder)
    return folder


def used(done: Path, cfg: Config, folder: Path) -> bool:
    reuse({folder: cfg}, done.parent)
    return (folder / files.RUN).exists()


def test_runs_are_reused_whatever_their_hardware_and_for_no_other_settings(done: Path, tmp_path: Path) -> None:
    assert used(done, tiny(trainer={"accelerator": "cpu"}, question="why?", data={"root": "x"}), tmp_path / "same")
    for number, other in enumerate(
        [{"seed": 1}, {"trainer": {"precision": "bf16-mixed"}}, {"measure": {"images": 41}}, {"train": {"epochs": 1}}]
    ):
        assert not used(done, tiny(**other), tmp_path / str(number))
        assert not (tmp_path / str(number) / files.CONFIG).exists()


def test_a_run_of_an_older_version_is_used_though_its_file_has_fewer_keys(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "outputs" / "old")
    path = tmp_path / "outputs" / "old" / files.CONFIG
    tree = yaml.safe_load(path.read_text())
    del tree["train"]["steps"], tree["alarm"]
    tree["train"]["lr"] = 1  # a float, as a person may write it
    path.write_text(yaml.safe_dump(tree))
    assert not used(path.parent, tiny(train={"lr": 1.5}), tmp_path / "other")
    assert used(path.parent, tiny(train={"lr": 1.0}), tmp_path / "same")


def test_a_run_of_unknown_identity_is_not_reused(done: Path, tmp_path: Path) -> None:
    store = tmp_path / "outputs"
    shutil.copytree(done, store / "one")
    files.write_json(store / "one" / files.IDENTITY, {"format": FORMAT + 1, "contents": {}})
    assert not used(store / "one", tiny(), tmp_path / "other format")
    (store / "one" / files.IDENTITY).unlink()
    assert not used(store / "one", tiny(), tmp_path / "before there were any")
    shutil.copy(done / files.IDENTITY, store / "one")
    (store / "one" / files.RUN).unlink()
    assert not used(store / "one", tiny(), tmp_path / "not finished")


def test_changed_image_files_prevent_reuse() -> None:
    here = ["data=folder", "data.val_size=8", "data.train_size=null", "data.root=here"]
    words = [*(one for one in SMALL if not one.startswith("data")), *here, "data.image_size=16"]
    leave_pictures(Path("here"))
    command("-m", *words, "seed=0")
    assert command("-m", *words, "seed=0", "train.lr=0.01")[1] == []
    Path("here/cat/00.bmp").unlink()
    assert len(command("-m", *words, "seed=0", "model.pool=max")[1]) == 1


def test_a_reused_run_is_a_run_of_its_own_at_wandb(done: Path, tmp_path: Path) -> None:
    sweep_folder = tmp_path / "grown"
    assert used(done, tiny(wandb={"mode": "offline"}), sweep_folder / "one")
    assert read_config(sweep_folder / "one").wandb.mode == "offline"
    records = wandb_records(sweep_folder / "one")
    assert next(record["run"] for record in records if record["type"] == "run")["run_group"] == "grown"
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [row["epoch"] for row in rows if "val/accuracy" in row] == [1, 2]
    summary = {k: v for r in records if r["type"] == "summary" for k, v in r["summary"]["update"].items()}
    expected = summary_values(FinishedRun(done, {}).results)
    assert {key: summary[key] for key in expected} == pytest.approx(expected, nan_ok=True)


def test_measuring_a_copy_again_leaves_the_original_unchanged(done: Path, tmp_path: Path) -> None:
    before = (done / files.MEASURES).read_bytes()
    assert used(done, tiny(), tmp_path / "copy")
    files.write_rows(tmp_path / "copy" / files.MEASURES, [])
    assert (done / files.MEASURES).read_bytes() == before


# --- more epochs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["best", "last"])
def test_more_epochs_continue_training_and_give_the_same_numbers(keep: str, tmp_path: Path) -> None:
    def constant(epochs: int) -> Config:
        return tiny(train={"epochs": epochs, "schedule": "constant", "keep": keep})

    store = tmp_path / "outputs"
    run(constant(1), store / "one")
    run(constant(2), store / "two")
    with console.capture() as shown:
        assert not used(store / "two", constant(4), store / "four")
    assert f"four continues the 2 epochs in {store / 'two'}" in shown.get().replace("\n", "")
    with console.capture() as shown:
        run(constant(4), store / "four")
    assert "epoch 3/4" in shown.get() and "epoch 2/4" not in shown.get()
    run(constant(4), tmp_path / "undisturbed")
    assert same_numbers(store / "four", tmp_path / "undisturbed")
    assert epochs_of(store / "four") == epochs_of(tmp_path / "undisturbed") == [0, 1, 2, 3, 4]
    trees = [
        torch.load(folder / files.CHECKPOINTS / f"{keep}.ckpt", weights_only=True)
        for folder in (store / "four", tmp_path / "undisturbed")
    ]
    assert trees[0]["config"] == trees[1]["config"]
    for name, weight in trees[1]["state_dict"].items():
        assert torch.equal(trees[0]["state_dict"][name], weight), name
    assert torch.load(store / "two/checkpoints/best.ckpt", weights_only=True)["config"]["train"]["epochs"] == 2


def test_a_schedule_that_depends_on_all_epochs_starts_over_and_says_why(done: Path, tmp_path: Path) -> None:
    with console.capture() as shown:
        assert not used(done, tiny(train={"epochs": 3}), tmp_path / "three")
    said = shown.get().replace("\n", "")
    assert (
        "three starts from the beginning: train.schedule=onecycle depends on the number of epochs" in said
        and "cannot continue the 2 epochs of" in said
    )
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_schedules_that_ignore_the_number_of_steps_can_be_extended(schedule: str, optimizer: str) -> None:
    def rates(steps: int) -> list[float]:
        made = OPTIMIZERS[optimizer]([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        schedule_of = SCHEDULES[schedule](made, 0.1, steps)
        found = []
        for _ in range(10):
            found.append(made.param_groups[0]["lr"])
            made.step()
            schedule_of.step()
        return found

    assert (rates(10) == rates(20)) == (schedule in EXTENSIBLE)
