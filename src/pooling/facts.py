"""What there is to know of each pool on one line each: formula, what it keeps, what is exact, source.

The facts stand in the docstring of the pool's class, each behind its label; nowhere else.
"""

import re
from dataclasses import dataclass
from inspect import cleandoc

from src.pooling import POOLS

NONE = """No pooling: the stage's last convolution carries the stride.

Formula: (W ∗ x)[::s]
Keeps: nothing by itself; aliases
Exact: is the convolution with stride 1, then [::s]
Source: Springenberg et al. 2015, "Striving for simplicity"
"""


@dataclass(frozen=True)
class Facts:
    """Of one pool.

    Attributes:
        summary: the first line of its docstring, or its first paragraph.
        formula: an output, of the window or map that it reads.
        keeps: of a map. First, between commas, what is kept of every map with a circular border, whatever the
            weights: ``constants``, ``range`` (of values), ``mean``; then the rest in words.
        exact: limits at which it is another pool, and shifts with which it commutes.
        source: paper.
    """

    summary: str
    formula: str
    keeps: str
    exact: str
    source: str


def read(text: str) -> Facts:
    """The facts of a docstring: paragraphs, and lines ``Label: …`` that go on where they are indented.

    Raises:
        KeyError: a label that is missing.
    """
    text = cleandoc(text)
    found = dict(re.findall(r"^(\w+): (.+(?:\n +.+)*)", text, re.MULTILINE))
    words = {label: " ".join(found[label].split()) for label in ("Formula", "Keeps", "Exact", "Source")}
    return Facts(" ".join(text.split("\n\n")[0].split()), *words.values())


FACTS: dict[str, Facts] = {name: read((pool and pool.__doc__) or NONE) for name, pool in POOLS.items()}
