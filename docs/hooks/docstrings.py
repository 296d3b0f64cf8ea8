"""Docstrings as Markdown: examples (``>>> …``), which would be quotations, are code; ``a, b: …`` are two arguments."""

import re
from typing import Any

from griffe import Extension, Object

SHARED = re.compile(r"^( +)(\w+), (\w+(?:, \w+)*: )", re.MULTILINE)
EXAMPLE = re.compile(r"(?:^[ ]*>>> .*\n?)(?:^[ ]*\S.*\n?)*", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with each example in a fence.

    >>> fenced("Sum.\\n\\n>>> 1 + 1\\n2")
    'Sum.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```\\n'
    """
    return EXAMPLE.sub(lambda example: f"```pycon\n{example.group().rstrip()}\n```\n", text)


def one_by_one(text: str) -> str:
    """The text with arguments that share a description line by line; all but the last point to it.

    >>> one_by_one("Args:\\n    mean, std: of each channel.")
    'Args:\\n    mean: as std.\\n    std: of each channel.'
    """
    while line := SHARED.search(text):
        indent, first, others = line.groups()
        text = text.replace(line[0], f"{indent}{first}: as {others.split(':')[0]}.\n{indent}{others}", 1)
    return text


class Docstrings(Extension):
    """Rewrites every docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = fenced(one_by_one(obj.docstring.value))
