"""Parallel coordinates of random factorials, against their closed form."""

import csv
import io
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from src.reporting.comparison import group_into_variants
from src.reporting.figure_files import figure_csv
from src.reporting.parallel import parallel_coordinates
from src.reporting.plots import trade_off
from src.reporting.variant import Variant
from tests.test_comparison import in_memory

LEVELS: dict[str, list[Any]] = {"pool": ["max", "avg", "blur", "none"], "stride": [1, 2, 10], "dropout": [0.0, 0.25]}
SCORE, DISTANCE, COST = "test_accuracy", "crop_1px_output_distance", "multiply_adds"


def sweep(axes: dict[str, list[Any]], seeds: int, rng: np.random.Generator) -> list[Variant]:
    """Runs with random outcomes; costs are those of a variant."""
    runs = []
    for levels in product(*axes.values()):
        cost = int(rng.integers(1000, 10**7))
        for seed in range(seeds):
            run = in_memory(rng.uniform(0.2, 0.9), seed, **dict(zip(axes, levels, strict=True)))
            run.measures["output", "crop", 1.0, "output_distance"] = (rng.uniform(0, 2), 0.0, 2.0)
            run.facts["multiply_adds"] = cost
            runs.append(run)
    return group_into_variants(runs)


def on_axes(figure: go.Figure) -> dict[str, dict[str, tuple[float, float, Any]]]:
    """Variant → name of an axis → x, y and value of its point."""
    found: dict[str, dict[str, tuple[float, float, Any]]] = {}
    for trace in figure.data:
        points = zip(trace.x, trace.y, trace.customdata, strict=True)
        found[trace.name] = {point[0]: (x, y, point[1]) for x, y, point in points if point}
    return found


def outcomes(variant: Variant) -> dict[str, float]:
    key = ("output", "crop", 1.0, "output_distance")
    return {
        SCORE: float(np.mean([run.measures["output", "test", 0.0, "accuracy"][0] for run in variant.runs])),
        DISTANCE: float(np.mean([run.measures[key][0] for run in variant.runs])),
        COST: variant.runs[0].facts["multiply_adds"],
    }


@pytest.mark.parametrize("seed", range(6))
def test_lines_pass_through_levels_at_equal_distances_and_scaled_outcomes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = list(LEVELS)[: rng.integers(2, 4)]
    axes = {name: LEVELS[name][: rng.integers(2, len(LEVELS[name]) + 1)] for name in names}
    variants = sweep(axes, int(rng.integers(1, 4)), rng)
    figure = parallel_coordinates(variants)
    found = on_axes(figure)
    assert list(found) == [variant.name for variant in variants]
    (order,) = {tuple(points) for points in found.values()}
    assert set(order[:-3]) == set(axes) and order[-3:] == (SCORE, DISTANCE, COST)
    for k, axis in enumerate(order):
        assert {points[axis][0] for points in found.values()} == {k}
    for axis in axes:
        heights: dict[str, list[float]] = {}
        for variant in variants:
            _, y, level = found[variant.name][axis]
            assert level == str(variant.settings[f"model.{axis}"])
            heights.setdefault(level, []).append(y)
        everything = [y for of_level in heights.values() for y in of_level]
        assert len({*everything}) == len(variants), "no line hides another"
        middles = sorted(heights, key=lambda level: float(np.mean(heights[level])))
        for j, level in enumerate(middles):
            assert np.mean(heights[level]) == pytest.approx((j + 0.5) / len(heights), abs=1e-4)
            assert np.ptp(heights[level]) < 0.4 / len(heights)
        if axis != "pool":
            assert middles == sorted(middles, key=float)
    values = {variant.name: outcomes(variant) for variant in variants}
    for column, sign in ((SCORE, 1), (DISTANCE, -1), (COST, -1)):
        least, most = (extreme(of[column] for of in values.values()) for extreme in (min, max))
        for name, points in found.items():
            assert points[column][2] == pytest.approx(values[name][column])
            up = (values[name][column] - least) / (most - least)
            assert points[column][1] == pytest.approx(up if sign > 0 else 1 - up, abs=1e-4)


