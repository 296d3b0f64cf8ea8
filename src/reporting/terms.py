"""The definitions behind the terms of a page: of every number as the file that computes it declares it, and of words.

The words are rows of the glossary in the documentation too; a test holds both equal.
"""

import math
import re
from functools import cache

from markupsafe import Markup, escape

from ..metrics.quantities import Quantity, quantities

#: word of a page → what it means
WORDS = {
    "crop": "a shift by which a window moves over a larger image, so new pixels come in",
    "roll": "a circular shift: what leaves the image on one side comes back on the other",
    "variant": "the runs of a sweep that differ in nothing but the seed",
    "stage": "convolutions followed by one downsampler; a net is a row of stages",
    "untrained": "measured in the same way on the same net with the weights that training started from",
    "linear probe": "a linear model that reads the class or the position from a layer's features",
    "interpolation baseline": "what interpolation alone does: the image transformed and transformed back",
    "rank correlation": "Spearman's: +1, both grow together; -1, one grows as the other falls; 0, neither",
    "receptive field": "the input pixels that a unit can see, by the sizes and strides of the layers before it",
}  # fmt: skip
#: quantities whose name is an everyday word, explained in headings alone
PLAIN = ("accuracy", "loss", "gap", "cosine", "fidelity", "r2")


@cache
def terms() -> dict[str, str]:
    """Term, in lower case → its definition in one line."""
    return {quantity.name.replace("_", " "): definition(quantity) for quantity in quantities().values()} | WORDS


def definition(quantity: Quantity) -> str:
    """Formula, range, and what 0, 1 or chance is.

    >>> definition(Quantity("fooled", 0, 1, "lower", "share of fooled nets", "0: none"))
    'share of fooled nets. From 0 to 1, lower is better. 0: none.'
    """
    ends = [f"{end:g}" for end in (quantity.low, quantity.high) if math.isfinite(end)]
    extent = f"From {' to '.join(ends)}" if len(ends) == 2 else f"At least {ends[0]}" if quantity.low == 0 else ""
    better = f"{quantity.better} is better" if quantity.better else ""
    scale = ", ".join(part for part in (extent, better) if part)
    return ". ".join(part for part in (quantity.formula, scale, quantity.null, quantity.source) if part) + "."


def key_of(term: str) -> str:
    """The part of a term's anchor that tells it from others."""
    return re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")


def with_terms(text: str) -> Markup:
    """The text as HTML, each term marked where it stands first, so that a page can show its definition."""
    seen = set()
    span = Markup('<span class="term" tabindex="0" aria-describedby="term-{}">{}</span>')

    def marked(match: re.Match[str]) -> str:
        word = match[0]
        term = word.lower() if word.lower() in terms() else word.lower().removesuffix("s")
        if term in seen:
            return word
        seen.add(term)
        return str(span.format(key_of(term), word))

    return Markup(_pattern().sub(marked, str(escape(text))))


@cache
def _pattern() -> re.Pattern[str]:
    names = sorted((name for name in terms() if name not in PLAIN), key=len, reverse=True)
    return re.compile(rf"(?<![\w&=/.-])(?:{'|'.join(map(re.escape, names))})s?(?![\w;=/-])", re.IGNORECASE)


def used_terms(html: str) -> dict[str, tuple[str, str]]:
    """Key of each term that the HTML refers to → term, definition."""
    keys = set(re.findall(r'aria-describedby="term-([a-z0-9-]+)"', html))
    return {key_of(term): (term, text) for term, text in sorted(terms().items()) if key_of(term) in keys}
