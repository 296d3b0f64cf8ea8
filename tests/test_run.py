"""One run, for real but tiny: what it leaves, that it repeats, that it goes on where it stopped."""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from src.common.errors import UserError
from src.config import from_dict, to_dict
from src.data.splits import split
from src.metrics import COLUMNS
from src.reporting.maps import read_scale, save_maps
from src.reporting.wandb_logger import WandbLogger
from src.results import files
from src.results.identity import is_finished, read_checkpoint, read_config
from src.results.runs import FinishedRun, find_runs
from src.results.saved_maps import read_maps
from src.training import callbacks
from src.training.run import run
from tests.helpers import model, tiny, wandb_records

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's and W&B's own


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "model.pool=max"
    run(tiny(wandb={"mode": "offline"}), folder)
    return folder


def test_a_run_leaves_all_its_files(done: Path) -> None:
    expected = "config.yaml run.json history.csv shapes.csv measures.csv inside.npz checkpoints/best.ckpt "
    expected += "checkpoints/last.ckpt"
    assert all((done / name).is_file() for name in expected.split())
    assert not list(done.glob("**/.*.csv.*")), "no half-written file stays behind"
    assert len(files.read_rows(done / files.HISTORY)) == 2
    assert is_finished(done, tiny())


@pytest.mark.parametrize("name", ["mlp", "pixels", "pca", "hog", "hog_kernel"])
@pytest.mark.parametrize("task", ["what", "both"])
def test_a_net_without_maps_leaves_the_same_files(name: str, task: str, tmp_path: Path) -> None:
    axes = {key: value for key, value in asdict(model(name)).items() if key != "dropout_kind"}
    cfg = replace(tiny(data={"task": task}), model=model(**axes))
    run(cfg, tmp_path)
    assert is_finished(tmp_path, cfg)
    rows = FinishedRun(tmp_path, {}).measures
    assert ("output", "crop", 1, "output_distance") in rows
    assert ("features", "roll", 2, "invariance_error") in rows
    assert (("output", "test", 0, "r2") in rows) == (task == "both")


def test_a_last_training_image_that_would_be_alone_is_trained_on_all_the_same(tmp_path: Path) -> None:
    cfg = replace(tiny(data={"train_size": 65}, train={"epochs": 1}), model=model("mlp"))
    run(cfg, tmp_path)
    assert json.loads((tmp_path / files.RUN).read_text())["steps"] == 1


def test_what_is_fitted_before_training_is_in_the_checkpoint(tmp_path: Path) -> None:
    cfg = replace(tiny(), model=model("pca"))
    run(cfg, tmp_path)
    _, weights = read_checkpoint(tmp_path / files.CHECKPOINTS / "best.ckpt")
    images = split(cfg.data).train.images[:, 0].flatten(1).double().numpy()
    components = weights["components.project.weight"].double().numpy()
    largest = np.linalg.svd(images - images.mean(0), full_matrices=False)[2][: len(components)]
    np.testing.assert_allclose(np.abs(components @ largest.T), np.eye(len(components)), atol=1e-3)


def test_its_config_reads_back_equal(done: Path) -> None:
    assert from_dict(yaml.safe_load((done / files.CONFIG).read_text())).model == tiny().model


def test_measures_are_tidy(done: Path) -> None:
    with (done / files.MEASURES).open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    keys = [(r["layer"], r["transform"], r["protocol"], r["amount"], r["measure"]) for r in rows]
    assert len(set(keys)) == len(keys)
    shifts = [r for r in rows if r["transform"] == "shift"]
    assert {r["amount"] for r in shifts} == {"1", "2"}
    assert {r["protocol"] for r in shifts} == {"roll", "crop"}
    assert {r["layer"] for r in shifts} == {"stage1", "stage2", "features", "output"}
    assert {r["n"] for r in shifts} == {"40"}
    for row in rows:
        if row["low"] and row["value"]:
            assert float(row["low"]) <= float(row["value"]) + 1e-9 <= float(row["high"]) + 2e-9, row


def test_every_shift_measure_has_its_untrained_twin(done: Path) -> None:
    names = {key for key in FinishedRun(done, {}).measures if key[1] in ("roll", "crop")}
    trained = {key for key in names if not key[3].endswith("_untrained")}
    assert {(*key[:3], f"{key[3]}_untrained") for key in trained} == names - trained