def test_lines_are_straight_between_two_outcomes() -> None:
    for trace in parallel_coordinates(
        sweep({"pool": ["max", "avg"], "stride": [1, 2]}, 1, np.random.default_rng(0))
    ).data:
        x, y = np.array(trace.x), np.array(trace.y)
        between = (x >= 2) & (x <= 3)
        assert between.sum() > 5, "points for the mouse"
        a, b = y[x == 2][0], y[x == 3][0]
        np.testing.assert_allclose(y[between], a + (b - a) * (x[between] - 2), atol=2e-3)


def test_ends_are_numbers_and_the_better_one_is_said_and_above() -> None:
    variants = sweep({"pool": ["max", "avg"], "stride": [1, 2]}, 2, np.random.default_rng(1))
    figure = parallel_coordinates(variants)
    notes = {(note.x, note.y, note.text) for note in figure.layout.annotations}
    accuracy = [outcomes(variant)[SCORE] for variant in variants]
    distance = [outcomes(variant)[DISTANCE] for variant in variants]
    assert notes >= {(2, 0, f"worst {min(accuracy):.3f}"), (2, 1, f"best {max(accuracy):.3f}")}
    assert notes >= {(3, 0, f"worst {max(distance):.3f}"), (3, 1, f"best {min(distance):.3f}")}
    assert {text for x, _, text in notes if x == 1} == {"1", "2"}
    headings = [heading.replace("<br>", " ") for heading in figure.layout.xaxis.ticktext]
    assert headings == ["pool", "stride", "test accuracy higher is better",
                        "output distance (1-px crop) lower is better", "multiply-adds lower is better"]  # fmt: skip


def test_an_outcome_that_is_the_same_for_all_is_in_the_middle_and_one_that_some_lack_is_left_out() -> None:
    variants = sweep({"pool": ["max", "avg"], "stride": [1, 2]}, 1, np.random.default_rng(2))
    for variant in variants:
        variant.runs[0].facts["multiply_adds"] = 2304
    del variants[0].runs[0].measures["output", "crop", 1.0, "output_distance"]
    figure = parallel_coordinates(variants)
    assert all([*points][2:] == [SCORE, COST] for points in on_axes(figure).values())
    assert {points[COST][1] for points in on_axes(figure).values()} == {0.5}
    assert "all 2.3 k" in {note.text for note in figure.layout.annotations}


def test_colours_and_marks_are_those_of_other_figures_and_many_names_are_shown_under_the_mouse() -> None:
    for pools, in_legend in ((10, True), (11, False)):
        axes = {"pool": [f"p{i}" for i in range(pools)], "stride": [1, 2]}
        variants = sweep(axes, 1, np.random.default_rng(3))
        found = parallel_coordinates(variants).data
        looks = [{one.name: (one.marker.color or one.line.color, one.marker.symbol) for one in traces}
                 for traces in (found, trade_off(variants).data)]  # fmt: skip
        assert looks[0] == looks[1]
        assert {trace.showlegend for trace in found} == {in_legend}
        assert all("%{fullData.name}<br>test accuracy: 0." in trace.hovertemplate for trace in found)


def test_the_table_has_what_was_measured_and_not_where_it_is_drawn() -> None:
    variants = sweep({"pool": ["max", "avg"], "stride": [1, 2]}, 2, np.random.default_rng(4))
    rows = list(csv.DictReader(io.StringIO(figure_csv(parallel_coordinates(variants)))))
    found = {(row["series"], row["x"]): row["value"] for row in rows}
    assert len(rows) == len(found) == 4 * 5
    for variant in variants:
        assert found[variant.name, "pool"] == variant.settings["model.pool"]
        assert int(found[variant.name, "stride"]) == variant.settings["model.stride"]
        for column, value in outcomes(variant).items():
            assert float(found[variant.name, column]) == pytest.approx(value, rel=1e-5)
