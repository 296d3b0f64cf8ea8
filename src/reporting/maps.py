"""Feature maps as pictures: one grid per stage and epoch, on one colour scale for all epochs of the stage.

Heatmaps of measures are drawn in the same colours.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from ..results.files import MAPS, read_arrays, read_json, reading, write, write_json
from ..results.measures import finite
from ..results.saved_maps import maps_file

TILE, GAP, HEAD, SIDE = 56, 2, 22, 10
INK = (40, 40, 46)
SCALE = "scale.json"
ROLL_MAP = "roll_map"
#: largest value of the maps' dtype; nets that diverge have larger ones
LARGEST = float(np.finfo(np.float16).max)


def save_maps(
    run: Path, epoch: int, images: UInt8[np.ndarray, "n c h w"], maps: dict[str, Float[np.ndarray, "n k p q"]]
) -> None:
    """Save and draw the maps of an epoch (0 is the untrained net), stage → those of its first channels, for the example
    images; and widen the colour scale to include them.
    """
    buffer = io.BytesIO()
    maps = {stage: np.clip(values, -LARGEST, LARGEST) for stage, values in maps.items()}
    np.savez_compressed(buffer, images=images, **{k: v.astype(np.float16) for k, v in maps.items()})  # type: ignore[arg-type]
    write(maps_file(run, epoch), buffer.getvalue())
    scale = {stage: _wider(read_scale(run).get(stage), value) for stage, value in maps.items()}
    write_json(run / MAPS / SCALE, scale)
    for stage in maps:
        draw_stage(run, epoch, stage, scale[stage])


def epochs_of(run: Path) -> list[int]:
    """The epochs with saved maps, in order."""
    return sorted(int(file.stem.split("_")[1]) for file in (run / MAPS).glob("epoch_*.npz"))


def finish_maps(run: Path) -> dict[int, dict[str, Path]]:
    """Redraw every epoch on the final scale; gives epoch → stage → picture."""
    scale = read_scale(run)
    return {epoch: {stage: draw_stage(run, epoch, stage, scale[stage]) for stage in scale} for epoch in epochs_of(run)}


def pictures_of_epoch(run: Path, epoch: int) -> dict[str, Path]:
    """Stage → its picture of an epoch, as it was last drawn."""
    return {stage: _picture_file(run, epoch, stage) for stage in read_scale(run)}


def read_scale(run: Path) -> dict[str, list[float]]:
    """Stage → the low and high end of its colours."""
    file = run / MAPS / SCALE
    scale: dict[str, list[float]] = read_json(file, {})
    with reading(file):
        return {stage: [finite(stage, low), finite(stage, high)] for stage, (low, high) in scale.items()}


def _wider(scale: list[float] | None, maps: Float[np.ndarray, "n k p q"]) -> list[float]:
    """The scale widened to these maps; one map pixel in a thousand may lie above it."""
    low, high = min(0.0, float(maps.min())), float(np.quantile(maps, 0.999))
    if scale is not None:
        low, high = min(low, scale[0]), max(high, scale[1])
    return [low, max(high, low + 1e-6)]


def draw_stage(run: Path, epoch: int, stage: str, scale: list[float]) -> Path:
    """Write the picture of a stage and epoch: a row per image, the image itself first, then a column per channel."""
    arrays = read_arrays(maps_file(run, epoch))
    picture = map_picture(arrays["images"], arrays[stage].astype(np.float32), scale, f"{stage}   epoch {epoch}")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    path = _picture_file(run, epoch, stage)
    write(path, buffer.getvalue())
    return path


def _picture_file(run: Path, epoch: int, stage: str) -> Path:
    return run / MAPS / f"{stage}_epoch_{epoch:03d}.png"


def map_picture(
    images: UInt8[np.ndarray, "n c h w"], maps: Float[np.ndarray, "n k p q"], scale: list[float], title: str
) -> Image.Image:
    """The picture of a stage; dark is the scale's low end, yellow its high end or above."""
    n, channels, height, width = maps.shape
    step = TILE + GAP
    canvas = np.full((n * step + 2 * HEAD, (channels + 1) * step + SIDE, 3), 255, np.uint8)
    levels = np.clip((maps - scale[0]) / (scale[1] - scale[0]), 0, 1)
    tiles = colours()[(levels * 255).round().astype(np.uint8)]
    for row in range(n):
        pixels = images[row].transpose(1, 2, 0)
        inputs = pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels
        for column, tile in enumerate([inputs, *tiles[row]]):
            top, left = 2 * HEAD + row * step, column * step + (SIDE if column else 0)
            tile_rows, tile_columns = (np.arange(TILE) * side // TILE for side in tile.shape[:2])
            canvas[top : top + TILE, left : left + TILE] = tile[tile_rows[:, None], tile_columns]  # nearest neighbours
    picture = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    label = f"{title}   {height} x {width}   channels 0 to {channels - 1}   scale {scale[0]:.2g} to {scale[1]:.2g}"
    pen.text((GAP, 4), label, INK, font)
    pen.text((TILE / 2, HEAD + 4), "input", INK, font, anchor="mt")
    for column in range(channels):
        pen.text((SIDE + (column + 1.5) * step - GAP, HEAD + 4), str(column), INK, font, anchor="mt")
    return picture


def centred(plane: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """A map over rolls, shifted so that no roll is in the middle (after it, for an even side)."""
    return np.fft.fftshift(plane)


def heatmap_picture(name: str, plane: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "H W 3"]:
    """A heatmap as a picture: dark is 0, yellow its maximum; small ones are enlarged."""
    plane = centred(plane) if name.startswith("roll_") else plane
    levels = np.clip(plane / max(float(plane.max()), 1e-12), 0, 1)
    pixels = colours()[(levels * 255).round().astype(np.uint8)]
    step = max(1, 4 * TILE // max(plane.shape))
    large: UInt8[np.ndarray, "H W 3"] = pixels.repeat(step, 0).repeat(step, 1)
    return large


@cache
def colours(scale: str = "Viridis") -> UInt8[np.ndarray, "256 3"]:
    """A plotly colour scale in 256 steps; the default is perceptually uniform and colour-blind-safe."""
    from plotly.colors import sample_colorscale

    steps = sample_colorscale(scale, np.linspace(0, 1, 256).tolist(), colortype="tuple")
    levels: UInt8[np.ndarray, "256 3"] = (np.array(steps) * 255).round().astype(np.uint8)
    return levels