def test_the_ledger_on_disk_is_the_nets(done: Path) -> None:
    _, weights = read_checkpoint(done / "checkpoints/best.ckpt")
    learned = sum(w.numel() for name, w in weights.items() if "running" not in name and "num_batches" not in name)
    assert sum(int(row["parameters"]) for row in files.read_rows(done / files.SHAPES)) == learned


def test_maps_are_kept_for_every_stage_and_epoch_on_one_scale(done: Path) -> None:
    scale = json.loads((done / "maps/scale.json").read_text())
    for epoch in range(3):
        with np.load(done / f"maps/epoch_{epoch:03d}.npz") as kept:
            for stage in ("stage1", "stage2"):
                assert (done / f"maps/{stage}_epoch_{epoch:03d}.png").stat().st_size > 500
                assert np.quantile(kept[stage].astype(float), 0.999) <= scale[stage][1] + 1e-2


def test_the_net_that_is_kept_is_looked_into(done: Path) -> None:
    found = FinishedRun(done, {}).inside
    _, weights = read_checkpoint(done / "checkpoints/best.ckpt")
    np.testing.assert_array_equal(found["filters"], weights["stage1.conv1.weight"])
    best = torch.load(done / "checkpoints/best.ckpt", weights_only=True)["epoch"] + 1
    with np.load(done / f"maps/epoch_{best:03d}.npz") as kept:
        np.testing.assert_array_equal(found["images"], kept["images"])
        for stage in ("stage1", "stage2"):
            np.testing.assert_allclose(found[f"{stage}/still"], kept[stage], rtol=2e-3, atol=1e-3)


def test_the_checkpoint_is_plain_data_with_the_whole_config(done: Path) -> None:
    tree = torch.load(done / "checkpoints/last.ckpt", weights_only=True)
    assert tree["config"] == to_dict(tiny(wandb={"mode": "offline"}))


def test_wandb_holds_history_config_summary_tables_and_maps(done: Path) -> None:
    records = wandb_records(done)
    started = next(r["run"] for r in records if r["type"] == "run")
    assert started["run_group"] == done.parent.name
    assert started["config"]["update"]["model"]["pool"] == "max"
    rows = [r["history"]["item"] for r in records if r["type"] == "history"]
    logged = {row["epoch"]: row["val/accuracy"] for row in rows if "val/accuracy" in row}
    history = files.read_rows(done / files.HISTORY)
    assert logged == {int(r["epoch"]): pytest.approx(float(r["val/accuracy"])) for r in history}
    beside = [row for row in rows if "maps/stage1.path" in row]
    assert [row["epoch"] for row in beside] == [0, 1, 2], "one call an epoch, the untrained net included"
    assert all("maps/stage2.path" in row for row in beside), "the stages of an epoch in one call"
    tables = {name: row for row in rows for name in ("measures", "shapes") if f"{name}.nrows" in row}
    assert tables["measures"]["measures.nrows"] == len(files.read_rows(done / files.MEASURES))
    assert tables["shapes"]["shapes.nrows"] == len(files.read_rows(done / files.SHAPES))
    named_values = {k: v for r in records if r["type"] == "summary" for k, v in r["summary"]["update"].items()}
    measures = FinishedRun(done, {}).measures
    assert named_values["invariance/crop/1px/output_distance"] == measures["output", "crop", 1, "output_distance"][0]
    assert named_values["test/accuracy"] == pytest.approx(measures["output", "test", 0, "accuracy"][0])
    keys = {key for row in rows for key in row if not key.startswith("_")} | set(named_values)
    assert len({key.removesuffix("._type") for key in keys if "." not in key or key.endswith("._type")}) <= 150


def test_online_the_newest_maps_come_while_a_run_trains(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, Any]] = []
    online = SimpleNamespace(offline=False, log=logged.append)
    tracker = WandbLogger(read_config(done), done)
    monkeypatch.setattr(WandbLogger, "experiment", property(lambda self: online))
    tracker.log_newest_maps()
    tracker.log_newest_maps()
    (row,) = logged
    assert row.pop("epoch") == 2
    assert {*row} == {"maps_so_far/stage1", "maps_so_far/stage2"}, "once, the last epoch's"
    online.offline = True
    WandbLogger(read_config(done), done).log_newest_maps()
    assert len(logged) == 1, "offline nobody can see them before the end"


