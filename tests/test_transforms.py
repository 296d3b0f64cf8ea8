"""Shifts against torch.roll and slicing; the directions they are drawn from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from src.transforms import SHIFTS, crop, draw_shifts, gather, roll

MARGIN = 3
shifts = st.lists(st.tuples(*[st.integers(-MARGIN, MARGIN)] * 2), min_size=1, max_size=4).map(torch.tensor)


def canvas(n: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.randint(0, 256, (n, 2, 7 + 2 * MARGIN, 5 + 2 * MARGIN)).to(dtype)


@given(shifts, st.sampled_from([torch.uint8, torch.float32]))
def test_roll_is_torch_roll_image_by_image(shift, dtype):
    x = canvas(len(shift), dtype)
    expected = [image.roll(tuple(one), (1, 2)) for image, one in zip(x, shift.tolist(), strict=True)]
    assert torch.equal(roll(x, shift), torch.stack(expected))


@given(shifts, st.sampled_from([torch.uint8, torch.float32]))
def test_crop_is_slicing_image_by_image(shift, dtype):
    x = canvas(len(shift), dtype)
    expected = [
        image[:, MARGIN - down : MARGIN - down + 7, MARGIN - right : MARGIN - right + 5]
        for image, (down, right) in zip(x, shift.tolist(), strict=True)
    ]
    assert torch.equal(crop(x, shift, MARGIN), torch.stack(expected))


def test_gather_takes_rows_and_columns_by_number():
    x = canvas(2)
    rows, columns = torch.tensor([[0, 2, 1], [3, 3, 0]]), torch.tensor([[4, 0], [1, 2]])
    y = gather(x, rows, columns)
    assert all(torch.equal(y[i], x[i][:, rows[i]][:, :, columns[i]]) for i in range(2))


@pytest.mark.parametrize("protocol", SHIFTS)
def test_a_zero_shift_is_the_image_in_place(protocol):
    x = canvas(3)
    moved = SHIFTS[protocol](x, torch.zeros(3, 2, dtype=torch.long), MARGIN)
    assert torch.equal(moved, x[..., MARGIN:-MARGIN, MARGIN:-MARGIN])


@pytest.mark.parametrize("protocol", SHIFTS)
@given(shifts)
def test_protocols_differ_at_the_border_alone(protocol, shift):
    x = canvas(len(shift))
    still = x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    for image, moved, (down, right) in zip(still, SHIFTS[protocol](x, shift, MARGIN), shift.tolist(), strict=True):
        height, width = image.shape[1:]
        inside = image[:, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
        landed = moved[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        assert torch.equal(landed, inside)


def test_rolls_bring_back_what_leaves():
    x, shift = canvas(4), torch.tensor([[1, 2], [-3, 0], [0, -1], [2, -2]])
    moved = SHIFTS["roll"](x, shift, MARGIN)
    assert torch.equal(moved.flatten(1).sort(1).values, crop(x, 0 * shift, MARGIN).flatten(1).sort(1).values)


@pytest.mark.parametrize("amount", [1, 2, 5])
def test_all_shifts_of_an_amount_are_drawn_equally_often(amount):
    drawn = draw_shifts(4000 * amount, amount, torch.Generator().manual_seed(0))
    found, counts = drawn.unique(dim=0, return_counts=True)
    span = range(-amount, amount + 1)
    ring = [[down, right] for down in span for right in span if max(abs(down), abs(right)) == amount]
    assert found.tolist() == ring
    assert len(ring) == 8 * amount
    assert chisquare(counts).pvalue > 0.01


def test_shifts_are_those_of_the_seed():
    one, same, other = (draw_shifts(50, 3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
