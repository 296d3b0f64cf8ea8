"""A case of the fuzzer, and the rule by which it passes."""

import io
import os
import re
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn
from unittest.mock import patch

from src.common.errors import UserError

#: seconds that a case may take
LIMIT = 60
#: bytes that a case may allocate beyond what the process has
MEMORY = 8 * 2**30
#: characters of a message that a person still reads
LONGEST = 3000


@dataclass(frozen=True)
class Case:
    """One call, and how it must end."""

    kind: str  # under which it is counted
    words: str  # tells it from the others of its kind
    call: Callable[[], object]
    refused: bool = False  # success is a fault too
    writes: bool = False  # it may write before it refuses
    limit: int = LIMIT  # seconds
    environment: tuple[tuple[str, str], ...] = ()


class Hang(BaseException):
    """A case took too long."""


def fault(case: Case, folder: Path) -> str:
    """What is wrong with how a case ends when it is called in a folder, in a line; empty where it passes."""
    before = _listing(folder)
    refusal, wrong = _ended(case, folder)
    if wrong or refusal is None:
        return wrong
    if len(refusal.splitlines()) != 1:
        return f"not one line: {refusal[:300]!r}"
    if len(refusal) > LONGEST:
        return f"a message of {len(refusal)} characters: {refusal[:100]!r}"
    written = set() if case.writes else _listing(folder) - before
    return f"refused after it wrote {sorted(written)[:3]}" if written else ""


def _ended(case: Case, folder: Path) -> tuple[str | None, str]:
    """The line by which it was refused, None where it was not; and what else is wrong."""
    output = io.StringIO()
    try:
        with (
            chdir(folder), _bounded(case.limit), redirect_stdout(output), redirect_stderr(output),
            warnings.catch_warnings(), patch.dict(os.environ, dict(case.environment)),
        ):  # fmt: skip
            warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, where numbers of a damaged file give nan
            case.call()
    except UserError as error:
        return str(error), ""
    except SystemExit as error:
        said = re.search(r"^error: (.*)", output.getvalue().strip(), re.DOTALL | re.MULTILINE)
        return said[1] if said else "", "" if error.code == 2 else f"exit code {error.code}: {output.getvalue()[-200:]}"
    except Hang:
        return None, f"took over {case.limit} s"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return None, f"{type(error).__name__}: {str(error)[:200]!r} at {Path(place.filename).name}:{place.lineno}"
    return None, "accepted" if case.refused else ""


def _listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    """Inside the ``with``, time and memory are limited."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise Hang

    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    before, terminated = signal.signal(signal.SIGALRM, stop), signal.getsignal(signal.SIGTERM)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGTERM, terminated)  # commands install their own
        resource.setrlimit(resource.RLIMIT_AS, limits)
