"""A W&B Report of a sweep: the question, the answer, panels over the runs of its group, and how to make it again.

Panels name keys, and a key that no run logs would make an empty panel: what is shown is what the runs left on disk.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wandb_workspaces.reports import v2 as wr

from ..errors import UserError
from ..results import files
from ..results.runs import FinishedRun, find_runs
from .comparison import Variant, axes, legend, one_line, shown_columns, shown_rows, variants
from .maps import ROLL_MAP, read_scale
from .measure_figures import layers
from .page import answer
from .plots import styles
from .terminal import console
from .wandb_logger import default_entity, fitting, group_of, identity, logged_in, unsynced

#: columns of a grid of panels
WIDTH = 24
CROP, ROLL = "invariance/crop/1px", "invariance/roll/1px"
#: bars of the comparison: title → keys of the summary; the untrained net stands beside the trained one
BARS = {
    "Accuracy: test beside training": ("test/accuracy", "train/accuracy"),
    "R² of the position: test beside training": ("test/r2", "train/r2"),
    "Accuracy where places tell the wrong class": ("dissimilar/accuracy",),
    "TransformedOutputs by a 1-px crop": (f"{CROP}/output_distance", f"{CROP}/output_distance_untrained"),
    "TransformedOutputs by a 1-px roll": (f"{ROLL}/output_distance", f"{ROLL}/output_distance_untrained"),
    "Same answer after a 1-px crop": (f"{CROP}/consistency", f"{CROP}/consistency_untrained"),
    "Parameters": ("parameters",),
    "Multiply-adds an image": ("multiply_adds",),
    "Seconds": ("seconds",),
}
#: points of the comparison, one a run: title → keys of the summary across and up
POINTS = {
    "Accuracy against invariance: left and up is better": (f"{CROP}/output_distance", "test/accuracy"),
    "Accuracy against cost: left and up is better": ("multiply_adds", "test/accuracy"),
    "R² against cost: left and up is better": ("multiply_adds", "test/r2"),
}
#: curves over epochs: title → keys of the history
CURVES = {
    "Loss": ("val/loss", "train/loss"),
    "Accuracy": ("val/accuracy", "train/accuracy"),
    "R² of the position": ("val/r2", "train/r2"),
    "Learning rate": ("lr",),
    "Norm of the gradient": ("grad_norm", "grad_norm_max"),
}


def write_wandb_report(folder: Path, out: Path | None = None, where: str | None = None) -> Path:
    """Write the W&B Report of the finished runs below a folder; its definition goes to ``report.json``.

    Without a login the definition is all there is. With one the report is saved at W&B, and its id is kept in that
    file, so that the same command writes the same report anew.

    Args:
        folder: of a sweep, or of any set of runs.
        out: where to write; by default the same folder.
        where: runs of these settings alone.

    Returns:
        The definition's path.

    Raises:
        UserError: there is no finished run, none that was logged, or W&B does not take the report.
    """
    runs, others = find_runs(folder, where)
    logged = [run for run in runs if str(run.settings["wandb.mode"]) != "disabled"]
    if not logged:
        raise UserError(f"wandb=true: no run below {folder} was logged to W&B, all have wandb.mode=disabled")
    path = (out or folder) / files.REPORT
    known = json.loads(path.read_text())["id"] if path.exists() else ""
    draft = compose(folder, runs, logged, others)
    _keep(draft, known, path)
    if waiting := sum(unsynced(run.folder) for run in logged):
        words = f"  {waiting} of its {_several(logged, 'run')} wait for: {sync_command(folder)}"
        console.print(words, markup=False, soft_wrap=True)
    words = f"not logged in to W&B; its report's definition is {path}: `wandb login`, then this command again, saves it"
    if logged_in():
        try:
            report = compose(folder, runs, logged, others, str(logged[0].settings["wandb.entity"] or default_entity()))
            report.id = known
            report.save()
        except Exception as error:  # the network, the server and the library raise many kinds
            hint = f"; to write a new one, remove {path}" if known else ""
            raise UserError(f"W&B did not take the report: {' '.join(str(error).split())}{hint}") from error
        _keep(draft, report.id, path)
        words = report.url
    console.print(f"  {words}", markup=False, soft_wrap=True)
    return path


def sync_command(folder: Path) -> str:
    """What sends a sweep's offline runs to W&B."""
    return f"wandb sync {shlex.quote(str(folder))}/*/wandb/offline-run-*"


