"""The cases of a seed, and how each ends."""

import io
import random
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

from tests.fuzz import commands, folders, late, surroundings
from tests.fuzz.cases import Case, fault


def draw(folder: Path, seed: int, count: int, kind: str = "") -> list[Case]:
    """As many cases as are asked for: a third of each source, or all that it has.

    Args:
        folder: an empty one, for what cases need.
        seed: that draws them.
        count: how many at most.
        kind: the beginning of the names of the kinds to draw from; ``surroundings`` are drawn where they are named.
    """
    with redirect_stdout(io.StringIO()):
        sweep = folders.make_sweep(folder / "sweep")
    late.surroundings(folder / "work")
    sources = [
        [case for case in source.cases(sweep) if case.kind.startswith(kind)] for source in (late, folders, commands)
    ]
    generator, drawn = random.Random(seed), list[Case]()
    for left, source in zip((3, 2, 1), sources, strict=True):  # the smallest first: what it lacks, the others have
        drawn += generator.sample(source, min(len(source), (count - len(drawn)) // left))
    if kind == "surroundings":  # real processes, which take seconds
        drawn = generator.sample(cases := list(surroundings.cases()), min(count, len(cases)))
    return drawn


def faults_of(cases: Iterable[Case], folder: Path) -> Iterator[tuple[Case, str]]:
    """Each case, with what is wrong with how it ended; empty where it passed."""
    for case in cases:
        yield case, fault(case, folder / "work")
