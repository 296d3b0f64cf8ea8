"""Rendered shapes: what the factors say is what the picture shows."""

import math

import pytest
import torch
from torch import Tensor

from src.data.sets import MARGIN, Source, load
from src.data.sets.shapes import CLASSES, render

SIZE, MARGIN_DRAWN = 48, 6
NAMES = list(CLASSES)


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Tensor, Tensor]:
    return render(400, SIZE, MARGIN_DRAWN, seed=5)


@pytest.fixture(scope="module")
def shapes() -> Source:
    return load("shapes", "data", 8)


def bright(drawn: tuple[Tensor, Tensor, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Where the images of a class are brighter than halfway, and their factors."""
    canvas, labels, factors = drawn
    chosen = labels == NAMES.index(name)
    x = canvas[chosen, 0].double()
    ground = x.flatten(1).median(1).values
    top = x.flatten(1).quantile(0.995, 1)
    return x > ((ground + top) / 2)[:, None, None], factors[chosen].double()


def centroid(mask: Tensor) -> tuple[Tensor, Tensor]:
    """x and y in units of the image's side."""
    pixels = (torch.arange(mask.shape[-1]) - MARGIN_DRAWN + 0.5) / SIZE
    mass = mask.sum((1, 2)).double()
    return (mask.sum(1) * pixels).sum(1) / mass, (mask.sum(2) * pixels).sum(1) / mass


@pytest.mark.parametrize("name", ["disk", "ring", "square", "frame", "bar", "cross", "triangle"])
def test_the_middle_is_where_the_factors_say(drawn, name):
    mask, factors = bright(drawn, name)
    x, y = centroid(mask)
    torch.testing.assert_close(torch.stack([x, y], 1), factors[:, :2], atol=0.5 / SIZE, rtol=0)


@pytest.mark.parametrize(("name", "area"), [("disk", math.pi), ("half", math.pi / 2), ("square", 1.96)])
def test_the_area_is_that_of_the_radius(drawn, name, area):
    mask, factors = bright(drawn, name)
    found = mask.double().sum((1, 2)) / SIZE**2
    torch.testing.assert_close(found, area * factors[:, 2] ** 2, rtol=0.12, atol=0)


def test_a_bar_points_along_its_angle(drawn):
    mask, factors = bright(drawn, "bar")
    for one, (_, _, _, angle) in zip(mask, factors.tolist(), strict=True):
        points = one.nonzero().double().flip(1)
        direction = torch.linalg.eigh((points - points.mean(0)).T.cov())[1][:, -1]
        assert abs(direction @ torch.tensor([math.cos(angle), math.sin(angle)]).double()) > 0.995


def test_the_half_lies_on_one_side_of_its_angle(drawn):
    mask, factors = bright(drawn, "half")
    x, y = centroid(mask)
    x0, y0, radius, angle = factors.unbind(1)
    across = (y - y0) * angle.cos() - (x - x0) * angle.sin()
    torch.testing.assert_close(across, 4 / (3 * math.pi) * radius, atol=0.7 / SIZE, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_shape_lies_inside_the_image(drawn, name):
    mask, factors = bright(drawn, name)
    x, y, radius, _ = factors.unbind(1)
    around = mask.clone()
    around[:, MARGIN_DRAWN:-MARGIN_DRAWN, MARGIN_DRAWN:-MARGIN_DRAWN] = False
    assert not around.any()
    assert (torch.minimum(x, y) - radius).min() >= 0
    assert (torch.maximum(x, y) + radius).max() <= 1


def test_classes_are_balanced(drawn):
    assert drawn[1].bincount().tolist() == [400 // len(CLASSES)] * len(CLASSES)


def test_images_are_those_of_the_seed():
    one, same, other = (render(20, 16, 2, seed) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(one, same, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_the_middle_of_the_canvas_is_the_image(shapes):
    for part in (shapes.train, shapes.test):
        assert torch.equal(part.padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN], part.images)
        assert part.images.shape[1:] == (1, 8, 8)
        assert part.factors.shape == (len(part), 4)
    assert shapes.classes == NAMES


def test_train_and_test_images_differ(shapes):
    train = {image.numpy().tobytes() for image in shapes.train.images}
    assert not any(image.numpy().tobytes() in train for image in shapes.test.images)
