"""Fields of option classes that say what they may hold, and the one function that refuses anything else."""

from collections.abc import Iterable
from dataclasses import field, fields
from typing import Any

from .errors import UserError, did_you_mean

#: counts are below: what is larger is a slip, and more than any machine can do
LARGEST = 2**32


def choice_field(default: str, names: Iterable[str]) -> Any:
    """A field that holds one of some names."""
    return field(default=default, metadata={"names": tuple(names)})


def choices_field(default: Iterable[str], names: Iterable[str]) -> Any:
    """A field that holds a list of some names."""
    kept = list(default)
    return field(default_factory=lambda: list(kept), metadata={"names": tuple(names)})


def count_field(default: int | None, least: int = 1) -> Any:
    """A field that holds a whole number of at least ``least``, or null where its type allows it."""
    right = f"must be a whole number of at least {least}"
    return field(default=default, metadata={"low": least, "high": LARGEST, "right": right})


def counts_field(default: Iterable[int], least: int = 1) -> Any:
    """A field that holds a list of whole numbers, each at least ``least``."""
    kept = list(default)
    right = f"must be whole numbers of at least {least}"
    return field(default_factory=lambda: list(kept), metadata={"low": least, "high": LARGEST, "right": right})


def range_field(default: float, low: float, high: float, right: str) -> Any:
    """A field that holds a number in [low, high); ``right`` says so in words."""
    return field(default=default, metadata={"low": low, "high": high, "right": f"must be {right}"})


def seed_field() -> Any:
    """A field that holds a seed."""
    return range_field(0, 0, 2**32, "a whole number from 0 to 4294967295")


def _within(number: Any, low: float, high: float) -> bool:
    """Whether it is a number in [low, high); a list may hold anything that an interpolation names."""
    return isinstance(number, int | float) and low <= number < high


def check_fields(options: Any, prefix: str = "") -> None:
    """Check the fields of an option class, made by the functions above, one by one; in messages the prefix, as
    ``model.``, stands before a field's name.

    Raises:
        UserError: a value is none of the names, or outside the range.
    """
    for item in fields(options):
        value, known = getattr(options, item.name), item.metadata
        if isinstance(value, list) and any(entry is None or isinstance(entry, list | dict) for entry in value):
            raise UserError(f"{prefix}{item.name}={value}: must be one list, without null and without lists in it")
        for name in value if isinstance(value, list) else [value]:
            if "names" in known and name not in known["names"]:
                names = [str(right) for right in known["names"] if right is not None]
                meant = did_you_mean(str(name), names)
                raise UserError(f"{prefix}{item.name}={name}: {meant}choose one of {', '.join(names)}")
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        if "low" in known and not all(_within(number, known["low"], known["high"]) for number in numbers):
            below = f", below {LARGEST:,}" if known["high"] == LARGEST else ""
            raise UserError(f"{prefix}{item.name}={value}: {known['right']}{below}")
