"""The page of measures: formula, range, null and source of every number, as the file that computes it declares them."""

import ast
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from src import metrics
from src.evaluation.families import FAMILIES
from src.metrics.quantities import Quantity, declared

ROOT = Path(metrics.__file__).parent.parent
INTRO = """# Measures

Each run writes `measures.csv`: one row per number, with the columns
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

`measure.follow` chooses statistics that are computed while the net trains, every `measure.every` epochs (0: each
epoch), always on the same images, and written to `history.csv`. They do not change training.

--8<-- "docs/hooks/followed.md"

Notation: x an image, x′ another one, g a transform of it, f(x) the answer (logits or a position), φ(x) a layer's
output, ρ(g) the same transform on the layer's grid. Each measure is a function and a torchmetrics `Metric`:
`from whatwhere.metrics import InvarianceError`.

The rest of this page is made from the code.
"""
FILES = {
    "Metrics of a layer or of the output": [ROOT / "metrics" / f"{name}.py" for name in metrics.MODULES],
    "Scores and linear probes": sorted((ROOT / "evaluation").glob("*.py")),
    "Families beside transforms": [ROOT / "evaluation" / "families" / f"{name}.py" for name in FAMILIES],
    "Followed while a net trains": sorted((ROOT / "evaluation" / "followed").glob("of_*.py")),
}


def page() -> str:
    """Markdown: a section for each file that declares quantities, and for each family."""
    parts = [INTRO]
    for title, paths in FILES.items():
        parts.append(f"## {title}\n")
        for path in paths:
            quantities = tuple(declared(path))
            if quantities or path.stem in FAMILIES:
                about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
                parts.append(f"### {path.stem}\n\n{about}\n\n{table(quantities)}\n")
    return "\n".join(parts)


def table(quantities: Sequence[Quantity]) -> str:
    """The quantities as Markdown: a row each; columns that are empty for all of them are left out."""
    rows = [dataclasses.asdict(quantity) for quantity in quantities]
    for row in rows:
        row["name"], low, high = f"`{row['name']}`", row.pop("low"), row.pop("high")
        row["range"] = f"{'[' if low > -float('inf') else '('}{low:g}, {high:g}{']' if high < float('inf') else ')'}"
        row["range"] = row["range"].replace("inf", "∞")
    columns = [key for key in ("name", "formula", "range", "better", "null", "source") if any(row[key] for row in rows)]
    lines = [columns, ["-"] * len(columns), *([str(row[key]).replace("|", "\\|") for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""
