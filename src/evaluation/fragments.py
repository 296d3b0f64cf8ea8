"""A net's outputs for all windows of a padded image, where neighbouring windows share computation.

A layer is *local* if its output for a window is a part of its output for the whole padded image: a convolution without
padding, a norm, an activation, a pool whose windows fit. It runs once on the padded image; with stride s, once for each
of the s² offsets, which gives fragments of the map (Giusti et al. 2013, "Fast image scanning with deep max-pooling
convolutional neural networks"). After the last local layer, each window is cut out of the fragments and continues by
itself: a layer with padding sees the border of each window, and nothing is approximated.

Whether a layer is local is found by running it on noise and on parts of it, not by its name.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, fx, nn

from ..common.errors import UserError
from ..nets.hooks import eval_mode, reference_tensor
from .fx import NO_STRIDE, FxInterpreter, Steps, all_close, name_of

#: distance along each axis of the windows that a layer is tested on: a multiple of all common strides
REACH = 48


@dataclass(frozen=True)
class Local:
    """A local layer."""

    channels: int  # of its map
    size: Steps  # (height, width) of its map of one window
    steps: Steps  # pixels between neighbouring windows of a fragment; there is a fragment for each offset below it


class Fragments(FxInterpreter):
    """A net prepared for all windows of padded images.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    >>> fragments = Fragments(net, (1, 6, 6), margin=1)
    >>> fragments.first_alone
    '2'
    >>> padded = torch.randn(2, 1, 8, 8)
    >>> outputs = fragments(padded, torch.tensor([[0, 0], [2, 1]]))
    >>> torch.allclose(outputs[:, 1], net(padded[:, :, 2:, 1:7]), atol=1e-6)
    True

    Args:
        net: any net of maps that ``torch.fx`` can trace; it runs in eval mode.
        image: (channels, height, width) of a window.
        margin: pixels on each side of the middle window.

    Attributes:
        first_alone: the first layer that is not local.
        forwards: the cost of all windows of an image, in forward passes, by multiply-adds (MACs); nan if the net has no
            model summary.
        peak: the largest number of elements of a layer's fragments, for one image.

    Raises:
        UserError: ``torch.fx`` cannot trace the net, or it does not return a single tensor that depends on the image.
    """

    def __init__(self, net: nn.Module, image: tuple[int, int, int], margin: int) -> None:
        super().__init__(net)
        self.positions, self.first_alone = 2 * margin + 1, ""
        self.local: dict[fx.Node, Local] = {}
        with self.seeded():
            self._plan(image)
        rows, columns = (math.lcm(*axis) for axis in zip(*(layer.steps for layer in self.local.values()), strict=True))
        #: windows along each axis, rounded up to a multiple of the strides: the last ones lie beyond the padded image
        self.windows = -(-self.positions // rows) * rows, -(-self.positions // columns) * columns
        self.forwards = self.forwards_of(image, self._times)
        self.peak = max(layer.channels * self._area(layer) for layer in self.local.values())

    def __call__(
        self, padded: Float[Tensor, "n c H W"], corners: Int64[Tensor, "m 2"], batch: int = 256
    ) -> Float[Tensor, "n m d"]:
        """The outputs for some windows of normalised images with their margin, by (down, right) of the windows' upper
        left corners, in [0, 2 · margin]. After the last local layer, ``batch`` windows run at once.
        """
        with eval_mode(self.net), torch.no_grad():
            fragments = self._fragments(padded)
            chunks = corners.to(padded.device).split(max(1, batch // len(padded)))
            return torch.cat([self._windows(fragments, chunk) for chunk in chunks], 1)

    def _fragments(self, padded: Float[Tensor, "n c H W"]) -> dict[fx.Node, Tensor]:
        """The fragments of the local layers that other layers read."""
        values: dict[fx.Node, Tensor] = {}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                down, right = (windows - self.positions for windows in self.windows)
                values[node] = F.pad(padded, (0, right, 0, down), mode="replicate")
            elif node in self.local:
                values[node] = self._run(node, values)
                for used in node.all_input_nodes:
                    if self.last_use[used] is node and used.users.keys() <= self.local.keys():
                        values.pop(used, None)
        return values

    def _run(self, node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor:
        """A local layer's fragments."""
        before = next(self.local[source].steps for source in node.all_input_nodes if source in self.local)
        steps = self.local[node].steps
        stride = steps[0] // before[0], steps[1] // before[1]

        def value(source: fx.Node) -> Any:
            return offset(values[source], before, stride) if source in self.local else self.call(source, value)

        fragments: Tensor = self.call(node, value)
        return fragments

    def _windows(self, fragments: dict[fx.Node, Tensor], corners: Int64[Tensor, "m 2"]) -> Float[Tensor, "n m d"]:
        """The net's outputs for these windows, by the layers that are not local."""
        values: dict[fx.Node, Any] = {}

        def value(node: fx.Node) -> Any:
            if node not in values:
                local = self.local[node]
                values[node] = cut_windows(fragments[node], corners, local.size, local.steps)
            return values[node]

        for node in self.graph.nodes:
            if node.op == "output":
                break
            if node not in self.local:
                values[node] = self.call(node, value)
        outputs: Tensor = value(node.args[0]).unflatten(0, (-1, len(corners)))
        return outputs

    # --- planning ----------------------------------------------------------------------------------------------

    def _plan(self, image: tuple[int, int, int]) -> None:
        """Run the net on a random window, and each layer also on larger random maps."""
        weight = reference_tensor(self.net)
        values: dict[fx.Node, Any] = {}
        of_image: set[fx.Node] = set()  # nodes that depend on the image
        for node in self.graph.nodes:
            if node.op == "output":
                if not isinstance(values.get(node.args[0]), Tensor) or node.args[0] not in of_image:
                    raise UserError("fragments need a net that gives one tensor, of the image")
                break
            if node.op == "placeholder":
                values[node] = torch.randn(2, *image, dtype=weight.dtype, device=weight.device)
                self.local[node] = Local(image[0], (image[1], image[2]), NO_STRIDE)
                of_image.add(node)
                continue
            values[node] = self.call(node, values.__getitem__)
            inputs = [source for source in node.all_input_nodes if source in of_image]
            if inputs:
                of_image.add(node)
                local = self._test(node, inputs, values) if self.local.keys() >= set(inputs) else None
                if local is not None:
                    self.local[node] = local
                elif not self.first_alone:
                    self.first_alone = name_of(node)

    def _test(self, node: fx.Node, inputs: list[fx.Node], values: dict[fx.Node, Any]) -> Local | None:
        """The local layer; None if its outputs for windows are not parts of its output for a larger map."""
        output = values[node]
        layers = {source: self.local[source] for source in inputs}
        if not isinstance(output, Tensor) or output.dim() != 4 or len({layer.steps for layer in layers.values()}) > 1:
            return None
        shapes = {source: (layer.channels, *(side + REACH for side in layer.size)) for source, layer in layers.items()}
        noise = {source: torch.randn(2, *shape).to(values[source]) for source, shape in shapes.items()}

        def run(down: int, right: int, more: int) -> Tensor:
            """The output for the window that begins there, extended by ``more`` pixels along each axis."""
            cut = {
                source: noise[source][..., down : down + layer.size[0] + more, right : right + layer.size[1] + more]
                for source, layer in layers.items()
            }
            result: Tensor = self.call(node, lambda source: cut[source].clone() if source in cut else values[source])
            return result

        size = output.shape[2], output.shape[3]
        try:
            whole = run(0, 0, REACH)
        except RuntimeError:  # it takes maps of one size
            return None
        growth = [large - small for large, small in zip(whole.shape[2:], size, strict=True)]
        if whole.dim() != 4 or min(growth) < 1 or any(REACH % more for more in growth):
            return None
        stride = REACH // growth[0], REACH // growth[1]
        for i, j in ((0, 0), (1, 0), (0, 1), (growth[0] // 2, growth[1] - 1), (growth[0], growth[1])):
            window = run(i * stride[0], j * stride[1], 0)
            if not all_close(whole[..., i : i + size[0], j : j + size[1]], window):
                return None
        steps = layers[inputs[0]].steps
        return Local(output.shape[1], size, (steps[0] * stride[0], steps[1] * stride[1]))

    def _area(self, local: Local) -> int:
        """The number of a channel's outputs in all fragments of an image."""
        axes = zip(local.size, local.steps, self.windows, strict=True)
        return math.prod(steps * (side + windows // steps - 1) for side, steps, windows in axes)

    def _times(self, name: str) -> float:
        """The cost of a layer, in forward passes of a window."""
        for node, local in self.local.items():
            if node.op == "call_module" and node.target == name:
                return self._area(local) / math.prod(local.size)
        return self.positions**2


def offset(maps: Float[Tensor, "b c h w"], steps: Steps, by: Steps) -> Float[Tensor, "B c p q"]:
    """The fragments for windows ``by`` times as far apart: each one shifted by every offset, cut to a common size."""
    if by == NO_STRIDE:
        return maps
    (high, wide), (rows, columns) = steps, by
    last = maps.permute(0, 2, 3, 1)
    h, w = last.shape[1] - rows + 1, last.shape[2] - columns + 1
    parts = torch.stack([last[:, i : i + h, j : j + w] for i, j in product(range(rows), range(columns))])
    # the offset in pixels is steps · (offset of the fragment) + (offset before)
    parts = parts.view(rows, columns, -1, high, wide, h, w, maps.shape[1]).permute(2, 0, 3, 1, 4, 5, 6, 7)
    return parts.reshape(-1, h, w, maps.shape[1]).permute(0, 3, 1, 2)


def cut_windows(
    maps: Float[Tensor, "b c h w"], corners: Int64[Tensor, "m 2"], size: Steps, steps: Steps
) -> Float[Tensor, "B c p q"]:
    """The windows' maps, cut out of the fragments: of image i and corner j at [i · m + j]."""
    views = maps.permute(0, 2, 3, 1).unfold(1, size[0], 1).unfold(2, size[1], 1)  # b, y, x, c, p, q
    views = views.unflatten(0, (-1, math.prod(steps)))
    step = torch.tensor(steps, device=corners.device)
    down, right = (corners // step).unbind(1)
    fragment = (corners % step * torch.tensor([steps[1], 1], device=corners.device)).sum(1)
    windows: Tensor = views[:, fragment, down, right]  # n, m, c, p, q
    return windows.flatten(0, 1).contiguous(memory_format=torch.channels_last)
