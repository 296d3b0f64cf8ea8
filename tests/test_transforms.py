"""Transforms against other libraries', their way back, and what equivariant toys make of them."""

import math

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import chisquare, kstest

from src.common.errors import UserError
from src.transforms import SHIFTS, TABLE, TRANSFORMS, SamplingGrid, crop, draw_shifts, gather, roll, rotate

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


each = pytest.mark.parametrize("name", TRANSFORMS)
each_moving = pytest.mark.parametrize("name", [name for name, one in TRANSFORMS.items() if one.is_spatial])
picks = st.integers(0, 7)  # an amount of the transform's: the first, the second …
sizes = st.tuples(st.integers(9, 15), st.integers(9, 15))
WIDE = 8  # margin for the largest default shift


def an_amount(name: str, pick: int) -> float:
    amounts = TRANSFORMS[name].amounts
    return amounts[pick % len(amounts)]


def drawn(name: str, amount: float, n: int = 5, seed: int = 0) -> torch.Tensor:
    return TRANSFORMS[name].draw(n, amount, torch.Generator().manual_seed(seed))


def square_if_asked(name: str, size: tuple[int, int]) -> tuple[int, int]:
    return (size[0], size[0]) if name == "rotate/quarter" else size


def noise(size: tuple[int, int], margin: int = 0, n: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (n, 2, size[0] + 2 * margin, size[1] + 2 * margin)).to(torch.uint8)


def smooth(size: tuple[int, int], n: int = 5, waves: int = 1) -> torch.Tensor:
    """Circular waves in [-2, 2], so many over the map's size."""
    y, x = torch.meshgrid(*(torch.arange(side) / side * 2 * torch.pi * waves for side in size), indexing="ij")
    phase = torch.rand(2, n, 2, 1, 1) * 2 * torch.pi
    return (y + phase[0]).cos() + (x + phase[1]).cos()


@each
@settings(max_examples=8)
@given(pick=picks, size=sizes)
def test_a_transform_changes_every_image_and_keeps_shape_type_and_range(name, pick, size):
    one, size = TRANSFORMS[name], square_if_asked(name, size)
    x, p = noise(size, WIDE), drawn(name, an_amount(name, pick))
    still, moved = one.reference(x, WIDE), one.images(x, p, WIDE)
    assert moved.shape == still.shape == (5, 2, *size)
    assert (moved != still).flatten(1).any(1).all()
    assert moved.dtype == (torch.uint8 if one.is_spatial and one.exact(p).all() else torch.float32)
    assert still.dtype == torch.uint8
    assert one.images(x.double(), p, WIDE).dtype == torch.float64
    assert name == "subpixel/fourier" or (moved.min() >= 0 and moved.max() <= 255)


@each
def test_an_image_is_transformed_by_its_own_parameters_alone(name):
    amount = TRANSFORMS[name].amounts[-1]
    one, x, p = TRANSFORMS[name], noise((12, 12), WIDE), drawn(name, amount)
    together = one.images(x, p, WIDE)
    for i in range(5):
        alone = one.images(x[i : i + 1], p[i : i + 1], WIDE)
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-3, rtol=0)


@each
def test_parameters_are_those_of_the_seed_and_images_those_of_the_parameters(name):
    amount = TRANSFORMS[name].amounts[-1]
    one, x, p = TRANSFORMS[name], noise((12, 12), WIDE, 50), drawn(name, amount, 50)
    torch.rand(1)  # the state of torch's own generator plays no part
    assert torch.equal(p, drawn(name, amount, 50))
    assert torch.equal(one.images(x, p, WIDE), one.images(x, p.clone(), WIDE))
    constant = {"rotate/quarter", "flip/mirror", "blur/gaussian"}
    assert torch.equal(p, drawn(name, amount, 50, seed=1)) == (name in constant)
    assert (len(p.unique(dim=0)) == 1) == (name in constant)


