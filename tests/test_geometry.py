"""A window's arithmetic against PyTorch's own sizes and against enumeration."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from src.pooling import POOLS
from src.pooling.geometry import Window

sizes, kernels, strides = st.integers(5, 40), st.integers(1, 5), st.integers(1, 5)


def places(window: Window, n: int) -> list[range]:
    """The samples under the window at each of its places; those below 0 or from n on are padding."""
    starts = [i * window.stride - window.before for i in range(window.output_size(n))]
    return [range(start, start + window.extent, window.dilation) for start in starts]


@given(sizes, kernels, strides, st.integers(0, 2), st.integers(1, 2))
def test_integer_padding_has_the_places_of_a_torch_convolution(n, kernel, stride, padding, dilation):
    window = Window(kernel, stride, padding, dilation)
    assume(n + 2 * padding >= window.extent)
    conv = nn.Conv1d(1, 1, kernel, stride, padding, dilation)
    assert window.output_size(n) == conv(torch.zeros(1, 1, n)).shape[-1]


@given(sizes, kernels, strides, st.data())
def test_rounding_up_has_the_places_of_torchs_ceil_mode(n, kernel, stride, data):
    padding = data.draw(st.integers(0, kernel // 2))
    pool = nn.MaxPool1d(kernel, stride, padding, ceil_mode=True)
    assert Window(kernel, stride, padding, ceil=True).output_size(n) == pool(torch.zeros(1, 1, n)).shape[-1]


@given(sizes, kernels, strides)
def test_same_has_a_place_for_every_strided_sample(n, kernel, stride):
    assert Window(kernel, stride).output_size(n) == len(range(0, n, stride))


@given(sizes, kernels, strides, st.sampled_from([None, 0, 1]))
def test_pads_end_where_the_last_window_ends(n, kernel, stride, padding):
    window = Window(kernel, stride, padding)
    before, after = window.pads(n)
    windows = places(window, n)
    assert windows[0].start == -before
    assert windows[-1].stop == n + after


@given(sizes, kernels, strides)
def test_no_same_window_lies_wholly_in_the_padding(n, kernel, stride):
    assert all(set(place) & set(range(n)) for place in places(Window(kernel, stride), n))


@given(sizes, st.sampled_from([3, 5, 7]))
def test_same_centres_an_odd_window_on_its_sample(n, kernel):
    assert [place[kernel // 2] for place in places(Window(kernel), n)] == list(range(n))


@given(sizes, strides)
def test_same_tiles_start_at_the_border(n, stride):
    assert [place.start for place in places(Window(stride, stride), n)] == list(range(0, n, stride))


@pytest.mark.parametrize("name", [name for name, pool in POOLS.items() if pool])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_no_sample_is_left_unread_by_a_default_window(name, stride):
    if stride not in (POOLS[name].strides or [stride]):
        pytest.skip("not defined for this stride")
    for n in range(8, 20):
        size = n
        for window in POOLS[name](stride=stride, channels=1).windows:
            assert set(range(size)) <= set().union(*places(window, size)), (n, window)
            size = window.output_size(size)
