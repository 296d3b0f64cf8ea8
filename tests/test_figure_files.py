"""Figures as files: SVG, PNG and PDF of a stated size, and their numbers as CSV."""

import csv
import io
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from src.common.errors import UserError
from src.reporting import figure_files
from src.reporting.figure_files import FigureFiles, figure_csv, write_figures
from src.reporting.plots import apply_theme, subplots
from src.reporting.sections import Section

needs_chromium = pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium: apt-get install chromium")


def two_panels() -> go.Figure:
    """A line with error bars on the left, horizontal bars on the right."""
    figure, cells = subplots(["left", "right"])
    error = {"array": [0.5, 0.25], "arrayminus": [0.125, 0.5]}
    figure.add_scatter(x=[1, 2], y=[3.0, None], error_y=error, name="max", meta="untrained", **cells[0])
    figure.add_bar(y=["a", "b"], x=[1.5, 2.5], orientation="h", name="avg", **cells[1])
    return apply_theme(figure)


def rows(figure: go.Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figure_csv(figure))))


def test_the_numbers_of_lines_and_bars() -> None:
    line, gap, *bars = rows(two_panels())
    start = {"panel": "left", "series": "max", "kind": "untrained", "y": ""}
    assert line == start | {"x": "1", "value": "3", "low": "2.875", "high": "3.5"}
    assert gap == start | {"x": "2", "value": "", "low": "", "high": ""}
    assert [(row["panel"], row["x"], row["value"], row["low"]) for row in bars] == [
        ("right", "a", "1.5", ""), ("right", "b", "2.5", ""),
    ]  # fmt: skip


def test_the_cells_of_a_heatmap_and_a_panel_without_a_title() -> None:
    z, x = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([-1, 1], "i1")
    figure = go.Figure(go.Heatmap(z=z, x=x, y=["a", 'b,"c"'], name="n"))
    figure.update_layout(xaxis_title="across", yaxis_title="down")
    lines = figure_csv(figure).splitlines()
    assert lines[1:] == ["down by across,n,,-1,a,1,,", "down by across,n,,1,a,2,,",
                         'down by across,n,,-1,"b,""c""",3,,', 'down by across,n,,1,"b,""c""",4,,']  # fmt: skip


def test_a_browser_that_does_not_start_is_one_line_and_the_tables_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("The browser seemed to close\nimmediately")

    monkeypatch.setattr("kaleido.write_fig_from_object_sync", fails)
    monkeypatch.setattr(figure_files, "_check_renderer", lambda: None)
    section = Section("Two panels", lambda _: go.Figure(), reading="what it shows")
    with pytest.raises(UserError, match=r"Chrome or Chromium, which failed \(RuntimeError\): .* choose format=csv"):
        write_figures([(section, two_panels())], FigureFiles(tmp_path, ("svg", "csv")))
    assert list(tmp_path.glob("*.csv"))


@needs_chromium
@pytest.mark.filterwarnings("default")  # kaleido's own
def test_drawn_figures_have_the_stated_width_and_letters(tmp_path: Path) -> None:
    section = Section("Two panels", lambda _: go.Figure(), reading="what it shows")
    options = FigureFiles(tmp_path, ("svg", "png", "csv"), width=12.7, font="Courier", font_size=9)
    write_figures([(section, two_panels())], options)
    assert {path.name for path in tmp_path.iterdir()} == {"captions.txt", *(f"two-panels.{f}" for f in options.formats)}
    svg = (tmp_path / "two-panels.svg").read_text()
    (width,) = re.findall(r'^<svg [^>]*\bwidth="([\d.]+)"', svg)
    assert float(width) == pytest.approx(480, abs=0.5), "12.7 cm at 96 pixels an inch"
    (view,) = re.findall(r'^<svg [^>]*\bviewBox="0 0 ([\d.]+)', svg)
    sizes = re.findall(r"font-family: Courier; font-size: ([\d.]+)px", svg)
    assert min(map(float, sizes)) * 480 / float(view) * 0.75 == pytest.approx(9, abs=0.05), "points"
    png = (tmp_path / "two-panels.png").read_bytes()
    assert struct.unpack(">I", png[16:20])[0] == pytest.approx(3 * 480, abs=2)
    assert (tmp_path / "captions.txt").read_text() == "two-panels: Two panels. what it shows\n"


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, line in (
        ({"formats": ("svg", "tiff")}, "format=svg,tiff: choose of svg, png, pdf, csv"),
        ({"formats": ("csv",), "width": 0.0}, "width=0: must be above 0"),
        ({"formats": ("csv",), "font_size": float("nan")}, "font_size=nan: must be above 0"),
    ):
        with pytest.raises(UserError, match=re.escape(line)):
            FigureFiles(tmp_path, **wrong)
    monkeypatch.setattr(figure_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="kaleido, which is not installed"):
        FigureFiles(tmp_path, ("pdf",))
    FigureFiles(tmp_path, ("csv",))
