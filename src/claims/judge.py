"""Verdicts: each claim of a study, by the runs of its sweep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..common.errors import UserError
from ..config import Claim, Contrast, Reading, Study
from ..results.runs import FinishedRun
from ..stats.alarms import least_calibration_runs
from ..stats.decisions import MINIMUM_SEEDS, Verdict, decide_claim
from ..stats.effects import MeanEffect, crossed_effect, paired_effect, unpaired_effect
from ..stats.power import detectable, seeds_needed
from ..stats.shares import ShareEffect
from .calibrate import FALSE_ALARMS, calibrated
from .readings import BySeed, Numbers, Selection, numbers_of, share_counts

#: error probability of a claim's verdict
ALPHA = 0.05
#: the largest share of runs that may be left out because their training failed
MOST_FAILED = 0.2


@dataclass(frozen=True)
class ContrastVerdict:
    """What came out of one contrast.

    Attributes:
        name, number, expect, margin: as the study states them; ``number`` is what is compared, in words.
        verdict: of this contrast alone; ``reason`` says why it is inadmissible.
        a, b: means of the two sides.
        value, low, high: ``a - b`` and its interval at ``level``, which is corrected for the claim's other contrasts.
        pairs: seeds that both sides have (of a share: the runs of the smaller side; with ``seeds_each`` of 2: pairs of
            seeds).
        seeds_each: seeds that one of these takes: 2 where a number is of two nets.
        paired: whether differences are taken seed by seed.
        images: test images, where the interval is over seeds and images; 0: over seeds alone.
        detectable: the smallest difference that would be seen with a probability of 80%.
        needed: seeds with which the rule would decide with that probability; None where it is decided, or never would.
        floor: what the sides are held against, where the contrast names it.
        failed, unmeasured: runs left out.
        thresholds: of the alarms that are compared, by what they wait for: ``rise of val/loss``.
        calibration: the number of runs that set those thresholds; 0 where they are stated, or there are none.
        few: whether it is inadmissible as too few seeds are left, so that more may decide it.
    """

    name: str
    number: str
    expect: str
    margin: float
    verdict: Verdict
    reason: str = ""
    a: float = math.nan
    b: float = math.nan
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    level: float = math.nan
    pairs: int = 0
    paired: bool = True
    images: int = 0
    detectable: float = math.nan
    needed: int | None = None
    floor: float = math.nan
    failed: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    calibration: int = 0
    seeds_each: int = 1
    few: bool = False


@dataclass(frozen=True)
class ClaimVerdict:
    """What came out of a claim."""

    text: str
    need: str
    verdict: Verdict
    contrasts: list[ContrastVerdict]

    @property
    def reasons(self) -> list[str]:
        """Why the claim is inadmissible: a sentence for each reason, each once; empty if it is admissible."""
        return list(dict.fromkeys(contrast.reason for contrast in self.contrasts if contrast.reason))

    @property
    def open(self) -> bool:
        """Whether more seeds may decide it: it is undecided, or inadmissible by nothing but too few seeds."""
        few = self.verdict is Verdict.INADMISSIBLE and all(each.few for each in self.contrasts if each.reason)
        return few or self.verdict is Verdict.UNDECIDED


def judge(study: Study, runs: Sequence[FinishedRun], alpha: float = ALPHA) -> list[ClaimVerdict]:
    """The verdict of every claim of a study.

    Args:
        study: its claims.
        runs: finished runs of its sweep.
        alpha: the error probability of each claim's verdict.
    """
    study, calibration = calibrated(study, runs)
    return [judge_claim(claim, runs, alpha, calibration) for claim in study.claims]


def judge_claim(claim: Claim, runs: Sequence[FinishedRun], alpha: float = ALPHA, calibration: int = 0) -> ClaimVerdict:
    """The verdict of a claim: inadmissible if one of its contrasts is, else by ``stats.decisions.decide_claim``.

    Args:
        claim: its alarms have their thresholds.
        runs: finished runs of its sweep.
        alpha: the error probability of the verdict.
        calibration: the number of runs that set the thresholds.
    """
    measured = [_Measured(contrast, runs, calibration) for contrast in claim.contrasts]
    effects = [contrast.effect for contrast in measured if contrast.effect is not None]
    if len(effects) < len(measured):
        verdicts = [
            contrast.verdict(Verdict.INADMISSIBLE if contrast.reason else Verdict.UNDECIDED) for contrast in measured
        ]
        return ClaimVerdict(claim.text, claim.need, Verdict.INADMISSIBLE, verdicts)
    expectations = [contrast.expect for contrast in claim.contrasts]
    margins = [float(contrast.margin or 0) for contrast in claim.contrasts]
    verdict, decisions = decide_claim(effects, expectations, margins, claim.need, alpha)  # type: ignore[arg-type]
    return ClaimVerdict(
        claim.text, claim.need, verdict,
        [contrast.verdict(single, level) for contrast, (single, level, _, _) in zip(measured, decisions, strict=True)],
    )  # fmt: skip


class _Measured:
    """A contrast with its effect, or the reason why it has none."""

    def __init__(self, contrast: Contrast, runs: Sequence[FinishedRun], calibration: int) -> None:
        self.contrast = contrast
        self.effect: MeanEffect | ShareEffect | None = None
        alarms = [reading for reading in contrast.readings().values() if reading.alarm]
        thresholds = {f"{alarm.direction} of {alarm.alarm}": alarm.threshold for alarm in alarms}
        self.found = ContrastVerdict(
            contrast.name or _name(contrast), _number(contrast), contrast.expect, float(contrast.margin or 0),
            Verdict.INADMISSIBLE, thresholds={name: value for name, value in thresholds.items() if value is not None},
            calibration=calibration * bool(alarms), seeds_each=2 if contrast.of_pairs else 1,
        )  # fmt: skip
        if None in thresholds.values():
            least = least_calibration_runs(FALSE_ALARMS)
            self.reason = f"too few calibration runs have finished: a threshold needs {least}"
        else:
            try:
                self.reason = self._of_shares(runs) if contrast.share else self._of_numbers(runs)
            except UserError as error:  # none of the runs that a reading names has finished
                self.reason = str(error)

    def verdict(self, verdict: Verdict, level: float = 1 - ALPHA) -> ContrastVerdict:
        """What is known of the contrast, with its verdict."""
        found = replace(self.found, verdict=verdict, reason=self.reason)
        if self.effect is None:
            return found
        low, high = self.effect.interval(level)
        needed = None
        if verdict is Verdict.UNDECIDED:
            needed = seeds_needed(self.effect, found.expect, found.margin, level)  # type: ignore[arg-type]
            needed = needed and needed * found.seeds_each
        return replace(
            found, value=self.effect.value, low=low, high=high, level=level, needed=needed,
            detectable=detectable(self.effect, level),
        )  # fmt: skip

    def _of_shares(self, runs: Sequence[FinishedRun]) -> str:
        (hits, n), (other_hits, other_n) = share_counts(self.contrast, runs)
        self.effect = ShareEffect(hits, n, other_hits, other_n)
        self.found = replace(self.found, a=hits / n, b=other_hits / other_n, pairs=min(n, other_n), paired=False)
        return ""

    def _of_numbers(self, runs: Sequence[FinishedRun]) -> str:
        numbers = numbers_of(self.contrast, runs)
        self.found = replace(
            self.found, failed=numbers.failed, unmeasured=numbers.unmeasured,
            a=_mean(numbers.a), b=_mean(numbers.b) if numbers.b else self.contrast.against,
        )  # fmt: skip
        paired = numbers.paired
        shared = bool(paired) or not numbers.b
        pairs = len(paired) if shared else min(len(numbers.a), len(numbers.b))
        self.found = replace(self.found, pairs=pairs, paired=shared)
        if missing := _too_many_missing(numbers.selections):
            return missing
        if pairs < MINIMUM_SEEDS:
            self.found = replace(self.found, few=True)
            return f"{self._count(pairs)}, and the rule needs {MINIMUM_SEEDS}"
        if floor := self._floor_reason(runs):
            return floor
        effect = self._effect(numbers, shared)
        if effect.standard_error == 0 and not self.contrast.a.fact:
            each = "pair of seeds" if self.contrast.of_pairs else "seed"
            return f"the difference is {effect.value:.3g} for every {each}, which says nothing of its error"
        self.effect = effect
        return ""

    def _effect(self, numbers: Numbers, shared: bool) -> MeanEffect:
        if not shared:
            return unpaired_effect(np.array(list(numbers.a.values())), np.array(list(numbers.b.values())))
        seeds = numbers.paired
        if numbers.per_image is not None and set(seeds) <= numbers.per_image.keys():
            differences = np.stack([numbers.per_image[seed] for seed in seeds]) - self._against(numbers)
            self.found = replace(self.found, images=differences.shape[1])
            return crossed_effect(differences)
        return paired_effect(
            np.array([numbers.a[seed] - (numbers.b[seed] if numbers.b else self.contrast.against) for seed in seeds])
        )

    def _count(self, number: int) -> str:
        """``4 seeds``, or ``4 pairs of seeds``: what the numbers of the contrast are of."""
        plural = "s" * (number != 1)
        return f"{number} pair{plural} of seeds" if self.contrast.of_pairs else f"{number} seed{plural}"

    def _against(self, numbers: Numbers) -> float:
        return 0.0 if numbers.b else self.contrast.against

    def _floor_reason(self, runs: Sequence[FinishedRun]) -> str:
        """Why the difference means nothing: no side lies above its floor."""
        floors = self.contrast.floors()
        if not floors:
            return ""
        above = False
        for side, floor in floors.items():
            held = Contrast(a=self.contrast.readings()[side], b=floor, margin=0.0)
            numbers = numbers_of(held, runs)
            seeds = numbers.paired
            if len(seeds) < MINIMUM_SEEDS:
                return f"the floor {floor.label()} was measured with {self._count(len(seeds))} only"
            effect = paired_effect(np.array([numbers.a[seed] - numbers.b[seed] for seed in seeds]))
            above = above or effect.interval(1 - ALPHA)[0] > 0
            if side == "a":
                self.found = replace(self.found, floor=_mean(numbers.b))
        return "" if above else "neither side lies above its floor"


def _too_many_missing(selections: Sequence[Selection]) -> str:
    """Why a contrast means nothing: runs of one side are left out, and those that are left are no fair sample."""
    for selection in selections:
        of_side = f"of {selection.runs} runs{' of ' * bool(selection.where)}{selection.where}"
        if len(selection.failed) > MOST_FAILED * selection.runs:
            return f"{len(selection.failed)} {of_side} failed to train"
        if len(selection.failed) + len(selection.unmeasured) > MOST_FAILED * selection.runs:
            return f"{len(selection.unmeasured)} {of_side} do not have the number"
    return ""


def _mean(numbers: BySeed) -> float:
    return float(np.mean(list(numbers.values()))) if numbers else math.nan


def _name(contrast: Contrast) -> str:
    """What is compared: ``pool=max - pool=none``."""
    sides = contrast.readings()
    a = sides["a"]
    if "b" not in sides:
        versus = f" − {contrast.against:g}" * bool(contrast.against)
        return f"{a.where or a.label()}{versus}"
    b = sides["b"]
    if a.where != b.where:
        return f"{a.where or 'all'} − {b.where or 'all'}"
    return f"{a.label()} − {b.label()}"


def _number(contrast: Contrast) -> str:
    """The number that is compared, in words."""
    if contrast.share == "alarm":
        a = contrast.readings()["a"]
        return f"share of runs with an alarm, {a.direction} of {a.alarm}"
    if contrast.share:
        return f"share of runs that {'failed' if contrast.share == 'failed' else contrast.share}"
    sides = contrast.readings()
    labels = [_side(sides[side], sides.get(f"{side}_minus")) for side in ("a", "b") if side in sides]
    label = labels[0] if len({*labels}) == 1 else f"a: {labels[0]}; b: {labels[1]}"
    return f"slope of {label} over {contrast.slope}" if contrast.slope else label


def _side(reading: Reading, minus: Reading | None) -> str:
    """A side in words: its number, less another where it is a difference: ``accuracy, train − accuracy``."""
    if minus is None:
        return reading.label()
    if reading.where == minus.where:
        return f"{reading.label()} − {minus.label()}"
    number = reading.label() + f" − {minus.label()}" * (reading.label() != minus.label())
    return f"{number} of {reading.where or 'all'} − {minus.where or 'all'}"
