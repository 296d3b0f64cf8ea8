"""What ``train --help`` says: every key, group, named sweep and launcher, each with what it is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from ..common.naming import commands_here
from ..config import COMMAND_KEYS, Command, Config
from ..config.in_words import comments_of, default_of, values_of
from .user_files import choices

WIDTH = 80
#: a key of a YAML file, its default, and the comment beside them
KEY = re.compile(r"^(\w+): (.+?)(?: # (.+))?$", re.MULTILINE)


def help_text(usage: str) -> str:
    """All of it, in lines of at most ``WIDTH`` characters; ``usage`` stands first."""
    groups = [item for item in fields(Config) if is_dataclass(item.type)]
    plain = [item for item in fields(Config) if item not in groups]
    of_sweeps = [item for item in fields(Command) if item.name in COMMAND_KEYS and not is_dataclass(item.type)]
    keys = _keys(Config, plain) | _keys(Command, of_sweeps)
    parts = [commands_here(usage).strip(), _section("KEY=DEFAULT  [what it may be] what it means", keys)]
    for group in groups:
        assert isinstance(group.type, type)
        options = choices(group.name)
        chosen = f" ({group.name}=NAME: {', '.join(options)})" if options else ""
        parts.append(_section(f"{group.name}{chosen}", _keys(group.type, fields(group.type), f"{group.name}.")))
    sweeps = {name: _question(path) for name, path in choices("sweeps").items()}
    parts.append(_section("Named sweeps: -m sweeps=NAME", sweeps))
    for name, path in choices("hydra/launcher").items():
        text = path.read_text("utf-8")
        about = text.partition("\n")[0].removeprefix("# ").rstrip(":")  # its first line, a comment
        keys = {f"hydra.launcher.{key}={value}": words for key, value, words in KEY.findall(text)}
        parts.append(_section(f"hydra/launcher={name}: {about}", keys))
    parts.append("--cfg job prints the whole config, --hydra-help the options of Hydra.")
    return "\n\n".join(parts)


def _section(title: str, entries: Mapping[str, str]) -> str:
    """A title, and below it a line or more for each entry and what it is."""
    names = (name.replace(",", ", ") if len(name) > WIDTH // 2 else name for name in entries)  # broken between words
    words = (f"{name}  {about}".rstrip() for name, about in zip(names, entries.values(), strict=True))
    return "\n".join([_filled(title, 0, 2), *(_filled(each, 2, 8) for each in words)])


def _filled(text: str, first: int, following: int) -> str:
    """Text in lines of at most ``WIDTH``, broken between words; what follows the first is indented further."""
    start, indent = " " * first, " " * following
    return fill(text, WIDTH, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False)


def _keys(owner: type, keys: Sequence[Field[Any]], prefix: str = "") -> dict[str, str]:
    """``key=default`` → what it may be, and what it means."""
    comments = comments_of(owner)
    values = {key.name: f"[{found}]" if (found := values_of(key)) else "" for key in keys}
    return {
        f"{prefix}{key.name}={default_of(key)}": f"{values[key.name]} {comments.get(key.name, '')}".strip()
        for key in keys
    }


def _question(path: Path) -> str:
    """What a named sweep asks: the first line of its header, else its key ``question``."""
    found = re.search(r"^(?:# Question|question:) +(.+)$", path.read_text("utf-8"), re.MULTILINE)
    return " ".join(found[1].split()) if found else ""
