"""Maximum-sampling bias against NumPy, on white noise, and on maps made by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.evaluation.families.maximum_sampling import MaximumSamplingBias, compared, maximum_sampling
from src.pooling import POOLS
from tests.helpers import network, windows

NAMES = [name for name, pool in POOLS.items() if pool]


def bias(layer: nn.Module, x: Tensor, stride: int = 2) -> tuple[float, float]:
    """The bias, and that of a sample drawn at random."""
    metric = MaximumSamplingBias()
    metric.update(*compared(layer, x, layer(x), stride))
    value, null = metric.compute().values()
    return value.item(), null.item()


@pytest.mark.parametrize(
    ("name", "kernel", "border"),
    [
        *(("max", kernel, border) for kernel in (2, 3) for border in ("clip", "circular")),
        ("avg", 2, "clip"), ("blur", 3, "clip"), ("lip", 3, "circular"), ("aps", 2, "circular"),
    ],
)  # fmt: skip
def test_the_bias_of_a_pool_is_numpys(name, kernel, border):
    x = torch.randn(4, 3, 9, 11, dtype=torch.float64)
    pool = POOLS[name](kernel, 2, border=border, channels=3).double()
    w = windows(x, kernel, 2, border)
    y, largest = pool(x).detach().numpy(), np.nanmax(w, (-2, -1))
    several = (~np.isnan(w)).sum((-2, -1)) > 1
    expected = (np.isclose(y, largest) & several).sum() / several.sum()
    null = (1 / (~np.isnan(w)).sum((-2, -1)) * several).sum() / several.sum()
    assert bias(pool, x) == pytest.approx((expected, null))


def test_maxima_have_bias_one_and_means_none_and_a_fixed_phase_that_of_chance():
    x = torch.randn(8, 8, 32, 32, dtype=torch.float64)
    for name in ("max", "avg", "soft", "blur", "lip", "ideal"):
        assert bias(POOLS[name](stride=2, channels=8).double(), x)[0] == float(name == "max")
    assert np.isnan(bias(POOLS["blur"](1, 2), x)).all(), "a window of one sample has no largest"
    conv = nn.Conv2d(8, 8, 3, 2, padding=1, padding_mode="circular").double()
    value, null = bias(conv, x)
    assert value == pytest.approx(0.25, abs=0.02)
    assert null == pytest.approx(0.25)


def test_torchs_own_pools_are_read_as_ours():
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    for padding in (0, 1):
        assert bias(nn.MaxPool2d(3, 2, padding), x) == bias(POOLS["max"](3, 2, padding), x)
        assert bias(nn.AvgPool2d(3, 2, padding, count_include_pad=False), x)[0] == 0


def test_windows_of_equal_samples_are_left_out():
    x = torch.zeros(1, 1, 4, 4)
    x[..., 0, 0] = 1
    assert bias(POOLS["max"](2), x) == (1, 0.25)
    assert bias(POOLS["avg"](2), x) == (0, 0.25)
    assert np.isnan(bias(POOLS["max"](2), torch.ones(1, 1, 4, 4))).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_pool_with_regular_windows_has_a_bias(name):
    net = network((1, 16, 16), pool=name).double()
    found = maximum_sampling(net, iter([torch.randn(3, 1, 16, 16, dtype=torch.float64)]))
    assert list(found) == (["stage1.pool", "stage2.pool"] if name != "fractional" else [])
    for metric in found.values():
        value, null = metric.compute().values()
        assert 0 <= value <= 1
        assert 0 < null < 1
