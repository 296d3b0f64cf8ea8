"""The panels of a W&B Report: bars, scatter plots, curves, pictures and tables over the runs of its groups."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wandb_workspaces.reports import v2 as wr

from ..results.runs import FinishedRun
from .comparison import axes
from .maps import ROLL_MAP, read_scale
from .measure_figures import layers_with
from .plots import styles
from .variant import Variant
from .wandb_logger import group_of, wandb_id

#: columns of a grid of panels
WIDTH = 24
CROP, ROLL = "invariance/crop/1px", "invariance/roll/1px"
#: bar charts of the comparison: title → summary keys, trained and untrained
BARS = {
    "Accuracy: test and training": ("test/accuracy", "train/accuracy"),
    "R² of the position: test and training": ("test/r2", "train/r2"),
    "Accuracy where positions suggest the wrong class": ("dissimilar/accuracy",),
    "Output distance for a 1-px crop": (f"{CROP}/output_distance", f"{CROP}/output_distance_untrained"),
    "Output distance for a 1-px roll": (f"{ROLL}/output_distance", f"{ROLL}/output_distance_untrained"),
    "Consistency for a 1-px crop": (f"{CROP}/consistency", f"{CROP}/consistency_untrained"),
    "Parameters": ("parameters",),
    "Multiply-adds per image": ("multiply_adds",),
    "Seconds": ("seconds",),
}
#: scatter plots of the comparison, a point per run: title → summary keys of x and y
POINTS = {
    "Accuracy against invariance: upper left is better": (f"{CROP}/output_distance", "test/accuracy"),
    "Accuracy against cost: upper left is better": ("multiply_adds", "test/accuracy"),
    "R² against cost: upper left is better": ("multiply_adds", "test/r2"),
}
#: curves over epochs: title → history keys
CURVES = {
    "Loss": ("val/loss", "train/loss"), "Accuracy": ("val/accuracy", "train/accuracy"),
    "R² of the position": ("val/r2", "train/r2"), "Learning rate": ("lr",),
    "Gradient norm": ("grad_norm", "grad_norm_max"),
}  # fmt: skip


@dataclass(frozen=True)
class Panels:
    """The panel grids of a report, each empty where no run has data for it.

    Attributes:
        runs: those at W&B.
        variants: in the order of the comparison.
        entity: owner of the runs; empty: that of the report.
    """

    runs: list[FinishedRun]
    variants: list[Variant]
    entity: str

    @property
    def project(self) -> str:
        """The report's project: that of the first run."""
        return str(self.runs[0].settings["wandb.project"])

    def comparison(self) -> list[Any]:
        """Bar charts of the table's columns, then scatter plots."""
        has = {name for run in self.runs for name in [*run.numbers, *run.facts]}
        bars = [
            wr.BarPlot(
                title=title, metrics=[key for key in keys if key in has], groupby_aggfunc="mean",
                groupby_rangefunc="minmax", max_runs_to_show=100, max_bars_to_show=100,
            )
            for title, keys in BARS.items() if keys[0] in has
        ]  # fmt: skip
        points = [
            wr.ScatterPlot(title=title, x=wr.SummaryMetric(x), y=wr.SummaryMetric(y))
            for title, (x, y) in POINTS.items() if {x, y} <= has
        ]  # fmt: skip
        return [*self._grid(bars, 3, 8), *self._grid(points, 2, 10, grouped=False)]

    def training(self) -> list[Any]:
        """Loss and scores by epoch."""
        return self._grid([*self._curves(CURVES)], 2, 9)

    def invariance(self) -> list[Any]:
        """Invariance to a 1-px crop by epoch."""
        wanted = {"Output: output distance": (f"{CROP}/output_distance",)}
        for layer in layers_with(self.variants, "invariance_error"):
            wanted[f"{layer}: invariance error"] = (f"{CROP}/{layer}/invariance_error",)
        return self._grid([*self._curves(wanted)], 3, 8)

    def axes(self) -> list[Any]:
        """The axes of a sweep with its main values."""
        varied = axes(self.runs)
        has = {name for run in self.runs for name in run.numbers}
        keys = [key for key in (f"{CROP}/output_distance", "test/accuracy", "test/r2") if key in has]
        if len(varied) < 2 or not keys:
            return []
        columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in varied]
        columns += [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(key), display_name=key) for key in keys]
        return self._grid([wr.ParallelCoordinatesPlot(columns=columns)], 1, 12, grouped=False)

    def maps(self) -> list[Any]:
        """A panel per stage with a picture per variant; then the table of all pictures."""
        stages = dict.fromkeys(stage for run in self.runs for stage in read_scale(run.folder))
        panels = [self._media(stage, f"maps/{stage}", 3) for stage in stages]
        table = [wr.WeavePanelSummaryTable(table_name="maps")] if stages else []
        return [*self._grid(panels, 1, 12, first_seed=True), *self._grid(table, 1, 14, first_seed=True)]

    def roll_maps(self) -> list[Any]:
        """A panel per layer."""
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

    def _curves(self, wanted: Mapping[str, tuple[str, ...]]) -> Iterator[Any]:
        """A plot over epochs for each title → keys, where the first key was logged."""
        has = {key for run in self.runs for row in run.history for key, value in row.items() if value}
        for title, keys in wanted.items():
            if keys[0] in has:
                yield wr.LinePlot(
                    title=title, x="epoch", y=[key for key in keys if key in has], title_x="epoch",
                    groupby_aggfunc="mean", groupby_rangefunc="minmax", max_runs_to_show=100,
                )  # fmt: skip

    def _media(self, title: str, key: str, columns: int) -> Any:
        """Pictures of one key, runs side by side, one step at a time."""
        columns = min(columns, len(self.variants))
        return wr.MediaBrowser(title=title, media_keys=[key], num_columns=columns, mode="gallery", gallery_axis="run")

    def _grid(
        self, panels: Sequence[Any], columns: int, height: int, grouped: bool = True, first_seed: bool = False
    ) -> list[Any]:
        """Panels of one size, in W&B's rows, in reading order; empty without panels. The seeds of a variant are
        ``grouped``, or only its ``first_seed`` is shown.
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
        """A run set per W&B group; for first seeds, these runs by their ids."""
        at_wandb = {run.folder for run in self.runs}
        first_runs = [next((run for run in variant.runs if run.folder in at_wandb), None) for variant in self.variants]
        for project, group in dict.fromkeys(map(_project_and_group, self.runs)):
            own = [run for run in first_runs if run is not None and _project_and_group(run) == (project, group)]
            ids = [wandb_id(run.folder) for run in own]
            if first_seed and not ids:
                continue
            filters = f'Metric("ID") in {ids}' if first_seed else f'Metric("Group") == {filter_string(group)}'
            yield wr.Runset(
                entity=self.entity, project=project if self.entity else "", name=group, filters=filters,
                groupby=[f"config.{key}" for key in by], order=[wr.OrderBy("Name", ascending=True)],
            )  # fmt: skip

    def _colours(self, runsets: Sequence[Any], by: Sequence[str]) -> dict[Any, str]:
        """The colour of each variant as on the page, for its single runs or for the group."""
        colours: dict[Any, str] = {}
        for variant, (colour, _) in zip(self.variants, styles(len(self.variants)), strict=True):
            if by:
                values = {key: variant.settings[key] for key in by}
                shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
                keys = tuple(wr.RunsetGroupKey(wr.Config(key), value) for key, value in shown.items())
                colours |= {wr.RunsetGroup(runset.name, keys): colour for runset in runsets}
            else:
                colours |= {name: colour for run in variant.runs if (name := wandb_id(run.folder))}
        return colours


def filter_string(text: str) -> str:
    """A string for the library's filters with every character escaped, as the library would parse an = in it.

    >>> filter_string("a=b")
    "'\\\\U00000061\\\\U0000003d\\\\U00000062'"
    """
    return "'" + "".join(f"\\U{ord(character):08x}" for character in text) + "'"


def _project_and_group(run: FinishedRun) -> tuple[str, str]:
    """The W&B project and the W&B group that a run was logged to."""
    return str(run.settings["wandb.project"]), group_of(run.folder)
