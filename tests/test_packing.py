"""Arrays inside the page are decoded as they were."""

import base64
import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from src.reporting.inline_data import MISSING, STEPS, serialize_images, serialize_map_values

FLOATS = st.floats(-1e4, 1e4, width=16)


def decode(words: str, shape: tuple[int, ...]) -> np.ndarray:
    """As ``map_browser.js`` does it."""
    data, (n, k, p, q) = gzip.decompress(base64.b64decode(words)), shape
    ends = np.frombuffer(data, "<f4", 2 * n * k).reshape(n, k, 2)
    levels = np.frombuffer(data, np.uint8, offset=8 * n * k).reshape(n, k, p, q).astype(float)
    low, high = (ends[..., i, None, None] for i in (0, 1))
    return np.where(levels == MISSING, np.nan, low + levels / STEPS * (high - low))


@given(arrays(np.float16, array_shapes(min_dims=4, max_dims=4, max_side=5), elements=FLOATS))
def test_the_error_of_a_pixel_is_at_most_half_a_level_of_its_map(maps: np.ndarray) -> None:
    wide = maps.astype(np.float64)
    span = np.ptp(wide, axis=(2, 3), keepdims=True)
    off = np.abs(decode(serialize_map_values(maps), maps.shape) - wide)
    assert (off <= span / STEPS * 0.5001 + 1e-6 * np.abs(wide)).all()


def test_minimum_and_maximum_are_exact_and_nan_stays_nan() -> None:
    maps = np.array([[[[np.nan, 1.5], [-2.0, 0.0]], [[np.nan, np.nan], [np.nan, np.nan]]]], np.float16)
    found = decode(serialize_map_values(maps), maps.shape)
    assert found[0, 0, 0, 1] == 1.5 and found[0, 0, 1, 0] == -2
    np.testing.assert_array_equal(np.isnan(found), np.isnan(maps))


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 4, 3, 5, 6)])
def test_pictures_keep_every_pixel(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = serialize_images(images)
    assert found["shape"] == list(shape)
    pixels = np.frombuffer(gzip.decompress(base64.b64decode(found["pixels"])), np.uint8)
    np.testing.assert_array_equal(pixels.reshape(*shape[:-3], *shape[-2:], shape[-3]), np.moveaxis(images, -3, -1))
