"""Some of many runs, chosen by their settings: ``data=shapes,pool=max,avg,seed=0``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..common.errors import UserError, did_you_mean
from ..config import format_override

Settings = Mapping[str, Any]


def matching(where: str, settings: Sequence[Settings], partial: bool = False) -> list[bool]:
    """Which runs have all the settings that are asked for.

    Args:
        where: ``key=value,…``; a key may have several values, ``seed=0,1``, of which a run has one. Keys are whole
            (``model.pool``) or their ends (``pool``), and ``model`` and ``data`` the names of these.
        settings: of the runs, flat.
        partial: some runs may be missing: a value that none has is passed over.

    Raises:
        UserError: it cannot be read, a key is none of theirs, no run has a value, or none has all of them.

    >>> matching("pool=max,avg,seed=0", [{"model.pool": pool, "seed": 0} for pool in ("max", "none", "avg")])
    [True, False, True]
    """
    kept = [True] * len(settings)
    for word, values in _parsed(where):
        key = _whole(word, ",".join(values), settings)
        there = list(dict.fromkeys(format_override(setting[key]) for setting in settings))
        for value in values:
            if not partial and not any(_same(value, setting) for setting in there):
                raise UserError(f"where={word}={value}: no run has it; {key} is {', '.join(there)}")
        kept = [
            old and any(_same(value, format_override(setting[key])) for value in values)
            for old, setting in zip(kept, settings, strict=True)
        ]
    if not any(kept):
        raise UserError(f"where={where}: each is there, but no run has all of it")
    return kept


def _parsed(where: str) -> Iterator[tuple[str, list[str]]]:
    """Key → the values that will do; commas in brackets belong to a value."""
    words: list[str] = []
    for part in where.split(","):
        if words and words[-1].count("[") > words[-1].count("]"):
            words[-1] += f",{part}"
        else:
            words.append(part)
    found: dict[str, list[str]] = {}
    key = ""
    for word in words:
        first, equals, value = word.partition("=")
        key, value = (first.strip(), value) if equals else (key, word)
        if not key or not value:
            raise UserError(f"where={where}: is written key=value,key=value …, as in where=data=shapes,seed=0,1")
        found.setdefault(key, []).append(value.strip())
    yield from found.items()


def _whole(word: str, values: str, settings: Sequence[Settings]) -> str:
    """The key that a word stands for; ``values`` are for messages."""
    keys = list(settings[0])
    for key in (word, f"{word}.name", f"model.{word}"):
        if key in keys:
            return key
    found = [key for key in keys if key.endswith(f".{word}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"where={word}={values}: is it {' or '.join(found)}?")
    meant = did_you_mean(word, [*keys, *(key.rpartition(".")[2] for key in keys)])
    differing = [key for key in keys if len({format_override(setting[key]) for setting in settings}) > 1]
    raise UserError(
        f"where={word}={values}: no such key; {meant}the runs differ in {', '.join(differing) or 'nothing'}"
    )


def _same(asked: str, there: str) -> bool:
    try:
        return float(asked) == float(there)
    except ValueError:
        return asked == there