@each
def test_all_is_done_on_the_device_of_the_images(name):
    amount = TRANSFORMS[name].amounts[-1]
    one, x, p = TRANSFORMS[name], noise((12, 12), WIDE), drawn(name, amount)
    expected = one.images(x, p, WIDE)
    with torch.device("meta"):  # of tensors made without naming a device, which could not be used with x
        assert torch.equal(one.images(x, p, WIDE), expected)
        assert one.valid(x, p, 3, round_trip=True).device == one.exact(p, 3).device == x.device


@each_moving
@settings(max_examples=8)
@given(pick=picks, size=sizes, jump=st.sampled_from([1, 2, 3]))
def test_the_way_back_undoes(name, pick, size, jump):
    one, p, size = TRANSFORMS[name], drawn(name, an_amount(name, pick)), square_if_asked(name, size)
    x = torch.randn(5, 2, *size)
    back, ok = one.round_trip(x, p, jump), one.valid(x, p, jump, round_trip=True)[:, None].expand_as(x)
    easy = one.exact(p, jump)
    assert torch.equal(back[easy][ok[easy]], x[easy][ok[easy]])
    if one.protocol in {"roll", "fourier"}:  # of even sizes, all but the highest frequency
        x = torch.fft.fft2(x) * (torch.fft.fftfreq(size[0])[:, None] > -0.5) * (torch.fft.fftfreq(size[1]) > -0.5)
        torch.testing.assert_close(one.round_trip(x := torch.fft.ifft2(x).real, p, jump), x, atol=1e-4, rtol=0)
    else:
        x = smooth(size)
        worst = ((one.round_trip(x, p, jump) - x).abs() * ok).max()
        assert worst < 4 * 2 * (torch.pi / min(size)) ** 2  # two interpolations' worst between samples, on each axis


@each_moving
@settings(max_examples=8)
@given(pick=picks, size=sizes, jump=st.sampled_from([1, 2, 3]))
def test_where_it_is_valid_nothing_comes_from_beyond_the_border(name, pick, size, jump):
    one, p, size = TRANSFORMS[name], drawn(name, an_amount(name, pick)), square_if_asked(name, size)
    x = smooth(size)
    for back in (False, True):
        ok = one.valid(x, p, jump, back)
        action = one.round_trip if back else one.maps
        if one.protocol in {"roll", "fourier", "quarter", "mirror"}:
            assert ok.all()
            continue
        wide = torch.nn.functional.pad(x, [WIDE] * 4, value=100)
        beyond = action(wide, p, jump)[..., WIDE:-WIDE, WIDE:-WIDE]
        torch.testing.assert_close(beyond * ok[:, None], action(x, p, jump) * ok[:, None], atol=2e-2, rtol=0)


def test_all_that_is_valid_is_said_to_be():
    x, p = torch.zeros(3, 1, 9, 7), torch.tensor([[2, -1], [0, 4], [-3, 3]])
    embed, disc = TRANSFORMS["shift/embed"], TRANSFORMS["rotate/disc"]
    assert embed.valid(x, p).sum((1, 2)).tolist() == [7 * 6, 9 * 3, 6 * 4]
    assert embed.valid(x, p, 2).sum((1, 2)).tolist() == [8 * 6, 9 * 5, 7 * 5]
    assert disc.valid(x, torch.tensor([[10.0], [45.0], [-90.0]])).sum((1, 2)).tolist() == [25, 25, 37]


@each
@settings(max_examples=8)
@given(pick=picks, size=sizes)
def test_an_identity_net_is_equivariant(name, pick, size):
    """Its maps are the images: ρ(g) of the untouched ones are the transformed ones, where that is valid."""
    one, x = TRANSFORMS[name], noise(square_if_asked(name, size), WIDE)
    p, still = drawn(name, an_amount(name, pick)), one.reference(x, WIDE)
    moved, followed = one.images(x, p, WIDE), one.maps(still, p)
    if one.is_spatial:
        ok = one.valid(still, p)[:, None]
        torch.testing.assert_close(followed * ok, moved * ok, atol=3e-2, rtol=0)
    else:
        assert torch.equal(followed, still)
        assert one.exact(p, 3).all()


