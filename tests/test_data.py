"""From a set to a run's batches: splits, label noise, pad_images, normalisation, order, augmentation."""

from collections.abc import Callable
from functools import partial
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency
from torch import Tensor

from src.common.errors import UserError
from src.config import Data, from_dict
from src.data import splits
from src.data.batches import Batches, augmented
from src.data.names import AUGMENTATIONS
from src.data.sets import MARGIN, DataError, Images, Source
from src.data.splits import Splits, flip_labels, normalise, pad_images, pixel_statistics, split

CLASSES = 5


def part(count: int, first: int = 0, margin: bool = False) -> Images:
    """Images that show their own number: in all pixels of the first channel, so up to 256 of them."""
    size = 4 + 2 * MARGIN
    whole = torch.randint(0, 256, (count, 2, size, size), dtype=torch.uint8)
    whole[:, 0] = torch.arange(first, first + count, dtype=torch.uint8)[:, None, None]
    inner = whole[..., MARGIN:-MARGIN, MARGIN:-MARGIN].contiguous()
    return Images(inner, torch.arange(count) % CLASSES, whole if margin else None)


def numbers(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].round().int().tolist()


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Splits]:
    """``split`` of a set of 200 training and 50 test images."""
    source = Source(part(200, margin=True), part(50, first=200), [str(i) for i in range(CLASSES)], "edge")
    monkeypatch.setattr(splits, "load", lambda *_: source)
    return lambda **keys: split(Data(**{"val_size": 40} | keys))


# --- splits ----------------------------------------------------------------------------------------------------------


def test_every_image_is_in_one_part(cut):
    found = cut()
    train, val, test = (numbers(one.images) for one in (found.train, found.val, found.test))
    assert sorted(train + val) == list(range(200))
    assert test == list(range(200, 250))
    assert len(val) == 40


def test_labels_and_canvases_go_with_their_images(cut):
    found = cut(train_size=30)
    for one in (found.train, found.val):
        assert (one.labels == torch.tensor(numbers(one.images)) % CLASSES).all()
        assert torch.equal(one.padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN], one.images)


def test_the_split_is_that_of_its_seed(cut):
    one, same, other = (cut(split_seed=seed) for seed in (1, 1, 2))
    assert numbers(one.val.images) == numbers(same.val.images) != numbers(other.val.images)
    assert one.checksum == same.checksum != other.checksum


def test_sets_that_leave_nothing_to_compare_are_refused(monkeypatch):
    def of(train: int, test: int, classes: list[str]) -> Source:
        return Source(part(train), part(test), classes, "edge")

    for source, message in (
        (of(50, 9, ["a"]), r"only one class \(a\), where two"),
        (of(50, 1, ["a", "b"]), "1 test image, where two are needed"),
    ):
        monkeypatch.setattr(splits, "load", lambda *_, source=source: source)
        with pytest.raises(DataError, match=message):
            split(Data(val_size=10))
    shapes = Data(name="shapes", image_size=16, task="where", val_size=1)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"data\.val_size=1: at least 2 with data\.task=where"):
        split(shapes)


def test_a_smaller_training_set_is_a_part_of_the_larger_one(cut):
    small, large, whole = cut(train_size=20), cut(train_size=60), cut()
    assert len(small.train) == 20
    assert set(numbers(small.train.images)) < set(numbers(large.train.images)) < set(numbers(whole.train.images))
    assert numbers(small.val.images) == numbers(whole.val.images)
    assert len({small.checksum, large.checksum, whole.checksum}) == 3


@pytest.mark.parametrize("keys", [{"val_size": 200}, {"val_size": 190, "train_size": 11}])
def test_too_few_images_are_refused(cut, keys):
    with pytest.raises(DataError, match=r"has 200 training images: too few for data\.val_size="):
        cut(**keys)


def test_a_split_says_the_shape_of_its_images(cut):
    assert cut().image == (2, 4, 4)


# --- label noise -----------------------------------------------------------------------------------------------------


@given(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), st.integers(1, 100), st.integers(2, 6))
def test_just_the_share_of_labels_becomes_another_class(share, count, classes):
    labels = torch.arange(count) % classes
    noisy = flip_labels(labels, classes, share, torch.Generator().manual_seed(0))
    assert (noisy != labels).sum() == round(share * count)
    assert ((noisy >= 0) & (noisy < classes)).all()


def test_every_other_class_is_as_likely():
    labels = torch.full((8000,), 2)
    counts = flip_labels(labels, 5, 1.0, torch.Generator().manual_seed(0)).bincount(minlength=5)
    assert counts[2] == 0
    assert (counts[[0, 1, 3, 4]] - 2000).abs().max() < 4 * (8000 * 0.25 * 0.75) ** 0.5


