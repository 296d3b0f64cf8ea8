"""The W&B Report of a sweep: its definition, its keys against those that runs log, and the real client on saving it."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from pydantic import ValidationError
from wandb_workspaces.reports.v2 import internal
from wandb_workspaces.reports.v2.interface import LinePlot, MediaBrowser

from src import report
from src.common.errors import UserError
from src.reporting import wandb_panels, wandb_report
from src.reporting.comparison import group_into_variants
from src.reporting.wandb_report import markdown_table, write_wandb_report
from src.results import files
from src.results.runs import find_runs
from src.training.run import run
from tests.helpers import ROOT, tiny, wandb_records
from tests.test_comparison import leave_run
from tests.wandb_server import KEY, serving, surroundings

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's and W&B's own


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with runs logged offline; its name has characters that the library's filters would parse."""
    folder = tmp_path_factory.mktemp("sweeps") / "model.pool=max,avg,it's <all>"
    measure = {"what": ["shift", "rolls"], "every": 1, "max_shift": 1}
    for pool, seed in (("max", 0), ("max", 1), ("avg", 0)):
        cfg = tiny(model={"pool": pool}, seed=seed, wandb={"mode": "offline"}, measure=measure)
        run(cfg, folder / f"model.pool={pool},seed={seed}")
    return folder


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a login, whoever runs the tests."""
    monkeypatch.setattr(wandb_report, "logged_in", lambda: False)


@pytest.fixture
def factorial(tmp_path: Path) -> Path:
    for pool in ("max", "avg"):
        for stride in (2, 3):
            folder = tmp_path / "factorial" / f"{pool}{stride}"
            net = {"pool": pool, "stride": stride, "variant": f"<script>|*`{pool}`\n[b](c)\\&#1;"}
            leave_run(folder, 0.9, 0.1, model=net, wandb={"project": "elsewhere"})
            files.write(folder / files.WANDB_ID, f"{pool}{stride}")
    return tmp_path / "factorial"


def spec_of(path: Path) -> internal.ReportViewspec:
    """The definition parsed by the library, which turns what its models refuse into unknown blocks and panels."""
    spec = internal.ReportViewspec.model_validate_json(path.read_text())
    known = [type(block) for block in spec.spec.blocks] + [
        type(panel) for grid in grids(spec) for panel in panels(grid)
    ]
    assert not {internal.UnknownBlock, internal.UnknownPanel, dict} & set(known)
    return spec


def grids(spec: internal.ReportViewspec) -> list[internal.PanelGrid]:
    return [block for block in spec.spec.blocks if isinstance(block, internal.PanelGrid)]


def panels(grid: internal.PanelGrid) -> list[Any]:
    return list(grid.metadata.panel_bank_section_config.panels)


def headings(spec: internal.ReportViewspec) -> list[str]:
    return [block.children[0].text for block in spec.spec.blocks if isinstance(block, internal.Heading)]


@cache
def history_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], set[str]]:
    """From a run's log: its start record, the rows of its history, and the keys of its summary."""
    records = wandb_records(folder)
    started = next(record["run"] for record in records if record["type"] == "run")
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    summary = {key for record in records if record["type"] == "summary" for key in record["summary"]["update"]}
    return started, history, summary


def keys_of(panel: Any) -> Iterator[tuple[str, str]]:
    """(history, summary, picture or table, key) of all that a panel shows."""
    config = panel.config
    match panel:
        case internal.LinePlot():
            yield from (("history", key) for key in [config.x_axis, *config.metrics])
        case internal.BarPlot():
            yield from (("summary", key) for key in config.metrics)
        case internal.ScatterPlot():
            yield from (("summary", key.removeprefix("summary:")) for key in (config.x_axis, config.y_axis))
        case internal.MediaBrowser():
            yield from (("picture", key) for key in config.media_keys)
        case internal.WeavePanel():
            yield "table", config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
        case internal.RunComparer():
            pass
        case _:
            raise AssertionError(type(panel))


@pytest.mark.usefixtures("stranger")
def test_panels_show_what_runs_log(logged: Path) -> None:
    spec = spec_of(write_wandb_report(logged))
    _, rows, summary = history_of(logged / "model.pool=avg,seed=0")
    history = {key for row in rows for key in row}
    kinds = {"history": history, "summary": summary, "picture": {key.removesuffix("._type") for key in history}}
    kinds["table"] = {key.removesuffix(".nrows") for key in history if key.endswith(".nrows")}
    shown = [key for grid in grids(spec) for panel in panels(grid) for key in keys_of(panel)]
    assert not [(kind, key) for kind, key in shown if key not in kinds[kind]]
    pictures = {key for key in kinds["picture"] if key.startswith(("maps/", "grids/roll_map/")) and "." not in key}
    assert pictures == {key for kind, key in shown if kind == "picture"}, "all pictures are shown"
    assert {key for kind, key in shown if kind == "table"} == {"maps", "measures", "shapes"} == kinds["table"]
    titles = {
        panel.config.chart_title
        for grid in grids(spec)
        for panel in panels(grid)
        if hasattr(panel.config, "chart_title")
    }
    wanted = {*wandb_panels.BARS, *wandb_panels.POINTS, *wandb_panels.CURVES, "stage2: invariance error"}
    assert {title for title in wanted - titles if not title.startswith("R²")} == {
        "Accuracy where positions suggest the wrong class"
    }


