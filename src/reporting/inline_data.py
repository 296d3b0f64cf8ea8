"""Arrays as text that a page unpacks: quantised, compressed, in base64."""

import base64
import gzip
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

#: steps between the least and the largest value of a map; the byte that is left says that nothing is there
STEPS, NOTHING = 254, 255


def pack(maps: Float[np.ndarray, "n k p q"]) -> str:
    """Of every map its least and largest value (float32), then its pixels as 255 levels between; nan stays nothing.

    A pixel is off by at most a 508th of its own map's range.
    """
    maps = maps.astype(np.float32)
    there = ~np.isnan(maps)
    low = np.where(there, maps, np.inf).min((2, 3), initial=np.inf)
    high = np.where(there, maps, -np.inf).max((2, 3), initial=-np.inf)
    low, high = (np.where(there.any((2, 3)), one, 0).astype(np.float32) for one in (low, high))
    span = np.maximum(high - low, np.finfo(np.float32).tiny)[..., None, None]
    levels = np.where(there, np.round((np.nan_to_num(maps) - low[..., None, None]) / span * STEPS), NOTHING)
    return compressed(np.stack([low, high], -1).astype("<f4").tobytes() + levels.astype(np.uint8).tobytes())


def pictures(images: UInt8[np.ndarray, "*n c h w"]) -> dict[str, Any]:
    """Their shape, and their pixels, a byte a channel, channels last."""
    return {"shape": list(images.shape), "pixels": compressed(np.moveaxis(images, -3, -1).tobytes())}


def compressed(data: bytes) -> str:
    """By gzip, as text."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()
