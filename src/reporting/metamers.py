"""Metamers as pictures: a row an image, a column a layer, a block a net. A slide, and a figure of the page."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from ..evaluation.inversion import THRESHOLD
from ..results import files
from ..results.measures import DISTANCE
from .measure_figures import SUFFIXES, curves_by_layer, layers_with, merge_layers
from .plots import Panel, apply_theme, small_multiples, subplots
from .variant import Variant

#: beginning of the keys of ``pictures.npz``, and the key of the images that were inverted
NAME, IMAGE = "metamers", "metamers/image"
#: rows and starts that are shown; sides in pixels of a picture, between pictures, and of the writing above a block
ROWS, STARTS, TILE, GAP, HEAD = 4, 2, 84, 6, 58
#: width of a slide that its words need, in pixels
LEAST_WIDTH = 420
#: largest number of nets that are shown
MOST_NETS = 12
WHITE = 255
#: panels of the figure of numbers: title, measure, protocol
CURVES = (
    ("reached", "metamer_reached", "test"),
    ("pixel distance", "metamer_pixel_distance", "test"),
    ("spread over starts", "metamer_spread", "test"),
    ("error, low frequencies", "metamer_error", "low"),
    ("error, mid frequencies", "metamer_error", "mid"),
    ("error, high frequencies", "metamer_error", "high"),
    ("displaced", "metamer_displaced", "test"),
    ("recognised", "metamer_recognised", "test"),
)


@dataclass(frozen=True)
class Column:
    """The pictures of a layer, and how far each is from its target (1: as far as another image)."""

    title: str
    pictures: UInt8[np.ndarray, "rows starts c h w"]
    distance: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        """Which are metamers, of all rows and starts."""
        return self.distance < THRESHOLD

    @property
    def words(self) -> str:
        """How many optimisations ended with a metamer."""
        return f"{self.reached.sum()} of {self.reached.size}"

    @cached_property
    def shown(self) -> UInt8[np.ndarray, "H W 3"]:
        """The pictures that are shown, side by side; those that are no metamers are crossed out."""
        rows = []
        for pictures, reached in zip(self.pictures[:ROWS, :STARTS], self.reached[:ROWS, :STARTS], strict=True):
            tiles = [_tile(picture, crossed=not good) for picture, good in zip(pictures, reached, strict=True)]
            rows.append(_joined(tiles, 1))
        return _joined(rows, 0)


def columns_of(pictures: Mapping[str, np.ndarray], suffix: str = "") -> list[Column]:
    """The images, then the metamers of each layer, of a run's ``pictures.npz``; empty where it has none."""
    name = f"{NAME}{suffix}/"
    layers = [key.removeprefix(name) for key in pictures if key.startswith(name) and not key.endswith(DISTANCE)]
    return [Column(layer, pictures[name + layer], pictures[name + layer + DISTANCE]) for layer in layers]


def drawn_columns(pictures: Mapping[str, np.ndarray]) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
    """The columns of a net and of its untrained twin as pictures: ``metamers/stage1`` …"""
    return {
        f"{NAME}{ending}/{column.title}": column.shown for ending in SUFFIXES for column in columns_of(pictures, ending)
    }