def test_a_net_without_positions_runs_as_any_other(tmp_path: Path) -> None:
    mlp = {"name": "mlp", "pool": "none", "stride": 1, "convs": None, "head": "flatten", "depth": 2, "width": 8}
    run(tiny(model=mlp), tmp_path / "mlp")
    assert is_finished(tmp_path / "mlp", tiny(model=mlp))
    with np.load(tmp_path / "mlp/maps/epoch_002.npz") as kept:
        assert kept["stage2"].shape == (3, 4, 1, 1), "probe images, channels, and one pixel"


def test_a_finished_run_is_kept(done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    run(tiny(), done)
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before


def test_another_config_in_the_same_folder_is_refused(done: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pool=max, this one has model\.pool=avg"):
        run(tiny(model={"pool": "avg"}), done)


def same_numbers(one: Path, other: Path) -> bool:
    def history(run: Path) -> list[dict[str, str]]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in files.read_rows(run / files.HISTORY)]

    measures = [(run / files.MEASURES).read_bytes() for run in (one, other)]
    return history(one) == history(other) and measures[0] == measures[1]


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(done: Path, tmp_path: Path) -> None:
    run(tiny(), tmp_path / "again")
    assert same_numbers(done, tmp_path / "again")


def test_another_seed_gives_other_numbers(done: Path, tmp_path: Path) -> None:
    run(tiny(seed=1), tmp_path / "other")
    assert not same_numbers(done, tmp_path / "other")


def test_an_interrupted_run_goes_on_to_the_same_numbers(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "interrupted"
    save: Callable[..., None] = callbacks.save_maps

    def fail_after_epoch_1(run: Path, epoch: int, *maps: object) -> None:
        if epoch == 2:
            raise RuntimeError("the power went")
        save(run, epoch, *maps)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="the power went"):
        patch.setattr(callbacks, "save_maps", fail_after_epoch_1)
        run(tiny(), folder)
    assert "the power went" in (folder / files.FAILED).read_text()
    assert not is_finished(folder, tiny())
    with pytest.raises(UserError, match="RuntimeError: the power went"):
        find_runs(folder)
    run(tiny(), folder)
    assert not (folder / files.FAILED).exists()
    assert same_numbers(done, folder)


def test_maps_beyond_the_range_of_their_file_type_are_clipped(tmp_path: Path) -> None:
    maps = {"stage1": np.float32([0, 3e4, 1e9, -1e9]).reshape(1, 1, 2, 2)}
    save_maps(tmp_path, 0, np.zeros((1, 1, 4, 4), np.uint8), maps)
    np.testing.assert_array_equal(read_maps(tmp_path, 0)[1]["stage1"].ravel(), [0, 3e4, 65504, -65504])
    assert read_scale(tmp_path)["stage1"] == [-65504, pytest.approx(65504, rel=0.01)]


def test_a_run_is_followed_while_it_trains(tmp_path: Path) -> None:
    run(tiny(train={"epochs": 3}, measure={"every": 2}), tmp_path)
    history = files.read_rows(tmp_path / files.HISTORY)
    names = [key for key in history[0] if key.startswith("invariance/")]
    assert {"invariance/crop/1px/output_distance", "invariance/roll/1px/stage1/invariance_error"} <= set(names)
    assert not any(history[epoch][name] for epoch in (0, 2) for name in names), "every second epoch alone"
    assert all(float(history[1][name]) >= 0 for name in names)
    net, _ = read_checkpoint(tmp_path / files.CHECKPOINTS / "last.ckpt")
    assert net.measure.every == 2


def test_the_last_followed_value_equals_the_measured_one(tmp_path: Path) -> None:
    run(tiny(measure={"every": 1}, train={"keep": "last"}), tmp_path)
    last, found = files.read_rows(tmp_path / files.HISTORY)[-1], FinishedRun(tmp_path, {}).measures
    for name, key in {
        "invariance/crop/1px/output_distance": ("output", "crop", 1, "output_distance"),
        "invariance/roll/1px/stage2/invariance_error": ("stage2", "roll", 1, "invariance_error"),
    }.items():
        assert float(last[name]) == pytest.approx(found[key][0], rel=1e-5)


def test_the_last_checkpoint_is_the_last_epochs_though_an_earlier_one_was_better(tmp_path: Path) -> None:
    run(tiny(train={"epochs": 4, "lr": 3.0, "optimizer": "sgd"}), tmp_path)
    scores = [float(row["val/accuracy"]) for row in files.read_rows(tmp_path / files.HISTORY)]
    best, last = (
        torch.load(tmp_path / files.CHECKPOINTS / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    )
    assert (best, last) == (scores.index(max(scores)), 3)
    assert best < last, "or this shows nothing"
