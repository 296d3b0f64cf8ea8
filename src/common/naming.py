"""What the package is called here: ``src`` in a checkout, ``whatwhere`` where it is installed."""

import hashlib
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
#: subpackages that the numbers of a run come from
OF_NUMBERS = ("data", "evaluation", "metrics", "models", "nets", "pooling", "training", "transforms")


def code_version() -> str:
    """The commit of the checkout, with a + where files differ from it; of an installed package, its version."""
    root = Path(__file__).parent.parent.parent
    if (root / ".git").exists() and shutil.which("git"):
        words = ["git", "-C", str(root), "describe", "--always", "--dirty=+"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    with suppress(PackageNotFoundError):
        return version("whatwhere")
    return ""


@cache
def code_checksum() -> str:
    """SHA-256 of the Python files that the numbers of a run come from, 16 digits."""
    root = Path(__file__).parent.parent
    paths = sorted(path for name in OF_NUMBERS for path in (root / name).rglob("*.py"))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def command(name: str) -> str:
    """How a person starts a command: ``python -m src.train`` in a checkout, else ``whatwhere train``."""
    return f"python -m {PACKAGE}.{name}" if PACKAGE == "src" else f"{PACKAGE} {name}"


def command_words(name: str) -> list[str]:
    """The words that start a command in a new process, with this Python."""
    return [sys.executable, "-m", *([f"{PACKAGE}.{name}"] if PACKAGE == "src" else [PACKAGE, name])]


def natural_order(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """A key that sorts names by the numbers in them; those without one come last.

    >>> sorted(["q10_b", "a", "q2_a"], key=natural_order)
    ['q2_a', 'q10_b', 'a']
    """
    parts = re.split(r"(\d+)", name)
    return len(parts) == 1, [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def commands_here(text: str) -> str:
    """A text that names commands of a checkout, as it is right here.

    >>> commands_here("python -m src.report runs=outputs")
    'python -m src.report runs=outputs'
    """
    return text if PACKAGE == "src" else text.replace("python -m src.", f"{PACKAGE} ")


def si_prefix(number: float) -> str:
    """Three digits with an SI prefix.

    >>> si_prefix(1234567), si_prefix(0.5)
    ('1.23 M', '0.5')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