@pytest.mark.parametrize("protocol", ["roll", "crop", "embed"])
@given(jump=st.integers(1, 3), cells=st.tuples(st.integers(3, 5), st.integers(3, 5)))
def test_subsampling_follows_shifts_by_multiples_of_its_jump(protocol, jump, cells):
    one, x = TRANSFORMS[f"shift/{protocol}"], noise((cells[0] * jump, cells[1] * jump), 2 * jump)
    p = drawn(f"shift/{protocol}", 2) * jump
    margin = 2 * jump
    still, moved = (y[..., ::jump, ::jump] for y in (one.reference(x, margin), one.images(x, p, margin)))
    assert one.exact(p, jump).all()
    ok = one.valid(still, p, jump)[:, None].expand_as(still)
    assert ok.any()
    assert torch.equal(one.maps(still, p, jump)[ok], moved[ok])


@pytest.mark.parametrize("name", ["shift/roll", "subpixel/fourier"])
@given(size=st.tuples(st.integers(5, 9), st.integers(5, 9)))
def test_subsampling_follows_any_circular_shift_of_what_it_does_not_alias(name, size):
    one, p = TRANSFORMS[name], drawn(name, 1)
    x = smooth((2 * size[0], 2 * size[1]), waves=2)
    moved = one.images(x, p, 0)[..., ::2, ::2]
    torch.testing.assert_close(one.maps(x[..., ::2, ::2], p, 2), moved, atol=1e-5, rtol=0)
    assert not one.exact(p, 2).all()


@pytest.mark.parametrize("name", ["rotate/quarter", "flip/mirror"])
@pytest.mark.parametrize("pool", [torch.nn.functional.avg_pool2d, torch.nn.functional.max_pool2d])
def test_pools_follow_what_leaves_their_windows_in_place(name, pool):
    one = TRANSFORMS[name]
    for amount in one.amounts:
        x, p = noise((12, 12)).double(), drawn(name, amount)
        assert torch.equal(one.maps(pool(x, 3), p, 3), pool(one.images(x, p, 0), 3))
        assert one.exact(p, 3).all()


@given(shifts, st.sampled_from([1, 2, 3, 0.5]))
def test_shifts_are_exact_in_whole_steps(shift, jump):
    expected = [all(step % jump == 0 for step in one) for one in shift.tolist()]
    assert TRANSFORMS["shift/embed"].exact(shift, jump).tolist() == expected


@given(shifts, st.sampled_from([1, 2]))
def test_embed_is_scipys_shift(shift, jump):
    x = canvas(len(shift), torch.float32)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    moved, ok = (f(x, shift, jump) for f in (TRANSFORMS["shift/embed"].maps, TRANSFORMS["shift/embed"].valid))
    for image, one, there, by in zip(x, moved, ok, shift.tolist(), strict=True):
        expected = ndimage.shift(image.numpy(), (0, by[0] / jump, by[1] / jump), order=1, mode="grid-constant")
        np.testing.assert_allclose(one, expected, atol=1e-2)
        assert there.all() or (jump == 1) <= bool((expected[:, ~there.numpy()] == 0).all())


@given(sizes, st.sampled_from([0.25, 0.5, 1.7]))
def test_fourier_is_scipys_axis_by_axis(size, amount):
    x, p = torch.randn(5, 2, *size).double(), drawn("subpixel/fourier", amount)
    torch.testing.assert_close(p.norm(dim=1), torch.full((5,), amount))
    moved = TRANSFORMS["subpixel/fourier"].images(x, p, 0)
    for image, one, by in zip(x.numpy(), moved.numpy(), p.tolist(), strict=True):
        for axis in (0, 1):  # what is real after each axis is what a real wave at the Nyquist frequency becomes
            vector = [0.0, by[0] * (axis == 0), by[1] * (axis == 1)]
            image = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(image), [0, *vector[1:]])).real  # noqa: PLW2901
        np.testing.assert_allclose(one, image, atol=1e-5)
    torch.testing.assert_close(moved.mean((2, 3)), x.mean((2, 3)), atol=1e-6, rtol=0)


