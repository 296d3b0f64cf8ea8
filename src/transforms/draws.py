"""Random parameters of transforms: (number of images, amount, generator on the CPU) → one row per image."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..common.errors import UserError


def to_whole(amount: float, most: float = torch.inf) -> int:
    """The amount as an int; ``UserError`` if it is no whole number from 1 to ``most``."""
    if amount != int(amount) or not 1 <= amount <= most:
        raise UserError(f"{amount:g} steps: choose a whole number from 1 to {most:g}")
    return int(amount)


def draw_shifts(count: int, amount: int, generator: torch.Generator) -> Int64[Tensor, "n 2"]:
    """Shifts (down, right), uniform over the ``8 · amount`` ones with max(|down|, |right|) = amount; never zero."""
    side = torch.randint(0, 4, (count,), generator=generator)
    along = torch.randint(-amount, amount, (count,), generator=generator)
    full = torch.full_like(along, amount)
    down = torch.stack([full, along, -full, -along], 1)
    right = torch.stack([along, -full, -along, full], 1)
    index = side[:, None]
    return torch.cat([down.gather(1, index), right.gather(1, index)], 1)


def whole_shift(count: int, amount: float, generator: torch.Generator) -> Int64[Tensor, "n 2"]:
    """``draw_shifts`` for an amount that must be a whole number."""
    return draw_shifts(count, to_whole(amount), generator)


def quarter_turns(count: int, amount: float, generator: torch.Generator) -> Int64[Tensor, "n 1"]:
    """The amount, in degrees, as a number of quarter turns."""
    return torch.full((count, 1), to_whole(amount / 90, 3))


def constant(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 1"]:
    """The amount for every image."""
    return torch.full((count, 1), float(amount), dtype=torch.float32)


def random_sign(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 1"]:
    """Plus or minus the amount."""
    return amount * (torch.randint(0, 2, (count, 1), generator=generator).float() * 2 - 1)


def random_reciprocal(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 1"]:
    """The amount or its reciprocal."""
    return amount ** random_sign(count, 1, generator)


def random_direction(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Vectors (down, right) of this length in any direction."""
    angle = 2 * torch.pi * torch.rand(count, generator=generator, dtype=torch.float32)
    return amount * torch.stack([angle.sin(), angle.cos()], 1)


def with_seed(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """The amount, and a seed small enough to be exact in float32."""
    return torch.cat([constant(count, amount, generator), torch.randint(2**24, (count, 1), generator=generator)], 1)


def with_position(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """The amount, and a position (down, right) in [0, 1)²."""
    return torch.cat(
        [constant(count, amount, generator), torch.rand(count, 2, generator=generator, dtype=torch.float32)], 1
    )
