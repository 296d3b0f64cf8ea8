"""The feature maps of the example images that a run saves after each epoch, read."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from .files import MAPS, read_arrays, reading


def maps_file(run: Path, epoch: int) -> Path:
    """The file with the maps after an epoch; 0 is the untrained net."""
    return run / MAPS / f"epoch_{epoch:03d}.npz"


def read_maps(run: Path, epoch: int) -> tuple[UInt8[np.ndarray, "n c h w"], dict[str, Float[np.ndarray, "n k p q"]]]:
    """The example images, and stage → its maps after an epoch."""
    arrays = read_arrays(path := maps_file(run, epoch), 4)
    with reading(path):
        images = arrays.pop("images")
        if images.dtype != np.uint8 or images.shape[1] not in (1, 3):
            raise ValueError(f"images of shape {images.shape}, {images.dtype}")
    return images, arrays
