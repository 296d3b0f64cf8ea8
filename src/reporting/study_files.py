"""What the file of a named sweep says beside its claims: the parts of its header, and what its runs have in common."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..config import format_override
from ..results import files

#: the parts of a header, in their order
LABELS = ("Question", "Command", "Cost", "Expect", "Seen")


def header(path: Path) -> dict[str, str]:
    """The parts of a file's header by their label."""
    parts: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        label, _, words = line[1:].strip().partition(" ")
        if label in LABELS and line.startswith(f"# {label}"):
            parts[label] = [words.strip()]
        elif parts and line[1:].strip():
            parts[list(parts)[-1]].append(line[1:].strip())
    return {label: "\n".join(lines) for label, lines in parts.items()}


def reading(parts: Mapping[str, str]) -> str:
    """The sentences of the part ``Seen``, which follow the line that says when; empty without."""
    return " ".join(parts.get("Seen", "").split("\n")[1:])


def settings(path: Path, preset: str = "quick") -> list[str]:
    """What all runs of a sweep have in common where it is not the default, as overrides: ``model.width=8``."""
    with files.reading(path):
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        kept = {
            key: value
            for group in ("data", "model", "train", "measure", "probe")
            for key, value in _flat(group, tree.get(group) or {})
        }
        data = [one["override /data"] for one in tree.get("defaults", []) if "override /data" in one]
        kept = ({"data": data[0]} if data else {}) | kept
        kept |= tree.get("study", {}).get("presets", {}).get(preset, {})
        axes = tree.get("hydra", {}).get("sweeper", {}).get("params", {})
    return [f"{key}={format_override(value)}" for key, value in kept.items() if key not in (*axes, "probe.every")]


def _flat(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", value
