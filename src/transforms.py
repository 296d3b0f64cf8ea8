"""What is done to an image to see whether the net notices: shifts, under the protocols that differ at the border."""

from collections.abc import Callable

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor


def gather(
    maps: Shaped[Tensor, "n c H W"], rows: Int64[Tensor, "n h"], columns: Int64[Tensor, "n w"]
) -> Shaped[Tensor, "n c h w"]:
    """``out[i, :, y, x] = maps[i, :, rows[i, y], columns[i, x]]``: a window of its own for every image."""
    each = torch.arange(len(maps), device=maps.device)[:, None, None]
    return maps[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def roll(maps: Shaped[Tensor, "n c h w"], shifts: Int64[Tensor, "n 2"]) -> Shaped[Tensor, "n c h w"]:
    """Each image moved (down, right) by its own shift; what leaves on one side comes back on the other."""
    height, width = maps.shape[-2:]
    rows = (torch.arange(height, device=maps.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=maps.device) - shifts[:, 1:]) % width
    return gather(maps, rows, columns)


def crop(canvas: Shaped[Tensor, "n c H W"], shifts: Int64[Tensor, "n 2"], margin: int) -> Shaped[Tensor, "n c h w"]:
    """Each image moved (down, right) by its own shift; what comes in is what the canvas holds there.

    Args:
        canvas: images with ``margin`` pixels around them.
        shifts: in [-margin, margin].
        margin: in pixels.
    """
    height, width = canvas.shape[-2] - 2 * margin, canvas.shape[-1] - 2 * margin
    rows = margin + torch.arange(height, device=canvas.device) - shifts[:, :1]
    columns = margin + torch.arange(width, device=canvas.device) - shifts[:, 1:]
    return gather(canvas, rows, columns)


#: protocol → (canvas, shifts, margin) → moved images
SHIFTS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "roll": lambda canvas, shifts, margin: roll(crop(canvas, torch.zeros_like(shifts), margin), shifts),
    "crop": crop,
}


def draw_shifts(count: int, amount: int, generator: torch.Generator) -> Int64[Tensor, "n 2"]:
    """A shift for every image, uniform over the ``8 · amount`` ones with max(|down|, |right|) = amount; never zero."""
    side = torch.randint(0, 4, (count,), generator=generator)
    along = torch.randint(-amount, amount, (count,), generator=generator)
    full = torch.full_like(along, amount)
    down = torch.stack([full, along, -full, -along], 1)
    right = torch.stack([along, -full, -along, full], 1)
    index = side[:, None]
    return torch.cat([down.gather(1, index), right.gather(1, index)], 1)