def test_invariance_is_logged_at_its_epoch(logged: Path) -> None:
    folder, key = logged / "model.pool=avg,seed=0", "invariance/crop/1px/output_distance"
    at_wandb = {row["epoch"]: row[key] for row in history_of(folder)[1] if key in row}
    on_disk = {int(row["epoch"]): float(row[key]) for row in files.read_rows(folder / files.HISTORY)}
    assert at_wandb == {epoch: pytest.approx(value) for epoch, value in on_disk.items()}


def test_maps_share_steps_over_runs_and_are_in_a_table(logged: Path) -> None:
    steps = []
    for folder in sorted(logged.glob("model*")):
        rows = [row for row in history_of(folder)[1] if "maps/stage1.path" in row]
        steps.append([(row["_step"], row["epoch"]) for row in rows])
        waiting = [file.read_bytes() for file in folder.glob("wandb/artifacts/staging/*")]
        tables = [json.loads(content) for content in waiting if content.startswith(b"{")]
        table, *again = [table for table in tables if table["columns"] == ["variant", "stage", "epoch", "picture"]]
        assert all(one == table for one in again), "W&B stages a table twice"
        variant = folder.name.partition(",seed=")[0]
        named = [[variant, f"stage{stage}", epoch] for epoch in range(3) for stage in (1, 2)]
        assert [row[:3] for row in table["data"]] == named
        pictures = {hashlib.sha256(content).hexdigest() for content in waiting if content.startswith(b"\x89PNG")}
        assert {row[3]["sha256"] for row in table["data"]} == pictures, "files to sync are staged in the run's folder"
    assert steps[0] == steps[1] == steps[2] and [epoch for _, epoch in steps[0]] == [0, 1, 2]


@pytest.mark.usefixtures("stranger")
def test_run_sets_find_the_runs(logged: Path) -> None:
    spec = spec_of(write_wandb_report(logged))
    runs = {folder.name: history_of(folder)[0] for folder in logged.glob("model*")}
    ids = {name: started["run_id"] for name, started in runs.items()}
    first_seeds = [ids["model.pool=max,seed=0"], ids["model.pool=avg,seed=0"]]
    found = set()
    for grid in grids(spec):
        (runset,) = grid.metadata.run_sets
        (one,) = runset.filters["filters"]
        found.add(one["key"]["name"])
        if one["key"]["name"] == "group":
            assert {started["run_group"] for started in runs.values()} == {one["value"]}
        else:
            assert sorted(one["value"]) == sorted(first_seeds), "pictures are of a variant's first seed"
        for key in runset.grouping:
            assert (key.section, key.name) == ("config", "model.value.pool"), "seeds fall together"
            assert runs["model.pool=max,seed=0"]["config"]["update"]["model"]["pool"] == "max"
        colours = set(grid.metadata.custom_run_colors)
        names = {f"{runset.id}-config:model.value.pool:{pool}" for pool in ("max", "avg")}
        assert colours == (names if runset.grouping else set(ids.values()))
    assert found == {"group", "name"}


@pytest.mark.usefixtures("stranger")
def test_the_definition_is_valid_and_its_panels_do_not_overlap(logged: Path, factorial: Path) -> None:
    for folder, titles in (
        (logged, ["Feature maps", "Invariance over training"]),
        (factorial, ["Parallel coordinates"]),
    ):
        path = write_wandb_report(folder)
        spec = spec_of(path)
        again = spec.model_dump_json(by_alias=True, exclude_none=True).replace(',"inlineComments":[]', "")
        assert json.loads(again) == json.loads(path.read_text())
        assert {"Comparison", "Training", "How to reproduce", *titles} <= set(headings(spec))
        assert len(headings(spec)) == len(set(headings(spec)))
        assert spec.display_name == folder.name
        for grid in grids(spec):
            places = [panel.layout for panel in panels(grid)]
            assert all(place.x >= 0 and place.x + place.w <= 24 for place in places)
            for one, other in combinations(places, 2):
                across = one.x < other.x + other.w and other.x < one.x + one.w
                assert not (across and one.y < other.y + other.h and other.y < one.y + one.h), "panels overlap"


def test_a_bad_panel_is_refused() -> None:
    with pytest.raises(ValidationError, match="smoothing_type"):
        LinePlot(y=["val/loss"], smoothing_type="strong")
    with pytest.raises(ValidationError, match="gallery_axis"):
        MediaBrowser(media_keys=["maps/stage1"], gallery_axis="epoch")


@pytest.mark.usefixtures("stranger")
def test_a_wrong_definition_is_detected(logged: Path, tmp_path: Path) -> None:
    text = write_wandb_report(logged).read_text()
    bad = tmp_path / files.REPORT
    for right, wrong in (('"axis": "run"', '"axis": "epoch"'), ('"groupAgg": "mean"', '"groupAgg": "best"')):
        assert right in text
        bad.write_text(text.replace(right, wrong))
        with pytest.raises(AssertionError):
            spec_of(bad)