def test_random_labels_are_any_class_and_say_nothing_of_the_true_one():
    n, classes = 40_000, 5
    labels = torch.arange(n) % classes
    noisy = flip_labels(labels, classes, 1.0, torch.Generator().manual_seed(0), "random")
    counts = (labels * classes + noisy).bincount(minlength=classes**2).view(classes, classes).numpy()
    assert chi2_contingency(counts).pvalue > 0.01 and counts.min() > 0
    half = flip_labels(labels, classes, 0.5, torch.Generator().manual_seed(0), "random")
    expected, sd = 0.5 * (1 - 1 / classes), (0.5 * 0.2 * 0.8 / n) ** 0.5
    assert (half != labels).double().mean().item() == pytest.approx(expected, abs=4 * sd)


def test_the_rate_of_random_labels_is_that_of_the_wrong_ones(cut):
    clean, noisy = cut(), cut(label_noise=1.0, label_noise_kind="random")
    assert noisy.noise_rate == (noisy.train.labels != clean.train.labels).double().mean() < 0.9
    assert torch.equal(noisy.true_labels, clean.train.labels)
    assert torch.equal(noisy.test.labels, clean.test.labels)
    with pytest.raises(UserError, match=r"^data\.label_noise_kind=rnd: .*choose one of wrong, random"):
        from_dict({"data": {"label_noise_kind": "rnd"}})


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_only_training_labels_are_noisy(cut, share):
    clean, noisy = cut(), cut(label_noise=share)
    assert noisy.noise_rate == (noisy.train.labels != clean.train.labels).double().mean() == share
    assert numbers(noisy.train.images) == numbers(clean.train.images)
    assert torch.equal(noisy.val.labels, clean.val.labels)
    assert torch.equal(noisy.test.labels, clean.test.labels)
    assert (noisy.checksum == clean.checksum) == (share == 0)


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_training_images_are_normalised_to_zero_mean_and_unit_variance(cut):
    found = cut()
    x = found.normalise(found.train.images)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_pixel_statistics_are_those_of_the_pixels():
    images = part(30).images
    x = images.double() / 255
    mean, std = pixel_statistics(images)
    torch.testing.assert_close(mean, x.mean((0, 2, 3)).float())
    torch.testing.assert_close(std, x.std((0, 2, 3), correction=0).float())


def test_images_of_one_grey_stay_finite():
    images = torch.full((3, 1, 4, 4), 7, dtype=torch.uint8)
    assert splits.normalise(images, *pixel_statistics(images)).isfinite().all()


@pytest.mark.parametrize("margin", [1, MARGIN, MARGIN + 3])
@pytest.mark.parametrize("out_of_frame", ["black", "edge"])
def test_a_canvas_holds_the_true_pixels_then_what_lies_beyond(margin, out_of_frame):
    own = part(3, margin=True)
    y = pad_images(own, margin, out_of_frame)
    assert y.shape[-2:] == (4 + 2 * margin, 4 + 2 * margin)
    assert torch.equal(y[..., margin:-margin, margin:-margin], own.images)
    out = max(margin - MARGIN, 0)  # the corner of what is true, in y and in the canvas
    cut = max(MARGIN - margin, 0)
    corner = own.padded[..., cut, cut]
    assert torch.equal(y[..., out, out], corner)
    if out:
        assert torch.equal(y[..., 0, 0], torch.zeros_like(corner) if out_of_frame == "black" else corner)


@pytest.mark.parametrize("out_of_frame", ["black", "edge"])
def test_without_a_canvas_all_around_lies_beyond(out_of_frame):
    own = part(3)
    y = pad_images(own, 2, out_of_frame)
    assert torch.equal(y[..., 2:-2, 2:-2], own.images)
    edge = own.images[..., 0, 1]
    assert torch.equal(y[..., 0, 3], torch.zeros_like(edge) if out_of_frame == "black" else edge)


# --- batches ---------------------------------------------------------------------------------------------------------

UNIT = partial(normalise, mean=torch.zeros(2), std=torch.full((2,), 1 / 255))  # normalised pixels are the pixels


def epoch(batches: Batches, number: int = 0) -> list[list[int]]:
    batches.set_epoch(number)
    return [numbers(x) for x, *_ in batches]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_every_image_comes_once_an_epoch(count, batch_size, number):
    batches = Batches(part(count), batch_size, UNIT, seed=1)
    found = epoch(batches, number)
    assert len(found) == len(batches)
    assert {len(one) for one in found[:-1]} <= {batch_size}
    assert len(found[-1]) > 1 or batch_size == 1 or count == 1
    assert sorted(chain(*found)) == list(range(count))


