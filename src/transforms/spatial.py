"""Transforms that move pixels: shifts, rotations, scalings. They act on images and on feature maps alike."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int64, Shaped
from torch import Tensor, fft

from ..common.errors import UserError
from .sampling_grid import Jump, Point, SamplingGrid


def gather(
    maps: Shaped[Tensor, "n c H W"], rows: Int64[Tensor, "n h"], columns: Int64[Tensor, "n w"]
) -> Shaped[Tensor, "n c h w"]:
    """A window per image: ``out[i, :, y, x] = maps[i, :, rows[i, y], columns[i, x]]``."""
    index = torch.arange(len(maps), device=maps.device)[:, None, None]
    return maps[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def roll(maps: Shaped[Tensor, "n c h w"], shifts: Int64[Tensor, "n 2"]) -> Shaped[Tensor, "n c h w"]:
    """``torch.roll`` with one shift (down, right) per image."""
    height, width = maps.shape[-2:]
    rows = (torch.arange(height, device=maps.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=maps.device) - shifts[:, 1:]) % width
    return gather(maps, rows, columns)


def crop(padded: Shaped[Tensor, "n c H W"], shifts: Int64[Tensor, "n 2"], margin: int) -> Shaped[Tensor, "n c h w"]:
    """Each image shifted (down, right) by up to ``margin`` pixels; the pixels that come in are those of its margin."""
    height, width = padded.shape[-2] - 2 * margin, padded.shape[-1] - 2 * margin
    rows = margin + torch.arange(height, device=padded.device) - shifts[:, :1]
    columns = margin + torch.arange(width, device=padded.device) - shifts[:, 1:]
    return gather(padded, rows, columns)


def crop_margin(padded: Shaped[Tensor, "n c H W"], margin: int) -> Shaped[Tensor, "n c h w"]:
    """The images without the ``margin`` pixels around them."""
    return padded[..., margin : padded.shape[-2] - margin, margin : padded.shape[-1] - margin]


#: protocol → (padded images, shifts, margin) → shifted images
SHIFTS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "roll": lambda padded, shifts, margin: roll(crop_margin(padded, margin), shifts),
    "crop": crop,
}


def to_float(maps: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The same values in at least float32; float64 stays."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def is_integer(steps: Shaped[Tensor, "n k"]) -> Bool[Tensor, " n"]:
    """Whether all parameters of an image are whole numbers."""
    return (steps == steps.round()).all(1)


def disc_mask(maps: Shaped[Tensor, "n c p q"], jump: Jump = 1) -> Bool[Tensor, "p q"]:
    """The largest disc inside the image, if a sampling grid is given; else the largest inside the map."""
    down, right = (torch.arange(size, device=maps.device) - (size - 1) / 2 for size in maps.shape[-2:])
    radius = min(maps.shape[-2:]) / 2
    if isinstance(jump, SamplingGrid):
        (row_jump, column_jump), (row, column) = jump.jump, jump.center_offset((maps.shape[-2], maps.shape[-1]))
        down, right, radius = down * row_jump + row, right * column_jump + column, min(jump.image) / 2
    return (down[:, None] ** 2 + right**2).sqrt() <= radius


def circular_shift(maps: Shaped[Tensor, "n c p q"], steps: Shaped[Tensor, "n 2"]) -> Shaped[Tensor, "n c p q"]:
    """``roll`` for whole steps, else ``fourier_shift``."""
    rolled, exact = roll(maps, steps.round().long()), is_integer(steps)
    return rolled if exact.all() else torch.where(exact[:, None, None, None], rolled, fourier_shift(maps, steps))


def zero_padded_shift(maps: Shaped[Tensor, "n c p q"], steps: Shaped[Tensor, "n 2"]) -> Shaped[Tensor, "n c p q"]:
    """A shift with zeros coming in; bilinear between whole steps."""
    nearest, exact = steps.round().long(), is_integer(steps)
    margin = int(nearest.abs().max())
    cropped = crop(F.pad(maps, [margin] * 4), nearest, margin)
    identity = torch.eye(2, device=maps.device).expand(len(maps), 2, 2)
    source = torch.cat([identity, -steps.flip(1)[:, :, None]], 2)
    return cropped if exact.all() else torch.where(exact[:, None, None, None], cropped, warp(maps, source))


def fourier_shift(maps: Shaped[Tensor, "n c p q"], steps: Shaped[Tensor, "n 2"]) -> Float[Tensor, "n c p q"]:
    """A circular shift by any fraction of a step: a phase shift of every frequency.

    At the Nyquist frequency of an even size only the real part, cos πd, is kept, so that the result is real; it is the
    one frequency that the inverse shift does not restore.
    """

    def phases(frequencies: Float[Tensor, " f"], distances: Shaped[Tensor, " n"]) -> Complex[Tensor, "n f"]:
        phase = torch.exp(-2j * torch.pi * distances[:, None] * frequencies)
        return torch.where(frequencies.abs() == 0.5, phase.real + 0j, phase)

    maps, size = to_float(maps), maps.shape[-2:]
    steps = steps.to(maps.dtype)  # else float64 maps would be shifted with float32's precision
    rows = phases(fft.fftfreq(size[0], device=maps.device, dtype=maps.dtype), steps[:, 0])
    columns = phases(fft.rfftfreq(size[1], device=maps.device, dtype=maps.dtype), steps[:, 1])
    shifted: Tensor = fft.irfft2(fft.rfft2(maps) * rows[:, None, :, None] * columns[:, None, None, :], s=size)
    return shifted


def warp(maps: Shaped[Tensor, "n c p q"], source: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c p q"]:
    """Bilinear warp, zeros outside: the output at (x, y), in steps right and down of the centre, is the input at
    ``source @ (x, y, 1)``.
    """
    (n, _, height, width), maps = maps.shape, to_float(maps)
    half = torch.tensor([width / 2, height / 2, 1], device=maps.device, dtype=maps.dtype)  # grid_sample's unit
    grid = F.affine_grid(source.to(maps) * half / half[:2, None], [n, 1, height, width], align_corners=False)
    return F.grid_sample(maps, grid, align_corners=False)


def affine_about(matrices: Float[Tensor, "n 2 2"], center: Point) -> Float[Tensor, "n 2 3"]:
    """The ``source`` of ``warp`` for linear maps that leave ``center`` in place."""
    point = torch.tensor(center[::-1], device=matrices.device, dtype=matrices.dtype)
    return torch.cat([matrices, (point - matrices @ point)[:, :, None]], 2)


def rotate(
    maps: Shaped[Tensor, "n c p q"], degrees: Float[Tensor, "n 1"], center: Point = (0, 0)
) -> Float[Tensor, "n c p q"]:
    """Rotated counter-clockwise about ``center``, which is (down, right) of the map's centre."""
    radians = degrees.to(to_float(maps).dtype).deg2rad()
    cos, sin = radians.cos(), radians.sin()
    return warp(maps, affine_about(torch.cat([cos, -sin, sin, cos], 1).unflatten(1, (2, 2)), center))


