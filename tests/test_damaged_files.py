"""Files of a run that a disk or a copy has damaged: named in one line, and the other runs are still read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from lightning.pytorch import Trainer

from src.common.errors import UserError
from src.common.naming import code_checksum
from src.launch.reuse import _stored_runs
from src.results import files
from src.results.identity import is_by_other_code, read_config, write_identity
from src.results.runs import find_runs
from src.training.callbacks import History
from src.training.checkpoints import resume_from
from src.training.lightning_module import Training
from tests.helpers import tiny
from tests.test_comparison import leave_run
from tests.test_old_runs import OLD

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "text": lambda _: b"not what it should be\n1,2",
    "binary": lambda _: bytes(range(256)),
    "list": lambda _: b"[1, 2]",
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two finished runs."""
    shutil.copytree(OLD / "finished", tmp_path / "old")
    leave_run(tmp_path / "whole", 0.9, 0.1, seed=1)
    write_identity(tmp_path / "whole", tiny())
    return tmp_path


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [files.RUN, files.MEASURES, files.HISTORY, files.SHAPES, files.IDENTITY])
def test_a_run_with_a_damaged_file_is_named_and_the_others_are_read(sweep: Path, name: str, damage: str) -> None:
    path = sweep / "old" / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    found, missing = find_runs(sweep)
    assert [run.folder.name for run in found] == ["whole"]
    assert missing["old"].startswith(f"{path} is damaged: ")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_with_a_damaged_config_is_named_and_the_others_are_read(sweep: Path, damage: str) -> None:
    path = sweep / "old" / files.CONFIG
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    found, missing = find_runs(sweep)
    assert [run.folder.name for run in found] == ["whole"] and str(path) in missing["old"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [files.RUN, files.IDENTITY, files.CONFIG])
def test_a_damaged_run_in_the_store_is_not_reused_and_stops_nothing(sweep: Path, name: str, damage: str) -> None:
    path = sweep / "old" / name
    cfg = read_config(sweep / "whole")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert [stored.folder.name for stored in _stored_runs(sweep, [cfg])] == ["whole"]


@pytest.mark.parametrize("damage", ["half", "empty", "text"])
@pytest.mark.parametrize("name", [files.PER_IMAGE, files.INSIDE])
def test_damaged_arrays_are_named(sweep: Path, name: str, damage: str) -> None:
    path = sweep / "old" / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert refusal(lambda: files.read_arrays(path)).startswith(f"{path} is damaged: ")


def test_without_the_best_weights_training_starts_again(tmp_path: Path) -> None:
    shutil.copytree(OLD / "interrupted", tmp_path / "run")
    checkpoints = tmp_path / "run" / files.CHECKPOINTS
    assert resume_from(checkpoints, pytest.fail) == checkpoints / files.LAST
    (checkpoints / files.BEST).unlink()
    said: list[str] = []
    assert resume_from(checkpoints, said.append) is None
    assert said == [f"{checkpoints / files.BEST} is missing: resuming from the start"]


def test_epochs_that_are_missing_in_the_history_are_not_passed_over(tmp_path: Path) -> None:
    history, trainer, net = History(tmp_path), create_autospec(Trainer, current_epoch=2), create_autospec(Training)
    history.load_state_dict({"seconds": 1.0, "epochs": 2})
    files.write_rows(tmp_path / files.HISTORY, [{"epoch": 1}, {"epoch": 2}])
    history.on_train_start(trainer, net)
    assert len(history.rows) == 2
    files.write_rows(tmp_path / files.HISTORY, [{"epoch": 1}])
    words = refusal(lambda: history.on_train_start(trainer, net))
    assert words == (
        f"{tmp_path / files.HISTORY} has 1 of the 2 epochs that the checkpoint has behind it; remove {tmp_path} to "
        "train again"
    )


def test_a_run_by_other_code_is_known(tmp_path: Path) -> None:
    for code, other in ((None, False), (code_checksum(), False), ("0" * 16, True)):
        files.write_json(tmp_path / files.RUN, {"code_checksum": code} if code else {})
        assert is_by_other_code(tmp_path) is other
