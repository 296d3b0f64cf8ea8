"""Transforms of images, and their action on feature maps: ``TRANSFORMS`` by name.

Shifts are (down, right), rotations counter-clockwise, pixels in 0 … 255. Integer pixels stay integers if nothing is
interpolated; else the result is float32 (float64 for float64), not rounded.
"""

import torch

from ..common.errors import UserError
from ..common.registry import Table
from . import draws, photometric, spatial
from .base import Transform
from .draws import draw_shifts
from .sampling_grid import Jump, Point, SamplingGrid
from .spatial import SHIFTS, crop, crop_margin, gather, roll, rotate, scale, to_float

__all__ = ["SHIFTS", "TABLE", "TRANSFORMS", "Jump", "Point", "SamplingGrid", "Transform"]
__all__ += ["check_max_shift", "crop", "crop_margin", "draw_shifts", "gather", "roll", "rotate", "scale"]
__all__ += ["shift_amounts", "to_float"]

PIXELS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
QUARTERS = (90.0, 180.0, 270.0)
CONTRASTS = (0.1, 0.2, 0.4)

# fmt: off
TABLE = (
    Transform("shift", "roll", "px", PIXELS, draws.whole_shift, spatial.circular_shift, torch.neg),
    Transform("shift", "crop", "px", PIXELS, draws.whole_shift, spatial.zero_padded_shift, torch.neg, uses_margin=True),
    Transform("shift", "embed", "px", PIXELS, draws.whole_shift, spatial.zero_padded_shift, torch.neg),
    Transform("subpixel", "fourier", "px", (0.25, 0.5), draws.random_direction, spatial.circular_shift, torch.neg),
    Transform("rotate", "disc", "degrees", (5.0, 15.0, 45.0), draws.random_sign, rotate, torch.neg,
              uses_margin=True, disc=True),
    Transform("rotate", "quarter", "degrees", QUARTERS, draws.quarter_turns, spatial.rot90, lambda turns: -turns % 4,
              matrix=spatial.rot90_matrices, square=True),
    Transform("scale", "disc", "×", (1.1, 1.25, 1.5), draws.random_reciprocal, scale, torch.reciprocal,
              uses_margin=True, disc=True),
    Transform("flip", "mirror", "", (1.0,), draws.constant, lambda maps, _: maps.flip(3), torch.clone,
              matrix=spatial.flip_matrices),
    Transform("brightness", "offset", "", CONTRASTS, draws.random_sign, photometric.adjust_brightness),
    Transform("contrast", "factor", "", CONTRASTS, draws.random_sign, photometric.adjust_contrast),
    Transform("blur", "gaussian", "px", (0.5, 1.0, 2.0), draws.constant, photometric.gaussian_blur, uses_margin=True),
    Transform("noise", "gaussian", "", (0.05, 0.1, 0.2), draws.with_seed, photometric.gaussian_noise),
    Transform("erase", "mean", "px", (4.0, 8.0), draws.with_position, photometric.random_erasing),
)
# fmt: on

#: "name/protocol" → transform
TRANSFORMS = Table("transform", {f"{transform.name}/{transform.protocol}": transform for transform in TABLE})
if len(TRANSFORMS) < len(TABLE):
    _names = [f"{transform.name}/{transform.protocol}" for transform in TABLE]
    _twice = next(name for name in _names if _names.count(name) > 1)
    raise UserError(f"src/transforms/__init__.py: TABLE has {_twice} twice; each transform needs a protocol of its own")


def shift_amounts(max_shift: int) -> tuple[float, ...]:
    """The shifts that are measured, in pixels: 1 … 8, then doubling, and the largest itself.

    >>> shift_amounts(2), shift_amounts(40)[7:]
    ((1.0, 2.0), (8.0, 16.0, 32.0, 40.0))
    """
    larger = [2.0**power for power in range(4, max_shift.bit_length())] + [float(max_shift)]
    return tuple(sorted({*(amount for amount in PIXELS if amount <= max_shift), *larger}))


def check_max_shift(name: str, max_shift: int, height: int, width: int) -> None:
    """Refuse shifts above 8 pixels that move an image out of its frame, or once around, in one line that begins with
    ``name``.
    """
    side = min(height, width)
    if max_shift > max(PIXELS) and max_shift >= side:
        raise UserError(
            f"{name}={max_shift}: above {max(PIXELS):g} it must be below the {side} pixels of an image's side"
        )
