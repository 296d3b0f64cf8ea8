"""rank and fractional at their limits, over random shapes, against NumPy and PyTorch."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from src.common.errors import UserError
from src.pooling import BORDERS, POOLS
from tests.helpers import windows

Max, Avg, Rank, Fractional = (POOLS[name] for name in "max avg rank fractional".split())

_DRAWN = random.Random(0)
#: kernel, stride, height, width
SHAPES = [(_DRAWN.randint(1, 4), _DRAWN.randint(1, 4), *_DRAWN.choices(range(8, 16), k=2)) for _ in range(6)]
every_border = pytest.mark.parametrize("border", BORDERS)


def maps(height: int = 12, width: int = 12, n: int = 2) -> Tensor:
    return torch.randn(n, 3, height, width, dtype=torch.float64)


# --- rank ------------------------------------------------------------------------------------------------------------


@every_border
@pytest.mark.parametrize(("kernel", "stride", "height", "width"), SHAPES)
def test_rank_is_max_mean_of_the_top_median_and_min(border, kernel, stride, height, width):
    x, n = maps(height, width), kernel**2
    w = windows(x, kernel, stride, border).reshape(*x.shape[:2], -(-height // stride), -(-width // stride), n)
    ranked = -np.sort(-w, -1)  # nan, for a sample beyond the border, comes last
    whole = ~np.isnan(w).any(-1)
    first, last = [1.0] + [0.0] * (n - 1), [0.0] * (n - 1) + [1.0]
    top, middle = (n + 1) // 2, {(n - 1) // 2, n // 2}
    for weights, expected, where in (
        (first, np.nanmax(w, -1), whole | True),
        (last, np.nanmin(w, -1), whole | True),
        ([1 / n] * n, np.nanmean(w, -1), whole | True),
        ([1 / top] * top + [0.0] * (n - top), ranked[..., :top].mean(-1), whole),
        ([(i in middle) / len(middle) for i in range(n)], np.median(w, -1), whole),
    ):
        pool = Rank(kernel, stride, border=border, weights=weights).double()
        assert pool.parameters_by_formula(3) == 0
        torch.testing.assert_close(pool(x)[:, :, where[0, 0]], torch.from_numpy(expected)[:, :, where[0, 0]])
    torch.testing.assert_close(Rank(kernel, stride, border=border).double()(x), Avg(kernel, stride, border=border)(x))


def test_rank_at_a_clipped_border_takes_increments_of_the_cumulative_weight():
    pool = Rank(2, 2, weights=(0.4, 0.3, 0.2, 0.1)).double()
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).double()[None, None]
    whole, half = 0.4 * 5 + 0.3 * 4 + 0.2 * 2 + 0.1 * 1, (0.4 + 0.3) * 6 + (0.2 + 0.1) * 3
    torch.testing.assert_close(pool(x).flatten(), torch.tensor([whole, half], dtype=torch.float64))


def test_the_weights_of_rank_are_learned_and_add_up_to_one():
    pool, x = Rank(3, 2).double(), maps(7, 9, n=1)
    nn.init.normal_(pool.v)
    assert pool.weights.sum().item() == pytest.approx(1)
    assert gradcheck(lambda v: torch.func.functional_call(pool, {"v": v}, (x,)), [pool.v])


def test_rank_refuses_another_number_of_weights():
    with pytest.raises(UserError, match=r"^Rank: weights: a window of 2×2 needs 4 of them, not 3$"):
        Rank(2, 2, weights=(1, 0, 0))


@pytest.mark.parametrize("weights", [(2, 0, 0, 0), (1, 0, 0, -1), (1.5, 0, 0, -0.5), (float("nan"),) * 4, (0.4,) * 4])
def test_rank_refuses_weights_that_are_those_of_no_mean(weights):
    with pytest.raises(UserError, match="0 or more with the sum 1"):
        Rank(2, 2, weights=weights)


@every_border
def test_whole_numbers_are_weights_as_good(border):
    pools = [Rank(3, 2, border=border, weights=weights) for weights in ([0, 1] + [0] * 7, [0.0, 1.0] + [0.0] * 7)]
    x = maps(9, 11).float()
    assert torch.equal(*(pool(x) for pool in pools))
    assert pools[0].double()(x.double()).dtype == torch.float64
    with torch.device("meta"):
        assert Rank(3, 2, weights=[1] + [0] * 8, border=border)(maps(9, 11)).shape == (2, 3, 5, 6)


# --- fractional ------------------------------------------------------------------------------------------------------


def regions_of(pool: nn.Module, n: int, m: int) -> list[int]:
    return pool.starts(n, m, torch.device("cpu")).tolist()


@every_border
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("height", "width"), [shape[2:] for shape in SHAPES])
def test_fractional_of_ratio_two_is_max(border, training, height, width):
    pool, x = Fractional(stride=2, border=border).train(training), maps(height // 2 * 2, width // 2 * 2)
    pool.poolings = 1
    assert torch.equal(pool(x), nn.MaxPool2d(2)(x))


@pytest.mark.parametrize(("stride", "sizes"), [(1, [12, 12]), (2, [12, 9, 6]), (3, [12, 7, 4]), (4, [12, 8, 5, 3])])
def test_the_ratios_of_fractional_multiply_to_the_stride(stride, sizes):
    assert Fractional(stride=stride).sizes(12) == sizes


@pytest.mark.parametrize("random_sides", [True, False])
def test_regions_cover_the_map_with_sides_of_one_and_two(random_sides):
    for seed in range(40):
        torch.manual_seed(seed)
        pool, m = Fractional(), seed % 9 + 1
        pool.random = random_sides
        n = m + seed % (m + 1)
        starts = regions_of(pool, n, m)
        assert starts[0] == 0 and starts[-1] == n
        assert {b - a for a, b in pairwise(starts)} <= {1, 2}


def test_fractional_draws_in_training_and_has_one_sequence_in_eval():
    pool = Fractional()
    assert len({tuple(regions_of(pool, 14, 10)) for _ in range(50)}) > 1
    assert {tuple(regions_of(pool.eval(), 14, 10)) for _ in range(5)} == {tuple(graham(14, 10, 0.5))}


def graham(n: int, m: int, u: float) -> list[int]:
    """Graham 2014, section 2.2: ceil(α (i + u)), from 0 on."""
    places = [int(np.ceil(n / m * (i + u))) for i in range(m + 1)]
    return [place - places[0] for place in places]


@every_border
@pytest.mark.parametrize("overlapping", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "height", "width"), SHAPES)
def test_fractional_against_numpy(border, overlapping, kernel, stride, height, width):
    pool, x = Fractional(stride=stride, border=border).eval(), maps(height, width)
    pool.overlapping = overlapping
    y = pool.pad_to_multiple(x).numpy()
    for sizes in zip(*(pool.sizes(side)[1:] for side in y.shape[2:]), strict=True):
        for axis, m in zip((2, 3), sizes, strict=True):
            n = y.shape[axis]
            starts = graham(n, m, 0.5)
            beyond = {"circular": 0, "reflect": n - 2}.get(border, n - 1)
            regions = [[*range(a, b), *([b if b < n else max(beyond, 0)] if overlapping else [])]
                       for a, b in pairwise(starts)]  # fmt: skip
            y = np.stack([y.take(region, axis).max(axis) for region in regions], axis)
    torch.testing.assert_close(pool(x), torch.from_numpy(y))


def test_fractional_refuses_a_ratio_above_two():
    pool = Fractional(stride=3)
    pool.poolings = 1
    with pytest.raises(UserError, match=r"^Fractional: poolings=1: of a ratio of at most 2 each, stride 3 needs more$"):
        pool.sizes(12)
