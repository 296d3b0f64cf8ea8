"""The page of all config keys, from the dataclasses of the schema and the comments beside their fields."""

import inspect
from dataclasses import Field, fields, is_dataclass
from typing import Any

from src.config.in_words import comments_of, default_of, type_of, values_of
from src.config.schema import Config

INTRO = """# Config keys

Every key of a run, with its type, its default and what it may be. On a command line: `model.pool=blur train.epochs=5`.
`python -m src.train --cfg job` prints the whole tree. A wrong key, type or value is refused in one line, before the
first job of a sweep starts. A data set (`data=shapes`) or an architecture (`model=resnet`) may change defaults of its
group: see the files in `conf/`.

This page is made from the schema (`src/config/schema.py`, `src/models/options.py`, `src/data/options.py`).
"""


def page() -> str:
    """Markdown: one table a group."""
    groups = [item for item in fields(Config) if is_dataclass(item.type)]
    tables = [table("Run", [item for item in fields(Config) if item not in groups], Config)]
    for group in groups:
        assert isinstance(group.type, type)
        tables.append(table(f"`{group.name}`", list(fields(group.type)), group.type, f"{group.name}."))
    return "\n".join([INTRO, *tables])


def table(title: str, keys: list[Field[Any]], owner: type, prefix: str = "") -> str:
    """One group's table."""
    comments = comments_of(owner)
    rows = [
        f"| `{prefix}{key.name}` | {type_of(key)} | `{default_of(key)}` | {text(values_of(key, '`'))} "
        f"| {text(comments.get(key.name, ''))} |"
        for key in keys
    ]
    about = "" if owner is Config else f"{' '.join((inspect.getdoc(owner) or '').split())}\n\n"
    return f"## {title}\n\n{about}| key | type | default | values | meaning |\n|-|-|-|-|-|\n" + "\n".join(rows) + "\n"


def text(words: str) -> str:
    """Words that stand in a cell of a table."""
    return words.replace("|", "\\|")
