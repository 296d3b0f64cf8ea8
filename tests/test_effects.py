"""Main effects, interactions and shares of variance: against values by hand, and against least squares."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy import stats

from src.reporting.comparison import group_into_variants
from src.reporting.effects import factorial_of, interactions, main_effects, variance_bars
from src.reporting.page import build_report
from src.reporting.parallel import parallel_coordinates
from src.reporting.variant import Variant
from src.stats.factorial import REST, SEED
from tests.test_comparison import in_memory, leave_run

KEY = "test_accuracy"
#: (pool, stride) → accuracy of seeds 0 and 1. Means: max 0.65, avg 0.75; stride 1 0.6, 2 0.8; seeds 0.68, 0.72
BY_HAND = {("max", 1): (0.58, 0.62), ("max", 2): (0.66, 0.74), ("avg", 1): (0.62, 0.58), ("avg", 2): (0.86, 0.94)}


def crossed(by_seed: dict[tuple[str, int], tuple[float, ...]], *gone: tuple[str, int, int]) -> list[Variant]:
    runs = [(*cell, seed, one) for cell, accuracies in by_seed.items() for seed, one in enumerate(accuracies)]
    return group_into_variants(
        [in_memory(run[-1], run[2], pool=run[0], stride=run[1]) for run in runs if run[:3] not in gone]
    )


def drawn(figure: go.Figure) -> dict[tuple[str, str], tuple[list[str], list[float], list[float]]]:
    """(title of a panel, name of a line) → x, y, bars."""
    titles = [note.text for note in figure.layout.annotations]
    found = {}
    for trace in figure.data:
        panel = titles[int((trace.xaxis or "x")[1:] or 1) - 1]
        found[panel, trace.name] = (list(trace.x), list(trace.y), list(trace.error_y.array or []))
    return found


def test_two_by_two_by_hand() -> None:
    design = factorial_of(crossed(BY_HAND))
    assert design is not None and design.is_full
    assert {axis: set(levels) for axis, levels in design.axes.items()} == {"pool": {"max", "avg"}, "stride": {"1", "2"}}
    np.testing.assert_allclose(design.means(KEY, "pool")["avg",], [0.74, 0.76])
    np.testing.assert_allclose(design.means(KEY, "stride")["1",], [0.60, 0.60])
    np.testing.assert_allclose(design.means(KEY, "stride", "pool")["2", "max"], [0.66, 0.74])
    # squares: pool 8·0.05², stride 8·0.1², both 8·0.05², seeds 8·0.02², within cells 4·0.02² + 4·0.04²
    squares = {"pool": 0.02, "stride": 0.08, "pool × stride": 0.02, SEED: 0.0032, REST: 0.008 - 0.0032}
    found = design.variance_shares(KEY)
    assert list(found) == list(squares)
    assert [one.share for one in found.values()] == pytest.approx([square / 0.128 for square in squares.values()])
    assert [one.expected for one in found.values()] == pytest.approx([1 / 7, 1 / 7, 1 / 7, 1 / 7, 3 / 7])


def test_main_effects_are_means_over_the_other_axis_with_an_interval_over_seeds() -> None:
    found = drawn(main_effects(crossed(BY_HAND)))
    levels, means, bars = found["accuracy: pool", "mean over the other axes"]
    assert dict(zip(levels, means, strict=True)) == pytest.approx({"max": 0.65, "avg": 0.75})
    oracle = stats.ttest_1samp([0.62 - 0.68, 0.68 - 0.72], 0).confidence_interval(
        0.95
    )  # distances from the seeds' means
    assert bars[levels.index("max")] == pytest.approx(oracle.high + 0.05)
    assert {title.split(": ")[1] for title, _ in found} == {"pool", "stride"}
    assert {title.split(": ")[0] for title, _ in found} >= {"accuracy", "gap", "distance (crop)"}


def test_interactions_are_lines_of_means_of_two_axes() -> None:
    figure = interactions(crossed(BY_HAND))
    found = drawn(figure)
    assert {title for title, _ in found} == {"accuracy: pool × stride", "distance (crop): pool × stride"}
    for stride, expected in ((1, {"max": 0.6, "avg": 0.6}), (2, {"max": 0.7, "avg": 0.9})):
        levels, means, _ = found["accuracy: pool × stride", f"stride={stride}"]
        assert dict(zip(levels, means, strict=True)) == pytest.approx(expected)


def many(axes: dict[str, list[Any]], seeds: int, keep: Any = lambda *_: True) -> list[Variant]:
    """A sweep of random accuracies."""
    rng = np.random.default_rng(0)
    cells = [levels for levels in product(*axes.values()) if keep(*levels)]
    return group_into_variants(
        [
            in_memory(rng.uniform(0.2, 0.9), seed, **dict(zip(axes, levels, strict=True)))
            for levels in cells
            for seed in range(seeds)
        ]
    )


def dummies(*columns: list[Any]) -> np.ndarray:
    """Indicator matrix (runs, groups) of the combination of levels that each run has."""
    rows = list(zip(*columns, strict=True))
    return np.array([[row == group for group in sorted(set(rows), key=str)] for row in rows], float)


def residual(y: np.ndarray, *blocks: np.ndarray) -> float:
    """Residual sum of squares of a least-squares fit."""
    x = np.hstack([np.ones((len(y), 1)), *blocks])
    return float(np.square(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]).sum())


@pytest.mark.parametrize("seeds", [1, 3])
def test_shares_are_those_of_nested_least_squares(seeds: int) -> None:
    axes = {"pool": ["max", "avg", "blur"], "stride": [1, 2], "dropout": [0.0, 0.3]}
    design = factorial_of(many(axes, seeds))
    assert design is not None and design.is_full and len(design.variants) == 12
    runs = [run for variant in design.variants for run in variant.runs]
    y = np.array([run.estimate("output", "test", 0, "accuracy")[0] for run in runs])
    of = {axis: [run.settings[f"model.{axis}"] for run in runs] for axis in axes}
    blocks = {axis: dummies(column) for axis, column in of.items()}
    expected = {axis: residual(y) - residual(y, block) for axis, block in blocks.items()}
    pairs = [("pool", "stride"), ("pool", "dropout"), ("stride", "dropout")]
    for one, other in pairs:
        apart = residual(y, blocks[one], blocks[other])
        expected[f"{one} × {other}"] = apart - residual(y, dummies(of[one], of[other]))
    everything = [dummies(of[one], of[other]) for one, other in pairs]
    if seeds > 1:
        seed = dummies([run.settings["seed"] for run in runs])
        expected[SEED] = residual(y) - residual(y, seed)
        everything.append(seed)
    expected[REST] = residual(y, *everything)
    found = design.variance_shares(KEY)
    assert {source: one.share for source, one in found.items()} == pytest.approx(
        {source: square / residual(y) for source, square in expected.items()}
    )
    assert sum(one.share for one in found.values()) == pytest.approx(1)
    assert sum(one.expected for one in found.values()) == pytest.approx(1)
    freedom = np.linalg.matrix_rank(np.hstack(everything)) - 1
    assert found[REST].expected == pytest.approx(1 - freedom / (len(y) - 1))


def test_with_two_axes_and_one_seed_the_interaction_is_the_rest() -> None:
    found = many({"pool": ["max", "avg"], "stride": [1, 2]}, seeds=1)
    design = factorial_of(found)
    assert design is not None and list(design.variance_shares(KEY)) == ["pool", "stride", REST]
    figure = main_effects(found)
    assert all(np.isnan(trace.error_y.array).all() for trace in figure.data), "one seed, no interval"
    assert "one seed each: no intervals" in design.description


def test_a_balanced_fraction_has_main_effects_and_no_interactions() -> None:
    axes = {"pool": ["max", "avg"], "stride": [1, 2], "dropout": [0.0, 0.3]}
    found = many(axes, 2, lambda pool, stride, dropout: (pool == "max") ^ (stride == 1) ^ (dropout == 0))
    design = factorial_of(found)
    assert design is not None and not design.is_full and "4 of 8 combinations" in design.description
    assert set(design.variance_shares(KEY)) == {"pool", "stride", "dropout", SEED, REST}
    assert main_effects(found).data and not interactions(found).data


def test_seeds_that_are_not_in_all_variants_are_left_out_and_counted() -> None:
    found = crossed({cell: (*by_seed, 0.99) for cell, by_seed in BY_HAND.items()}, ("max", 1, 2))
    design = factorial_of(found)
    assert design is not None and design.seeds == [0, 1]
    assert "2 seeds each; left out, as not every variant has their seed: 3 runs" in design.description
    levels, means, _ = drawn(main_effects(found))["accuracy: pool", "mean over the other axes"]
    assert dict(zip(levels, means, strict=True)) == pytest.approx({"max": 0.65, "avg": 0.75})


def test_incomplete_or_single_axis_sweeps_have_no_effects() -> None:
    incomplete = many({"pool": ["max", "avg"], "stride": [1, 2]}, 2, lambda *one: one != ("avg", 2))
    single = many({"pool": ["max", "avg", "blur"]}, 2)
    other_seeds = [Variant(one.name, one.settings, one.runs[i % 2 :][:1]) for i, one in enumerate(
        many({"pool": ["max", "avg"], "stride": [1, 2]}, 2))]  # fmt: skip
    for found in (incomplete, single, other_seeds):
        assert factorial_of(found) is None
        figures = (main_effects, interactions, variance_bars, parallel_coordinates)
        assert not any(figure(found).data for figure in figures)


def test_axes_that_always_change_together_are_treated_as_one() -> None:
    pools = (("max", 2), ("avg", 3))
    found = [in_memory(0.9, pool=pool, window=window, stride=one) for pool, window in pools for one in (10, 2)]
    design = factorial_of(group_into_variants(found))
    assert design is not None
    assert design.axes == {"pool & window": ["max & 2", "avg & 3"], "stride": ["2", "10"]}, "numbers are sorted"
    assert design.variance_shares(KEY) == {}, "nothing varies"


def test_the_page_of_a_factorial_has_its_sections_and_counts_left_out_runs(tmp_path: Path) -> None:
    for (pool, stride), accuracies in BY_HAND.items():
        for seed, accuracy in enumerate(accuracies):
            if (pool, stride, seed) != ("max", 2, 1):
                model = {"pool": pool, "stride": stride}
                leave_run(tmp_path / f"{pool}{stride}{seed}", accuracy, 0.1, seed=seed, model=model)
    page = build_report(tmp_path).read_text()
    for title in ("Main effects", "Interactions", "Share of variance explained by each axis", "Parallel coordinates"):
        assert f">{title}</h3>" in page
    words = "pool (2) × stride (2), one seed each: no intervals; left out, as not every variant has their seed: 3 runs"
    assert f"crossed: {words}." in page
