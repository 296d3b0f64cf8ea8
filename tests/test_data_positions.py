"""Where things are: sets placed on a larger canvas, and the red-green task."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy.stats import kstest

from src.common.errors import UserError
from src.config import Data, from_dict
from src.data.sets import DataError, Images, load, place, red_green
from src.data.sets.shapes import render
from src.data.splits import split

# --- on a canvas -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 7), st.integers(1, 3))
def test_a_placed_image_lies_whole_on_black_where_its_factors_say(height, width, room, channels):
    images = torch.randint(1, 256, (5, channels, height, width), dtype=torch.uint8)
    side = max(height, width) + room
    placed = place(Images(images, torch.arange(5)), side, seed=3)
    assert placed.images.shape == (5, channels, side, side)
    for one, canvas, (x, y, _, _) in zip(images, placed.images, placed.factors, strict=True):
        rows, columns = np.nonzero(canvas.amax(0).numpy())
        assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(y.item() * side, abs=1e-4)
        assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(x.item() * side, abs=1e-4)
        found = canvas[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert torch.equal(found, one)
    assert torch.equal(placed.labels, torch.arange(5))


def test_places_are_uniform_and_differ_from_part_to_part():
    images = Images(torch.ones(4000, 1, 2, 2, dtype=torch.uint8), torch.zeros(4000, dtype=torch.long))
    one, other = (place(images, 102, seed).factors for seed in (1, 2))
    assert kstest((one[:, 0] * 102 - 1) / 101, "uniform").pvalue > 0.01
    assert kstest((one[:, 1] * 102 - 1) / 101, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(one[:, :2].T)[0, 1]) < 0.1
    assert not torch.equal(one, other)


def test_positions_of_objects_follow_their_images():
    canvas, labels, factors = render(20, 32, 0, seed=1)
    placed = place(Images(canvas, labels, factors=factors), 64, seed=1)
    shift = placed.factors[:, :2] * 64 - factors[:, :2] * 32  # of the image's corner, in whole pixels
    torch.testing.assert_close(shift, shift.round(), atol=1e-4, rtol=0)
    for i, (x, y) in enumerate(shift.round().long().tolist()):
        assert torch.equal(placed.images[i, :, y : y + 32, x : x + 32], canvas[i])
    torch.testing.assert_close(placed.factors[:, 2:], factors[:, 2:] * torch.tensor([0.5, 1.0]))


def test_a_canvas_smaller_than_the_images_is_refused():
    with pytest.raises(DataError, match=r"^data\.canvas=31: smaller than the images, which are 32×32$"):
        split(Data(name="shapes", image_size=32, canvas=31))


def test_a_set_without_positions_cannot_be_asked_where():
    with pytest.raises(DataError, match=r"data\.task=where: data=red_green has no positions; take data=shapes, or"):
        split(Data(name="red_green", image_size=32, task="where", val_size=100))
    placed = split(Data(name="red_green", image_size=32, task="where", val_size=100, canvas=48))
    assert placed.image == (3, 48, 48)
    assert placed.train.positions.shape == (len(placed.train), 2)
    moved = placed.others["dissimilar"]
    assert moved.images.shape == placed.test.images.shape
    assert torch.equal(moved.positions, placed.test.positions)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"task": "where", "augment": "shift"}, "data.augment=shift: with data.task=where leave it out, as it would"),
        ({"task": "both", "augment": "flip"}, "data.augment=flip: with data.task=both leave it out, as it would move"),
        ({"task": "where", "label_noise": 0.2}, "data.label_noise=0.2: with data.task=where leave it out, as the task"),
    ],
)
def test_augmentation_that_moves_labelled_positions_is_refused(data, line):
    with pytest.raises(UserError) as refusal:
        from_dict({"data": data})
    assert str(refusal.value).startswith(line)


# --- red and green ---------------------------------------------------------------------------------------------------


def corner(plane: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column of the one bright square of a plane."""
    windows = sliding_window_view(plane, (side, side)).min((2, 3))
    ((row, column),) = np.argwhere(windows == 255)
    assert (plane == 255).sum() == side**2 and (plane > 0).sum() == side**2
    return int(row), int(column)


@pytest.mark.parametrize("size", [32, 64])
def test_red_and_green_lie_as_the_paper_says(size):
    images, dissimilar, labels = red_green.render(600, size, seed=5)
    unit = size // 32
    seen: dict[str, set[int]] = {"left": set(), "gap": set(), "height": set()}
    for image, moved, label in zip(images.numpy(), dissimilar.numpy(), labels.tolist(), strict=True):
        red, green = (corner(image[colour], 4 * unit) for colour in (0, 1))
        assert image[2].max() == 0
        left, right = (red, green) if label == 0 else (green, red)
        gap = right[1] - left[1] - 4 * unit
        assert gap >= unit and right[1] + 4 * unit <= size
        seen["left"].add(left[1])
        seen["gap"].add(gap)
        for (row, column), colour in ((red, 0), (green, 1)):
            seen["height"].add(row - 16 * unit * label)
            assert corner(moved[colour], 4 * unit) == (row + (16 if label == 0 else -16) * unit, column)
    assert seen["left"] == set(range(10 * unit))
    assert seen["height"] == set(range(3 * unit, 11 * unit))
    assert min(seen["gap"]) == unit
    assert labels.bincount().tolist() == [300, 300]


def test_the_red_green_set_keeps_black_at_zero_and_its_parts_apart():
    source = load("red_green", "", 32)
    parts = split(Data(name="red_green", image_size=32, val_size=1000))
    assert parts.normalise(parts.test.images).unique().tolist() == [0, 1]
    assert torch.equal(parts.others["dissimilar"].images, source.test.images.roll(16, 2))
    assert (len(parts.train), len(parts.val), len(parts.test)) == (2000, 1000, 1000)
    train = {image.numpy().tobytes() for image in source.train.images}
    again = sum(image.numpy().tobytes() in train for image in source.test.images)
    assert again < 200, "about one in eight by chance: a class has some 12,000 pairs of places, training 1,500"


def test_a_size_that_the_task_is_not_defined_for_is_refused():
    with pytest.raises(DataError, match=r"^data\.image_size=40: data=red_green needs a multiple of 32$"):
        split(Data(name="red_green", image_size=40))
