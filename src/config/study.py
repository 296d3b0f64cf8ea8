"""A study: a question, claims that answer it, and the variants that put them to the test. Stated before the first job.

It stands under ``study:`` in a file of ``sweeps/``. What a claim compares are numbers that runs leave: rows of
``measures.csv``, columns of ``history.csv``, facts of ``run.json``, and how training ended. How verdicts are computed
from them: ``claims``.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from omegaconf import OmegaConf

from ..common.errors import UserError
from ..common.option_fields import check_fields, choice_field
from ..stats.alarms import DIRECTIONS
from .schema import Config

EXPECTATIONS = ("a<b", "a>b", "a=b")
#: the number of a history column that a run is compared by
LOOKS = ("last", "best", "first", "min", "max", "mean")
#: what shares of runs are compared of: those whose training ended so, or in which an alarm fired
SHARES = ("collapsed", "diverged", "failed", "alarm")
#: numbers of a pair of runs that differ in the seed alone (``claims.seed_pairs``)
PAIRS = ("matched_correlation", "matched_correlation_shuffled")
QUICK = "quick"
SEEDS = ("fixed", "auto")


@dataclass
class Reading:
    """One number of a run, or of a pair of runs, and which runs it is read from.

    Fields that are left out are those of the reading it is compared with; without one, ``layer`` is ``output``,
    ``protocol`` is ``test``, ``amount`` is 0.
    """

    where: str | None = None  # which runs: pool=max,data.task=what; empty: all
    measure: str | None = None  # a row of measures.csv, with the next four
    layer: str | None = None
    transform: str | None = None  # where a protocol's name is that of several transforms
    protocol: str | None = None
    amount: float | None = None
    untrained: bool | None = None  # of the net that training started from
    history: str | None = None  # a column of history.csv
    look: str | None = field(default=None, metadata={"names": (*LOOKS, None)})
    fact: str | None = None  # a number of run.json
    alarm: str | None = None  # a column of history.csv: the optimiser step at which an alarm on it fires
    direction: str | None = field(default=None, metadata={"names": (*DIRECTIONS, None)})  # that the alarm waits for
    threshold: float | None = None  # of the alarm; left out: set by the runs of study.calibrate
    # how alike two nets are whose seeds differ, 0 and 1, 2 and 3, …; with layer and untrained
    pairs: str | None = field(default=None, metadata={"names": (*PAIRS, None)})
    tuned: str | None = None  # a setting, of which the runs with the best validation score count: train.lr

    @property
    def source(self) -> str:
        """What it reads: ``measures``, ``history``, ``facts``, ``alarm`` or ``pairs``; empty where it does not say."""
        named = {"history": self.history, "facts": self.fact, "alarm": self.alarm, "pairs": self.pairs,
                 "measures": self.measure}  # fmt: skip
        return next((source for source, name in named.items() if name), "")

    def after(self, other: "Reading") -> "Reading":
        """This reading, with the fields of another where it has none of its own.

        What names a number goes together: a reading of a history column has no measure.
        """
        named = self.source
        skipped = {"measure", "history", "fact", "alarm", "direction", "threshold", "pairs"} if named else set()
        taken = {
            item.name: getattr(other, item.name)
            for item in fields(self)
            if getattr(self, item.name) is None and item.name not in skipped
        }
        return replace(self, **taken)

    def check(self, place: str) -> None:
        """Raises:
        UserError: a field is wrong, or fields do not go together.
        """
        check_fields(self, f"{place}.")
        sources = [key for key in ("measure", "history", "fact", "alarm", "pairs") if getattr(self, key) is not None]
        if len(sources) > 1:
            raise UserError(f"{place}: names {' and '.join(sources)}; one of them is compared")
        if self.alarm and not self.direction:
            raise UserError(f"{place}.direction: an alarm waits for a change: choose one of {', '.join(DIRECTIONS)}")
        if self.threshold is not None and not self.threshold >= 0:
            raise UserError(f"{place}.threshold={self.threshold}: must be 0 or a positive number")
        if not self.alarm and (self.direction or self.threshold is not None):
            raise UserError(f"{place}: direction and threshold are of an alarm: name a column of history.csv, alarm=")
        if self.pairs and (self.transform or self.protocol not in (None, "test") or self.amount):
            raise UserError(
                f"{place}: pairs={self.pairs} is of the example images as they are; leave out transform, "
                "protocol and amount"
            )

    def label(self) -> str:
        """The number in words: ``output_distance, crop 1, layer output``."""
        if self.history:
            return f"{self.history} ({self.look or 'last'})"
        if self.fact:
            return self.fact
        if self.alarm:
            return f"step of the alarm, {self.direction} of {self.alarm}"
        amount = f" {self.amount:g}" if self.amount else ""
        protocol = "" if self.protocol in (None, "test") else f", {self.protocol}{amount}"
        layer = "" if self.layer in (None, "output") else f", {self.layer}"
        measure = f"{self.pairs} of two seeds" if self.pairs else self.measure
        return f"{measure}{protocol}{layer}" + ", untrained net" * bool(self.untrained)


@dataclass
class Contrast:
    """One comparison of a claim: ``a - b``, and what is expected of it.

    A seed (with ``pairs``, a pair of seeds) gives one number: ``a - b``, each less what ``a_minus`` and ``b_minus``
    name (a difference of differences), or with ``slope`` the least-squares slope of ``a`` over a setting (less that of
    ``b``, if there is one). With ``share``, the shares of runs that ended so, or in which an alarm fired, are compared,
    by an exact test.
    """

    a: Reading = field(default_factory=Reading)
    b: Reading | None = None
    a_minus: Reading | None = None
    b_minus: Reading | None = None
    against: float = 0.0  # what a is compared with where there is no b
    expect: str = choice_field("a>b", EXPECTATIONS)
    margin: float | None = None  # the smallest difference that matters
    slope: str = ""  # a setting that holds numbers: train.lr, model.depth
    share: str = ""  # how training ended: collapsed, diverged, failed (one of both); or whether an alarm fired: alarm
    floor: Reading | None = None  # what a or b must lie above, for their difference to mean anything
    name: str = ""  # in the table; empty: made of what is compared

    def readings(self) -> dict[str, Reading]:
        """``a``, ``b``, ``a_minus``, ``b_minus``, those that it has, with all their fields."""
        default = Reading(layer="output", protocol="test", amount=0.0, untrained=False, look="last")
        a = self.a.after(default)
        sides = {"a": a}
        if self.b is not None:
            sides["b"] = self.b.after(a)
        if self.a_minus is not None:
            sides["a_minus"] = self.a_minus.after(a)
        if self.b_minus is not None:
            sides["b_minus"] = self.b_minus.after(sides.get("a_minus", sides.get("b", a)))
        return sides

    def floors(self) -> dict[str, Reading]:
        """What ``a`` and ``b`` must lie above; none where the contrast names no floor."""
        if self.floor is None:
            return {}
        return {side: self.floor.after(reading) for side, reading in self.readings().items() if side in ("a", "b")}

    @property
    def of_pairs(self) -> bool:
        """Whether its numbers are of pairs of runs, of which each takes two seeds."""
        return bool(self.a.pairs)

    def check(self, place: str) -> None:
        """Raises:
        UserError: a field is wrong, or fields do not go together.
        """
        check_fields(self, f"{place}.")
        sides = self.readings()
        for name, reading in sides.items():
            reading.check(f"{place}.{name}")
        self._check_pairs(place)
        if self.floor is not None and self.floor.alarm:
            raise UserError(f"{place}.floor.alarm={self.floor.alarm}: an alarm is no floor; name a number")
        if self.margin is None or not 0 <= self.margin < math.inf:
            raise UserError(f"{place}.margin={self.margin}: state the smallest difference that matters, 0 or more")
        if self.expect == "a=b" and self.margin == 0:
            raise UserError(f"{place}.margin=0: equality needs a margin above 0, as no data can show a difference of 0")
        if self.b_minus is not None and self.b is None:
            raise UserError(f"{place}.b_minus: there is no b to subtract it from")
        if self.share:
            if self.b is None or self.slope or self.a_minus or self.floor:
                raise UserError(f"{place}.share={self.share}: compares the runs of a with those of b, and nothing else")
            if self.share not in SHARES:
                raise UserError(f"{place}.share={self.share}: choose one of {', '.join(SHARES)}")
            if self.share == "alarm" and not all(reading.alarm for reading in self.readings().values()):
                raise UserError(f"{place}.a: share=alarm compares an alarm: name a column of history.csv, alarm=")
        elif not self.a.source:
            raise UserError(f"{place}.a: name a number: measure=, history=, fact=, alarm= or pairs=")
        if self.b is not None and self.against:
            raise UserError(f"{place}.against={self.against:g}: a is compared with b; leave one of them out")
        if sides["a"] == sides.get("b") and sides.get("a_minus") == sides.get("b_minus"):
            raise UserError(f"{place}: a and b are the same; in b, say what differs: where=, layer=, untrained= …")

    def _check_pairs(self, place: str) -> None:
        """Refuse a number of pairs of runs where others are numbers of runs: they are not numbers of the same thing."""
        floors = {f"floor of {side}": reading for side, reading in self.floors().items()}
        sides = {**self.readings(), **floors}
        if not any(reading.pairs for reading in sides.values()):
            return
        if self.share:
            raise UserError(f"{place}.share={self.share}: counts runs, and pairs= is of two; leave one of them out")
        if other := [side for side, reading in sides.items() if not reading.pairs]:
            raise UserError(f"{place}: {other[0]} is a number of one run, that of pairs= of two; let all be of pairs")


@dataclass
class Claim:
    """What a study puts to the test, in the claim's own words, and the contrasts that decide it."""

    text: str = ""
    contrasts: list[Contrast] = field(default_factory=list)
    need: str = choice_field("all", ("all", "any"))  # of the contrasts, for the claim to hold

    def check(self, place: str) -> None:
        """Raises:
        UserError: a field is wrong.
        """
        check_fields(self, f"{place}.")
        if not self.text or not self.contrasts:
            raise UserError(f"{place}: a claim has a text and at least one contrast")
        for number, contrast in enumerate(self.contrasts):
            contrast.check(f"{place}.contrasts[{number}]")


