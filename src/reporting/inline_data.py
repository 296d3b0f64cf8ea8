"""Arrays as text inside a page: quantized to bytes, compressed, in base64. ``map_browser.js`` decodes them."""

import base64
import gzip
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

#: quantization levels between the minimum and maximum of a map; the byte that is left marks missing values
STEPS, MISSING = 254, 255


def serialize_map_values(maps: Float[np.ndarray, "n k p q"]) -> str:
    """Minimum and maximum of each map (float32), then its pixels as 255 levels between them; nan becomes ``MISSING``.

    The error of a pixel is at most 1/508 of its own map's range.
    """
    maps = maps.astype(np.float32)
    valid = ~np.isnan(maps)
    low = np.where(valid, maps, np.inf).min((2, 3), initial=np.inf)
    high = np.where(valid, maps, -np.inf).max((2, 3), initial=-np.inf)
    low, high = (np.where(valid.any((2, 3)), end, 0).astype(np.float32) for end in (low, high))
    span = np.maximum(high - low, np.finfo(np.float32).tiny)[..., None, None]
    levels = np.where(valid, np.round((np.nan_to_num(maps) - low[..., None, None]) / span * STEPS), MISSING)
    return compressed(np.stack([low, high], -1).astype("<f4").tobytes() + levels.astype(np.uint8).tobytes())


def serialize_images(images: UInt8[np.ndarray, "*n c h w"]) -> dict[str, Any]:
    """Shape and pixels, a byte per channel, channels last."""
    return {"shape": list(images.shape), "pixels": compressed(np.moveaxis(images, -3, -1).tobytes())}


def compressed(data: bytes) -> str:
    """Gzip in base64; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()
