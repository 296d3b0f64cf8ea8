"""Between OmegaConf's trees, dataclasses, saved runs and the words of a command."""

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from ..common.cli_errors import omegaconf_errors
from .schema import COMMAND_KEYS, Config
from .study import Command


def plain_name(words: str) -> str:
    """The name of one folder, though a path stands in it.

    >>> plain_name("data.root=/scratch/birds,seed=0")
    'data.root=_scratch_birds,seed=0'
    """
    return words.replace("/", "_")


def fitting_name(name: str) -> str:
    """A folder's name, cut where it is too long, and still its own."""
    return name if len(name.encode()) <= 150 else f"{name[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def from_omegaconf(cfg: Any) -> Config:
    """The dataclasses of a composed DictConfig, checked."""
    if OmegaConf.get_type(cfg) is Command and not _added(cfg):  # composed on the schema: its values have their types
        nodes: dict[str, Any] = {item.name: cfg[item.name] for item in fields(Config)}
        values: dict[str, Any] = {
            name: OmegaConf.to_object(node) if OmegaConf.is_config(node) else node for name, node in nodes.items()
        }
        typed: Any = Config(**values)
    else:
        tree = OmegaConf.to_container(cfg)
        assert isinstance(tree, dict)
        for key in ("hydra", *COMMAND_KEYS):
            tree.pop(key, None)
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), tree))
    assert isinstance(typed, Config)
    typed.check()
    return typed


def _added(node: Any) -> bool:
    """Whether a typed tree has keys that its classes have not, as ``+key=value`` adds them."""
    types = {item.name: item.type for item in fields(OmegaConf.get_type(node))}  # type: ignore[arg-type]
    groups = [name for name, kind in types.items() if is_dataclass(kind) and name not in COMMAND_KEYS]
    return not ({*node} <= {*types, "hydra"}) or any(_added(node[name]) for name in groups)


def to_dict(cfg: Config) -> dict[str, Any]:
    """A plain tree of numbers, strings and None: the form for files, checkpoints and W&B."""
    tree = OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)
    assert isinstance(tree, dict)
    return tree  # type: ignore[return-value]


def from_dict(tree: dict[str, Any]) -> Config:
    """The config that ``to_dict`` wrote, checked; its text stays data, nothing in it is run."""
    with omegaconf_errors():
        return from_omegaconf(OmegaConf.create(_inert(tree)))


def _inert(tree: Any) -> Any:
    """The tree with OmegaConf's interpolations made plain text: a file may not read this machine's environment."""
    if isinstance(tree, dict):
        return {key: _inert(value) for key, value in tree.items()}
    return tree.replace("${", "\\${") if isinstance(tree, str) else tree


def flatten(cfg: Any, prefix: str = "") -> dict[str, Any]:
    """``{"model.pool": "max", …}``."""
    flat: dict[str, Any] = {}
    for item in fields(cfg):
        value = getattr(cfg, item.name)
        if is_dataclass(value):
            flat |= flatten(value, f"{prefix}{item.name}.")
        else:
            flat[prefix + item.name] = value
    return flat


def format_override(setting: Any) -> str:
    """A value in Hydra's override syntax.

    >>> [format_override(setting) for setting in ([1, 2], None, True, 1, 0.5, "max")]
    ['[1,2]', 'null', 'true', '1', '0.5', 'max']
    """
    if isinstance(setting, list):
        return f"[{','.join(map(format_override, setting))}]"
    return json.dumps(setting) if setting is None or isinstance(setting, bool) else str(setting)
