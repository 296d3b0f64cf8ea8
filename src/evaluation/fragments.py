"""All windows of a canvas: what a net computes for one of them, it need not compute again for its neighbours.

A layer is *local* if what it gives for a window is a part of what it gives for the whole canvas: a convolution without
padding, a norm, an activation, a pool whose windows fit. It runs once on the canvas; with stride s, once for each of
the s² offsets, which leaves fragments of the map (Giusti et al. 2013, "Fast image scanning with deep max-pooling
convolutional neural networks"). Behind the last local layer every window is cut out of the fragments and goes on by
itself: a layer with padding sees the border of each window, and nothing is approximated.

Which layers are local is found by running them on noise and on parts of it, not by their names.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, fx, nn

from ..errors import UserError
from ..nets.hooks import eval_mode, reference_tensor
from .fx import ONE, FxInterpreter, Steps, close, name_of

#: windows that a layer is tried on lie as far apart as this along each axis: a multiple of the strides there are
REACH = 48


@dataclass(frozen=True)
class Local:
    """What is known of a local layer.

    Attributes:
        channels: of its map.
        size: of its map of one window.
        steps: pixels between neighbouring windows of a fragment; as many offsets have fragments of their own.
    """

    channels: int
    size: Steps
    steps: Steps


class Fragments(FxInterpreter):
    """A net made ready for all windows of a canvas.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    >>> fragments = Fragments(net, (1, 6, 6), margin=1)
    >>> fragments.first_alone
    '2'
    >>> canvas = torch.randn(2, 1, 8, 8)
    >>> found = fragments(canvas, torch.tensor([[0, 0], [2, 1]]))
    >>> torch.allclose(found[:, 1], net(canvas[:, :, 2:, 1:7]), atol=1e-6)
    True

    Args:
        net: any net of maps that ``torch.fx`` can follow; it is run in eval mode.
        image: (channels, height, width) of a window.
        margin: pixels around the window in the middle of a canvas.

    Attributes:
        first_alone: the first layer that is not local.
        forwards: what all windows of a canvas cost, in forward passes, by the ledger's multiply-adds; nan where the
            ledger has no formula.
        peak: numbers in the largest of its fragments, all of an image's together.

    Raises:
        UserError: ``torch.fx`` cannot follow the net, or it gives another thing than one tensor of the image.
    """

    def __init__(self, net: nn.Module, image: tuple[int, int, int], margin: int) -> None:
        super().__init__(net)
        self.places, self.first_alone = 2 * margin + 1, ""
        self.local: dict[fx.Node, Local] = {}
        with self.trying():
            self._plan(image)
        rows, columns = (math.lcm(*axis) for axis in zip(*(one.steps for one in self.local.values()), strict=True))
        #: windows along each axis: with some beyond the canvas, for the strides to divide them
        self.spread = -(-self.places // rows) * rows, -(-self.places // columns) * columns
        self.forwards = self.forwards_of(image, self._times)
        self.peak = max(one.channels * self._area(one) for one in self.local.values())

    def __call__(
        self, canvas: Float[Tensor, "n c H W"], places: Int64[Tensor, "m 2"], together: int = 256
    ) -> Float[Tensor, "n m d"]:
        """The outputs for the windows of normalised images whose upper left corners lie at (down, right).

        Args:
            canvas: the images with their margin.
            places: in [0, 2 · margin].
            together: windows that go on by themselves at once.
        """
        with eval_mode(self.net), torch.no_grad():
            shared = self._share(canvas)
            some = places.to(canvas.device).split(max(1, together // len(canvas)))
            return torch.cat([self._alone(shared, one) for one in some], 1)

    def _share(self, canvas: Float[Tensor, "n c H W"]) -> dict[fx.Node, Tensor]:
        """The fragments that windows are cut out of."""
        values: dict[fx.Node, Tensor] = {}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                down, right = (spread - self.places for spread in self.spread)
                values[node] = F.pad(canvas, (0, right, 0, down), mode="replicate")
            elif node in self.local:
                values[node] = self._run(node, values)
                for used in node.all_input_nodes:
                    if self.last_use[used] is node and used.users.keys() <= self.local.keys():
                        values.pop(used, None)
        return values

    def _run(self, node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor:
        """A local layer's fragments."""
        given = next(self.local[one] for one in node.all_input_nodes if one in self.local)
        steps = self.local[node].steps
        by = steps[0] // given.steps[0], steps[1] // given.steps[1]

        def value(one: fx.Node) -> Any:
            return offset(values[one], given.steps, by) if one in self.local else self.call(one, value)

        found: Tensor = self.call(node, value)
        return found

    def _alone(self, shared: dict[fx.Node, Tensor], places: Int64[Tensor, "m 2"]) -> Float[Tensor, "n m d"]:
        """What comes of the windows at these places, each by itself."""
        values: dict[fx.Node, Any] = {}

        def value(node: fx.Node) -> Any:
            if node not in values:
                local = self.local[node]
                values[node] = windows(shared[node], places, local.size, local.steps)
            return values[node]

        for node in self.graph.nodes:
            if node.op == "output":
                break
            if node not in self.local:
                values[node] = self.call(node, value)
        outputs: Tensor = value(node.args[0]).unflatten(0, (-1, len(places)))
        return outputs

    # --- planning ----------------------------------------------------------------------------------------------

    def _plan(self, image: tuple[int, int, int]) -> None:
        """Run the net on a random window, and each layer again on random maps that are larger."""
        weight = reference_tensor(self.net)
        values: dict[fx.Node, Any] = {}
        follows: set[fx.Node] = set()  # nodes that depend on the image
        for node in self.graph.nodes:
            if node.op == "output":
                if not isinstance(values.get(node.args[0]), Tensor) or node.args[0] not in follows:
                    raise UserError("fragments need a net that gives one tensor, of the image")
                break
            if node.op == "placeholder":
                values[node] = torch.randn(2, *image, dtype=weight.dtype, device=weight.device)
                self.local[node] = Local(image[0], (image[1], image[2]), ONE)
                follows.add(node)
                continue
            values[node] = self.call(node, values.__getitem__)
            inputs = [one for one in node.all_input_nodes if one in follows]
            if inputs:
                follows.add(node)
                local = self._try(node, inputs, values) if all(one in self.local for one in inputs) else None
                if local is not None:
                    self.local[node] = local
                elif not self.first_alone:
                    self.first_alone = name_of(node)

    def _try(self, node: fx.Node, inputs: list[fx.Node], values: dict[fx.Node, Any]) -> Local | None:
        """Whether its windows are parts of what it gives for more than a window; None: they are not."""
        alone = values[node]
        given = [self.local[one] for one in inputs]
        if not isinstance(alone, Tensor) or alone.dim() != 4 or len({one.steps for one in given}) > 1:
            return None
        noise = {
            one: torch.randn(2, local.channels, *(side + REACH for side in local.size)).to(values[one])
            for one, local in zip(inputs, given, strict=True)
        }

        def run(down: int, right: int, more: int) -> Tensor:
            """Of the windows that begin there, and so many more along each axis."""
            cut = {
                one: noise[one][..., down : down + local.size[0] + more, right : right + local.size[1] + more]
                for one, local in zip(inputs, given, strict=True)
            }
            found: Tensor = self.call(node, lambda one: cut[one].clone() if one in cut else values[one])
            return found

        size = alone.shape[2], alone.shape[3]
        try:
            whole = run(0, 0, REACH)
        except RuntimeError:  # it takes maps of one size
            return None
        grown = [new - old for new, old in zip(whole.shape[2:], size, strict=True)]
        if whole.dim() != 4 or min(grown) < 1 or any(REACH % one for one in grown):
            return None
        stride = REACH // grown[0], REACH // grown[1]
        for i, j in ((0, 0), (1, 0), (0, 1), (grown[0] // 2, grown[1] - 1), (grown[0], grown[1])):
            window = run(i * stride[0], j * stride[1], 0)
            if not close(whole[..., i : i + size[0], j : j + size[1]], window):
                return None
        steps = given[0].steps
        return Local(alone.shape[1], size, (steps[0] * stride[0], steps[1] * stride[1]))

    def _area(self, local: Local) -> int:
        """Outputs of a channel in all fragments of an image."""
        sides = zip(local.size, local.steps, self.spread, strict=True)
        return math.prod(steps * (side + spread // steps - 1) for side, steps, spread in sides)

    def _times(self, name: str) -> float:
        """How many windows' work a layer does."""
        for node, local in self.local.items():
            if node.op == "call_module" and node.target == name:
                return self._area(local) / math.prod(local.size)
        return self.places**2


def offset(maps: Float[Tensor, "b c h w"], steps: Steps, by: Steps) -> Float[Tensor, "B c p q"]:
    """Fragments for windows ``by`` times as far apart: each once for every offset, less what the last of them lacks."""
    if by == ONE:
        return maps
    (high, wide), (rows, columns) = steps, by
    last = maps.permute(0, 2, 3, 1)
    h, w = last.shape[1] - rows + 1, last.shape[2] - columns + 1
    parts = torch.stack([last[:, i : i + h, j : j + w] for i, j in product(range(rows), range(columns))])
    # an offset of the canvas is steps · (that of the fragment) + (the one it had)
    parts = parts.view(rows, columns, -1, high, wide, h, w, maps.shape[1]).permute(2, 0, 3, 1, 4, 5, 6, 7)
    return parts.reshape(-1, h, w, maps.shape[1]).permute(0, 3, 1, 2)


def windows(
    maps: Float[Tensor, "b c h w"], places: Int64[Tensor, "m 2"], size: Steps, steps: Steps
) -> Float[Tensor, "B c p q"]:
    """The windows' maps, cut out of the fragments: for image i and place j at [i · m + j]."""
    every = maps.permute(0, 2, 3, 1).unfold(1, size[0], 1).unfold(2, size[1], 1)  # b, y, x, c, p, q
    every = every.unflatten(0, (-1, math.prod(steps)))
    step = torch.tensor(steps, device=places.device)
    down, right = (places // step).unbind(1)
    which = (places % step * torch.tensor([steps[1], 1], device=places.device)).sum(1)
    found: Tensor = every[:, which, down, right]  # n, m, c, p, q
    return found.flatten(0, 1).contiguous(memory_format=torch.channels_last)
