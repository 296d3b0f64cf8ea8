"""The documentation of each pool, one line per topic, from the attributes of its class (see ``Pool``)."""

from dataclasses import dataclass, fields
from inspect import cleandoc

from ..common.errors import UserError
from .base import Pool
from .table import POOLS


@dataclass(frozen=True)
class Facts:
    """Documentation of a pool, as in ``Pool``."""

    summary: str  # the first paragraph of its docstring
    formula: str
    keeps: str
    exact: str
    source: str
    differs: str = ""


NONE = Facts(
    summary="No pooling: the stage's last convolution carries the stride.",
    formula="(W ∗ x)[::s]",
    keeps="nothing by itself; aliases",
    exact="is the convolution with stride 1, then [::s]",
    source='Springenberg et al. 2015, "Striving for simplicity"',
)


def facts_of(name: str, pool: type[Pool]) -> Facts:
    """The documentation that a class states itself; inherited attributes do not count.

    Raises:
        UserError: a required attribute is missing; the message names it.
    """
    stated = {key: " ".join(value.split()) for key, value in vars(pool).items() if isinstance(value, str)}
    stated["summary"] = " ".join(cleandoc(pool.__doc__ or "").split("\n\n")[0].split())
    values = {field.name: stated.get(field.name, "") for field in fields(Facts)}
    missing = [key for key, value in values.items() if not value and key != "differs"]
    if missing:
        names = ", ".join(missing).replace("summary", "docstring")
        raise UserError(f"pool {name}: class {pool.__name__} lacks {names}; state each as a class attribute, one line")
    return Facts(**values)


FACTS: dict[str, Facts] = {name: facts_of(name, pool) if pool else NONE for name, pool in POOLS.items()}
