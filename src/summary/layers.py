"""Rows of a model summary, and the arithmetic of receptive fields.

Along one axis, with r the receptive field, j the jump (effective stride: input pixels between neighbouring outputs) and
``offset`` the centre of the first output's receptive field, a window of extent k, stride s and padding p gives

    n' = floor((n + 2p - k) / s) + 1    r' = r + (k - 1) j    offset' = offset + ((k - 1) / 2 - p) j    j' = s j

from n = the image, r = j = 1, offset = 0.5 (Dumoulin & Visin 2016; Araujo et al. 2019). Padding counts as input; the
dependence of a selection on the whole map (``aps``) is not included.

Attention sees all positions, or those of a window, from each of its outputs, and so does a map that is joined with one
position, such as its mean (squeeze-excite): the field has the largest reach of any output, to both sides, so that it
holds for all of them. The part outside the image is there for the outputs that are nearer to the other border.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..common.errors import UserError
from ..common.naming import si_prefix
from ..pooling.geometry import Window

#: the layout of maps
MAPS = "nchw"


class ShapeError(UserError):
    """A map that would be empty, a window larger than its map, or a summary that differs from the net."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a map of ``size`` outputs; the other numbers are in input pixels."""

    size: int
    receptive_field: float = 1.0  # of an output; 0 for learned constants
    jump: float = 1.0  # effective stride, the distance of neighbouring outputs
    offset: float = 0.5  # centre of the first output's receptive field, from the edge
    sees_all: bool = False  # after attention to all positions, or a gate: each output depends on the whole map

    def slide(self, window: Window) -> "Axis":
        """The axis after a sliding window."""
        return Axis(
            window.output_size(self.size),
            self.receptive_field + (window.extent - 1) * self.jump,
            self.jump * window.stride,
            self.offset + ((window.extent - 1) / 2 - window.before) * self.jump,
            self.sees_all,
        )

    def spread(self, window: Window) -> "Axis":
        """The axis after a transposed convolution, without output padding: zeros put between the samples, then a window
        with stride 1.
        """
        size = (self.size - 1) * window.stride + window.extent - 2 * window.before
        jump = self.jump / window.stride
        offset = self.offset + (window.before - (window.extent - 1) / 2) * jump
        return Axis(size, self.receptive_field + (window.extent - 1) * jump, jump, offset, self.sees_all)

    def attend(self, other: "Axis", window: int | None = None, step: int = 1) -> "Axis":
        """The axis after attention to all positions of another axis (or itself), or to those of windows of this axis,
        whose positions may be ``step`` apart.

        It stays as it is if its outputs have seen all positions before.
        """
        if self.sees_all:
            return self
        if window is not None and (window < self.size or step > 1):
            return replace(self, receptive_field=self.receptive_field + 2 * (window - 1) * step * self.jump)
        first, last = self.offset, self.offset + (self.size - 1) * self.jump
        low = other.offset - other.receptive_field / 2
        high = other.offset + (other.size - 1) * other.jump + other.receptive_field / 2
        reach = max(last - low, high - first, self.receptive_field / 2)
        return replace(self, receptive_field=2 * reach, sees_all=True)

    def whole(self) -> "Axis":
        """All positions as one: the axis after a global pool, or of a unit after ``flatten``."""
        return self.slide(Window(self.size, self.size, 0))

    def join(self, other: "Axis") -> "Axis":
        """The axis after joining two branches: the receptive field covers both.

        One position that is broadcast, such as a squeeze-excite gate, is seen by every output of the other branch, and
        leaves them where they are.
        """
        if self.size != other.size:
            wide, one = (self, other) if self.size > other.size else (other, self)
            first, last = wide.offset, wide.offset + (wide.size - 1) * wide.jump
            low, high = one.offset - one.receptive_field / 2, one.offset + one.receptive_field / 2
            return replace(wide.attend(one), sees_all=wide.sees_all or (low <= first and last <= high))
        low = min(self.offset - self.receptive_field / 2, other.offset - other.receptive_field / 2)
        high = max(self.offset + self.receptive_field / 2, other.offset + other.receptive_field / 2)
        sees_all = self.sees_all or other.sees_all
        return replace(self, receptive_field=high - low, offset=(low + high) / 2, sees_all=sees_all)

    def resize(self, size: int) -> "Axis":
        """The axis resampled to another size, by nearest neighbours."""
        jump = self.jump * self.size / size
        return replace(self, size=size, jump=jump, offset=self.offset + (jump - self.jump) / 2)

    def pad(self, before: int, after: int) -> "Axis":
        """The axis with samples added at both ends; negative: cropped."""
        return replace(self, size=self.size + before + after, offset=self.offset - before * self.jump)


