"""What a run is: its settings and the image files it reads. By these it is told from others, whatever it is called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from ..common.errors import UserError
from ..common.naming import code_checksum, command
from ..config import NON_IDENTITY_KEYS, Config, flatten, from_dict
from ..data.checksums import files_checksum
from ..data.splits import pictures_of
from . import files

#: raised when the same config gives other numbers, so that older runs are not taken for equal ones
FORMAT = 1
#: a setting beside those of the config: the checksum of the image files of ``data=folder``
PICTURES = "data.pictures"


def is_finished(folder: Path, cfg: Config) -> bool:
    """Whether the folder holds this run, finished; ``UserError`` if it holds one of other settings or other image
    files.
    """
    if not (folder / files.CONFIG).exists():
        return False
    saved = read_config(folder)
    before, now = flatten(saved), flatten(cfg)
    way = "move that folder away, or choose another with name=, hydra.sweep.dir= or, for a single run, hydra.run.dir="
    if keys := differing_keys(before, now):
        key = keys[0]
        raise UserError(f"{folder} holds a run with {key}={before[key]}, this one has {key}={now[key]}; {way}")
    theirs, ours = read_image_checksums(folder, saved), image_checksums(cfg)
    if keys := [key for key in ours if theirs.get(key) != ours[key]]:
        key, none = keys[0], "none, as no image files are there"
        raise UserError(
            f"{folder} holds a run of other image files: {key}={before[key]}, checksum {theirs.get(key) or none}; now "
            f"{key}={now[key]}, checksum {ours[key] or none}; {way}"
        )
    return (folder / files.RUN).exists()


def is_by_other_code(folder: Path) -> bool:
    """Whether the code that a finished run's numbers come from has changed since; not known of older runs."""
    return files.read_json(folder / files.RUN, {}).get("code_checksum") not in (None, code_checksum())


def differing_keys(settings: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """The keys of settings that make two runs different; image files are compared by ``image_checksums``."""
    return [key for key in others if key not in NON_IDENTITY_KEYS and settings[key] != others[key]]


def image_checksums(cfg: Config) -> dict[str, str]:
    """Checksums of the image files that a config names: key → checksum."""
    checksums = {"data.root": pictures_of(cfg.data)} if cfg.data.name == "folder" else {}
    if cfg.probe.files:
        checksums["probe.files"] = files_checksum([Path(path) for path in cfg.probe.files])
    return checksums


def write_identity(folder: Path, cfg: Config) -> None:
    """Write what the config alone does not say of a run's identity, before the run starts."""
    files.write_json(folder / files.IDENTITY, {"format": FORMAT, "contents": image_checksums(cfg)})


def read_image_checksums(folder: Path, cfg: Config) -> dict[str, str]:
    """``image_checksums`` when the run of a folder started; of a run without that record, those of now."""
    path = folder / files.IDENTITY
    if not path.exists():
        return image_checksums(cfg)
    tree = files.read_json(path, {})
    with files.reading(path):
        return dict(tree["contents"])


def read_tree(folder: Path) -> dict[str, Any]:
    """The config of a run as plain data, unchecked; ``UserError`` if it is not readable."""
    path = folder / files.CONFIG
    try:
        text = path.read_text(encoding="utf-8")
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise yaml.YAMLError("it has aliases, which no run writes")  # a few of them can stand for gigabytes
        tree = yaml.safe_load(text)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a run's config ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a run's config")
    return tree


def read_config(folder: Path) -> Config:
    """The config of a run; ``UserError`` if it is not readable, or not one of this project's."""
    tree = read_tree(folder)
    try:
        return from_dict(tree)
    except UserError as error:
        raise UserError(f"{folder / files.CONFIG}: {error}") from error


def settings_of(folder: Path) -> dict[str, Any]:
    """The config of a run, flat, and its ``PICTURES``: the checksum of the image files, or None."""
    cfg = read_config(folder)
    pictures = read_image_checksums(folder, cfg).get("data.root") or cfg.data.root
    return flatten(cfg) | {PICTURES: pictures if cfg.data.name == "folder" else None}


def read_checkpoint(path: Path) -> tuple[Config, dict[str, torch.Tensor]]:
    """The config and the weights in a checkpoint, read as data only; ``UserError`` if there is no such file, or it is
    no checkpoint of this project.
    """
    if not path.is_file():
        raise UserError(f"checkpoint={path}: no such file")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for other files
        raise UserError(f"checkpoint={path} cannot be read as a checkpoint of plain data") from error
    if not isinstance(tree, dict) or not {"config", "state_dict"} <= tree.keys():
        raise UserError(f"checkpoint={path} holds no config: it was not written by {command('train')}")
    weights = tree["state_dict"]
    if not isinstance(weights, dict) or not all(_is_weight(*entry) for entry in weights.items()):
        raise UserError(f"checkpoint={path} holds no weights: names with dense tensors of real numbers are needed")
    config = tree["config"]
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise UserError(f"checkpoint={path} holds no config: a tree of named settings is needed")
    try:
        return from_dict(config), weights
    except UserError as error:
        raise UserError(f"checkpoint={path} holds no config of this version: {error}") from error


def _is_weight(name: object, tensor: object) -> bool:
    return (
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        and not tensor.is_meta and not tensor.is_complex() and not tensor.is_quantized
    )  # fmt: skip
