"""The page of named sweeps, from the header and the settings of each file in ``sweeps/``."""

from pathlib import Path
from textwrap import indent

from src.reporting.study_files import header

INTRO = """# Named sweeps

A file in `sweeps/` holds a question, its command, what it costs, what to expect, and what was seen. Start one with
`python -m src.train -m sweeps=pooling`; further axes and settings go after it
([extend a sweep](../howto/extend-a-sweep.md)).
What was seen with one seed is preliminary. [Answers](../answers.md) puts all of it in one table.

This page is made from the files' headers.
"""


def page(folder: Path) -> str:
    """Markdown: one section a sweep."""
    return "\n".join([INTRO, *(section(path) for path in sorted(folder.glob("*.yaml")))])


def section(path: Path) -> str:
    """A sweep's header part by part, its settings folded away."""
    settings = path.read_text(encoding="utf-8").split("\nquestion:", 1)[1].split("\n", 1)[1].rstrip()
    parts = [shown(label, words) for label, words in header(path).items()]
    folded = indent(f"```yaml\n{settings}\n```", "    ")
    return "\n\n".join([f"## {path.stem}", *parts, '??? note "settings"', folded]) + "\n"


def shown(label: str, words: str) -> str:
    """One part; columns of numbers, which are indented further, as they stand."""
    if label == "Question":
        return f"**{words}**"
    if label == "Command":
        return f"{label}: `{words}`"
    if "\n  " in words:
        return f"{label}:\n\n```text\n{words}\n```"
    return f"{label}: {' '.join(words.split())}"
