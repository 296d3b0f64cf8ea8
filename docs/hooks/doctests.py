"""Examples in docstrings (``>>> …``) as blocks of code; without this Markdown takes them for quotations."""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"(?:^[ ]*>>> .*\n?)(?:^[ ]*\S.*\n?)*", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with each example in a fence.

    >>> fenced("Sum.\\n\\n>>> 1 + 1\\n2")
    'Sum.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```\\n'
    """
    return EXAMPLE.sub(lambda example: f"```pycon\n{example.group().rstrip()}\n```\n", text)


class Doctests(Extension):
    """Rewrites every docstring that has an example."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
