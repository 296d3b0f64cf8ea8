"""The page of all config keys, from the dataclasses of the schema and the comments beside their fields."""

import ast
import inspect
import io
import json
import textwrap
import tokenize
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

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
        f"| `{prefix}{key.name}` | {type_of(key)} | `{default_of(key)}` | {text(values_of(key))} "
        f"| {text(comments.get(key.name, ''))} |"
        for key in keys
    ]
    about = "" if owner is Config else f"{' '.join((inspect.getdoc(owner) or '').split())}\n\n"
    return f"## {title}\n\n{about}| key | type | default | values | meaning |\n|-|-|-|-|-|\n" + "\n".join(rows) + "\n"


def text(words: str) -> str:
    """Words that stand in a cell of a table."""
    return words.replace("|", "\\|")


def type_of(key: Field[Any]) -> str:
    """The type of a key in the words of YAML."""
    name = key.type.__name__ if isinstance(key.type, type) and not hasattr(key.type, "__args__") else str(key.type)
    for python, yaml in {"str": "text", "int": "whole number", "float": "number", "bool": "true, false"}.items():
        name = name.replace(python, yaml)
    return name.replace("list[", "list of ").replace("]", "").replace(" | None", " or null")


def default_of(key: Field[Any]) -> str:
    """The default of a key as on a command line."""
    value = key.default_factory() if key.default_factory is not MISSING else key.default
    return value or '""' if isinstance(value, str) else json.dumps(value).replace('"', "").replace(", ", ",")


def values_of(key: Field[Any]) -> str:
    """The names that it may hold, or its range."""
    if names := key.metadata.get("names"):
        return " ".join(f"`{name}`" for name in names)
    return str(key.metadata.get("right", "")).removeprefix("must be ")


def comments_of(owner: type) -> dict[str, str]:
    """The comment of each field: on its line, or on the lines above it."""
    source = textwrap.dedent(inspect.getsource(owner))
    tokens = [
        token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT
    ]
    at = {token.start[0]: (token.string.lstrip("#: "), token.line.lstrip().startswith("#")) for token in tokens}
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = [at[node.end_lineno or 0][0]] if node.end_lineno in at else []
            line = node.lineno - 1
            while line in at and at[line][1]:
                lines.insert(0, at[line][0])
                line -= 1
            found[node.target.id] = " ".join(lines)
    return found