@given(sizes, st.sampled_from([5.0, 45.0, 120.0]))
def test_rotations_are_kornias_and_scipys(size, amount):
    one, x, p = TRANSFORMS["rotate/disc"], noise(size, 4).float(), drawn("rotate/disc", amount)
    moved, disc = one.images(x, p, 4), one.reference(torch.ones_like(x), 4)
    expected = kornia.geometry.transform.rotate(x, p[:, 0])[..., 4:-4, 4:-4]
    torch.testing.assert_close(moved, expected * disc, atol=1e-2, rtol=0)
    for i, angle in enumerate(p[:, 0].tolist()):
        other = ndimage.rotate(x[i].numpy(), angle, axes=(1, 2), reshape=False, order=1)[:, 4:-4, 4:-4]
        np.testing.assert_allclose(moved[i], other * disc[i].numpy(), atol=1e-2)


@given(sizes, st.sampled_from([1.1, 1.5]))
def test_scales_are_kornias(size, amount):
    one, x, p = TRANSFORMS["scale/disc"], noise(size, 4).float(), drawn("scale/disc", amount, 9)[:5]
    assert {round(factor, 4) for factor in drawn("scale/disc", amount, 50)[:, 0].tolist()} == {
        amount,
        round(1 / amount, 4),
    }
    expected = kornia.geometry.transform.scale(x, p.expand(-1, 2))[..., 4:-4, 4:-4]
    torch.testing.assert_close(
        one.images(x, p, 4), one.reference(expected.new_ones(x.shape), 4) * expected, atol=1e-2, rtol=0
    )


