"""What a run finds around it: ranks of other programs, output that is lost, files of others, W&B that is away."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from src.common.errors import UserError
from src.config.schema import Config
from src.data.image_files import pictures
from src.data.options import Data
from src.data.splits import split
from src.reporting import wandb_logger
from src.reporting.wandb_logger import WandbLogger
from src.results import files
from src.results.identity import read_checkpoint
from src.training import ranks
from src.training.checkpoints import resume_from
from tests.helpers import ROOT

OLD = ROOT / "tests" / "old_runs" / "interrupted" / "checkpoints" / files.LAST


def test_one_process_forgets_the_ranks_of_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
    ranks.forget_ranks(processes=2)
    assert not ranks.is_main_process()
    ranks.forget_ranks(processes=1)
    assert ranks.is_main_process()


PRINTING = """
import sys
from src.common.cli_errors import cli_errors
with cli_errors():
    print("×", flush=True)
    print("more", flush=True)
    print("done", file=sys.stderr)
"""


@pytest.mark.parametrize("output", ["/dev/full", "ascii"])
def test_output_that_cannot_be_written_stops_no_work(output: str, tmp_path: Path) -> None:
    path = Path(output) if output.startswith("/") else tmp_path / "out"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with path.open("wb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", PRINTING], stdout=stream, stderr=subprocess.PIPE, text=True, env=environment,
            cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if output == "ascii":
        assert (path.read_text(), done.stderr) == ("?\nmore\n", "done\n")
    else:
        said = "standard output cannot be written (No space left on device): going on without it\n"
        assert done.stderr == f"{said}done\n"


@pytest.mark.parametrize(
    "weights",
    ["text", [1], {1: torch.zeros(1)}, {"a": 1.0}, {"a": torch.zeros(1, dtype=torch.complex64)},
     {"a": torch.zeros(1, device="meta")}],
)  # fmt: skip
def test_a_checkpoint_without_weights_is_refused_in_a_line(weights: object, tmp_path: Path) -> None:
    torch.save({"config": {}, "state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt holds no weights"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("config", ["text", [1], None, {1: 2}, {"model": 3}, {"zzz": 1}])
def test_a_checkpoint_without_a_config_is_refused_in_a_line(config: object, tmp_path: Path) -> None:
    torch.save({"config": config, "state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt holds no config"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_checkpoint_of_another_version_starts_over(tmp_path: Path) -> None:
    checkpoint = torch.load(OLD, weights_only=True)
    last = tmp_path / files.LAST
    for change in ({"within": None}, {"format": 99}):
        other = {key: value for key, value in (checkpoint | change).items() if value is not None}
        torch.save(other, last)
        said: list[str] = []
        assert resume_from(tmp_path, said.append) is None
        assert said == [f"{last} was written by another version: resuming from the start"]
    last.write_bytes(OLD.read_bytes())
    assert resume_from(tmp_path, pytest.fail) == last


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_a_damaged_image_is_left_out_if_asked(images: Path) -> None:
    data = Data(name="folder", root=str(images), val_size=4, image_size=16)
    assert split(data).skipped == 0
    (images / "a" / "3.png").write_bytes(b"zzz")
    with pytest.raises(UserError, match=r"a/3\.png cannot be read as an image: .*data\.skip_damaged=true"):
        split(data)
    data.skip_damaged = True
    splits = split(data)
    assert splits.skipped == 1
    assert len(splits.train) + len(splits.val) + len(splits.test) == 19


def test_links_that_lead_back_are_not_followed(images: Path) -> None:
    (images / "a" / "back").symlink_to(images)
    (images / "a" / "self").symlink_to(images / "a")
    assert len(pictures(images / "a")) == 20, "its own ten, and those of b"


def test_too_large_a_validation_part_says_which_would_fit(images: Path) -> None:
    with pytest.raises(UserError, match=r"16 training images: too few for data\.val_size=5000 .*take data\.val_size=3"):
        split(Data(name="folder", root=str(images), image_size=16))


def test_where_wandb_is_away_the_run_is_logged_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    wandb.teardown()  # its process would keep the address of the server
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr(wandb_logger, "PATIENCE", 1)
    monkeypatch.setattr(wandb_logger, "UNREACHABLE", threading.Event())
    cfg = Config()
    cfg.wandb.mode = "online"
    logger = WandbLogger(cfg, tmp_path)
    logger.log_summary({"accuracy": 1})
    logger.finish(failed=False)
    wandb.teardown()
    assert wandb_logger.mode_of(cfg) == "offline", "the next run does not wait for it"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("  W&B cannot be reached (") and line.endswith("): logging offline, for wandb sync")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize(("variable", "value"), [("WANDB_API_KEY", "abc"), ("WANDB_BASE_URL", "zzz")])
def test_what_wandb_cannot_use_of_the_environment_is_said_and_stops_no_run(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(wandb_logger, "UNREACHABLE", threading.Event())
    cfg = Config()
    cfg.wandb.mode = "online"
    with pytest.raises(UserError, match=r"W&B refuses what the environment says of it .*correct WANDB_API_KEY"):
        wandb_logger.mode_of(cfg)
    cfg.wandb.mode = "auto"
    logger = WandbLogger(cfg, tmp_path)
    logger.log_summary({"accuracy": 1})
    logger.finish(failed=False)
    wandb.teardown()
    said = capsys.readouterr().out
    assert "logging offline, for wandb sync" in said
    logged = bool(list(tmp_path.glob("wandb/offline-run-*/*.wandb")))
    assert logged != ("W&B cannot start" in said), said
