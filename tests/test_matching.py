"""Channels of two nets matched one-to-one: against cases with a known answer, brute force, and simulation."""

from itertools import permutations

import numpy as np
import pytest

from src.stats.matching import matched_correlation, matched_correlation_shuffled


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def by_brute_force(a: np.ndarray, b: np.ndarray, moved: int = 0) -> float:
    """All permutations and ``np.corrcoef``; with ``moved``, the held-out images of b come so many places later."""
    half, channels, numbers = len(a) // 2, range(a.shape[1]), []
    for chosen, held in ((slice(None, half), slice(half, None)), (slice(half, None), slice(None, half))):

        def correlation(i: int, j: int, part: slice, moved: int) -> float:
            x, y = a[part, i].ravel(), np.roll(b[part, j], moved, axis=0).ravel()
            return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.corrcoef(x, y)[0, 1])

        table = [[correlation(i, j, chosen, 0) for j in channels] for i in channels]
        best = max(permutations(channels), key=lambda order: sum(table[i][j] for i, j in enumerate(order)))
        numbers.append(np.mean([correlation(i, j, held, moved) for i, j in enumerate(best)]))
    return float(np.mean(numbers))


@pytest.mark.parametrize("shape", [(4, 1, 1, 1), (5, 3, 2, 4), (9, 4, 3, 3), (12, 5, 1, 2), (7, 2, 5, 1)])
@pytest.mark.parametrize("mix", [0.0, 0.7])
def test_a_match_is_that_of_all_permutations(shape: tuple[int, ...], mix: float) -> None:
    a, own = noise(1, *shape), noise(2, *shape)
    b = mix * a[:, ::-1] + own + noise(3, 1, *shape[1:])  # the last is common to all images
    assert matched_correlation(a, b) == pytest.approx(by_brute_force(a, b), abs=1e-12)
    assert -1 <= matched_correlation(a, b) <= 1 + 1e-12


@pytest.mark.parametrize("shape", [(8, 3, 2, 4), (12, 5, 1, 2)])
def test_the_floor_is_the_mean_over_orders_without_an_image_in_its_place(shape: tuple[int, ...]) -> None:
    """Cyclic orders compare each image with each other one once, as all orders without a fixed image do on average."""
    a = noise(1, *shape) + noise(2, 1, *shape[1:])
    b = a + 0.5 * noise(3, *shape)
    cyclic = [by_brute_force(a, b, moved) for moved in range(1, shape[0] // 2)]
    assert matched_correlation_shuffled(a, b) == pytest.approx(np.mean(cyclic), abs=1e-12)


def test_the_same_channels_in_another_order_and_scale_are_the_same() -> None:
    a = noise(0, 10, 7, 4, 4)
    order = np.random.default_rng(1).permutation(7)
    b = 3 + a[:, order] * np.linspace(0.1, 5, 7)[:, None, None]
    assert matched_correlation(a, b) == pytest.approx(1)
    assert abs(matched_correlation_shuffled(a, b)) < 0.1
    other = noise(2, 10, 7, 4, 4)
    assert matched_correlation(b, other) == pytest.approx(matched_correlation(a, other))


def test_dead_channels_count_as_0() -> None:
    a = noise(0, 10, 8, 3, 3)
    a[:, :2] = 0.3  # whose mean is rounded
    assert matched_correlation(a, a[:, ::-1]) == pytest.approx(6 / 8)
    assert matched_correlation(np.full_like(a, 0.1), a) == 0


@pytest.mark.parametrize("number", [matched_correlation, matched_correlation_shuffled])
def test_independent_outputs_give_0_on_average(number) -> None:  # type: ignore[no-untyped-def]
    """Chosen and judged on the same images, the best match of 16 channels would have a correlation of .32."""
    draws = np.array([number(noise(2 * i, 8, 16, 2, 3), noise(2 * i + 1, 8, 16, 2, 3)) for i in range(300)])
    assert abs(draws.mean()) < 4 * draws.std(ddof=1) / np.sqrt(len(draws)) < 0.01


def test_what_all_images_have_in_common_is_in_the_floor_too() -> None:
    place = noise(0, 1, 6, 5, 5)
    a, b = place + 0.3 * noise(1, 40, 6, 5, 5), place + 0.3 * noise(2, 40, 6, 5, 5)
    alike, floor = matched_correlation(a, b), matched_correlation_shuffled(a, b)
    assert alike > 0.85 and alike == pytest.approx(floor, abs=0.02)


def test_mixed_channels_are_less_alike_though_they_span_the_same_space() -> None:
    a = noise(0, 40, 6, 4, 4)
    rotation, _ = np.linalg.qr(noise(1, 6, 6))
    angles = [matched_correlation(a, np.einsum("nkhw,kl->nlhw", a, turn)) for turn in (np.eye(6), rotation)]
    assert angles[0] == pytest.approx(1) and angles[1] < 0.8


def test_outputs_that_are_not_numbers_give_none_and_few_images_or_other_shapes_are_refused() -> None:
    a = noise(0, 6, 2, 2, 2)
    b = a.copy()
    b[0, 0, 0, 0] = np.nan
    assert np.isnan(matched_correlation(a, b)) and np.isnan(matched_correlation_shuffled(b, a))
    with pytest.raises(ValueError, match="4 images or more"):
        matched_correlation(a[:3], a[:3])
