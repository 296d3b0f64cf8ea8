"""Configs of a sweep's jobs, against those that Hydra composes."""

from collections.abc import Sequence

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.common.errors import UserError
from src.config import study_of
from src.launch import compose
from src.launch.compose import job_configs
from src.launch.sweep import study_names
from src.launch.sweeper import grid_settings, jobs_of


def as_data(cfg: DictConfig) -> dict[str, object]:
    """All settings, with what is the sweep's, and Hydra's deprecated name, left out."""
    tree = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(tree, dict)
    return {
        **{key: value for key, value in tree.items() if key not in {"study", "hydra"}},
        **{f"hydra.{key}": value for key, value in tree["hydra"].items() if key != "job"},
        **{f"hydra.job.{key}": value for key, value in tree["hydra"]["job"].items() if key != "override_dirname"},
    }


@pytest.mark.parametrize(
    "words",
    [
        *([f"sweeps={name}"] for name in ("every_pool", "red_green", *study_names("all"))),
        ["model=resnet,mlp", "model.pool=max,none", "train.lr=1e-2,3", "measure.what=[shift],[shift,crops]"],
        ["data=shapes,cifar10", "model.window=null,3"],
        ["name=a b", "question='one, two?'", "data.root='$x',y", "hydra.job.chdir=false"],
        ["data.canvas=null,40", "model.pool_at=[1,2],null,[3]", "seed=range(3)", "trainer.accelerator=cpu"],
    ],
    ids=" ".join,
)
def test_jobs_are_those_that_hydra_composes(words: Sequence[str]) -> None:
    with compose._composing() as loader:
        master = loader.load_configuration(
            "config", [*words, compose.SEARCHPATH], RunMode.MULTIRUN, validate_sweep_overrides=False
        )
        overrides = compose._parsed(loader, [*grid_settings(master), *master.hydra.overrides.task])
        batch = jobs_of(overrides, study_of(master).variants)
        batch = batch[:: max(1, len(batch) // 3)]
        for job, its_words in zip(job_configs(loader, master, batch), batch, strict=True):
            by_hydra = loader.load_sweep_config(master, list(its_words))
            assert as_data(job) == as_data(by_hydra)
            assert OmegaConf.get_type(job) is OmegaConf.get_type(by_hydra)
            assert job.hydra.sweep.subdir == by_hydra.hydra.sweep.subdir


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.pol=max,avg", "model.pol"),
        ("model.depth=2,deep", "model.depth: Value 'deep'"),
        ("sed=1,2", "sed"),
        ("model=resnet,rsnet", "model=rsnet"),
    ],
)
def test_a_value_that_is_refused_is_named(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose.compose_jobs(["-m", word])
