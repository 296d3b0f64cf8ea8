"""A study in its sweep's ``sweep.json``, stated before the first job, and its verdicts in ``verdict.json``."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ..common.naming import code_version
from ..config import QUICK, Study, omegaconf_errors
from ..results import files
from ..results.runs import FinishedRun
from ..stats.decisions import Verdict
from .checks import Checks, checks_of
from .judge import ALPHA, ClaimVerdict, ContrastVerdict, judge
from .rule import statement, study_hash


@dataclass(frozen=True)
class StudyVerdict:
    """The verdicts of a study, and what they rest on: the content of ``verdict.json``.

    Attributes:
        number, question, untested, preset: of the study.
        claims: their verdicts.
        hash: of the claims and the rule, when they were stated.
        stated: when (UTC).
        edits: later statements of other claims, or by another rule: when, and how many jobs were finished by then.
        added: variants (names of jobs, without their seeds) that came when some runs had finished: which, when, and how
            many had.
        finished_before: jobs that were finished when the claims were first stated.
        jobs, finished: of the sweep.
        missing: unfinished jobs → the reason.
        failed: finished runs whose training failed → how.
        alpha: error probability of a claim's verdict.
        command: that runs the study.
        data, hardware: of the runs.
        code: the commit, or the version, that the claims were stated with.
        checks: of every run, beside the claims.
        seconds: of training and measuring, of all runs together.
    """

    number: str
    question: str
    untested: str
    preset: str
    claims: list[ClaimVerdict]
    hash: str
    stated: str
    edits: list[dict[str, Any]]
    finished_before: int
    jobs: int
    finished: int
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    alpha: float = ALPHA
    command: str = ""
    data: list[str] = field(default_factory=list)
    hardware: list[str] = field(default_factory=list)
    code: str = ""
    checks: Checks = field(default_factory=Checks)
    seconds: float = 0.0
    added: list[dict[str, Any]] = field(default_factory=list)


def state(
    before: Mapping[str, Any], study: Study, preset: str, jobs: Iterable[str], finished: int, alpha: float = ALPHA
) -> dict[str, Any]:
    """The entry ``study`` of ``sweep.json``: the claims with their hash and date; a later edit, and a later variant,
    is added, not hidden.

    Args:
        before: the entry that is there; empty for a new sweep.
        study: as stated now.
        preset: by which it is run.
        jobs: names of the sweep's jobs.
        finished: jobs of the sweep that are finished now.
        alpha: error probability of a claim's verdict.
    """
    now = {"hash": study_hash(study), "date": datetime.now(UTC).isoformat(timespec="seconds"), "finished": finished,
           "code": code_version()}  # fmt: skip
    first, edits = before.get("first", now), list(before.get("edits", []))
    latest = edits[-1] if edits else first
    if latest["hash"] != now["hash"]:
        edits.append(now)
    variants, added = sorted({_variant(job) for job in jobs}), list(before.get("added", []))
    known = {*before.get("variants", variants), *(name for record in added for name in record["variants"])}
    late = [name for name in variants if name not in known]
    if late and finished:
        added.append({"variants": late, "date": now["date"], "finished": finished})
    return {
        "preset": preset,
        "untested": study.untested,
        "alpha": alpha,
        **statement(study),
        "first": first,
        "edits": edits,
        "variants": before.get("variants", variants) if finished else variants,
        "added": added,
    }


def _variant(job: str) -> str:
    """The name of a job without its seed.

    >>> _variant("model.pool=max,seed=3,train.lr=0.1"), _variant("seed=3"), _variant("model.pool=max")
    ('model.pool=max,train.lr=0.1', '', 'model.pool=max')
    """
    return ",".join(part for part in job.split(",") if not part.startswith("seed="))


def stated(folder: Path) -> tuple[Study, dict[str, Any]] | None:
    """The study that a sweep's folder holds, and its entry in ``sweep.json``; None where it has no claims."""
    entry = files.read_sweep(folder).get("study")
    if not entry or not entry.get("claims"):
        return None
    path = folder / files.SWEEP
    with files.reading(path):
        tree = {"number": entry["number"], "claims": entry["claims"], "untested": entry.get("untested", ""),
                "calibrate": entry.get("calibrate")}  # fmt: skip
        if not 0 < float(entry.get("alpha", ALPHA)) < 1:
            raise ValueError(f"alpha={entry['alpha']}")
        for record in (entry["first"], *entry.get("edits", ())):
            if [type(record[key]) for key in ("hash", "date", "finished")] != [str, str, int]:
                raise TypeError("a statement has no hash, no date or no count")
        for record in entry.get("added", ()):
            if [type(record[key]) for key in ("variants", "date", "finished")] != [list, str, int]:
                raise TypeError("variants that were added have no names, no date or no count")
    with omegaconf_errors():
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), tree))
    assert isinstance(study, Study)
    study.check()
    return study, entry