@pytest.mark.parametrize("amount", [90, 180, 270])
def test_quarters_are_numpys_and_rotations_by_as_much(amount):
    x, p = noise((11, 11), 1), drawn("rotate/quarter", amount)
    still, moved = x[..., 1:-1, 1:-1], TRANSFORMS["rotate/quarter"].images(x, p, 1)
    assert np.array_equal(moved, np.rot90(still.numpy(), amount // 90, (2, 3)))
    disc = TRANSFORMS["rotate/disc"]
    other = disc.images(x, torch.full((5, 1), float(amount)), 1)
    torch.testing.assert_close(other, disc.reference(moved, 0).float(), atol=1e-2, rtol=0)
    several = torch.tensor([[0], [1], [2], [3], [1]])
    for image, one, turns in zip(still, TRANSFORMS["rotate/quarter"].maps(still, several), several, strict=True):
        assert torch.equal(one, image.rot90(int(turns), (1, 2)))


def test_a_disc_is_the_largest_and_black_around_it():
    seen = TRANSFORMS["rotate/disc"].reference(torch.full((1, 1, 7, 9), 9, dtype=torch.uint8), 1)
    assert seen[0, 0].tolist() == [[0, 0, 9, 9, 9, 0, 0], *[[0, 9, 9, 9, 9, 9, 0]] * 3, [0, 0, 9, 9, 9, 0, 0]]


def test_with_a_margin_nothing_black_is_turned_in():
    x = torch.full((5, 1, 14, 16), 200, dtype=torch.uint8)
    one = TRANSFORMS["rotate/disc"]
    torch.testing.assert_close(
        one.images(x, drawn("rotate/disc", 33), 1), one.reference(x, 1).float(), atol=1e-3, rtol=0
    )


def test_a_mirror_is_numpys():
    x = noise((7, 9), 2)
    moved = TRANSFORMS["flip/mirror"].images(x, drawn("flip/mirror", 1), 2)
    assert np.array_equal(moved, np.flip(x.numpy()[..., 2:-2, 2:-2], 3))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blurs_are_kornias(sigma):
    x, p = noise((7, 9), 12), drawn("blur/gaussian", sigma)
    expected = kornia.filters.gaussian_blur2d(x.float(), (23, 23), (sigma, sigma))[..., 12:-12, 12:-12]
    torch.testing.assert_close(TRANSFORMS["blur/gaussian"].images(x, p, 12), expected, atol=1e-3, rtol=0)
    flat = torch.full((5, 1, 6, 6), 70.0)
    torch.testing.assert_close(TRANSFORMS["blur/gaussian"].images(flat, p, 0), flat)


@pytest.mark.parametrize("amount", [0.1, 0.4])
def test_brightness_is_kornias_and_contrast_torchvisions(amount):
    x, p = noise((7, 9))[:, :1], drawn("contrast/factor", amount)
    brighter, starker = (TRANSFORMS[name].images(x, p, 0) for name in ("brightness/offset", "contrast/factor"))
    expected = kornia.enhance.adjust_brightness(x.float() / 255, p[:, 0]) * 255
    torch.testing.assert_close(brighter, expected, atol=1e-3, rtol=0)
    for image, one, by in zip(x, starker, p[:, 0].tolist(), strict=True):
        expected = torchvision.transforms.functional.adjust_contrast(image.float() / 255, 1 + by) * 255
        torch.testing.assert_close(one, expected, atol=1e-3, rtol=0)


def test_contrast_keeps_the_mean_colour():
    x = noise((7, 9)) / 4 + torch.tensor([70, 110])[:, None, None]  # far from black and white
    moved = TRANSFORMS["contrast/factor"].images(x, drawn("contrast/factor", 0.4), 0)
    torch.testing.assert_close(moved.mean((2, 3)), x.mean((2, 3)))


def test_noise_is_gaussian_and_every_images_own():
    x, p = torch.full((20, 1, 30, 30), 127, dtype=torch.uint8), drawn("noise/gaussian", 0.1, 20)
    found = (TRANSFORMS["noise/gaussian"].images(x, p, 0) - 127) / 255 / 0.1
    assert kstest(found.flatten().numpy(), "norm").pvalue > 0.01
    assert found.flatten(1).corrcoef().fill_diagonal_(0).abs().max() < 0.15


def test_an_erased_square_is_the_mean_colour_and_comes_anywhere():
    x, p = noise((7, 9), n=400), drawn("erase/mean", 4, 400)
    y = TRANSFORMS["erase/mean"].images(x, p, 0)
    gone = (y != x).any(1)
    corners = {tuple(one.nonzero()[0].tolist()) for one in gone if one.sum() == 16}
    assert corners == {(down, right) for down in range(7 - 3) for right in range(9 - 3)}
    mean = x.float().mean((2, 3), keepdim=True).expand_as(y)
    torch.testing.assert_close(y.where(gone[:, None], mean), mean)
    assert gone.sum((1, 2)).max() == 16
    whole = TRANSFORMS["erase/mean"].images(x, drawn("erase/mean", 20, 400), 0)
    torch.testing.assert_close(whole, mean)


def test_meaningless_options_are_refused():
    with pytest.raises(UserError, match="7 × 9 is not square"):
        TRANSFORMS["rotate/quarter"].images(noise((7, 9)), drawn("rotate/quarter", 90), 0)
    with pytest.raises(UserError, match="by 3 px: there are 2 px"):
        TRANSFORMS["shift/crop"].images(noise((7, 9), 2), drawn("shift/crop", 3), 2)
    for name, amount in [("shift/roll", 0.5), ("shift/roll", 0), ("rotate/quarter", 45), ("rotate/quarter", 360)]:
        with pytest.raises(UserError, match="choose a whole number from 1"):
            drawn(name, amount)


def test_the_table_names_each_once_and_shifts_as_the_older_table_does():
    assert len(TRANSFORMS) == len(TABLE)
    x = canvas(5)
    p = drawn("shift/crop", MARGIN)
    for protocol, move in SHIFTS.items():
        assert torch.equal(TRANSFORMS[f"shift/{protocol}"].images(x, p, MARGIN), move(x, p, MARGIN))


# --- where a map's outputs lie ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "n"), [(12, 6), (12, 4), (12, 12), (15, 5)])
def test_averages_on_an_even_grid_are_pytorchs(side, n):
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    found = SamplingGrid.even((side, side), (n, n)).average(x, (n, n))
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, n))


