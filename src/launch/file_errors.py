"""What is wrong with a file of ``conf`` or ``sweeps``, in one line that names it."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..cli_errors import one_line
from ..config import Command
from ..data.sets import SETS
from ..errors import UserError
from ..models import ARCHITECTURES
from . import user_files

#: group → what the key ``name`` of its files can be
NAMES: dict[str, Iterable[str]] = {"model": ARCHITECTURES, "data": SETS}
#: what a file of ``sweeps`` begins with: its keys are those of the whole config
HEADER = "# @package _global_"


def in_file(error: HydraException) -> str | None:
    """What Hydra could not merge of a file; None where the error is of no file."""
    match = re.match(r"In '([^']+)': \w+ raised while composing", str(error))
    cause = error.__context__
    if match is None or cause is None:
        return None
    group, _, name = match[1].rpartition("/")
    path = user_files.choices(group).get(name)
    file, key = short(path) if path else match[1], str(getattr(cause, "full_key", None) or "")
    if path and key == group:
        empty = "is empty; " if not path.read_text(encoding="utf-8").strip() else ""
        return f"{file}: {empty}its first line must be {HEADER}"
    tree = _tree(path) if path else None
    if not key:
        keys = tree if isinstance(tree, dict) else {}
        top = next((f"{key}: " for key, value in keys.items() if key != "hydra" and not _fits(key, value)), "")
        return f"{file}: {top}{one_line(cause)}"
    place = next((place for place in _places(tree) if f".{place}".endswith(f".{key}")), key)
    return f"{file}: {place.removesuffix(key)}{one_line(cause)}"


def unreadable(error: Exception) -> str | None:
    """What is wrong with a file that is no YAML, or not in UTF-8; None where the error is of another kind."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{short(error.problem_mark.name)}: line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, yaml.reader.ReaderError):
        line = Path(error.name).read_text(encoding="utf-8").count("\n", 0, error.position) + 1
        return f"{short(error.name)}: line {line}: {error.reason}"
    if isinstance(error, UnicodeDecodeError):  # it says neither the file nor the place in it
        places = (_not_utf8(path) for path in _all_files() if error.object in path.read_bytes())
        return f"{next(filter(None, places), 'a file')}: is not in UTF-8"
    if isinstance(error, OSError) and str(error).startswith("Invalid loaded object type"):
        file = next((short(path) for path in _all_files() if not isinstance(_tree(path), dict | list | None)), "a file")
        return f"{file}: must hold keys and values, key: value"
    return None


def refuse_without_name(configs: Iterable[Any]) -> None:
    """Refuse a file of ``conf/model`` or ``conf/data`` that does not say what it is: it would be the default.

    Args:
        configs: as Hydra composed them.

    Raises:
        UserError: the file has no key ``name``.
    """
    for group, option in sorted(
        {(group, str(cfg.hydra.runtime.choices.get(group))) for cfg in configs for group in NAMES}
    ):
        path = user_files.choices(group).get(option)
        tree = _tree(path) if path else {"name": option}
        own = tree if isinstance(tree, dict) else {}
        if "name" not in own | (own.get(group) or {}) and "defaults" not in own:
            raise UserError(f"{short(path)}: needs a line name: NAME, one of {', '.join(NAMES[group])}")


def short(path: Any) -> str:
    """A path as seen from the folder that holds ``conf`` and ``sweeps``."""
    roots = [root.resolve() for root in (user_files.HERE, user_files.ROOT) if root]
    path = Path(path)
    return next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), str(path))


def _all_files() -> Iterator[Path]:
    for folder in sorted({user_files.ROOT / "conf", user_files.ROOT / "sweeps", *user_files.user_folders().values()}):
        yield from sorted(folder.rglob("*.yaml"))


def _not_utf8(path: Path) -> str:
    """The file and the line of the first byte that is not in UTF-8; empty where all are."""
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return f"{short(path)}: line {line}"
    return ""


def _tree(path: Path) -> Any:
    """What a file holds; None where it is no YAML."""
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _fits(key: str, value: Any) -> bool:
    """Whether a key of the config can have a value of this shape."""
    try:
        OmegaConf.merge(OmegaConf.structured(Command), {key: value})
    except OmegaConfBaseException:
        return False
    return True


def _places(tree: Any, prefix: str = "") -> Iterator[str]:
    """Where each key of a tree stands: ``study.claims[0].text``."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield f"{prefix}.{key}".lstrip(".")
            yield from _places(value, f"{prefix}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from _places(value, f"{prefix}[{number}]")