def _keep(report: wr.Report, identity: str, path: Path) -> None:
    report.id = identity
    files.write(path, report._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")


def compose(
    folder: Path, runs: list[FinishedRun], logged: list[FinishedRun], others: dict[str, str], entity: str = ""
) -> wr.Report:
    """The whole report.

    Args:
        folder: of the sweep.
        runs: those that are finished.
        logged: those of them that W&B has, or will have once they are synced.
        others: those that are not finished: name → why.
        entity: whose it is. Its run sets name it and their project, which the library asks the server for; without
            one nothing is asked, and they are those of the project that the report is in.
    """
    found = variants(runs)
    panels = Panels(logged, found, entity)
    manifest = folder / files.SWEEP
    tree: dict[str, str] = json.loads(manifest.read_text()) if manifest.exists() else {}
    question = tree.get("question") or str(runs[0].settings["question"])
    seeds = {run.settings["seed"] for run in runs}
    missing = "; ".join(f"{name}: {why}" for name, why in others.items())
    columns = shown_columns(found)
    table = markdown_table(list(columns.values()), [[row[key] for key in columns] for row in shown_rows(found)])
    blocks: list[Any] = [
        wr.P(question),
        wr.CalloutBlock(answer(found)),
        wr.P(f"{_several(runs, 'run')}, {_several(found, 'variant')}, {_several(seeds, 'seed')}."),
        wr.P(f"Missing: {missing}" * bool(missing)),
        wr.TableOfContents(),
        wr.H1("Comparison"),
        wr.MarkdownBlock(table),
        wr.P(f"{legend(columns)}. Bars and curves: mean, least and largest over seeds."),
        *panels.comparison(),
        *_section("Training", "The first line of each variant is validation, the second training.", panels.training()),
        *_section(
            "Invariance over training",
            "How far a 1-px crop moves the answer and each layer, by epoch: 0 = not noticed, 1 = as far as to another "
            "image's.",
            panels.followed(),
        ),
        *_section("The axes together", "A line a run; drag along an axis to choose.", panels.axes()),
        *_section(
            "Feature maps",
            "The same test images in every run, a row an image, a channel a column; one colour scale for all epochs "
            "of a stage. The slider under a panel moves through the epochs, the untrained net first. The table holds "
            "the same pictures by variant, stage and epoch.",
            panels.maps(),
        ),
        *_section(
            "Which rolls a layer notices",
            "Invariance error of each roll, no roll in the middle: dark = not noticed, yellow = the most of its own "
            "picture. A pattern that repeats shows the net's strides.",
            panels.roll_maps(),
        ),
        *_section("All numbers", "Every measure with its interval, and the shape ledgers.", panels.tables()),
        *_section("How the configs differ", "", panels.configs()),
        wr.H1("How to reproduce"),
        wr.CodeBlock("\n".join(_commands(folder, tree.get("command")))),
        wr.UnorderedList([f"{word}: {', '.join(values)}" for word, values in _facts(runs).items()]),
    ]
    return wr.Report(
        project=panels.project,
        entity=entity,
        title=fitting(folder.resolve().name),
        description=question,
        blocks=[block for block in blocks if block != wr.P("")],
        width="fluid",
    )


@dataclass(frozen=True)
class Panels:
    """The grids of panels of a report, each empty where no run has what it would show.

    Attributes:
        runs: those that are at W&B.
        found: the variants, in the order of the comparison.
        entity: whose runs they are; empty: of whoever has the report.
    """

    runs: list[FinishedRun]
    found: list[Variant]
    entity: str

    @property
    def project(self) -> str:
        """Where the report is: the project of the first run."""
        return str(self.runs[0].settings["wandb.project"])

    def comparison(self) -> list[Any]:
        """Bars of every number that the table has, then the trade-offs."""
        has = {name for run in self.runs for name in [*run.numbers, *run.facts]}
        bars = [
            wr.BarPlot(
                title=title,
                metrics=[key for key in keys if key in has],
                groupby_aggfunc="mean",
                groupby_rangefunc="minmax",
                max_runs_to_show=100,
                max_bars_to_show=100,
            )
            for title, keys in BARS.items()
            if keys[0] in has
        ]
        points = [
            wr.ScatterPlot(title=title, x=wr.SummaryMetric(x), y=wr.SummaryMetric(y))
            for title, (x, y) in POINTS.items()
            if {x, y} <= has
        ]
        return [*self._grid(bars, 3, 8), *self._grid(points, 2, 10, grouped=False)]

    def training(self) -> list[Any]:
        """Loss and scores by epoch."""
        return self._grid([*self._curves(CURVES)], 2, 9)

    def followed(self) -> list[Any]:
        """What was measured while the nets trained, by epoch."""
        wanted = {"The answer: output distance": (f"{CROP}/output_distance",)}
        for layer in layers(self.found, "invariance_error"):
            wanted[f"{layer}: invariance error"] = (f"{CROP}/{layer}/invariance_error",)
        return self._grid([*self._curves(wanted)], 3, 8)

    def axes(self) -> list[Any]:
        """The axes of a factorial beside its main numbers."""
        varied = axes(self.runs)
        has = {name for run in self.runs for name in run.numbers}
        keys = [key for key in (f"{CROP}/output_distance", "test/accuracy", "test/r2") if key in has]
        if len(varied) < 2 or not keys:
            return []
        columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in varied]
        columns += [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(key), display_name=key) for key in keys]
        return self._grid([wr.ParallelCoordinatesPlot(columns=columns)], 1, 12, grouped=False)

    def maps(self) -> list[Any]:
        """A panel a stage, a picture a variant in it; then the table of all pictures."""
        stages = dict.fromkeys(stage for run in self.runs for stage in read_scale(run.folder))
        panels = [self._media(stage, f"maps/{stage}", 3) for stage in stages]
        table = [wr.WeavePanelSummaryTable(table_name="maps")] if stages else []
        return [*self._grid(panels, 1, 12, first_seed=True), *self._grid(table, 1, 14, first_seed=True)]

    def roll_maps(self) -> list[Any]:
        """A panel a layer."""
        names = dict.fromkeys(name for run in self.runs for name in run.grids if name.startswith(f"{ROLL_MAP}/"))
        panels = [self._media(name.removeprefix(f"{ROLL_MAP}/"), f"grids/{name}", 2) for name in names]
        return self._grid(panels, 3, 10, first_seed=True)

    def tables(self) -> list[Any]:
        """The tables that every run logs."""
        panels = [wr.WeavePanelSummaryTable(table_name=name) for name in ("measures", "shapes")]
        return self._grid(panels, 1, 12, first_seed=True)

    def configs(self) -> list[Any]:
        """The settings in which runs differ."""
        return self._grid([wr.RunComparer(diff_only="split")], 1, 12, grouped=False) if len(self.runs) > 1 else []

    def _history(self) -> dict[str, None]:
        """What the runs logged by epoch, in its order."""
        return dict.fromkeys(key for run in self.runs for row in run.history for key, text in row.items() if text)

    def _curves(self, wanted: Mapping[str, tuple[str, ...]]) -> Iterator[Any]:
        has = self._history()
        for title, keys in wanted.items():
            if keys[0] in has:
                yield wr.LinePlot(
                    title=title,
                    x="epoch",
                    y=[key for key in keys if key in has],
                    title_x="epoch",
                    groupby_aggfunc="mean",
                    groupby_rangefunc="minmax",
                    max_runs_to_show=100,
                )

    def _media(self, title: str, key: str, columns: int) -> Any:
        """Pictures of one key: a run beside the other, a step of all at a time."""
        return wr.MediaBrowser(
            title=title, media_keys=[key], num_columns=min(columns, len(self.found)), mode="gallery", gallery_axis="run"
        )

    def _grid(
        self, panels: Sequence[Any], columns: int, height: int, grouped: bool = True, first_seed: bool = False
    ) -> list[Any]:
        """Panels of one size in reading order; nothing where there are none.

        Args:
            panels: without a place yet.
            columns: of them side by side.
            height: of each, in W&B's rows.
            grouped: whether the seeds of a variant are taken together.
            first_seed: whether a variant shows its first seed alone.
        """
        if not panels:
            return []
        width = WIDTH // columns
        for i, panel in enumerate(panels):
            panel.layout = wr.Layout(x=i % columns * width, y=i // columns * height, w=width, h=height)
        by = axes(self.runs) if grouped and not first_seed else []
        runsets = [*self._runsets(by, first_seed)]
        return [wr.PanelGrid(runsets=runsets, panels=list(panels), custom_run_colors=self._colours(runsets, by))]

    def _runsets(self, by: Sequence[str], first_seed: bool) -> Iterator[Any]:
        """A run set a group; of the first seeds, those runs of it by their ids."""
        at_wandb = {run.folder for run in self.runs}
        firsts = [next((run for run in variant.runs if run.folder in at_wandb), None) for variant in self.found]
        for project, group in dict.fromkeys(map(_place, self.runs)):
            ids = [identity(run.folder) for run in firsts if run is not None and _place(run) == (project, group)]
            if first_seed and not ids:
                continue
            yield wr.Runset(
                entity=self.entity,
                project=project if self.entity else "",
                name=group,
                filters=f'Metric("ID") in {ids}' if first_seed else f'Metric("Group") == {literal(group)}',
                groupby=[f"config.{key}" for key in by],
                order=[wr.OrderBy("Name", ascending=True)],
            )

    def _colours(self, runsets: Sequence[Any], by: Sequence[str]) -> dict[Any, str]:
        """The colour that a variant has in every figure of the page, for its runs or for all of them together."""
        colours: dict[Any, str] = {}
        for variant, (colour, _) in zip(self.found, styles(len(self.found)), strict=True):
            if by:
                keys = tuple(wr.RunsetGroupKey(wr.Config(key), _shown(variant.settings[key])) for key in by)
                colours |= {wr.RunsetGroup(runset.name, keys): colour for runset in runsets}
            else:
                colours |= {name: colour for run in variant.runs if (name := identity(run.folder))}
        return colours


def literal(text: str) -> str:
    """A string for the library's filters, every character by its number: it would take an = in it for its own.

    >>> literal("a=b")
    "'\\\\U00000061\\\\U0000003d\\\\U00000062'"
    """
    return "'" + "".join(f"\\U{ord(character):08x}" for character in text) + "'"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in which whatever stands in a cell is text; numbers stand to the right.

    >>> print(markdown_table(["variant", "para-\\nmeters"], [["a|b", "72.7 k"]]))
    | variant | parameters |
    | :-- | --: |
    | a&#124;b | 72.7 k |
    """
    marks = [":--", *["--:"] * (len(headings) - 1)]
    lines = [
        [plain(one_line(heading)) for heading in headings],
        marks,
        *[[plain(cell) for cell in row] for row in rows],
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """Text for markdown: what could be markup is written by its number."""
    return "".join(c if c.isalnum() or c in " .,=+-±%()²–" else f"&#{ord(c)};" for c in " ".join(text.split()))


def _section(title: str, reading: str, grids: list[Any]) -> list[Any]:
    """A heading, how to read what is below it, and its panels; nothing where there are none."""
    return [wr.H1(title), wr.P(reading), *grids] if grids else []


def _place(run: FinishedRun) -> tuple[str, str]:
    """Project and group."""
    return str(run.settings["wandb.project"]), group_of(run.folder)


def _several(things: Sized, word: str) -> str:
    return f"{len(things)} {word}{'s' * (len(things) != 1)}"


def _shown(value: Any) -> str:
    """A setting as W&B writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _commands(folder: Path, command: str | None) -> list[str]:
    report = f"python -m src.report runs={shlex.quote(str(folder))} wandb=true"
    return [*([command] if command else []), sync_command(folder), report]


def _facts(runs: list[FinishedRun]) -> dict[str, list[str]]:
    """What all runs share, or how they differ."""
    words = {"hardware": "hardware", "torch": "torch", "split": "split_checksum", "probe images": "probe_checksum"}
    return {word: sorted({str(run.facts[key]) for run in runs}) for word, key in words.items()}