@dataclass(frozen=True)
class Layer:
    """One row of the model summary.

    Attributes:
        name: of the module, as in ``net.named_modules()``.
        kind: its class.
        channels: of its output (units, after ``flatten``).
        rows, columns: the two axes of its output.
        multiply_adds: multiply-adds (MACs, half the FLOPs) per image, of convolutions, linear layers and filters; norms
            and activations count as none.
        layout: order of the dimensions of its output; without h and w after ``flatten``, with c twice if the channels
            are split into groups. t: the positions of the map as one dimension (tokens), row by row; s: in a matrix of
            attention, the positions that are attended to.
        groups: sizes of the dimensions c, if there are several.
        prefix: tokens before those of the map: class and register tokens.
        attended: size of the dimension s.
    """

    name: str
    kind: str
    channels: int
    rows: Axis
    columns: Axis
    parameters: int = 0
    multiply_adds: int = 0
    layout: str = MAPS
    groups: tuple[int, ...] = ()
    prefix: int = 0
    attended: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.rows.size, self.columns.size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Shape of its output for one image, in the order of its layout."""
        groups = iter(self.groups or (self.channels,))
        size = {"n": 1, "h": self.rows.size, "w": self.columns.size, "t": self.positions, "s": self.attended}
        return tuple(next(groups) if letter == "c" else size[letter] for letter in self.layout)

    @property
    def positions(self) -> int:
        """The positions of the map, and the tokens before them."""
        return self.rows.size * self.columns.size + self.prefix

    @property
    def numel(self) -> int:
        """How many numbers its output has, for one image."""
        return self.channels * self.positions * self.attended

    def arranged(self, layout: str, sizes: Iterable[int]) -> "Layer":
        """The layer with other dimensions, of which only those of the channels (c) have sizes of their own."""
        groups = tuple(size for letter, size in zip(layout, sizes, strict=True) if letter == "c")
        return replace(self, layout=layout, channels=math.prod(groups), groups=groups if len(groups) > 1 else ())

    def seen(self, image: tuple[int, int]) -> float:
        """Fraction of the image in the receptive field of one output, in (0, 1]."""
        return min(self.rows.receptive_field / image[0], 1) * min(self.columns.receptive_field / image[1], 1)


def _size(layer: Layer) -> str:
    rows, columns = layer.rows.size, layer.columns.size
    return (f"{rows}×{columns}" if (rows, columns) != (1, 1) else "1") + (f" + {layer.prefix}" if layer.prefix else "")


@dataclass(frozen=True)
class ModelSummary:
    """All layers of a net for one image shape ``(c, h, w)``; printed, a table of them."""

    image: tuple[int, int, int]
    layers: list[Layer]

    @property
    def parameters(self) -> int:
        """Number of learned parameters of the net."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds (MACs) of a forward pass of one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    def costs(self) -> list[bool]:
        """Whether each layer has parameters or multiply-adds, or changes the stride by pooling."""
        return [
            bool(layer.parameters or layer.multiply_adds or (layer.rows.jump != 1 and "pool" in layer.name))
            for layer in self.layers
        ]

    def cells(self) -> list[dict[str, str]]:
        """One row per layer, as people read it: column → cell."""
        return [self._cells(layer) for layer in self.layers]

    def _cells(self, layer: Layer) -> dict[str, str]:
        rows, columns = layer.rows, layer.columns
        return {
            "layer": layer.name, "channels": str(layer.channels),
            "size": _size(layer),
            "RF": f"{max(rows.receptive_field, columns.receptive_field):g}",
            "stride": f"{max(rows.jump, columns.jump):g}", "centre": f"{rows.offset:g}",
            "params": f"{layer.parameters:,}" if layer.parameters else "·",
            "mult-adds": si_prefix(layer.multiply_adds) if layer.multiply_adds else "·",
            "seen": f"{layer.seen(self.image[1:]):.0%}",
        }  # fmt: skip

    def __str__(self) -> str:
        """The table that ``python -m src.shapes`` shows."""
        lines = self.cells()
        widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in lines[0]}
        table = [
            "  ".join(line[name].rjust(width) if name != "layer" else line[name].ljust(width)
                      for name, width in widths.items())
            for line in ({name: name for name in widths}, *lines)
        ]  # fmt: skip
        image = "×".join(map(str, self.image))
        costs = f"{self.parameters:,} parameters; {si_prefix(self.multiply_adds)} multiply-adds (MACs) per image"
        return "\n".join([*table, f"input {image}; {costs}"])

    def __getitem__(self, name: str) -> Layer:
        """The layer of that name; for a container, its last layer."""
        matches = [layer for layer in self.layers if layer.name == name or layer.name.startswith(f"{name}.")]
        if not matches:
            raise KeyError(name)
        return matches[-1]

    def rows(self) -> list[dict[str, Any]]:
        """One dict per layer: the rows of shapes.csv."""
        return [
            {
                "layer": layer.name,
                "kind": layer.kind,
                "channels": layer.channels,
                "height": layer.rows.size,
                "width": layer.columns.size,
                "receptive_field": max(layer.rows.receptive_field, layer.columns.receptive_field),
                "jump": max(layer.rows.jump, layer.columns.jump),
                "start": layer.rows.offset,
                "parameters": layer.parameters,
                "multiply_adds": layer.multiply_adds,
                "input_seen": round(layer.seen(self.image[1:]), 4),
            }
            for layer in self.layers
        ]
