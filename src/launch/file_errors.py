"""What is wrong with a file of ``conf`` or ``sweeps``, in one line that names it."""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..common.cli_errors import one_line
from ..common.errors import UserError
from ..config import Command
from ..data.sets import SETS
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
    """What is wrong with a file that is no YAML, or not in UTF-8; the one that the error names, if it names one. None
    where all can be read, and where it is another error of a running job.
    """
    if isinstance(error, OSError) and not str(error).startswith("Invalid loaded object type"):
        return None
    for path in sorted(_all_files(), key=lambda path: str(path) not in str(error)):
        content = path.read_bytes()
        try:
            OmegaConf.load(io.StringIO(content.decode()))
        except yaml.MarkedYAMLError as wrong:
            before, problem = wrong.problem_mark.line if wrong.problem_mark else 0, wrong.problem
        except yaml.reader.ReaderError as wrong:
            before, problem = content.decode().count("\n", 0, wrong.position), wrong.reason
        except UnicodeDecodeError as wrong:
            before, problem = content.count(b"\n", 0, wrong.start), "is not in UTF-8"
        except OSError:
            return f"{short(path)}: must hold keys and values, key: value"
        else:
            continue
        return f"{short(path)}: line {before + 1}: {problem}"
    return None


def refuse_without_name(configs: Iterable[Any]) -> None:
    """Refuse a file of ``conf/model`` or ``conf/data`` without a key ``name``, which says what it is: it would be the
    default.
    """
    chosen = {(group, str(cfg.hydra.runtime.choices.get(group))) for cfg in configs for group in NAMES}
    for group, option in sorted(chosen):
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
