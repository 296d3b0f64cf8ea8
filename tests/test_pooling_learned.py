"""unshuffle, lip, ddac, dpp and the learned choices of phase (lps, tips) at their limits, against NumPy and PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.autograd import gradcheck

from src.pooling import BORDERS, POOLS, Pool
from tests.helpers import windows

Max, Avg, Soft, APS, Unshuffle, LIP, DDAC, DPP, LPS, TIPS = (
    POOLS[name] for name in "max avg soft aps unshuffle lip ddac dpp lps tips".split()
)
LEARNED = ["unshuffle", "lip", "ddac", "dpp", "lps", "tips"]

every_border = pytest.mark.parametrize("border", BORDERS)
sides, kernels, strides = st.integers(8, 15), st.integers(1, 4), st.integers(1, 4)


def maps(height: int = 12, width: int = 12, n: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, height, width, dtype=torch.float64)


def drawn(pool: Pool) -> Pool:
    """With weights from N(0, 1), as after training."""
    for parameter in pool.parameters():
        nn.init.normal_(parameter)
    return pool.double()


@pytest.mark.parametrize("name", LEARNED)
def test_channels_are_needed(name):
    with pytest.raises(ValueError, match="channels="):
        POOLS[name]()


@every_border
@pytest.mark.parametrize("name", LEARNED)
def test_gradients_against_finite_differences(name, border):
    pool, x = drawn(POOLS[name](border=border, channels=3)).eval(), maps(5, 6, n=1)
    assert gradcheck(pool, [x.requires_grad_()])


# --- unshuffle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_unshuffle_is_a_convolution_of_tiles(stride):
    pool, x = drawn(Unshuffle(stride=stride, channels=3)), maps(12, 18)
    kernel = pool.conv.weight.view(3, 3, stride, stride)
    torch.testing.assert_close(pool(x), F.conv2d(x, kernel, pool.conv.bias, stride))


@pytest.mark.parametrize("stride", [2, 3])
def test_unshuffle_loses_nothing(stride):
    pool, x = Unshuffle(stride=stride, channels=1).double(), maps(12, 18, channels=1)
    nn.init.zeros_(pool.conv.bias)
    phases = []
    for one in torch.eye(stride**2, dtype=torch.float64):
        pool.conv.weight.data = one.view(1, -1, 1, 1)
        phases.append(pool(x))
    assert torch.equal(F.pixel_shuffle(torch.cat(phases, 1), stride), x)


# --- lip -------------------------------------------------------------------------------------------------------------


@every_border
@given(kernels, strides, sides, sides)
def test_lip_against_numpy(border, kernel, stride, height, width):
    pool, x = drawn(LIP(kernel, stride, border=border, channels=3)), maps(height, width)
    weight = pool.importance.weight.detach().numpy()[..., 0, 0]
    g = torch.from_numpy(np.einsum("oc,nchw->nohw", weight, x.numpy()))
    w, e = (windows(y, kernel, stride, border) for y in (x, g))
    e = np.exp(e - np.nanmax(e, (-2, -1), keepdims=True))
    expected = np.nansum(e * w, (-2, -1)) / np.nansum(e, (-2, -1))
    torch.testing.assert_close(pool(x), torch.from_numpy(expected))


@every_border
@given(kernels, strides, sides, sides)
def test_lip_with_constant_logits_is_avg(border, kernel, stride, height, width):
    pool, x = LIP(kernel, stride, border=border, channels=3).double(), maps(height, width)
    torch.testing.assert_close(pool(x), Avg(kernel, stride, border=border)(x))


@every_border
@given(st.floats(-5, 5))
def test_lip_with_its_input_for_logits_is_soft(border, beta):
    pool, like, x = LIP(3, 2, border=border, channels=3).double(), Soft(3, 2, border=border), maps(9, 11)
    pool.importance.weight.data = beta * torch.eye(3, dtype=torch.float64)[..., None, None]
    like.beta = beta
    torch.testing.assert_close(pool(x), like(x))


def test_lip_does_not_overflow():
    pool = LIP(channels=3)
    nn.init.constant_(pool.importance.weight, 1e10)
    assert pool(maps().float()).isfinite().all()


# --- ddac ------------------------------------------------------------------------------------------------------------


@every_border
@given(kernels, strides, sides, sides)
def test_ddac_starts_as_a_box_blur(border, kernel, stride, height, width):
    pool, x = DDAC(kernel, stride, border=border, channels=3).double(), maps(height, width)
    torch.testing.assert_close(pool(x), Avg(kernel, stride, border=border)(x))


@every_border
@given(kernels, strides, sides, sides)
def test_ddac_against_numpy(border, kernel, stride, height, width):
    x = maps(height, width, channels=10)
    pool = drawn(DDAC(kernel, stride, border=border, channels=10))
    w = windows(x, kernel, stride, border)
    n, c, p, q = w.shape[:4]
    w = w.reshape(n, c, p, q, -1)
    read = np.nan_to_num(w)
    logits = np.einsum("ncpqk,ock->nopq", read, pool.filters.weight.detach().numpy().reshape(-1, c, kernel**2))
    logits = (logits + pool.filters.bias.detach().numpy()[:, None, None]).reshape(n, 5, kernel**2, p, q)
    for channel in range(c):
        own = np.moveaxis(logits[:, channel // 2], 1, -1)
        weights = softmax(np.where(np.isnan(w[:, channel]), -np.inf, own), -1)
        expected = torch.from_numpy((weights * read[:, channel]).sum(-1))
        torch.testing.assert_close(pool(x)[:, channel], expected)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (5, 5), (9, 3), (11, 1), (12, 6), (16, 8), (64, 8)])
def test_ddac_takes_as_many_groups_as_divide(channels, groups):
    assert DDAC(channels=channels).groups == groups


@every_border
def test_ddac_stays_in_the_range_whatever_its_weights(border):
    pool, x = drawn(DDAC(border=border, channels=3)), maps(9, 11)
    assert x.min() <= pool(x).min()
    assert pool(x).max() <= x.max()


# --- dpp -------------------------------------------------------------------------------------------------------------


@every_border
@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "height", "width"), [(2, 2, 9, 11), (3, 2, 8, 13), (4, 3, 15, 10)])
def test_dpp_against_numpy_and_at_its_limits(border, asymmetric, kernel, stride, height, width):
    x, pool = maps(height, width), drawn(DPP(kernel, stride, border=border, channels=3))
    pool.asymmetric = asymmetric
    w = windows(x, kernel, stride, border)
    difference = w - np.nanmean(w, (-2, -1), keepdims=True)
    size = np.maximum(difference, 0) if asymmetric else difference
    alpha, exponent = (
        np.exp(parameter.detach().numpy())[:, None, None, None, None] for parameter in (pool.log_alpha, pool.log_lambda)
    )
    weights = alpha + np.sqrt(size**2 + 1e-3**2) ** exponent
    expected = np.nansum(weights * w, (-2, -1)) / np.nansum(np.where(np.isnan(w), 0, weights), (-2, -1))
    torch.testing.assert_close(pool(x), torch.from_numpy(expected))
    mean = Avg(kernel, stride, border=border)(x)
    nn.init.constant_(pool.log_lambda, -torch.inf)
    torch.testing.assert_close(pool(x), mean)
    nn.init.constant_(pool.log_lambda, 8)
    nn.init.constant_(pool.log_alpha, 1e6)
    torch.testing.assert_close(pool(x), mean)
    if asymmetric:
        nn.init.constant_(pool.log_alpha, -torch.inf)
        torch.testing.assert_close(pool(x), Max(kernel, stride, border=border)(x), atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_dpp_neither_under_nor_overflows(size, asymmetric):
    pool, exact, x = DPP(channels=3), DPP(channels=3).double(), (size * maps()).float().requires_grad_()
    pool.asymmetric = exact.asymmetric = asymmetric
    y = pool(x)
    torch.testing.assert_close(y.double() / size, exact(x.double()) / size, rtol=1e-4, atol=1e-4)
    y.div(size).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in (x, pool.log_alpha, pool.log_lambda))


# --- lps, tips -------------------------------------------------------------------------------------------------------


class Norm(nn.Module):
    """A pixel's part in the squared norm of its phase."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum(1, keepdim=True)


class One(nn.Module):
    """A score that singles out phase (i, j)."""

    def __init__(self, stride: int, i: int, j: int) -> None:
        super().__init__()
        self.stride, self.i, self.j = stride, i, j

    def forward(self, x: Tensor) -> Tensor:
        score = torch.zeros_like(x[:, :1])
        score[..., self.i :: self.stride, self.j :: self.stride] = 1e4
        return score


def rolls_onto(x: Tensor, y: Tensor) -> bool:
    """Some roll of x is y, bit for bit."""
    height, width = x.shape[2:]
    return any(torch.equal(x.roll((i, j), (2, 3)), y) for i in range(height) for j in range(width))


@every_border
@given(strides, sides, sides)
def test_lps_scored_by_the_norm_is_aps(border, stride, height, width):
    pool, x = LPS(stride=stride, border=border, channels=3).eval(), maps(height, width, n=4)
    pool.score = Norm()
    assert torch.equal(pool(x), APS(stride=stride, border=border)(x))


@pytest.mark.parametrize("border", ["clip", "circular"])
@pytest.mark.parametrize("stride", [2, 3])
def test_every_roll_of_the_input_is_a_roll_of_lps_in_eval(stride, border):
    pool, x = drawn(LPS(stride=stride, border=border, channels=3)).eval(), maps(6, 12, n=1)
    y = pool(x)
    assert all(rolls_onto(y, pool(x.roll((i, j), (2, 3)))) for i in range(6) for j in range(12))


def test_lps_sees_rolls_in_training():
    pool, x = drawn(LPS(channels=3)), maps(n=1)
    means = []
    for roll in (0, 1):
        torch.manual_seed(0)
        means.append(pool(x.roll(roll, 2)).mean())
    assert abs(means[0] - means[1]) > 1e-4


@pytest.mark.parametrize("stride", [2, 3])
@given(st.integers(0, 11), st.integers(0, 11))
def test_the_mean_of_tips_does_not_see_rolls(stride, down, right):
    pool, x = drawn(TIPS(stride=stride, channels=3)), maps()
    torch.testing.assert_close(pool(x.roll((down, right), (2, 3))).mean((2, 3)), pool(x).mean((2, 3)))


def test_a_roll_of_the_input_is_no_roll_of_tips():
    pool, x = drawn(TIPS(channels=3)), maps(n=1)
    y, moved = pool(x), pool(x.roll(1, 2))
    errors = [(y.roll((i, j), (2, 3)) - moved).norm() / moved.norm() for i in range(6) for j in range(6)]
    assert min(errors) > 0.05
    pool.score = One(2, 1, 0)  # one phase alone has no other to be paired with
    torch.testing.assert_close(pool(x.roll((2, 0), (2, 3))), pool(x).roll((1, 0), (2, 3)))


def test_lps_draws_in_training_and_not_in_eval():
    pool, x = drawn(LPS(channels=3)), maps()
    assert not torch.equal(pool(x), pool(x))
    torch.manual_seed(1)
    first = pool(x)
    torch.manual_seed(1)
    assert torch.equal(pool(x), first)
    assert torch.equal(pool.eval()(x), pool(x))


def test_lps_without_temperature_draws_phases_by_their_logits():
    pool = drawn(LPS(channels=3))
    pool.tau = 1e-9
    x = maps(4, 4, n=1)
    phases = F.pixel_unshuffle(x, 2).unflatten(1, (3, 4))[0]
    y = pool(x.expand(4000, -1, -1, -1))
    same = (y[:, :, None] - phases).abs().amax((1, 3, 4)) < 1e-6
    assert (same.sum(1) == 1).all()
    expected = 4000 * pool.logits(x)[0].softmax(0).detach().numpy()
    assert chisquare(same.sum(0).numpy(), expected / expected.sum() * 4000).pvalue > 1e-3


@given(strides, st.integers(1, 4), st.integers(1, 4))
def test_tips_with_equal_logits_is_avg(stride, rows, columns):
    pool, x = TIPS(stride=stride, channels=3).double(), maps(stride * rows, stride * columns)
    nn.init.zeros_(pool.score[2].weight)
    torch.testing.assert_close(pool(x), nn.AvgPool2d(stride)(x))


@given(st.data(), strides, sides, sides)
def test_tips_and_lps_give_the_phase_that_is_singled_out(data, stride, height, width):
    i, j = (data.draw(st.integers(0, stride - 1)) for _ in "ij")
    x = maps(height - height % stride, width - width % stride)
    for pool in (
        TIPS(stride=stride, channels=3),
        LPS(stride=stride, channels=3),
        LPS(stride=stride, channels=3).eval(),
    ):
        pool.score = One(stride, i, j)
        torch.testing.assert_close(pool(x), x[..., i::stride, j::stride])
