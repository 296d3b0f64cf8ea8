"""The page of measures: what each module of ``src/metrics`` and each family says of its own numbers."""

import ast
import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from src.evaluation.families import FAMILIES
from src.metrics import MODULES

INTRO = """# Measures

Each run writes `measures.csv`: one row a number, with the columns
`layer, transform, protocol, amount, measure, value, low, high, n`.

- `layer`: the name in the net, or `output` for its answer.
- `transform`, `protocol`, `amount`: what was done to the image (`shift`, `roll`, 1 pixel).
- `low`, `high`: a 95% interval over images. Empty where no resampling of images gives one.
- `n`: images.

A name that ends in `_untrained` is the same number of the untrained net of the same seed. `_null`, `_random`,
`_shuffled` and `_floor` are what chance or interpolation alone gives. Why these stand beside every number:
[design notes](../background/design.md).

`measure.what` chooses among the families. All together take a default run about as long as one epoch.

--8<-- "docs/hooks/families.md"

Notation: x an image, x′ another one, g a transform of it, f(x) the answer (logits or a position), φ(x) a layer's
output, ρ(g) the same transform on the layer's grid. Each measure is a function and a torchmetrics `Metric`:
`from whatwhere.metrics import InvarianceError`.

The rest of this page is made from the code.
"""
PAGES = {
    "Metrics": ("src.metrics", [name for name in MODULES if name not in ("base", "rows")]),
    "Families beside transforms": ("src.evaluation.families", FAMILIES),
    "Linear probes": ("src.evaluation", ("linear_probes",)),
}


def page() -> str:
    """Markdown: a section a module."""
    parts = [INTRO]
    for title, (package, names) in PAGES.items():
        parts += [f"## {title}\n", *(section(import_module(f"{package}.{name}"), name) for name in names)]
    return "\n".join(parts)


def section(module: ModuleType, name: str) -> str:
    """One module: its docstring, then its table of quantities, or what its functions and metrics say."""
    about, quantities = inspect.getdoc(module) or "", getattr(module, "QUANTITIES", None)
    body = table(quantities) if quantities else "\n".join(definitions(module))
    return f"### {name}\n\n{about}\n\n{body}\n"


def table(quantities: Mapping[str, Any] | Iterable[Any]) -> str:
    """Of dataclasses, with or without names: their fields are the columns, those that are empty everywhere left out."""
    named = quantities.items() if isinstance(quantities, Mapping) else [("", one) for one in quantities]
    rows = [({"measure": name} if name else {}) | record(one) for name, one in named]
    columns = [key for key in rows[0] if any(row.get(key) not in ("", None) for row in rows)]
    lines = [columns, ["-"] * len(columns), *([cell(key, row.get(key)) for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def record(quantity: Any) -> dict[str, Any]:
    """A quantity's fields by name."""
    return {one.name: getattr(quantity, one.name) for one in dataclasses.fields(quantity)}


def cell(key: str, value: Any) -> str:
    """A value in a table; names are code."""
    if isinstance(value, tuple):
        value = f"[{', '.join(f'{end:g}' for end in value)}]".replace("inf", "∞")
    words = " ".join(str("" if value is None else value).split()).replace("|", "\\|")
    return f"`{words}`" if key in ("name", "measure") else words


def definitions(module: ModuleType) -> Iterable[str]:
    """What the module's public functions and metrics say of themselves, without their examples and arguments."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text = (ast.get_docstring(node) or "").split("\n\n>>>")[0]
            for heading in ("\n\nArgs:", "\n\nRaises:", "\n\nAttributes:"):
                text = text.split(heading)[0]
            if "``" in text:
                yield f"**{node.name}**: {text}\n"
