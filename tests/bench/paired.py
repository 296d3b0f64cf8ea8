"""Two ways to do a thing, timed by turns, so that whatever else the machine does meets both alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

#: where nets run
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Seconds, once all that was asked of a GPU is done."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class Ratio:
    """A over B: the ratio of medians, and the least and largest ratio of a single pair."""

    median: float
    low: float
    high: float
    pairs: int


def paired(a: Callable[[], object], b: Callable[[], object], pairs: int) -> Ratio:
    """Run a, b, a, b …; a call that returns a number has timed itself, in seconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for one, kept in zip((a, b), times, strict=True):
            start = now()
            own = one()
            kept.append(own if isinstance(own, float) else now() - start)
    each = [x / y for x, y in zip(*times, strict=True)]
    return Ratio(statistics.median(times[0]) / statistics.median(times[1]), min(each), max(each), pairs)


@dataclass(frozen=True)
class Pair:
    """Two ways, and the ratio they are held to."""

    name: str
    a: Callable[[], object]
    b: Callable[[], object]
    pairs: int
    bound: float
    least: bool = False  # the bound is the least that the ratio may be

    def run(self) -> Ratio:
        """Once each to warm up, then by turns."""
        self.a(), self.b()
        return paired(self.a, self.b, self.pairs)