@pytest.mark.usefixtures("stranger")
def test_names_in_the_table_are_text(factorial: Path) -> None:
    spec = spec_of(write_wandb_report(factorial))
    (table,) = [block.content for block in spec.spec.blocks if isinstance(block, internal.MarkdownBlock)]
    names = [" ".join(variant.name.split()) for variant in group_into_variants(find_runs(factorial)[0])]
    assert any("<script>|" in name for name in names)
    assert read_table(table)[1:] == [[name] for name in names]


def read_table(markdown: str) -> list[list[str]]:
    """The first column of a table as rendered by a markdown parser; anything but text fails."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    assert tokens[0].type == "table_open" and tokens[-1].type == "table_close"
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        for part in token.children or []:
            assert part.type in ("text", "text_special"), part
        if token.type == "inline":
            rows[-1].append("".join(part.content for part in token.children or []))
    assert len({len(row) for row in rows}) == 1
    return [row[:1] for row in rows]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a|b", "*a* _b_ `c`", "[a](b)", "&lt;", "a\\|b", "$x$"])
def test_a_cell_shows_its_name(name: str) -> None:
    assert read_table(markdown_table(["variant", "n"], [[name, "1"]])) == [["variant"], [name]]


def test_runs_that_were_not_logged_have_no_report(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", 0.9, 0.1, wandb={"mode": "disabled"})
    with pytest.raises(
        UserError, match=r"^wandb=true: no run below .* was logged to W&B, all have wandb\.mode=disabled$"
    ):
        write_wandb_report(tmp_path)
    assert not (tmp_path / files.REPORT).exists()


def python(script: str, address: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a new process, as W&B caches its environment."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=surroundings(address, home) | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_login_the_definition_is_written_and_the_server_is_not_asked(logged: Path, tmp_path: Path) -> None:
    words = ["report", f"runs={logged}", f"out={tmp_path}", "wandb=true"]
    with serving("whatwhere") as (address, root):
        done = python(f"import sys; from src import report; sys.argv = {words!r}; report.main()", address, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "not logged in" in line]
    assert str(tmp_path / files.REPORT) in line
    assert "3 of its 3 runs are not synced yet: wandb sync" in done.stdout
    assert not root.asked
    spec_of(tmp_path / files.REPORT)


CLIENT = """
import json
from pathlib import Path
from wandb_workspaces.reports.v2 import Report
from src.common.errors import UserError
from src.reporting.wandb_report import write_wandb_report

folder, out, elsewhere = map(Path, {folders})
path = write_wandb_report(folder, out)
write_wandb_report(folder, out)
found = Report.from_url("http://host/somebody/whatwhere/reports/title--" + json.loads(path.read_text())["id"])
print(found.title, len(found.blocks))
found.save()
found.delete()
for other in (elsewhere, folder):
    try:
        write_wandb_report(other, None if other == elsewhere else out)
    except UserError as refusal:
        print("refused:", refusal)
"""


def test_the_client_saves_loads_and_deletes_a_report(logged: Path, factorial: Path, tmp_path: Path) -> None:
    """The real client against a stand-in of the server (``wandb_server.py``).

    Covers: who is logged in, that the run sets' project is looked up, that a report is saved under a new id and saved
    again under the same, what is sent, loading it from its address, deleting it, and what is said where the project is
    not there or the report is gone. Does not cover: what the server's own schema and rights refuse, and how W&B's pages
    show a report: whether its filters, groups and colours do there what they say.
    """
    script = CLIENT.format(folders=[str(folder) for folder in (logged, tmp_path, factorial)])
    with serving("whatwhere") as (address, root):
        done = python(script, address, tmp_path, WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    first, second, loaded = root.saved
    assert first["id"] == second["id"] == loaded["id"]
    assert json.loads((tmp_path / files.REPORT).read_text())["id"] == first["id"], "kept, to write it anew"
    assert done.stdout.count(f"{address}/somebody/whatwhere/reports/") == 2
    sent = internal.ReportViewspec.model_validate({"spec": first["spec"]})
    assert {set.project.id for grid in grids(sent) for set in grid.metadata.run_sets} == {"1"}
    assert first["displayName"] == logged.name
    assert f"{logged.name} {len(sent.spec.blocks) - 2}" in done.stdout.splitlines(), "but for its empty ends"
    assert [json.loads(one["spec"])["blocks"] for one in (first, loaded)][1], "still there"
    assert not root.views, "deleted"
    lost, gone = [line for line in done.stdout.splitlines() if line.startswith("refused:")]
    assert lost.startswith("refused: W&B refused the report: Run set 'factorial' project 'somebody/elsewhere' not")
    assert gone.endswith(f"; to write a new one, remove {tmp_path / files.REPORT}")
    spec_of(factorial / files.REPORT)


def test_the_option_is_a_switch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["report", "runs=somewhere", "wandb=perhaps"])
    with pytest.raises(SystemExit, match="2"):
        report.main()
    assert "wandb: Value 'perhaps'" in capsys.readouterr().err
