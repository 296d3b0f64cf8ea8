"""Packages whose files are their own registration: a new file is found without being listed anywhere."""

from collections.abc import Sequence
from pathlib import Path


def registered(package: str, order: Sequence[str] = (), without: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the modules of a package.

    Args:
        package: path of its ``__init__.py``.
        order: names that come first, so that tables keep their order when a file is added; the others by name.
        without: names that are no registrations.
    """
    names = {path.stem for path in Path(package).parent.glob("*.py")} - {"__init__", *without}
    return (*(name for name in order if name in names), *sorted(names.difference(order)))
