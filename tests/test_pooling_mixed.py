"""mixed, gated, soft, adapool, stochastic at their limits, against NumPy and SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from scipy.stats import chisquare
from torch import Tensor
from torch.autograd import gradcheck

from src.pooling import BORDERS, POOLS
from tests.helpers import windows

Max, Avg, Mixed, Gated, Soft, AdaPool, Stochastic = (
    POOLS[name] for name in "max avg mixed gated soft adapool stochastic".split()
)

every_border = pytest.mark.parametrize("border", BORDERS)
sides, kernels, strides = st.integers(8, 15), st.integers(1, 4), st.integers(1, 4)


def maps(height: int = 12, width: int = 12, n: int = 2) -> Tensor:
    return torch.randn(n, 3, height, width, dtype=torch.float64)


# --- mixed, gated ----------------------------------------------------------------------------------------------------


@every_border
@given(kernels, strides, sides, sides, st.floats(0, 1))
def test_mixed_against_numpy(border, kernel, stride, height, width, a):
    x, pool = maps(height, width), Mixed(kernel, stride, border=border).double()
    w = windows(x, kernel, stride, border)
    assert pool.a == 0.5
    torch.nn.init.constant_(pool.a, a)
    expected = a * np.nanmax(w, (-2, -1)) + (1 - a) * np.nanmean(w, (-2, -1))
    torch.testing.assert_close(pool(x), torch.from_numpy(expected))


@every_border
@pytest.mark.parametrize(("a", "limit"), [(1, Max), (0, Avg)])
def test_mixed_ends_at_max_and_avg(border, a, limit):
    x, pool = maps(9, 11), Mixed(border=border).double()
    torch.nn.init.constant_(pool.a, a)
    assert torch.equal(pool(x), limit(border=border)(x))


@every_border
@given(kernels, strides, sides, sides)
def test_gated_against_numpy(border, kernel, stride, height, width):
    x, pool = maps(height, width), Gated(kernel, stride, border=border).double()
    torch.nn.init.normal_(pool.weight)
    torch.nn.init.normal_(pool.bias)
    w = windows(x, kernel, stride, border)
    a = expit(np.nansum(w * pool.weight.detach().numpy()[0, 0], (-2, -1)) + pool.bias.item())
    expected = a * np.nanmax(w, (-2, -1)) + (1 - a) * np.nanmean(w, (-2, -1))
    torch.testing.assert_close(pool(x), torch.from_numpy(expected))


@every_border
def test_gated_starts_as_mixed(border):
    x = maps(9, 11)
    assert torch.equal(Gated(3, 2, border=border).double()(x), Mixed(3, 2, border=border).double()(x))


@every_border
@pytest.mark.parametrize(("bias", "limit"), [(1e4, Max), (-1e4, Avg)])
def test_gated_ends_at_max_and_avg(border, bias, limit):
    x, pool = maps(9, 11), Gated(border=border).double()
    torch.nn.init.constant_(pool.bias, bias)
    torch.testing.assert_close(pool(x), limit(border=border)(x))


def test_gated_gates_each_window():
    x, pool = torch.tensor([[[[9.0, 1, -9, -1], [1, 1, -1, -1]]]]), Gated(2)
    torch.nn.init.constant_(pool.weight, 100)  # max where the window is positive, avg where it is not
    torch.testing.assert_close(pool(x), torch.tensor([[[[9.0, -3]]]]))


# --- soft ------------------------------------------------------------------------------------------------------------


def soft(beta: float, *arguments: int, **options: str):
    pool = Soft(*arguments, **options)
    pool.beta = beta
    return pool


@every_border
@given(kernels, strides, sides, sides, st.floats(-5, 5))
def test_soft_against_scipy(border, kernel, stride, height, width, beta):
    x = maps(height, width)
    w = windows(x, kernel, stride, border).reshape(2, 3, -1, kernel**2)
    inside = np.nan_to_num(w)
    weights = softmax(np.where(np.isnan(w), -np.inf, beta * inside), -1)
    y = soft(beta, kernel, stride, border=border)(x)
    torch.testing.assert_close(y.flatten(2), torch.from_numpy((weights * inside).sum(-1)))


@every_border
@given(kernels, strides, sides, sides)
def test_soft_ends_at_avg_and_max(border, kernel, stride, height, width):
    x = maps(height, width)
    torch.testing.assert_close(soft(0, kernel, stride, border=border)(x), Avg(kernel, stride, border=border)(x))
    largest = Max(kernel, stride, border=border)(x)
    torch.testing.assert_close(soft(1e9, kernel, stride, border=border)(x), largest)


@every_border
@given(st.floats(-1000, 1000))
def test_soft_commutes_with_adding_a_constant(border, constant):
    x = maps(9, 11)
    torch.testing.assert_close(Soft(border=border)(x + constant), Soft(border=border)(x) + constant)


def test_soft_does_not_overflow():
    assert torch.equal(Soft(2)(torch.full((1, 1, 4, 4), 1e30)), torch.full((1, 1, 2, 2), 1e30))


# --- adapool ---------------------------------------------------------------------------------------------------------


@every_border
@pytest.mark.parametrize(
    ("kernel", "stride", "height", "width"), [(2, 2, 9, 11), (3, 2, 8, 13), (4, 3, 15, 10), (1, 2, 9, 9)]
)
def test_adapool_is_a_mixture_of_soft_and_of_the_mean_by_similarity(border, kernel, stride, height, width):
    x, pool = maps(height, width), AdaPool(kernel, stride, border=border).double()
    w = windows(x, kernel, stride, border)
    mean = np.nanmean(w, (-2, -1), keepdims=True)
    dice = np.exp(2 * abs(w * mean) / (w**2 + mean**2))
    similar = torch.from_numpy(np.nansum(dice * w, (-2, -1)) / np.nansum(dice, (-2, -1)))
    soft = Soft(kernel, stride, border=border)(x)
    for b, expected in ((0, soft), (1, similar), (-3, soft), (1.5, similar), (0.3, 0.3 * similar + 0.7 * soft)):
        torch.nn.init.constant_(pool.b, b)
        torch.testing.assert_close(pool(x), expected)
    torch.nn.init.constant_(pool.b, 1)
    torch.testing.assert_close(pool(-7 * x), -7 * similar)


def test_a_mixing_weight_that_was_clipped_can_come_back():
    x, pool = maps(), AdaPool().double()
    torch.nn.init.constant_(pool.b, 1.5)
    pool(x).square().sum().backward()
    assert pool.b.grad.abs() > 0


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_adapool_neither_under_nor_overflows(size, dtype):
    x, pool = (size * maps()).to(dtype).requires_grad_(), AdaPool(3, 2)
    y = pool(x)
    y.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and pool.b.grad is not None and pool.b.grad.isfinite()
    pool.b.data.fill_(1.0)
    exact = AdaPool(3, 2).double()
    exact.b.data.fill_(1.0)
    expected = exact(x.detach().double() / size) * size
    torch.testing.assert_close(
        pool(x).double() / size, expected / size, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.02
    )


# --- stochastic ------------------------------------------------------------------------------------------------------


@every_border
@given(kernels, strides, sides, sides)
def test_stochastic_in_eval_against_numpy(border, kernel, stride, height, width):
    x = maps(height, width)
    w = np.maximum(np.nan_to_num(windows(x, kernel, stride, border)), 0)
    total = w.sum((-2, -1))
    expected = np.divide((w**2).sum((-2, -1)), total, out=np.zeros_like(total), where=total > 0)
    torch.testing.assert_close(Stochastic(kernel, stride, border=border).eval()(x), torch.from_numpy(expected))


@every_border
@given(kernels, strides, sides, sides)
def test_stochastic_draws_samples_of_the_window(border, kernel, stride, height, width):
    x = maps(height, width)
    w = np.nan_to_num(windows(x, kernel, stride, border)).reshape(2, 3, -1, kernel**2)
    y = Stochastic(kernel, stride, border=border)(x).flatten(2).numpy()
    positive = (w > 0).any(-1)
    assert ((w == y[..., None]).any(-1) & (y > 0))[positive].all()
    assert (y[~positive] == 0).all()


@every_border
@pytest.mark.parametrize("mode", [True, False])
@given(sides, sides)
def test_stochastic_lies_between_avg_and_max(border, mode, height, width):
    x, pool = maps(height, width).abs(), Stochastic(border=border).train(mode)
    y, largest = pool(x), Max(3, 2, border=border)(x)
    assert (y <= largest * (1 + 1e-12)).all()
    if not mode:
        assert (y >= Avg(3, 2, border=border)(x) * (1 - 1e-12)).all()


@pytest.mark.parametrize("mode", [True, False])
def test_stochastic_takes_the_only_positive_sample_and_gives_zero_without_one(mode):
    x = -torch.rand(1, 1, 4, 4)
    x[..., 1, 2] = 7
    x.requires_grad_()
    y = Stochastic(2).train(mode)(x)
    assert torch.equal(y, torch.tensor([[[[0.0, 7], [0, 0]]]]))
    y.sum().backward()
    assert torch.equal(x.grad, (x > 0).float())


def test_stochastic_draws_in_proportion():
    weights = torch.tensor([1.0, 2, 3, 4])
    x = weights.view(1, 1, 2, 2).repeat(20000, 1, 1, 1)
    pool = Stochastic(2)
    drawn = pool(x).flatten()
    counts = np.bincount(drawn.long().numpy(), minlength=5)[1:]
    assert chisquare(counts, 20000 * weights.numpy() / 10).pvalue > 1e-3
    assert abs(drawn.mean() - pool.eval()(x[:1]).item()) < 5 * drawn.std() / 20000**0.5


def test_stochastic_draws_from_the_global_generator():
    x, pool = maps().abs(), Stochastic()
    torch.manual_seed(1)
    first, second = pool(x), pool(x)
    torch.manual_seed(1)
    assert torch.equal(pool(x), first)
    assert not torch.equal(first, second)


# --- gradients -------------------------------------------------------------------------------------------------------


@every_border
@pytest.mark.parametrize("pool", [Mixed, Gated, Soft, Stochastic])
def test_gradients_against_finite_differences(pool, border):
    x = maps(5, 6, n=1)
    layer = pool(3, 2, border=border).double().eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    assert gradcheck(layer, [(x + 0.1 * x.sign()).requires_grad_()])
