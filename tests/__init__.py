"""The run-time type checker of the tests: beartype, for which an int is a float as it is for mypy (PEP 484)."""

import inspect
from dataclasses import is_dataclass
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def _has_string(hint: Any) -> bool:
    """Whether an annotation is a string, or has one in its brackets."""
    parts = hint if isinstance(hint, list) else get_args(hint)
    return isinstance(hint, str) or any(map(_has_string, parts))


def jaxtyped(decorated: Any = None, *, typechecker: Any) -> Any:
    """What jaxtyping's import hook decorates every function and class with, at a third of the cost.

    The original checks arguments twice and binds names of sizes for every function. Here each argument is checked once,
    and only functions whose annotations have shapes get a scope for the names of their sizes. Generator functions, and
    those whose annotations are strings, are left to the original.
    """
    if decorated is None:
        return lambda function: jaxtyped(function, typechecker=typechecker)
    if inspect.isclass(decorated):
        if is_dataclass(decorated):
            decorated.__init__ = jaxtyped(decorated.__init__, typechecker=typechecker)  # type: ignore[method-assign]
        return decorated
    hints = inspect.get_annotations(decorated).values()
    if inspect.isgeneratorfunction(decorated) or any(map(_has_string, hints)):
        return _jaxtyped(decorated, typechecker=typechecker)
    checked = typechecker(decorated)
    has_shapes = any("jaxtyping" in repr(hint) for hint in hints)
    return _jaxtyped(checked, typechecker=None) if has_shapes else checked


jaxtyping.jaxtyped = jaxtyped
