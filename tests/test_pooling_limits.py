"""Each pooling at its limits, against closed forms, NumPy, SciPy, kornia and PyTorch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kornia.filters import blur_pool2d, max_blur_pool2d
from scipy.ndimage import correlate1d
from torch import Tensor, nn
from torch.autograd import gradcheck

from src.pooling import BORDERS, POOLS
from tests.helpers import windows

Max, Avg, LP, Blur, MaxBlur, APS, Conv = (POOLS[name] for name in "max avg lp blur maxblur aps conv".split())

every_border = pytest.mark.parametrize("border", BORDERS)
sides = st.integers(8, 15)


def maps(height: int = 12, width: int = 12, n: int = 2) -> Tensor:
    return torch.randn(n, 3, height, width, dtype=torch.float64)


def lp(p: float, *arguments: int, **options: str):
    pool = LP(*arguments, **options)
    pool.p = p
    return pool


# --- max, avg, lp: windows -------------------------------------------------------------------------------------------


@every_border
@given(st.integers(1, 4), st.integers(1, 4), sides, sides)
def test_windows_against_numpy(border, kernel, stride, height, width):
    x = maps(height, width)
    w = windows(x, kernel, stride, border)
    for pool, expected in (
        (Max(kernel, stride, border=border), np.nanmax(w, (-2, -1))),
        (Avg(kernel, stride, border=border), np.nanmean(w, (-2, -1))),
        (lp(3.0, kernel, stride, border=border), np.nanmean(abs(w) ** 3, (-2, -1)) ** (1 / 3)),
    ):
        torch.testing.assert_close(pool(x), torch.from_numpy(expected))


@given(st.integers(2, 4), st.integers(1, 4), sides, sides, st.data())
def test_integer_padding_is_that_of_torch(kernel, stride, height, width, data):
    padding, x = data.draw(st.integers(0, kernel // 2)), maps(height, width)
    for ceil in (False, True):
        window = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
        torch.testing.assert_close(Max(**window)(x), nn.MaxPool2d(**window)(x))
        torch.testing.assert_close(Avg(**window)(x), nn.AvgPool2d(**window, count_include_pad=False)(x))


@every_border
@given(st.floats(-100, 100))
def test_max_commutes_with_adding_a_constant_bit_for_bit(border, constant):
    x = maps(9, 11)
    assert torch.equal(Max(border=border)(x + constant), Max(border=border)(x) + constant)


def test_lp_of_one_is_the_mean_size():
    x = maps(9, 11)
    torch.testing.assert_close(lp(1.0)(x), Avg()(x.abs()))


@given(st.floats(1, 200))
def test_lp_lies_between_the_maximum_and_its_bound(p):
    x = maps()
    largest, y = Max()(x.abs()), lp(p)(x)
    assert (y <= largest * (1 + 1e-12)).all()
    assert (y >= largest * 4 ** (-1 / p) * (1 - 1e-12)).all()


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("p", [2.0, 64.0])
def test_lp_neither_under_nor_overflows(p, size):
    x = torch.full((1, 1, 4, 4), -size)
    torch.testing.assert_close(lp(p)(x), torch.full((1, 1, 2, 2), size), rtol=1e-5, atol=0)


@every_border
@pytest.mark.parametrize("p", [1.0, 2.0, 64.0])
def test_lp_has_no_gradient_on_empty_windows(p, border):
    x = torch.zeros(1, 1, 5, 5, requires_grad=True)
    lp(p, border=border)(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@every_border
@pytest.mark.parametrize("p", [2.0, 3.0])
def test_lp_gradient_against_finite_differences(p, border):
    x = maps(5, 6, n=1)
    assert gradcheck(lp(p, 3, 2, border=border), [(x + x.sign()).requires_grad_()])


# --- blur ------------------------------------------------------------------------------------------------------------

SCIPY_MODES = {"clip": "constant", "circular": "wrap", "reflect": "mirror", "replicate": "nearest"}


def blurred(x: np.ndarray, taps: int, stride: int, border: str) -> np.ndarray:
    """By SciPy: the binomial ``(1 + z)^(taps - 1)`` along both axes, then every stride-th sample."""
    row = np.poly1d([0.5, 0.5]) ** (taps - 1)
    before = (taps - 1) // 2 if taps > stride else 0
    for axis in (2, 3):
        x = correlate1d(x, np.atleast_1d(row.coef), axis, mode=SCIPY_MODES[border], origin=before - taps // 2)
    return x[:, :, ::stride, ::stride]


@every_border
@given(st.integers(1, 7), st.integers(1, 4), sides, sides)
def test_blur_against_scipy(border, taps, stride, height, width):
    x = maps(height, width)
    expected = blurred(x.numpy(), taps, stride, border)
    if border == "clip":  # the mean over the part of the filter that lies on the map
        expected = expected / blurred(np.ones(x.shape), taps, stride, border)
    torch.testing.assert_close(Blur(taps, stride, border=border)(x), torch.from_numpy(expected))


@pytest.mark.parametrize("taps", [3, 5])
def test_blur_against_kornia_inside(taps):
    x = maps(16, 20)
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(Blur(taps, 2)(x)[inside], blur_pool2d(x, taps, 2)[inside])


@every_border
def test_one_tap_subsamples(border):
    x = maps(9, 11)
    assert torch.equal(Blur(1, 2, border=border)(x), x[..., ::2, ::2])


def test_two_taps_are_average_pooling():
    x = maps()
    torch.testing.assert_close(Blur(2, 2)(x), nn.AvgPool2d(2)(x))


@pytest.mark.parametrize("taps", [2, 3, 4, 5, 6])
@given(st.integers(0, 11), st.integers(0, 11))
def test_the_mean_of_a_blurred_map_does_not_see_rolls(taps, down, right):
    pool, x = Blur(taps, 2, border="circular"), maps()
    torch.testing.assert_close(pool(x.roll((down, right), (2, 3))).mean((2, 3)), pool(x).mean((2, 3)))


def test_the_mean_of_a_subsampled_map_sees_rolls():
    pool, x = Blur(1, 2, border="circular"), maps()
    assert (pool(x.roll(1, 2)).mean((2, 3)) - pool(x).mean((2, 3))).abs().min() > 1e-3


@pytest.mark.parametrize("taps", [2, 3, 4, 5, 6, 7])
def test_the_highest_frequency_is_gone(taps):
    stripes = (1 - 2 * (torch.arange(12.0) % 2)).expand(1, 1, 12, 12)
    for x in (stripes, stripes.mT, stripes * stripes.mT):
        assert Blur(taps, 1, border="circular")(x).abs().max() < 1e-6


@pytest.mark.parametrize(("taps", "offset"), [(2, 0.5), (3, 0), (4, 0.5), (5, 0)])
def test_an_even_filter_moves_the_map_by_half_a_pixel(taps, offset):
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 1
    y = Blur(taps, 1)(point)[0, 0]
    assert y.sum() == 1
    assert abs((y.sum(0) * torch.arange(15)).sum() - 7) == offset


# --- maxblur ---------------------------------------------------------------------------------------------------------


@every_border
@pytest.mark.parametrize("kernel", [2, 3])
def test_maxblur_with_one_tap_is_max(kernel, border):
    x = maps(9, 11)
    assert torch.equal(MaxBlur(kernel, 2, border=border, taps=1)(x), Max(kernel, 2, border=border)(x))


def test_maxblur_against_kornia_inside():
    x = maps(16, 20)
    ours, theirs = MaxBlur(2, 2, taps=3)(x), max_blur_pool2d(x, 3, 2, max_pool_size=2)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(ours[inside], theirs[inside])


# --- aps -------------------------------------------------------------------------------------------------------------


def rolls_onto(x: Tensor, y: Tensor) -> bool:
    """Some roll of x is y, bit for bit."""
    height, width = x.shape[2:]
    return any(torch.equal(x.roll((i, j), (2, 3)), y) for i in range(height) for j in range(width))


@pytest.mark.parametrize("stride", [2, 3])
def test_every_roll_of_the_input_is_a_roll_of_aps(stride):
    pool, x = APS(stride=stride, border="circular"), maps(6, 12, n=1)
    y = pool(x)
    assert all(rolls_onto(y, pool(x.roll((i, j), (2, 3)))) for i in range(6) for j in range(12))


def test_odd_maps_break_aps():
    pool, x = APS(stride=2, border="circular"), maps(7, 9, n=1)
    y = pool(x)
    assert not all(rolls_onto(y, pool(x.roll((i, j), (2, 3)))) for i in range(7) for j in range(9))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_aps_keeps_the_strongest_phase(stride):
    x = maps(6, 12, n=5)
    for image, kept in zip(x.numpy(), APS(stride=stride)(x).numpy(), strict=True):
        phases = [image[:, i::stride, j::stride] for i in range(stride) for j in range(stride)]
        np.testing.assert_array_equal(kept, max(phases, key=np.linalg.norm))


# --- conv ------------------------------------------------------------------------------------------------------------


@every_border
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_is_a_padded_convolution(stride, border):
    pool, x = Conv(stride=stride, border=border, channels=3).double(), maps(9, 11)
    mode = "zeros" if border == "clip" else border
    same = nn.Conv2d(3, 3, 3, stride, padding=1, padding_mode=mode).double()
    same.load_state_dict(pool.conv.state_dict())
    torch.testing.assert_close(pool(x), same(x))


def test_conv_needs_channels():
    with pytest.raises(ValueError, match="channels"):
        Conv()
