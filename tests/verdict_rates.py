"""How often verdicts on claims are false, and how often claims are decided, where the truth is known: by simulation.

    python -m tests.verdict_rates draws=10000

Numbers of seeds are normal. The tests of a claim compare variants with one baseline, so that their differences are
correlated (0.5). True differences and margins are in standard deviations of the difference of a pair.

options: draws=10000  seeds=5,10,20  seed=0
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from src.config import cli_errors, from_command_line
from src.stats.decisions import Decision, Expectation, Need, Verdict, decide_claim, spent
from src.stats.effects import MeanEffect


@dataclass(frozen=True)
class Claim:
    """What a claim expects, and the truth: the difference of each of its tests."""

    truths: tuple[float, ...]
    expect: Expectation = "a>b"
    margin: float = 0.0
    need: Need = "all"

    def is_false(self, verdict: Verdict) -> bool:
        """Whether the verdict on the claim is not true."""
        some, every = (any, all) if self.need == "all" else (all, any)
        if verdict == Verdict.EQUIVALENT:
            return any(abs(truth) >= self.margin for truth in self.truths)
        if verdict == Verdict.HOLDS:
            return some(self.is_false_of(truth, verdict) for truth in self.truths)
        return verdict == Verdict.REFUTED and every(self.is_false_of(truth, verdict) for truth in self.truths)

    def is_false_of(self, truth: float, verdict: Verdict) -> bool:
        """Whether the verdict of one test is not true."""
        same = abs(truth) < self.margin
        match verdict:
            case Verdict.HOLDS:
                return not same if self.expect == "a=b" else truth <= 0
            case Verdict.REFUTED:
                return truth == 0 if self.expect == "a=b" else truth > 0 and truth >= self.margin
            case Verdict.EQUIVALENT:
                return not same
        return False


CLAIMS = {
    "one test: d = 0": Claim((0.0,)),
    "one test: d = 0, margin 1": Claim((0.0,), margin=1.0),
    "one test: d = margin": Claim((1.0,), margin=1.0),
    "one test: d = −margin": Claim((-1.0,), margin=1.0),
    "equal: d = 0, no margin": Claim((0.0,), "a=b"),
    "equal: d = margin": Claim((1.0,), "a=b", 1.0),
    "equal: d = 0, margin 1": Claim((0.0,), "a=b", 1.0),
    "all of 3: d = 0": Claim((0.0,) * 3, need="all"),
    "all of 3: d = margin": Claim((1.0,) * 3, margin=1.0, need="all"),
    "all of 3: d = 0, 2, 2": Claim((0.0, 2.0, 2.0), need="all"),
    "any of 2: d = 0": Claim((0.0,) * 2, need="any"),
    "any of 3: d = 0": Claim((0.0,) * 3, need="any"),
    "any of 5: d = 0": Claim((0.0,) * 5, need="any"),
    "any of 5: d = −2, −2, 0, 0, 0": Claim((-2.0, -2.0, 0.0, 0.0, 0.0), need="any"),
    "any of 5: d = −2, −1, −1, 0, 0, margin 1": Claim((-2.0, -1.0, -1.0, 0.0, 0.0), margin=1.0, need="any"),
    "any of 3: d = margin, −2, −2": Claim((1.0, -2.0, -2.0), margin=1.0, need="any"),
    "all equal of 5: d = 0, no margin": Claim((0.0,) * 5, "a=b", need="all"),
    "any equal of 3: d = margin": Claim((1.0,) * 3, "a=b", 1.0, need="any"),
    "all of 5: d = margin": Claim((1.0,) * 5, margin=1.0, need="all"),
    "all of 3: d = −margin": Claim((-1.0,) * 3, margin=1.0, need="all"),
    "all equal of 2: d = 0, margin 0.8": Claim((0.0,) * 2, "a=b", 0.8, need="all"),
    "all equal of 5: d = 0, margin 0.95": Claim((0.0,) * 5, "a=b", 0.95, need="all"),
    "any equal of 5: d = margin": Claim((1.0,) * 5, "a=b", 1.0, need="any"),
    "power, one test: d = 1": Claim((1.0,)),
    "power, one test: d = 2": Claim((2.0,)),
    "power, all of 3: d = 2": Claim((2.0,) * 3, need="all"),
    "power, any of 3: d = 0, 0, 2": Claim((0.0, 0.0, 2.0), need="any"),
    "power, equal: d = 0, margin 2": Claim((0.0,), "a=b", 2.0),
}

LOOKS = (5, 10, 20)
LOOKED_AT = [
    "one test: d = 0",
    "one test: d = 0, margin 1",
    "one test: d = margin",
    "equal: d = 0, no margin",
    "any of 3: d = 0",
    "any of 5: d = −2, −2, 0, 0, 0",
    "power, one test: d = 1",
    "power, all of 3: d = 2",
]


@dataclass
class Rates:
    """Shares of the simulated claims.

    Attributes:
        verdicts: with each verdict on the claim.
        false: with a false verdict on the claim.
        false_test: in which the verdict of at least one of the tests is false.
    """

    verdicts: dict[Verdict, float]
    false: float
    false_test: float


def differences(claim: Claim, n: int, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draws tests seeds"]:
    """Simulated differences of pairs."""
    noise = rng.standard_normal((draws, len(claim.truths) + 1, n)) / np.sqrt(2)
    return noise[:, 1:] - noise[:, :1] + np.array(claim.truths)[:, None]


def effects(drawn: Float[np.ndarray, "draws tests seeds"]) -> Iterator[list[MeanEffect]]:
    """As by ``paired_effect``, of all draws at once."""
    n = drawn.shape[-1]
    for means, spreads in zip(drawn.mean(-1).tolist(), drawn.std(-1, ddof=1).tolist(), strict=True):
        yield [MeanEffect(mean, s / np.sqrt(n), n - 1, n, s) for mean, s in zip(means, spreads, strict=True)]


def decided(claim: Claim, effects: Sequence[MeanEffect], alpha: float) -> tuple[Verdict, list[Decision]]:
    """The verdict on the simulated claim, and the decisions of its tests."""
    tests = len(claim.truths)
    return decide_claim(effects, [claim.expect] * tests, [claim.margin] * tests, claim.need, alpha)


def simulate(claim: Claim, n: int, draws: int, rng: np.random.Generator, alpha: float = 0.05) -> Rates:
    """Decide a claim in many draws of n seeds."""
    verdicts, false, false_test = Counter[Verdict](), 0, 0
    for drawn in effects(differences(claim, n, draws, rng)):
        verdict, decisions = decided(claim, drawn, alpha)
        verdicts[verdict] += 1
        false += claim.is_false(verdict)
        pairs = zip(claim.truths, decisions, strict=True)
        false_test += any(claim.is_false_of(truth, decision.verdict) for truth, decision in pairs)
    return Rates({verdict: verdicts[verdict] / draws for verdict in Verdict}, false / draws, false_test / draws)


def simulate_looks(claim: Claim, looks: Sequence[int], draws: int, rng: np.random.Generator) -> tuple[Rates, float]:
    """As ``simulate``, with seeds added from look to look until the claim is decided; and the mean number of seeds."""
    verdicts, false, seeds = Counter[Verdict](), 0, 0
    drawn = differences(claim, looks[-1], draws, rng)
    for by_look in zip(*(effects(drawn[..., :n]) for n in looks), strict=True):
        verdict, n = decided_at(claim, looks, by_look)
        verdicts[verdict] += 1
        false += claim.is_false(verdict)
        seeds += n
    return Rates({verdict: verdicts[verdict] / draws for verdict in Verdict}, false / draws, 0.0), seeds / draws


def decided_at(claim: Claim, looks: Sequence[int], by_look: Sequence[Sequence[MeanEffect]]) -> tuple[Verdict, int]:
    """The verdict at the first look that decides, or at the last, and the number of seeds of that look."""
    for n, alpha, at_look in zip(looks, spent(looks, looks[-1]), by_look, strict=True):
        verdict, _ = decided(claim, at_look, alpha)
        if verdict != Verdict.UNDECIDED:
            return verdict, n
    return Verdict.UNDECIDED, looks[-1]


@dataclass
class Options:
    """Of the command line."""

    draws: int = 10_000
    seeds: str = "5,10,20"
    seed: int = 0


def main() -> None:
    """Print the tables, in percent."""
    with cli_errors():
        options = from_command_line(Options, sys.argv[1:] or ["seed=0"], __doc__ or "")
    rng = np.random.default_rng(options.seed)
    print_row("claim", "seeds", "false", "false test", *list(Verdict)[:4])
    print_row(*"--------")
    for (name, claim), n in product(CLAIMS.items(), map(int, str(options.seeds).split(","))):
        rates = simulate(claim, n, options.draws, rng)
        print_row(name, n, rates.false, rates.false_test, *list(rates.verdicts.values())[:4])
    print()
    print_row(f"claim, looks at {LOOKS}", "mean seeds", "false", *list(Verdict)[:4])
    print_row(*"-------")
    for name in LOOKED_AT:
        rates, seeds = simulate_looks(CLAIMS[name], LOOKS, options.draws, rng)
        print_row(name, f"{seeds:.1f}", rates.false, *list(rates.verdicts.values())[:4])


def print_row(*cells: str | int | float) -> None:
    """Print a row of a Markdown table; shares in percent."""
    print(
        f"| {' | '.join(f'{100 * cell:.2f}' if isinstance(cell, float) else str(cell) for cell in cells)} |", flush=True
    )


if __name__ == "__main__":
    main()