@dataclass
class Study:
    """Claims, the variants that are compared, and presets: other settings under a name."""

    number: str = ""  # of the question: Q3
    claims: list[Claim] = field(default_factory=list)
    variants: dict[str, list[str]] = field(default_factory=dict)  # name → overrides; each with the whole grid
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)  # name → key → value or grid, as sweeper.params
    untested: str = ""  # what the claims do not test, in a sentence or two
    looks: list[int] = field(default_factory=lambda: [6, 10, 16, 24])  # seeds=auto: of them, until all is decided
    calibrate: str | None = None  # the runs, as where=, that set the thresholds of alarms: clean, with their own seeds
    separate: bool = False  # left out where all studies run, as it takes as long as they do; its own command runs it
    judge: bool = True  # false: run and compare without verdicts, with any number of seeds

    def check(self) -> None:
        """Raises:
        UserError: a claim is wrong.
        """
        for number, claim in enumerate(self.claims):
            claim.check(f"study.claims[{number}]")
        without = [reading for reading in self.alarms() if reading.threshold is None]
        if without and not self.calibrate:
            raise UserError(
                f"study.calibrate: {without[0].label()}, needs a threshold: name the clean runs that set it, as in "
                "calibrate: label_noise=0.0,seed=20,21,…"
            )
        if self.calibrate and not without:
            raise UserError(f"study.calibrate={self.calibrate}: no claim reads an alarm whose threshold it could set")
        if not self.looks or sorted({*self.looks}) != self.looks or self.looks[0] < 1:
            raise UserError(f"study.looks={self.looks}: must be growing numbers of seeds")

    @property
    def of_pairs(self) -> bool:
        """Whether it compares numbers of pairs of runs."""
        return any(contrast.of_pairs for claim in self.claims for contrast in claim.contrasts)

    def alarms(self) -> list[Reading]:
        """All readings of claims that read an alarm."""
        contrasts = [contrast for claim in self.claims for contrast in claim.contrasts]
        return [reading for contrast in contrasts for reading in contrast.readings().values() if reading.alarm]


@dataclass
class Command(Config):
    """What a command line holds: the config of its jobs, and the study they belong to."""

    study: Study = field(default_factory=Study)
    preset: str = QUICK  # of a study: quick, or one of its others, as full
    seeds: str = choice_field("fixed", SEEDS)  # auto: more and more, until every claim is decided


def study_of(master: Any) -> Study:
    """The study of a command line, checked.

    Raises:
        UserError: it is wrong, or has no such preset.
    """
    study = OmegaConf.to_object(master.study)
    assert isinstance(study, Study)
    study.check()
    if master.seeds not in SEEDS:
        raise UserError(f"seeds={master.seeds}: choose one of {', '.join(SEEDS)}; a list of seeds is seed=0,1,2")
    odd = [look for look in study.looks if look % 2]
    if master.seeds == "auto" and odd and study.of_pairs:
        raise UserError(
            f"study.looks={study.looks}: numbers of pairs= are of seeds 0 and 1, 2 and 3, …, and {odd[0]} leaves a "
            "seed without another"
        )
    if master.preset not in (names := [QUICK, *study.presets]):
        raise UserError(f"preset={master.preset}: choose one of {', '.join(dict.fromkeys(names))}")
    return study