def judge_sweep(folder: Path, runs: Sequence[FinishedRun], missing: Mapping[str, str]) -> StudyVerdict | None:
    """The verdicts of the study in a sweep's folder; None where it states no claims."""
    found = stated(folder)
    if found is None:
        return None
    study, entry = found
    alpha = float(entry.get("alpha", ALPHA))
    with files.reading(folder / files.SWEEP):  # its claims may name what no run has
        claims = judge(study, runs, alpha)
    sweep = files.read_sweep(folder)
    return StudyVerdict(
        number=study.number, question=sweep.get("question", ""), untested=study.untested,
        preset=entry.get("preset", QUICK), claims=claims, hash=entry["first"]["hash"],
        stated=entry["first"]["date"], edits=_edits(study, entry), finished_before=entry["first"]["finished"],
        jobs=len(sweep.get("jobs", ())), finished=len(runs), missing=dict(missing),
        failed={run.folder.name: run.failure for run in runs if run.failure}, alpha=alpha,
        command=sweep.get("command", "").splitlines()[-1] if sweep.get("command") else "",
        data=_values(run.settings.get("data.name") for run in runs),
        hardware=_values(run.facts.get("hardware") for run in runs), code=entry["first"].get("code", ""),
        checks=checks_of(runs, missing), seconds=sum(run.facts.get("seconds", 0.0) for run in runs),
        added=list(entry.get("added", [])),
    )  # fmt: skip


def _edits(study: Study, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The edits on record, and one that is not: claims or a rule that are others than those stated last."""
    edits = list(entry.get("edits", []))
    latest = (edits or [entry["first"]])[-1]
    if study_hash(study) != latest["hash"]:
        edits.append({"hash": study_hash(study), "date": "not on record", "finished": None})
    return edits


def _values(values: Any) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


def write_verdict(folder: Path, verdict: StudyVerdict) -> None:
    """Write ``verdict.json``; numbers that are nan become null."""
    files.write_json(folder / files.VERDICT, _plain(asdict(verdict)))


def read_verdict(path: Path) -> StudyVerdict:
    """What ``write_verdict`` wrote.

    Raises:
        UserError: it is damaged.
    """
    tree = files.read_json(path, {})
    with files.reading(path):
        if not isinstance(tree["number"], str):  # studies are in the order of their numbers
            raise TypeError("number is no string")
        claims = [_claim(claim) for claim in tree["claims"]]
        return StudyVerdict(**tree | {"claims": claims, "checks": Checks(**tree.get("checks", {}))})


def _claim(tree: dict[str, Any]) -> ClaimVerdict:
    contrasts = [_contrast(contrast) for contrast in tree["contrasts"]]
    return ClaimVerdict(**tree | {"verdict": Verdict(tree["verdict"]), "contrasts": contrasts})


def _contrast(tree: dict[str, Any]) -> ContrastVerdict:
    numbers = {key: math.nan for key, value in tree.items() if value is None and key != "needed"}
    return ContrastVerdict(**tree | numbers | {"verdict": Verdict(tree["verdict"])})


def undecided(folder: Path) -> bool:
    """Whether some claim of a sweep has no verdict yet, and more seeds may give it one."""
    path = folder / files.VERDICT
    return path.exists() and any(claim.open for claim in read_verdict(path).claims)


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, Collection) and not isinstance(tree, str):
        return [_plain(value) for value in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree
