"""Every way to shrink a map: what all of them promise, over the whole registry."""

from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradgradcheck

from src.pooling import BORDERS, POOLS, Pool
from src.pooling.base import circular_pad

NAMES = [name for name, pool in POOLS.items() if pool]
# one number a window, or a tile: with integer padding the size is that of nn.MaxPool2d
WINDOWED = "max avg lp mixed gated soft adapool rank stochastic lip ddac dpp conv".split()
TILED = "fractional aps lps tips unshuffle ideal flc diffstride wavelet".split()
UNLEARNED = [name for name in NAMES if not POOLS[name].is_layer]
CHANNELS = 3

every_pool = pytest.mark.parametrize("name", NAMES)


def at_strides(*strides: int) -> pytest.MarkDecorator:
    """Every pool at each of the strides that it is defined for."""
    pairs = [(name, s) for name in NAMES for s in strides if s in (POOLS[name].strides or strides)]
    return pytest.mark.parametrize(("name", "stride"), pairs)


every_border = pytest.mark.parametrize("border", BORDERS)
sides, borders = st.integers(8, 15), st.sampled_from(BORDERS)


def strides_of(name: str) -> st.SearchStrategy[int]:
    return st.sampled_from(POOLS[name].strides or (1, 2, 3, 4))


def make(name: str, stride: int = 2, border: str = "clip") -> Pool:
    return POOLS[name](stride=stride, border=border, channels=CHANNELS).double()


def maps(height: int = 12, width: int = 12, n: int = 2) -> Tensor:
    return torch.randn(n, CHANNELS, height, width, dtype=torch.float64)


# --- size ------------------------------------------------------------------------------------------------------------


@at_strides(1, 2, 3, 4)
@given(sides, sides, borders)
def test_the_output_has_one_place_a_stride(name, stride, height, width, border):
    pool = make(name, stride, border)
    assert pool(maps(height, width)).shape == (2, CHANNELS, ceil(height / stride), ceil(width / stride))


@at_strides(1, 2, 3, 4)
@given(sides)
def test_the_windows_tell_the_size(name, stride, side):
    size = side
    pool = make(name, stride)
    for window in pool.windows:
        size = window.output_size(size)
    assert size == pool(maps(side, side)).shape[-1]


@pytest.mark.parametrize("name", WINDOWED)
@given(st.integers(2, 4), st.integers(1, 4), sides, sides, borders, st.data())
def test_integer_padding_gives_the_size_of_max_pool(name, kernel, stride, height, width, border, data):
    padding, ceil = data.draw(st.integers(0, kernel // 2)), data.draw(st.booleans())
    x = maps(height, width)
    pool = POOLS[name](kernel, stride, padding, border=border, ceil_mode=ceil, channels=CHANNELS).double()
    assert pool(x).shape == nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)(x).shape


@pytest.mark.parametrize("name", TILED)
@given(sides, sides, borders, st.data())
def test_integer_padding_of_tiles_gives_the_size_of_max_pool(name, height, width, border, data):
    stride = data.draw(strides_of(name))
    padding, ceil = data.draw(st.integers(0, stride // 2)), data.draw(st.booleans())
    pool = POOLS[name](None, stride, padding, border=border, ceil_mode=ceil, channels=CHANNELS).double()
    x = maps(height, width)
    assert pool(x).shape == nn.MaxPool2d(stride, stride, padding, ceil_mode=ceil)(x).shape


# --- shifts ----------------------------------------------------------------------------------------------------------


@at_strides(1, 2, 3)
@given(st.integers(-2, 2), st.integers(-2, 2))
def test_rolls_by_multiples_of_the_stride_commute(name, stride, down, right):
    pool, x = make(name, stride, "circular").eval(), maps()
    moved, expected = pool(x.roll((stride * down, stride * right), (2, 3))), pool(x).roll((down, right), (2, 3))
    if pool.commutes_with_rolls or stride == 1 or down == right == 0:
        torch.testing.assert_close(moved, expected)
    elif abs(down) == 1 or abs(right) == 1:
        assert not torch.allclose(moved, expected)


@pytest.mark.parametrize("axis", [2, 3])
@given(st.integers(1, 6), st.data())
def test_around_is_circular_padding(axis, side, data):
    x = maps(side, side)
    before, after = (data.draw(st.integers(0, side)) for _ in "ab")
    pad = (0, 0, before, after) if axis == 2 else (before, after, 0, 0)
    assert torch.equal(circular_pad(x, before, after, axis), nn.functional.pad(x, pad, mode="circular"))


def test_around_refuses_more_than_there_is():
    with pytest.raises(ValueError, match="padding of 4 needs a map of at least that, this one has 3"):
        circular_pad(maps(3, 3), 0, 4, 2)


# --- range: no value is invented, not even at the border -------------------------------------------------------------


@pytest.mark.parametrize("name", UNLEARNED)
@every_border
@given(st.data(), sides, sides)
def test_a_constant_map_keeps_its_constant(name, border, data, height, width):
    pool = make(name, data.draw(strides_of(name)), border)
    y = pool(torch.full((1, CHANNELS, height, width), 0.7, dtype=torch.float64))
    torch.testing.assert_close(y, torch.full_like(y, 0.7 * pool.gain))


@pytest.mark.parametrize("name", [name for name in UNLEARNED if "not the range" not in POOLS[name].keeps])
@every_border
@given(st.data(), sides, sides)
def test_the_output_stays_in_the_range_of_a_positive_input(name, border, data, height, width):
    x = maps(height, width).abs() + 1
    pool = make(name, data.draw(strides_of(name)), border)
    y = pool(x) / pool.gain
    assert y.min() >= x.min() - 1e-12
    assert y.max() <= x.max() + 1e-12


# --- tensors: gradients, types, layouts, state -----------------------------------------------------------------------


@every_pool
@every_border
def test_gradients_flow(name, border):
    pool, x = make(name, border=border), maps(9, 11).requires_grad_()
    pool(x).square().sum().backward()
    for gradient in (x.grad, *(parameter.grad for parameter in pool.parameters())):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@every_pool
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_is_kept(name, dtype):
    assert make(name).to(dtype)(maps(9, 11).to(dtype)).dtype == dtype


@every_pool
@every_border
@pytest.mark.parametrize("mode", [True, False])
def test_mixed_precision_gives_nearly_the_same_numbers(name, border, mode):
    pool, x = make(name, border=border).float().train(mode), maps(9, 11).float()
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        half = x.bfloat16().requires_grad_()
        y = pool(half)
        y.float().square().sum().backward()
    assert half.grad.isfinite().all()
    torch.manual_seed(0)
    # a draw may turn with the last digit
    if not (mode and name == "stochastic"):
        torch.testing.assert_close(y.float(), pool(x), atol=0.05, rtol=0.05)


@every_pool
@every_border
def test_channels_last_gives_the_same_numbers(name, border):
    pool, x = make(name, border=border).eval(), maps(9, 11)
    torch.testing.assert_close(pool(x.to(memory_format=torch.channels_last)), pool(x))


@every_pool
@every_border
def test_channels_last_stays_channels_last(name, border):
    pool = make(name, border=border).to(memory_format=torch.channels_last)
    x = maps(9, 12).to(memory_format=torch.channels_last).requires_grad_()
    y = pool(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@every_pool
@pytest.mark.parametrize("border", ["clip", "circular"])
def test_second_derivatives_against_finite_differences(name, border):
    pool, x = make(name, border=border).eval(), maps(4, 5, n=1).requires_grad_()
    assert gradgradcheck(pool, [x])


@every_pool
@every_border
def test_vmap_gives_the_same_as_one_call_each(name, border):
    pool, x = make(name, border=border).eval(), torch.stack([maps(9, 11), maps(9, 11)])
    torch.testing.assert_close(torch.func.vmap(pool)(x), torch.stack([pool(one) for one in x]))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own
@every_pool
@every_border
def test_forward_derivatives_are_those_of_the_backward_pass(name, border):
    pool, x, t = make(name, border=border).eval(), maps(9, 11), maps(9, 11)
    y, along = torch.func.jvp(pool, (x,), (t,))
    g = torch.randn_like(y)
    (back,) = torch.func.vjp(pool, x)[1](g)
    torch.testing.assert_close((along * g).sum(), (t * back).sum())


@every_pool
def test_each_image_is_pooled_on_its_own(name):
    pool, x = make(name).eval(), maps(9, 11, n=3)
    torch.testing.assert_close(pool(x), torch.cat([pool(image) for image in x.split(1)]))


@every_pool
def test_the_state_is_all_there_is(name):
    one, other, x = make(name).eval(), make(name).eval(), maps()
    for parameter in one.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


@every_pool
def test_eval_draws_nothing(name):
    pool, x = make(name).eval(), maps()
    first = pool(x)
    torch.manual_seed(1)
    assert torch.equal(pool(x), first)


@every_pool
def test_the_parameters_are_those_of_the_formula(name):
    pool = make(name)
    assert pool.parameters_by_formula(CHANNELS) == sum(parameter.numel() for parameter in pool.parameters())


# --- refusals --------------------------------------------------------------------------------------------------------


@every_pool
def test_an_unknown_border_is_refused_with_the_valid_ones(name):
    with pytest.raises(ValueError, match=r"'zeros'.*clip, circular, reflect, replicate"):
        make(name, border="zeros")


@every_pool
@pytest.mark.parametrize("wrong", [{"kernel_size": 0}, {"kernel_size": -1}, {"stride": 0}, {"stride": -2}])
def test_a_window_or_stride_below_one_is_refused(name, wrong):
    with pytest.raises(ValueError, match="at least 1"):
        POOLS[name](**wrong, channels=CHANNELS)
