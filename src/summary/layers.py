"""What the ledger is made of: axes, layers, the table; and the arithmetic of a window that passes over a map.

Along one axis, with r the receptive field, j the jump (input pixels between neighbouring outputs) and ``start`` the
centre of the first output's field, a window of extent k, stride s and p samples of padding before the map gives

    n' = floor((n + 2p - k) / s) + 1    r' = r + (k - 1) j    start' = start + ((k - 1) / 2 - p) j    j' = s j

from n = the image, r = j = 1, start = 0.5 (Dumoulin & Visin 2016; Araujo et al. 2019). The field is that of the
arithmetic: padding counts as input, and a choice that depends on the whole map (``aps``) is not in it.
"""

from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from ..pooling.geometry import Window

#: the layout of maps
MAPS = "nchw"


class ShapeError(UserError):
    """A map that would vanish, a window larger than its map, or a ledger that differs from the net."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a map: its size, and the field, jump and start of its outputs in input pixels."""

    size: int
    receptive_field: float = 1.0
    jump: float = 1.0
    offset: float = 0.5

    def slide(self, window: Window) -> "Axis":
        """The axis after a window has passed over it."""
        return Axis(
            window.output_size(self.size),
            self.receptive_field + (window.extent - 1) * self.jump,
            self.jump * window.stride,
            self.offset + ((window.extent - 1) / 2 - window.before) * self.jump,
        )

    def whole(self) -> "Axis":
        """All positions taken together: what a global pool, or a unit behind ``flatten``, sees."""
        return self.slide(Window(self.size, self.size, 0))

    def join(self, other: "Axis") -> "Axis":
        """Two branches that meet: the field covers both."""
        wide = self if self.size >= other.size else other  # a 1×1 branch is broadcast
        if not (self.receptive_field and other.receptive_field):  # learned numbers see nothing of the image
            return replace(
                wide,
                receptive_field=self.receptive_field or other.receptive_field,
                offset=self.offset if self.receptive_field else other.offset,
            )
        low = min(self.offset - self.receptive_field / 2, other.offset - other.receptive_field / 2)
        high = max(self.offset + self.receptive_field / 2, other.offset + other.receptive_field / 2)
        return replace(wide, receptive_field=high - low, offset=(low + high) / 2)

    def resize(self, size: int) -> "Axis":
        """The axis with its outputs spread over that many, each on the sample nearest to it."""
        jump = self.jump * self.size / size
        return replace(self, size=size, jump=jump, offset=self.offset + (jump - self.jump) / 2)

    def pad(self, before: int, after: int) -> "Axis":
        """The axis with samples added at both ends; negative: cropped."""
        return replace(self, size=self.size + before + after, offset=self.offset - before * self.jump)


@dataclass(frozen=True)
class Layer:
    """One row of the ledger.

    Attributes:
        name: of the module, as in ``net.named_modules()``.
        kind: its class.
        channels: channels of its output (units, behind ``flatten``).
        rows, columns: its output's two axes.
        parameters: learned numbers.
        multiply_adds: for one image; convolutions, linear layers and filters. Norms and activations count as none.
        layout: the order of its tensor's dimensions; without h and w behind ``flatten``, with c twice where the
            channels are split into groups.
    """

    name: str
    kind: str
    channels: int
    rows: Axis
    columns: Axis
    parameters: int = 0
    multiply_adds: int = 0
    layout: str = MAPS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.rows.size, self.columns.size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Shape of its tensor for one image, in the order of its layout."""
        if self.layout.count("c") > 1:
            raise ShapeError(f"{self.name}: its channels are split into groups")
        size = {"n": 1, "c": self.channels, "h": self.rows.size, "w": self.columns.size}
        return tuple(size[one] for one in self.layout)

    def seen(self, image: tuple[int, int]) -> float:
        """Share of the input that one output can see, in (0, 1]."""
        return min(self.rows.receptive_field / image[0], 1) * min(self.columns.receptive_field / image[1], 1)


@dataclass(frozen=True)
class ModelSummary:
    """All layers of a net for one image shape ``(c, h, w)``."""

    image: tuple[int, int, int]
    layers: list[Layer]

    @property
    def parameters(self) -> int:
        """Learned numbers of the net."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image's forward pass."""
        return sum(layer.multiply_adds for layer in self.layers)

    def __getitem__(self, name: str) -> Layer:
        """The layer of that name; for a container, its last layer."""
        inside = [layer for layer in self.layers if layer.name == name or layer.name.startswith(f"{name}.")]
        if not inside:
            raise KeyError(name)
        return inside[-1]

    def rows(self) -> list[dict[str, Any]]:
        """One dict a layer, for tables."""
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
