"""Whether the nets of a sweep recognise each other's metamers (Feather et al. 2023): a matrix of variants by layer."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ..common.errors import UserError
from ..evaluation.adapter import ModelAdapter
from ..evaluation.families.metamers import against_rows
from ..metrics.rows import Estimate, Row
from ..results.runs import FinishedRun
from ..stats.intervals import t_interval
from ..stats.ranking import Interval
from .live_net import load_net
from .metamers import IMAGE, MOST_NETS
from .plots import apply_theme, subplots
from .variant import Variant

#: the row of the floor, and the column of nets that differ in their seed alone
FLOOR, OTHER_SEED = "noise (floor)", "same, another seed"
NULL = "_null"
#: width of a cell, and space for the names beside and below a matrix, in pixels
CELL, BESIDE, BELOW = 66, 200, 150
#: with more columns, matrices stand below each other
MOST_SIDE_BY_SIDE = 6

#: layer, whose metamers, by whom → the shares of all seeds
Shares = Mapping[tuple[str, str, str], list[Estimate]]


def recognition(variants: Sequence[Variant]) -> go.Figure:
    """The share of a variant's metamers (down) that another variant's nets (across) put into the class that they put
    their image into; a matrix a layer. Of runs that kept metamers of the same images, and their weights.
    """
    if len(variants) == 1:  # there is no other
        return go.Figure()
    runs = {variant.name: by_seed for variant in variants[:MOST_NETS] if (by_seed := _runs(variant))}
    shares = _shares(runs)
    layers = list(dict.fromkeys(layer for layer, _, _ in shares))
    judges = [name for name in (*runs, OTHER_SEED) if any(by == name for _, _, by in shares)]
    if len(judges) < 2:
        return go.Figure()
    columns = min(len(layers), 2 if len(judges) <= MOST_SIDE_BY_SIDE else 1)
    width = BESIDE + CELL * len(judges)
    figure, cells = subplots(layers, columns, shared=False, below=BELOW, gap=BESIDE / width / columns)
    for layer, cell in zip(layers, cells, strict=True):
        rows = [name for name in (*runs, FLOOR) if any(key[:2] == (layer, name) for key in shares)]
        found = [[shares.get((layer, of, by), []) for by in judges] for of in rows]
        points = np.array([[_interval(estimates) for estimates in row] for row in found])
        counts = [max(sum(estimate.n for estimate in estimates) for estimates in row) for row in found]
        figure.add_heatmap(
            z=points[..., 0], x=judges, y=[f"{of} (n = {n})" for of, n in zip(rows, counts, strict=True)],
            customdata=points[..., 1:], zmin=0, zmax=1, colorscale="Viridis", showscale=False,
            text=[[_in_words(*point) for point in row] for row in points], texttemplate="%{text}", hoverongaps=False,
            hovertemplate="%{y}, by %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>", **cell,
        )  # fmt: skip
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(meta={"width": columns * width})
    return apply_theme(figure)


def _runs(variant: Variant) -> dict[int, FinishedRun]:
    """Seed → run, of those that kept metamers."""
    return {run.settings["seed"]: run for run in variant.measured if IMAGE in run.pictures}


def _shares(runs: Mapping[str, Mapping[int, FinishedRun]]) -> Shares:
    """All shares, one net after the other; a net whose weights are not there, or that gives no classes, is no judge.

    A net judges its own metamers, and those of the nets of the seed before its own: nets of one seed may start from the
    same weights, and would see alike for that reason. With one seed there is no other.
    """
    shares: dict[tuple[str, str, str], list[Estimate]] = {}

    def judge(by: str, of: str, rows: Iterator[Row]) -> None:
        for row in rows:
            is_floor = row.measure.endswith(NULL)
            if not is_floor or of == by:  # the floor does not depend on whose metamers they are
                shares.setdefault((row.layer, FLOOR if is_floor else of, by), []).append(row.estimate)

    for name, by_seed in runs.items():
        seeds = list(by_seed)
        for seed, previous in zip(seeds, [*seeds[-1:], *seeds[:-1]], strict=True):
            adapter = _adapter(by_seed[seed])
            if adapter is None:
                continue
            judge(name, name, _judged(by_seed[seed], by_seed[seed], adapter))
            for of, theirs in runs.items():
                if previous in theirs and (of != name or previous != seed):
                    judge(OTHER_SEED if of == name else name, of, _judged(theirs[previous], by_seed[seed], adapter))
    return shares


def _judged(of: FinishedRun, by: FinishedRun, adapter: ModelAdapter) -> Iterator[Row]:
    """A run's metamers by layer, as another run's net sees them; none where the two are of other images."""
    if np.array_equal(of.pictures[IMAGE], by.pictures[IMAGE]):
        yield from against_rows(of.pictures, adapter, int(of.settings.get("measure.seed", 0)))


def _adapter(run: FinishedRun) -> ModelAdapter | None:
    """The net of a run; None where its folder lacks something."""
    channels, height, width = run.pictures[IMAGE].shape[2:]
    try:
        net, normalise, task = load_net(run, (channels, height, width))
    except UserError:
        return None
    return ModelAdapter(net, [], normalise, task.answer, task.classifies)


def _interval(estimates: Sequence[Estimate]) -> Interval:
    """Mean, low, high: over images for one seed, over seeds for several; nan where there is no metamer."""
    counted = [estimate for estimate in estimates if estimate.n]
    if len(counted) > 1:
        return t_interval([estimate.value for estimate in counted], within=(0, 1))
    return (counted[0].value, counted[0].low, counted[0].high) if counted else (math.nan, math.nan, math.nan)


def _in_words(value: float, low: float, high: float) -> str:
    """Value and interval, a line each.

    >>> _in_words(0.5, 0.25, 1.0), _in_words(0.5, math.nan, math.nan), _in_words(math.nan, math.nan, math.nan)
    ('0.50<br>0.25–1.00', '0.50', '')
    """
    interval = "" if math.isnan(low) else f"<br>{low:.2f}–{high:.2f}"
    return "" if math.isnan(value) else f"{value:.2f}{interval}"
