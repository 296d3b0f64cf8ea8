"""The options of the launchers: the group ``hydra/launcher`` of a config."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

#: under which Hydra finds the launchers
PLUGINS = "hydra_plugins.whatwhere"


@dataclass
class Local:
    """The options of ``hydra/launcher=local``."""

    _target_: str = f"{PLUGINS}.LocalLauncher"
    jobs: int | None = None
    gpus: Any = None  # a number or a list of ids
    jobs_per_gpu: int = 1
    gpus_per_job: int | None = None
    threads: int | None = None
    warm: bool = True


@dataclass
class Slurm:
    """The options of ``hydra/launcher=slurm``."""

    _target_: str = f"{PLUGINS}.SlurmLauncher"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: int = 60
    gpus: int | None = None
    cpus: int = 4
    memory: float = 16
    array_parallelism: int = 64
    array_size: int = 1000
    jobs_per_allocation: int = 1
    jobs_at_once: int = 1
    grace: int = 120
    setup: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    poll: float = 10


OPTIONS = {"local": Local, "slurm": Slurm}
for _name, _node in OPTIONS.items():
    ConfigStore.instance().store(group="hydra/launcher", name=f"{_name}_schema", node=_node)
