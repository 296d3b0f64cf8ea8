"""The notebook's cells, run as they stand on a sweep of tiny runs."""

import ast
import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from src.reporting.comparison import Variants
from src.reporting.variant import Variant
from src.training.run import run
from tests.helpers import ROOT, tiny

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())


def shown(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; gives what it would show, the value of its last line."""
    tree = ast.parse(source)
    last = tree.body.pop()
    assert isinstance(last, ast.Expr), "a cell that shows nothing"
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.filterwarnings("default")
def test_cells_run_and_show_a_table_figures_and_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pool in ("max", "none"):
        run(tiny(model={"pool": pool}), tmp_path / "outputs/model.pool=max,avg,none" / f"model.pool={pool}")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    names: dict[str, Any] = {}
    table, *figures, number, net = [
        shown("".join(cell["source"]), names) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"
    ]
    assert "<td>pool=max</td>" in table._repr_html_() and "accuracy" in table._repr_html_()
    assert len(figures) == 2
    for figure in (*figures, net):
        assert isinstance(figure, go.Figure) and figure.data
    assert {trace.name for trace in figures[0].data} == {"pool=max", "pool=none"}
    assert "layer4" in list(net.data[0].x)
    assert 0 < float(number["invariance_error"]) < 1


def test_the_notebook_holds_no_outputs() -> None:
    assert NOTEBOOK["nbformat"] == 4
    assert not [cell for cell in NOTEBOOK["cells"] if cell.get("outputs")]
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])


def test_names_in_a_shown_table_are_text(tmp_path: Path) -> None:
    from src.results.runs import find_runs
    from tests.test_comparison import leave_run

    leave_run(tmp_path / "one", 0.9, 0.1)
    (found,), _ = find_runs(tmp_path)
    html = Variants([Variant("<script>", {}, [found])])._repr_html_()
    assert "<td>&lt;script&gt;</td>" in html and "<script>" not in html
