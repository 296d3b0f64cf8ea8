"""What differs between two images: in which bands of spatial frequency, and how much of it is a displacement."""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, fft

#: frequency bands and their upper ends, in periods per pixel: what a map of a quarter of the side can hold, of half the
#: side, and the rest
BANDS = {"low": 1 / 8, "mid": 1 / 4, "high": 1.0}
#: largest displacement along an axis, and side of the windows that are compared, in pixels
REACH, WINDOW = 2, 5


def band_energies(difference: Float[Tensor, "n c h w"]) -> Float[Tensor, "n bands"]:
    """The energy of each difference in each of ``BANDS``, by radial frequency: means over pixels, which add up to that
    of the difference.

    >>> stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    >>> band_energies(stripes).tolist()
    [[0.0, 0.0, 1.0]]
    """
    height, width = difference.shape[2:]
    power = fft.fft2(difference).abs().square().sum(1) / (height * width) ** 2
    rows, columns = (fft.fftfreq(size, device=difference.device) for size in (height, width))
    radius = torch.hypot(rows[:, None], columns[None, :])
    edges = torch.tensor(list(BANDS.values()), device=difference.device)
    band = (radius[..., None] >= edges).sum(-1)
    return torch.stack([power[:, band == number].sum(1) for number in range(len(BANDS))], 1)


def displacement_residuals(images: Float[Tensor, "n c h w"], others: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2"]:
    """The squared difference after each window of the others was moved to where it fits best, and without that.

    Windows have a side of ``WINDOW`` and move by at most ``REACH`` pixels; means over all windows. A window that moves
    as a whole has no residual.

    >>> image = torch.zeros(1, 1, 12, 12)
    >>> image[..., 5:7, 5:7] = 1
    >>> after, before = displacement_residuals(image, image.roll(1, 3))[0].tolist()
    >>> after, before > 0
    (0.0, True)
    """
    height, width = images.shape[2:]
    padded = F.pad(others, (REACH,) * 4, mode="replicate")
    best = still = images.new_empty(0)
    for down, right in itertools.product(range(2 * REACH + 1), repeat=2):
        moved = padded[..., down : down + height, right : right + width]
        squared = (moved - images).square().sum(1, keepdim=True)
        of_windows = F.avg_pool2d(squared, WINDOW, 1, WINDOW // 2, count_include_pad=False)
        best = of_windows if not best.numel() else torch.minimum(best, of_windows)
        still = of_windows if (down, right) == (REACH, REACH) else still
    return torch.stack([best.mean((1, 2, 3)), still.mean((1, 2, 3))], 1)


def with_random_phases(difference: Float[Tensor, "n c h w"], seed: int) -> Float[Tensor, "n c h w"]:
    """The difference with the phases of white noise: the same spectrum, at no particular place."""
    generator = torch.Generator().manual_seed(seed)
    white = fft.fft2(torch.randn(difference.shape[0], 1, *difference.shape[2:], generator=generator))
    phases = torch.polar(torch.ones_like(white.real), white.angle()).to(difference.device)
    surrogate: Tensor = fft.ifft2(fft.fft2(difference) * phases).real
    return surrogate