def scale(
    maps: Shaped[Tensor, "n c p q"], factors: Float[Tensor, "n 1"], center: Point = (0, 0)
) -> Float[Tensor, "n c p q"]:
    """Enlarged about ``center``, which is (down, right) of the map's centre."""
    matrices = torch.eye(2, device=maps.device) / factors.to(to_float(maps).dtype)[:, :, None]
    return warp(maps, affine_about(matrices, center))


def rot90(maps: Shaped[Tensor, "n c p q"], quarters: Int64[Tensor, "n 1"]) -> Shaped[Tensor, "n c p q"]:
    """``torch.rot90`` with one number of quarter turns per image; ``UserError`` if the maps are not square."""
    if maps.shape[-2] != maps.shape[-1]:
        raise UserError(
            f"rotate/quarter: {maps.shape[-2]} × {maps.shape[-1]} is not square, which a quarter turn needs"
        )
    rotations = torch.stack([maps.rot90(quarter, (2, 3)) for quarter in range(4)])
    return rotations[quarters[:, 0], torch.arange(len(maps), device=maps.device)]


def rot90_matrices(quarters: Int64[Tensor, "n 1"]) -> Float[Tensor, "n 2 2"]:
    """Matrices by which ``rot90`` moves points (down, right)."""
    quarter = torch.tensor([[0.0, -1], [1, 0]])
    return torch.stack([torch.linalg.matrix_power(quarter, int(turns)) for turns in quarters[:, 0]])


def flip_matrices(parameters: Shaped[Tensor, "n k"]) -> Float[Tensor, "n 2 2"]:
    """Matrices by which a horizontal flip moves points (down, right)."""
    return torch.tensor([[1.0, 0], [0, -1]]).expand(len(parameters), 2, 2)
