"""Transforms of pixel values, which stay in place. Images are floats in 0 … 255, with one row of parameters each."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def adjust_brightness(images: Float[Tensor, "n c h w"], offsets: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
    """Add an offset to every pixel; 1 is the difference between black and white."""
    return images + 255 * offsets[:, :, None, None]


def adjust_contrast(images: Float[Tensor, "n c h w"], changes: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
    """Scale each pixel's difference from the image's mean colour by 1 + change."""
    return images + changes[:, :, None, None] * (images - images.mean((2, 3), keepdim=True))


def gaussian_blur(images: Float[Tensor, "n c h w"], sigmas: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
    """Gaussian filter, sigma in pixels; near the border the weights are renormalised, so that no black comes in."""

    def weights(size: int) -> Float[Tensor, "n 1 size size"]:
        pixels = torch.arange(size, device=images.device)
        distances = (pixels - pixels[:, None]) / sigmas.to(images.dtype)[:, :, None]
        return (-(distances**2) / 2).softmax(2)[:, None]

    return weights(images.shape[2]) @ images @ weights(images.shape[3]).mT


def gaussian_noise(images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """Add Gaussian noise, drawn on the CPU so that every device gets the same.

    ``parameters`` are the standard deviation (1 is the difference between black and white) and the seed.
    """
    seeds = (torch.Generator("cpu").manual_seed(int(seed)) for seed in parameters[:, 1].tolist())
    shape = images.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=seed, device="cpu", dtype=torch.float32) for seed in seeds])
    return images + 255 * parameters[:, :1, None, None] * noise.to(images.device)


def random_erasing(images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 3"]) -> Float[Tensor, "n c h w"]:
    """Replace a square by the image's mean colour.

    ``parameters`` are its side in pixels, and its position between the borders, down and right, in [0, 1).
    """
    side, down, right = parameters.split(1, 1)

    def strip(size: int, position: Float[Tensor, "n 1"]) -> Bool[Tensor, "n size"]:
        first = (position * (size - side + 1).clamp(min=1)).floor()
        pixels = torch.arange(size, device=images.device)
        return torch.logical_and(first <= pixels, pixels < first + side)

    square = strip(images.shape[2], down)[:, None, :, None] & strip(images.shape[3], right)[:, None, None]
    return torch.where(square, images.mean((2, 3), keepdim=True), images)
