"""Packages whose files are their own registration: a new file is found without being listed anywhere."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .errors import UserError, did_you_mean

Entry = TypeVar("Entry")
_ROOT = Path(__file__).parent.parent.parent


class UnknownNameError(UserError, KeyError):
    """A table has no entry of that name."""

    __str__ = Exception.__str__  # a KeyError puts its text in quotes


class Table(dict[str, Entry]):
    """Entries by name. ``table["nmae"]`` is refused with the names that there are; else it is a dict as any other.

    Args:
        kind: what an entry is, in messages: ``pool``.
        entries: name → entry.

    Raises:
        UnknownNameError: a name that the table has not.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.kind = kind

    def __missing__(self, name: object) -> NoReturn:
        meant = did_you_mean(str(name), self)
        raise UnknownNameError(f"{self.kind}={name}: {meant}choose one of {', '.join(self)}")


def registered(package: str, order: Sequence[str] = (), without: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the modules of a package, by the path of its ``__init__.py``; those of ``order`` first, so that tables
    keep their order when a file is added. Those of ``without`` are no registrations.
    """
    names = {path.stem for path in Path(package).parent.glob("*.py")} - {"__init__", *without}
    return (*(name for name in order if name in names), *sorted(names.difference(order)))


def collect(
    modules: Iterable[str],
    table: str,
    needed: str,
    fits: Callable[[Any], bool],
    reserved: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The tables of some modules, name → entry, as one. What an entry is, ``needed`` says in messages, and ``fits`` by
    a test; ``reserved`` are names that a file has already.

    Raises:
        UserError: a module has no such table, an entry is of another kind, or a name is taken; the message names the
            files.
    """
    owners: dict[str, str] = dict(reserved or {})
    entries: dict[str, Any] = {}
    for name in modules:
        module = import_module(name)
        file, own = file_of(module), vars(module).get(table)
        if not isinstance(own, dict):
            raise UserError(f"{file}: needs a table of what it adds, {table} = {{NAME: {needed}}}")
        for key, entry in own.items():
            if not isinstance(key, str) or not fits(entry):
                raise UserError(f"{file}: {table} has {key!r}: {entry!r}, where a name and {needed} are needed")
            if key in owners:
                raise UserError(f"{file}: {table} has {key}, a name that {owners[key]} has already; choose another")
            owners[key], entries[key] = file, entry
    return entries


def file_of(module: Any) -> str:
    """The file of a module, from the package's folder on: ``src/pooling/blur.py``."""
    return Path(module.__file__).relative_to(_ROOT).as_posix()