def test_a_last_image_alone_joins_the_batch_before_where_something_is_learned():
    assert [len(one) for one in epoch(Batches(part(9), 4, UNIT, seed=1))] == [4, 5]
    assert [len(one) for one in epoch(Batches(part(10), 4, UNIT, seed=1))] == [4, 4, 2]
    assert [len(one) for one in epoch(Batches(part(9), 4, UNIT))] == [4, 4, 1]
    halves = [epoch(Batches(part(9), 4, UNIT, seed=1, rank=rank, world=2)) for rank in (0, 1)]
    assert [[len(one) for one in half] for half in halves] == [[2, 3], [2, 2]]
    resumed = Batches(part(9), 4, UNIT, seed=1)
    resumed.load_state_dict({"position": 1, "generator": torch.Generator().get_state()})
    assert [len(one) for one in epoch(resumed)] == [5]


def test_the_order_is_that_of_seed_and_epoch():
    one, same, other = (Batches(part(50), 8, UNIT, seed=seed) for seed in (1, 1, 2))
    assert epoch(one, 3) == epoch(same, 3)
    assert epoch(one, 3) != epoch(one, 4)
    assert epoch(one, 3) != epoch(other, 3)
    assert epoch(one, 3) == epoch(same, 3)


def test_without_a_seed_nothing_is_moved():
    own = part(20)
    batches = Batches(own, 8, UNIT, augment="flip_shift")
    assert list(chain(*epoch(batches, 5))) == list(range(20))
    torch.testing.assert_close(torch.cat([x for x, *_ in batches]), own.images.float())


def test_labels_go_with_their_images():
    for x, y, _ in Batches(part(50), 8, UNIT, seed=1):
        assert [number % CLASSES for number in numbers(x)] == y.tolist()


@given(st.integers(4, 60), st.integers(3, 20), st.integers(2, 3))
def test_ranks_share_every_batch(count, batch_size, world):
    whole = epoch(Batches(part(count), batch_size, UNIT, seed=1), 2)
    ranks = [Batches(part(count), batch_size, UNIT, seed=1, rank=rank, world=world) for rank in range(world)]
    for index, (batch, *shares) in enumerate(zip(whole, *(epoch(rank, 2) for rank in ranks), strict=True)):
        counted = [share for one, share in zip(ranks, shares, strict=True) if one.counts(index)]
        assert sorted(chain(*counted)) == sorted(batch)
        means = [one.weight(index) * sum(share) / len(share) for one, share in zip(ranks, shares, strict=True)]
        assert sum(means) / world == pytest.approx(sum(batch) / len(batch)), "no image weighs more than another"


# --- augmentation ----------------------------------------------------------------------------------------------------


def copies(image: Tensor, how: str) -> set[bytes]:
    """All that augmentation may make of an image."""
    _, height, width = image.shape
    found = [image, image.flip(-1)] if "flip" in how else [image]
    if "shift" in how:
        padded = [torch.nn.functional.pad(one, (4,) * 4) for one in found]
        found = [one[:, i : i + height, j : j + width] for one in padded for i in range(9) for j in range(9)]
    return {one.contiguous().numpy().tobytes() for one in found}


@pytest.mark.parametrize(("how", "count"), [("none", 1), ("flip", 2), ("shift", 81), ("flip_shift", 162)])
def test_augmentation_makes_all_its_copies_and_no_other(how, count):
    image = torch.randint(1, 256, (2, 6, 7), dtype=torch.uint8)
    y = augmented(image.expand(3000, 2, 6, 7), how, torch.Generator().manual_seed(0))
    assert (y.dtype, y.shape) == (torch.uint8, (3000, 2, 6, 7))
    made = {one.contiguous().numpy().tobytes() for one in y}
    assert made == copies(image, how)
    assert len(made) == count


def test_every_augmentation_has_its_test():
    assert set(AUGMENTATIONS) == {"none", "flip", "shift", "flip_shift"}


@pytest.mark.parametrize("how", [how for how in AUGMENTATIONS if how != "none"])
def test_augmentation_repeats_by_epoch(how):
    own = Images(torch.randint(0, 256, (40, 2, 6, 7), dtype=torch.uint8), torch.zeros(40, dtype=torch.long))
    batches = Batches(own, 16, UNIT, seed=3, augment=how)
    first = [torch.cat([x for x, *_ in batches]) for _ in range(2)]
    assert torch.equal(*first)
    plain = torch.cat([x for x, *_ in Batches(own, 16, UNIT, seed=3)])
    assert first[0].shape == plain.shape
    assert not torch.equal(first[0], plain)
