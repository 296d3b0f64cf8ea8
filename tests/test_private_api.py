"""Parts of Hydra, Lightning, W&B and jaxtyping that are not public, and that an upgrade may move:
one function uses each of them.

A failure here names the function to mend; whatever else breaks follows from it.
"""

import json

import jaxtyping
import pytest
import torch
import wandb
from beartype.roar import BeartypeCallHintViolation
from hydra._internal.utils import get_args_parser
from jaxtyping import Float
from lightning.pytorch import Trainer
from torch import Tensor
from wandb_workspaces.reports import v2 as wr

from src.launch import compose
from src.metrics.cka import unbiased_hsic
from src.metrics.rows import Estimate
from src.reporting import wandb_files, wandb_logger, wandb_report
from src.training import checkpoints
from tests import check
from tests.helpers import tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The log of an offline run with one row of history."""
    folder = tmp_path_factory.mktemp("run")
    logger = wandb_logger.WandbLogger(tiny(wandb={"mode": "offline"}), folder)
    logger.log_history([{"epoch": 3, "val/loss": 0.5}])
    logger.finish(failed=False)
    wandb.teardown()
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return path.read_bytes()


@pytest.mark.parametrize("name", ["x_disable_stats", "x_transaction_log_flush_interval"])
def test_settings_have_these_fields(name: str) -> None:
    assert name in wandb.Settings.model_fields, f"wandb.Settings has no {name} any more: wandb_logger.settings"


def test_settings_are_taken() -> None:
    settings = wandb_logger.settings()
    assert settings.x_disable_stats is True
    assert settings.x_transaction_log_flush_interval == 0.1


def test_a_log_has_the_header_and_frames_that_are_read(log: bytes) -> None:
    assert log.startswith(wandb_files.HEADER), "another format of W&B's log: wandb_files.HEADER, wandb_files.records"
    *_, (end, _) = wandb_files.records(log)
    assert end == len(log), "records are framed otherwise: wandb_files.records"


def test_records_are_parsed_to_the_fields_that_are_read(log: bytes) -> None:
    parsed = wandb_files.parse_records([content for _, content in wandb_files.records(log)])
    assert sum(record.HasField("run") for record in parsed) == 1
    (row,) = (record.history for record in parsed if record.HasField("history"))
    values = {(item.nested_key or [item.key])[0]: json.loads(item.value_json) for item in row.item}
    assert values["epoch"] == 3 and values["val/loss"] == 0.5, "wandb.proto has changed: wandb_files.parse_records"
    assert row.step.num == 0


def test_a_report_has_a_definition() -> None:
    assert hasattr(wr.Report, "_to_model"), "wandb_workspaces has no Report._to_model: wandb_report.definition_of"
    report = wr.Report(entity="e", project="p", title="a title", description="words", blocks=[wr.H1("heading")])
    definition = json.loads(wandb_report.definition_of(report))
    assert (definition["displayName"], definition["description"]) == ("a title", "words")
    assert "heading" in json.dumps(definition["spec"]["blocks"])


def test_hydra_parses_a_command_line_and_splits_a_sweep() -> None:
    args = get_args_parser().parse_args(["-m", "a=1", "--cfg", "job"])
    assert (args.multirun, args.cfg, args.overrides) == (True, "job", ["a=1"]), "compose.compose_jobs"
    composed = compose.compose_jobs(["-m", "model.pool=max,avg", "seed=1,0", "wandb.mode=disabled"])
    assert composed is not None
    names = [f"model.pool={pool},seed={seed}" for pool in ("max", "avg") for seed in (1, 0)]
    assert [job.hydra.sweep.subdir for job in composed.jobs] == names, (
        "jobs or the names of their folders have changed: compose.job_folder"
    )
    assert [(str(job.model.pool), job.seed) for job in composed.jobs] == [
        (pool, seed) for pool in ("max", "avg") for seed in (1, 0)
    ]
    assert composed.overrides[-1] == "wandb.mode=disabled"


def test_names_of_folders_are_those_that_hydra_made() -> None:
    """Hydra 1.4 deprecates ``override_dirname``; folders of earlier sweeps are found again without it."""
    words = ["-m", "model=resnet", "model.pool=max,avg", "data.root=a/b", "measure.what=[shift]"]
    ours, theirs = (
        compose.compose_jobs(line) for line in (words, [*words, "hydra.sweep.subdir=${hydra.job.override_dirname}"])
    )
    assert ours is not None and theirs is not None
    for job, our in zip(theirs.jobs, ours.jobs, strict=True):
        by_hydra = str(job.hydra.job.override_dirname).split(",")
        assert sorted(word for word in by_hydra if not word.startswith("data.root=")) == our.hydra.sweep.subdir.split(
            ","
        )


def test_lightning_has_the_parts_that_checkpoints_use() -> None:
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu")
    assert callable(trainer._signal_connector.register_signal_handlers), "checkpoints.disable_signal_handlers"
    checkpoints.disable_signal_handlers(trainer)
    assert trainer._signal_connector.register_signal_handlers() is None
    assert trainer.fit_loop.epoch_loop.batch_progress.is_last_batch is False, "checkpoints.SaveCheckpoints"


def test_the_import_hook_checks_types_and_sizes_of_arguments() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        unbiased_hsic(torch.zeros(4, 4), torch.zeros(5, 5))
    with pytest.raises(BeartypeCallHintViolation):
        Estimate("one", 0, 1, 1)  # type: ignore[arg-type]


def test_sizes_of_what_is_returned_are_those_of_the_arguments() -> None:
    @jaxtyping.jaxtyped(typechecker=check)
    def first(x: Float[Tensor, " n"], n: int) -> Float[Tensor, " n"]:
        return x[:n]

    assert len(first(torch.zeros(2), 2)) == 2
    with pytest.raises(BeartypeCallHintViolation):
        first(torch.zeros(2), 1)
