"""The keys of the config in words, from the dataclasses of the schema and the comments beside their fields."""

import ast
import inspect
import io
import json
import textwrap
import tokenize
from dataclasses import MISSING, Field
from typing import Any


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


def values_of(key: Field[Any], quote: str = "") -> str:
    """The names that it may hold, or its range."""
    if names := key.metadata.get("names"):
        return " ".join(f"{quote}{name}{quote}" for name in names)
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