def _tile(picture: UInt8[np.ndarray, "c h w"], crossed: bool) -> UInt8[np.ndarray, "H W 3"]:
    """A picture enlarged to about ``TILE`` pixels, without smoothing."""
    times = max(1, TILE // picture.shape[2])
    pixels = picture.transpose(1, 2, 0).repeat(times, 0).repeat(times, 1)
    pixels = (pixels if pixels.shape[2] == 3 else pixels[..., :1].repeat(3, 2)).copy()
    if crossed:
        rows, columns = np.indices(pixels.shape[:2])
        diagonals = (
            rows * pixels.shape[1] - columns * pixels.shape[0],
            (rows * pixels.shape[1] - (pixels.shape[1] - 1 - columns) * pixels.shape[0]),
        )
        for diagonal in diagonals:
            pixels[np.abs(diagonal) <= 2 * pixels.shape[1]] = (214, 39, 40)
    return pixels


def _joined(pieces: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Pictures in a row (axis 1) or a column (axis 0), with a gap between two."""
    shape = list(pieces[0].shape)
    shape[axis] = GAP // 2
    gap = np.full(shape, WHITE, np.uint8)
    return np.concatenate([part for piece in pieces for part in (piece, gap)][:-1], axis)


def data_uri(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    """The pixels as a PNG inside an address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def slide(blocks: Mapping[str, Sequence[Column]]) -> str:
    """An SVG picture: name of a net → its columns, a block each; without a server, and with the pixels in it."""
    drawn, top, width = [], 80, LEAST_WIDTH
    for name, columns in blocks.items():
        left, parts = 0, []
        for column in columns:
            height, side = column.shown.shape[:2]
            words = "" if column.title == IMAGE.rpartition("/")[2] else column.words
            parts.append(
                {"x": left, "width": side, "height": height, "href": data_uri(column.shown), "words": words}
                | {"title": column.title}
            )
            left += side + 4 * GAP
        drawn.append({"name": name, "y": top, "columns": parts})
        width = max(width, left - 4 * GAP)
        top += HEAD + max(part["height"] for part in parts) + 4 * GAP
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    text: str = template.get_template("metamers.svg.j2").render(
        blocks=drawn, width=width, height=top, head=HEAD, threshold=THRESHOLD
    )
    return text


def write_slide(path: Path, nets: Mapping[str, Mapping[str, np.ndarray]]) -> Path | None:
    """Write the slide of some nets (name → ``pictures.npz``); None where none has metamers. A single net has its
    untrained twin below it.
    """
    if not (blocks := _blocks(nets)):
        return None
    files.write(path, slide(blocks))
    return path


def _blocks(nets: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, list[Column]]:
    """Name → columns of the nets that have metamers; of a single net also of its untrained twin."""
    endings = SUFFIXES if len(nets) == 1 else {"": ""}
    return {
        f"{name}{words}": columns
        for name, pictures in [*nets.items()][:MOST_NETS]
        for ending, words in endings.items()
        if (columns := columns_of(pictures, ending))
    }


def metamer_pictures(variants: Sequence[Variant]) -> go.Figure:
    """Images and the metamers of every layer, a row of panels a net; of the first seed."""
    nets = _blocks({variant.name: pictures_of(variant) for variant in variants[:MOST_NETS]})
    if not nets:
        return go.Figure()
    order = merge_layers([column.title for column in columns] for columns in nets.values())
    panels = [
        (name, next((column for column in columns if column.title == title), None))
        for name, columns in nets.items()
        for title in order
    ]
    titles = [_heading(name, column) if column else "" for name, column in panels]
    figure, cells = subplots(titles, columns=len(order), shared=False, below=96)
    for cell, (_, column) in zip(cells, panels, strict=True):
        if column:
            figure.add_image(source=data_uri(column.shown), hoverinfo="skip", **cell)
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain", constraintoward="top")
    return apply_theme(figure.update_annotations(font_size=12))


def _heading(name: str, column: Column) -> str:
    return f"<b>{name}</b>" if f"{NAME}/{column.title}" == IMAGE else f"{column.title}: {column.words}"


def metamer_curves(variants: Sequence[Variant]) -> go.Figure:
    """How metamers differ from their image, by layer: trained, and untrained."""
    order = layers_with(variants, "metamer_pixel_distance")
    panels = [Panel(title, curves_by_layer(order, name, protocol)) for title, name, protocol in CURVES]
    return small_multiples(variants, panels, "", order, shared=False)


def pictures_of(variant: Variant) -> Mapping[str, np.ndarray]:
    """``pictures.npz`` of the first seed that has metamers."""
    return next((run.pictures for run in variant.measured if IMAGE in run.pictures), {})
