"""What there is to know of each pool on one line each: formula, what it keeps, what is exact, source.

The facts are attributes of the pool's class (see ``Pool``); they stand nowhere else.
"""

from dataclasses import dataclass, fields
from inspect import cleandoc

from ..errors import UserError
from .base import Pool
from .table import POOLS


@dataclass(frozen=True)
class Facts:
    """Of one pool.

    Attributes:
        summary: the first paragraph of its docstring.
        formula, keeps, exact, source, differs: as in ``Pool``.
    """

    summary: str
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
    """The facts that a class states itself, none that it inherits.

    Raises:
        UserError: one is missing; says which, and where it belongs.
    """
    said = {key: " ".join(str(one).split()) for key, one in vars(pool).items() if isinstance(one, str)}
    said["summary"] = " ".join(cleandoc(pool.__doc__ or "").split("\n\n")[0].split())
    wanted = {one.name: said.get(one.name, "") for one in fields(Facts)}
    missing = [key for key, one in wanted.items() if not one and key != "differs"]
    if missing:
        what = ", ".join(missing).replace("summary", "docstring")
        raise UserError(f"pool {name}: its class {pool.__name__} has no {what}; a line each, as class attributes")
    return Facts(**wanted)


FACTS: dict[str, Facts] = {name: facts_of(name, pool) if pool else NONE for name, pool in POOLS.items()}
