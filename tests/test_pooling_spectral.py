"""ideal, flc, diffstride, wavelet at their limits, against NumPy and SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard
from scipy.signal import resample
from torch import Tensor, nn
from torch.autograd import gradcheck

from src.pooling import BORDERS, POOLS
from tests.helpers import MODES

Ideal, FLC, DiffStride, Wavelet = (POOLS[name] for name in "ideal flc diffstride wavelet".split())

every_border = pytest.mark.parametrize("border", BORDERS)
both = pytest.mark.parametrize("pool", [Ideal, FLC])
sides, strides, tiles = st.integers(8, 15), st.integers(1, 4), st.integers(1, 6)


def maps(height: int = 12, width: int = 12, n: int = 2) -> Tensor:
    return torch.randn(n, 3, height, width, dtype=torch.float64)


def low(x: np.ndarray, stride: int, mirror: bool, border: str = "circular") -> np.ndarray:
    """By NumPy: whole tiles, frequencies |f| < 1/2s kept (with ``mirror``, -1/2s too), then every s-th sample."""
    mode = "edge" if border == "clip" else MODES[border]
    x = np.pad(x, ((0, 0), (0, 0), *((0, -n % stride) for n in x.shape[2:])), mode)
    spectrum = np.fft.fft2(x)
    for axis in (2, 3):
        n = x.shape[axis]
        f = np.rint(np.fft.fftfreq(n, 1 / n)) * 2 * stride
        kept = (f > -n) & (f < n) | ((f == -n) if mirror else False)
        spectrum *= np.expand_dims(kept, [one for one in range(4) if one != axis])
    return np.fft.ifft2(spectrum)[..., ::stride, ::stride].real


def sinc_shift(y: Tensor, rows: float, columns: float) -> Tensor:
    """Rolled by a fraction of a pixel: a phase for every frequency."""
    height, width = y.shape[2:]
    down = torch.exp(-2j * torch.pi * torch.fft.fftfreq(height, dtype=torch.float64) * rows)
    right = torch.exp(-2j * torch.pi * torch.fft.fftfreq(width, dtype=torch.float64) * columns)
    return torch.fft.ifft2(torch.fft.fft2(y) * down[:, None] * right).real


def shift_error(pool: nn.Module, x: Tensor, rows: int, columns: int) -> float:
    moved, s = pool(x.roll((rows, columns), (2, 3))), pool.stride
    return ((moved - sinc_shift(pool(x), rows / s, columns / s)).norm() / moved.norm()).item()


# --- ideal, flc ------------------------------------------------------------------------------------------------------


@both
@every_border
@given(strides, sides, sides)
def test_the_cut_spectrum_is_a_filter_then_every_nth_sample(pool, border, stride, height, width):
    x = maps(height, width)
    expected = low(x.numpy(), stride, pool is FLC, border)
    torch.testing.assert_close(pool(stride=stride, border=border)(x), torch.from_numpy(expected))


@both
@given(strides, st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5]))
def test_odd_results_are_those_of_scipy(pool, stride, height, width):
    x = maps(stride * height, stride * width)
    expected = resample(resample(x.numpy(), height, axis=2), width, axis=3)
    torch.testing.assert_close(pool(stride=stride)(x), torch.from_numpy(expected))


@both
@given(strides, tiles, tiles)
def test_the_mean_is_exact(pool, stride, rows, columns):
    x = maps(stride * rows, stride * columns)
    torch.testing.assert_close(pool(stride=stride)(x).mean((2, 3)), x.mean((2, 3)))


@pytest.mark.parametrize("stride", [2, 3, 4])
@given(st.integers(-12, 12), st.integers(-12, 12), st.sampled_from([12, 24, 36]))
def test_a_roll_of_the_input_is_a_sinc_shift_of_ideal(stride, rows, columns, side):
    assert shift_error(Ideal(stride=stride), maps(side, 24), rows, columns) < 1e-12


def test_flc_is_exact_for_even_shifts_alone():
    pool, x = FLC(stride=2), maps(16, 16)
    assert shift_error(pool, x, 2, -4) < 1e-12
    assert shift_error(pool, x, 1, 0) > 0.1
    assert shift_error(FLC(stride=2), maps(18, 18), 1, 0) < 1e-12  # nine outputs have no Nyquist frequency


@pytest.mark.parametrize("side", [82, 94, 98, 110])  # m · (1 / m) is not 1 in floating point
def test_the_nyquist_frequency_is_found_on_any_map(side):
    assert shift_error(Ideal(stride=2), maps(2 * side, 4, n=1), 1, 1) < 1e-12


def test_one_pixel_in_single_precision():
    assert shift_error(Ideal(stride=2), maps(32, 32).float(), 1, 1) < 1e-6


@pytest.mark.parametrize("stride", [2, 3])
def test_frequencies_that_would_alias_are_removed(stride):
    n = 12
    for k in range(n // (2 * stride), n // 2 + 1):
        wave = torch.cos(2 * torch.pi * k / n * torch.arange(n, dtype=torch.float64)).expand(1, 1, n, n)
        for x in (wave, wave.mT.contiguous()):
            assert Ideal(stride=stride)(x).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["ideal", "flc", "diffstride"])
def test_shapes_are_known_on_the_meta_device(name):
    with torch.device("meta"):
        assert POOLS[name](stride=2)(torch.zeros(2, 3, 9, 12)).shape == (2, 3, 5, 6)


def test_stride_one_keeps_all_but_the_highest_frequency():
    x = maps(9, 11)
    torch.testing.assert_close(Ideal(stride=1)(x), x)
    x = maps(8, 12)
    torch.testing.assert_close(FLC(stride=1)(x), x)
    torch.testing.assert_close(Ideal(stride=1)(x), torch.from_numpy(low(x.numpy(), 1, mirror=False)))


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_the_numbers_alone(pool, dtype):
    x = maps().to(dtype)
    y = pool()(x)
    assert y.dtype == dtype
    assert torch.equal(y, pool()(x.float()).to(dtype))


# --- diffstride ------------------------------------------------------------------------------------------------------

SHAPES = [(1, 12, 8), (1, 9, 14), (2, 12, 16), (2, 9, 14), (3, 12, 13), (4, 15, 10)]


@every_border
@pytest.mark.parametrize(("stride", "height", "width"), SHAPES)
def test_diffstride_starts_as_flc_and_at_stride_one_as_the_identity(border, stride, height, width):
    pool, x = DiffStride(stride=stride, border=border).double(), maps(height, width)
    torch.testing.assert_close(pool(x), FLC(stride=stride, border=border)(x))
    if stride == 1:
        torch.testing.assert_close(pool(x), x)
    torch.nn.init.constant_(pool.learned, stride / 2)
    torch.testing.assert_close(pool(x), FLC(stride=stride, border=border)(x), msg="S is at least the stride")


@pytest.mark.parametrize(("stride", "height", "width"), SHAPES)
def test_diffstride_masks_the_spectrum_by_its_learned_strides(stride, height, width):
    pool, learned = DiffStride(stride=stride, border="circular").double(), (1.7 * stride, 2.9 * stride)
    pool.learned.data = torch.tensor(learned, dtype=torch.float64)
    rows, columns = height // stride * stride, width // stride * stride
    x = maps(rows, columns)
    spectrum = np.fft.fft2(x.numpy())
    for axis, s in zip((2, 3), learned, strict=True):
        n = x.shape[axis]
        k = np.rint(np.fft.fftfreq(n, 1 / n))
        m, highest = n // stride, n // stride // 2
        mask = np.clip((4 + highest * stride / s - abs(k)) / 4, 0, 1) * ((k >= -highest) & (k < m - highest))
        spectrum = spectrum * np.expand_dims(mask, [other for other in range(4) if other != axis])
    expected = np.fft.ifft2(spectrum)[..., ::stride, ::stride].real
    torch.testing.assert_close(pool(x), torch.from_numpy(expected))


def test_the_learned_strides_have_a_gradient_from_the_start():
    pool, x = DiffStride(stride=2).double(), maps(10, 14)
    pool(x).square().sum().backward()
    assert (pool.learned.grad.abs() > 0).all()
    pool.learned.data += 0.7
    run = lambda s: torch.func.functional_call(pool, {"learned": s}, (x[:1, :1],))  # noqa: E731
    assert gradcheck(run, [pool.learned])


# --- wavelet ---------------------------------------------------------------------------------------------------------


@given(tiles, tiles)
def test_wavelet_is_twice_average_pooling(rows, columns):
    x = maps(2 * rows, 2 * columns)
    assert torch.equal(Wavelet()(x), 2 * nn.AvgPool2d(2)(x))


def test_wavelet_is_the_low_band_of_an_orthonormal_transform():
    x = maps(8, 8)
    haar = np.kron(np.eye(4), hadamard(2) / 2**0.5)
    bands = haar @ x.numpy() @ haar.T
    np.testing.assert_allclose(np.linalg.norm(bands), x.norm())
    torch.testing.assert_close(Wavelet()(x), torch.from_numpy(bands[..., ::2, ::2].copy()))


@pytest.mark.parametrize("stride", [1, 3, 4])
def test_wavelet_refuses_other_strides_with_the_reason(stride):
    with pytest.raises(ValueError, match=f"halves a map: stride 2 only, not {stride}"):
        Wavelet(stride=stride)


@every_border
@pytest.mark.parametrize("pool", [Ideal, FLC, Wavelet])
def test_gradients_against_finite_differences(pool, border):
    assert gradcheck(pool(border=border), [maps(5, 6, n=1).requires_grad_()])