@pytest.mark.parametrize(("start", "jump", "n"), [(0.5, 2, 6), (1.5, 3, 4), (4.0, 8.0, 2), (-1.5, 4, 5)])
def test_averages_on_any_grid_are_integrals_that_go_round(start, jump, n):
    x = torch.randn(1, 1, 12, 1, dtype=torch.float64)
    grid = SamplingGrid((12, 1), (jump, 1.0), (start, 0.5))
    fine = x.repeat_interleave(2, 2)[0, 0, :, 0]  # half a pixel a sample: every edge is one
    expected = []
    for i in range(n):
        first = round(2 * (start + i * jump - jump / 2))
        expected.append(sum(fine[k % 24].item() for k in range(first, first + round(2 * jump))) / (2 * jump))
    assert grid.average(x, (n, 1)).flatten().tolist() == pytest.approx(expected)
    assert grid.center_offset((n, 1))[0] == pytest.approx(np.mean([start + i * jump for i in range(n)]) - 6)


@pytest.mark.parametrize("fixed", [(0.5, -1.0), (2.0, 1.5)])
def test_a_turn_about_any_point_is_scipys(fixed):
    x = torch.rand(1, 1, 11, 9)
    angle = torch.tensor([[30.0]])
    found = rotate(x, angle, fixed)[0, 0]
    radians = math.radians(30)
    back = np.array([[math.cos(radians), math.sin(radians)], [-math.sin(radians), math.cos(radians)]])
    point = np.array([5 + fixed[0], 4 + fixed[1]])
    right = ndimage.affine_transform(x[0, 0].numpy(), back, point - back @ point, order=1, mode="grid-constant")
    np.testing.assert_allclose(found[2:-2, 2:-2], right[2:-2, 2:-2], atol=1e-5)


@pytest.mark.parametrize("name", ["flip/mirror", "rotate/quarter"])
@pytest.mark.parametrize("fixed", [(0.5, 0.5), (-1.5, 0.5), (2.0, -1.0)])
def test_about_another_point_a_point_goes_where_the_matrix_says(name, fixed):
    one = TRANSFORMS[name]
    for amount in one.amounts:
        parameters = one.draw(1, amount, torch.Generator())
        image = torch.zeros(1, 1, 12, 12)
        image[0, 0, 5, 7] = 1
        moved, inside = one.recenter(one.maps(image, parameters), parameters, fixed)
        middle, point = np.array([5.5, 5.5]), np.array(fixed)
        matrix = one.matrix(parameters)[0].numpy()
        there = middle + point + matrix @ (np.array([5, 7]) - middle - point)
        assert moved[0, 0].nonzero().tolist() == [list(np.round(there).astype(int) % 12)]
        assert inside.shape == (1, 12, 12)


@pytest.mark.parametrize("name", ["subpixel/fourier", "rotate/disc", "scale/disc", "blur/gaussian"])
def test_float64_images_are_transformed_to_float64s_digits(name):
    one = TRANSFORMS[name]
    x = 255 * torch.rand(2, 1, 14, 14, dtype=torch.float64)
    parameters = one.draw(2, one.amounts[0], torch.Generator().manual_seed(0))
    found = one.images(x, parameters, 1 if one.disc else 0)
    again = one.images(x, parameters.double(), 1 if one.disc else 0)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, again, rtol=0, atol=1e-11)
    if name == "subpixel/fourier":
        shifts = parameters.double().numpy()
        for i, shift in enumerate(shifts):
            phases = [np.exp(-2j * np.pi * np.fft.fftfreq(14) * by) for by in shift]
            for axis in phases:
                axis[7] = axis[7].real  # the highest frequency cannot turn
            right = np.fft.ifft2(np.fft.fft2(x[i, 0].numpy()) * np.outer(*phases)).real
            np.testing.assert_allclose(found[i, 0], right, atol=1e-10)
