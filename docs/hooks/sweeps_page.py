"""The page of named sweeps, from the header and the settings of each file in ``sweeps/``."""

import re
from pathlib import Path

INTRO = """# Named sweeps

A file in `sweeps/` holds a question, its command, what it costs, what to expect, and what was seen. Start one with
`python -m src.train -m sweeps=pooling`; further axes and settings go after it ([extend a sweep](../howto/extend-a-sweep.md)).
What was seen with one seed is a look, not a result. [Answers so far](../answers.md) puts all of it in one table.

This page is made from the files' headers.
"""
LABELS = ("Question", "Command", "Cost", "Expect", "Seen")


def page(folder: Path) -> str:
    """Markdown: one section a sweep."""
    return "\n".join([INTRO, *(section(path) for path in sorted(folder.glob("*.yaml")))])


def section(path: Path) -> str:
    """A sweep's header as a list, its settings folded away."""
    parts = header(path)
    settings = path.read_text().split("\nquestion:", 1)[1].split("\n", 1)[1]
    shown = [f"## {path.stem}\n", f"**{parts.pop('Question', path.stem)}**\n"]
    for label, lines in parts.items():
        first, *rest = lines.split("\n")
        block = "\n```text\n" + lines + "\n```" if rest and any(one.startswith("  ") for one in rest) else ""
        shown.append(f"{label}: {'`' + first + '`' if label == 'Command' else '' if block else ' '.join(lines.split())}{block}\n")
    return "\n".join([*shown, '??? note "settings"\n\n    ```yaml\n' + re.sub("^", "    ", settings, flags=re.M).rstrip() + "\n    ```\n"])


def header(path: Path) -> dict[str, str]:
    """The parts of a file's header by their label; their lines keep their indents."""
    parts: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        label, _, words = line[1:].strip().partition(" ")
        if label in LABELS and line.startswith(f"# {label}"):
            parts[label] = [words.strip()]
        elif parts and line[1:].strip():
            parts[label_of(parts)].append(line[1:].removeprefix(" " * 11))
    return {label: "\n".join(lines) for label, lines in parts.items()}


def label_of(parts: dict[str, list[str]]) -> str:
    """The one that was met last."""
    return list(parts)[-1]
