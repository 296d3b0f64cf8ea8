"""The phase tree: a net's outputs for ALL rolls (circular shifts) of its images, exactly, in a few forward passes.

A layer is *equivariant* if rolling its input rolls its output: convolutions with circular padding, norms, activations,
sums. A layer with stride s is equivariant only to rolls by multiples of s: each of the s² phases of its input gives a
map of 1/s² the area, from which all other rolls follow. So maps are split into phases, in the batch dimension, and each
layer between two strides costs as much as one dense forward pass, whatever the number of rolls. A global pool is
*invariant*: its output is the same for all rolls of its input. Any other layer (zero padding, a flatten, a stride that
does not divide its map) runs on all remaining rolls of its input, one by one: the layers before it stay shared, and
nothing is approximated.

The kind of a layer is found by running it on random maps and their rolls, not by its name.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from ..common.errors import UserError
from ..nets.hooks import eval_mode, reference_tensor
from .fx import NO_STRIDE, FxInterpreter, Steps, all_close, name_of


@dataclass(frozen=True)
class Phases:
    """A layer's outputs for the rolls of n images by less than ``steps`` pixels; those for all other rolls follow.

    Attributes:
        values: (n · Sy · Sx, …): for image i rolled by (-oy, -ox) at [(i · Sy + oy) · Sx + ox].
        steps: (Sy, Sx).
        unit: by how many of its own pixels a map is rolled if the image is rolled by ``steps``; None: the values are
            invariant to such rolls.
    """

    values: Tensor
    steps: Steps
    unit: Steps | None

    def split(self) -> Float[Tensor, "n Sy Sx ..."]:
        """The values with a dimension for images and two for phases."""
        values: Tensor = self.values.unflatten(0, (-1, *self.steps))
        return values

    def at(self, steps: Steps) -> "Phases":
        """The phases for more rolls: ``steps`` must be a multiple of its own."""
        by = (steps[0] // self.steps[0], steps[1] // self.steps[1])
        if by == NO_STRIDE:
            return self
        if self.unit is not None:
            copies = rolled(self.values, self.steps, by, self.unit)
            return Phases(copies, steps, (self.unit[0] * by[0], self.unit[1] * by[1]))
        (high, wide), rest = self.steps, self.values.shape[1:]
        values = self.values.view(-1, 1, high, 1, wide, *rest)
        return Phases(values.expand(-1, by[0], -1, by[1], -1, *rest).reshape(-1, *rest), steps, None)

    def everywhere(self, size: Steps) -> Float[Tensor, "n H W ..."]:
        """The values for all H · W rolls: for image i rolled by (a, b) at [i, a, b]."""
        values = self.at(size).split()  # the roll by (a, b) is at (-a, -b), modulo the size
        return values.flip(1, 2).roll((1, 1), (1, 2))


def rolled(
    maps: Float[Tensor, "b c h w"], steps: Steps, by: Steps, unit: Steps = NO_STRIDE
) -> Float[Tensor, "B c h w"]:
    """``by[0] · by[1]`` copies of every map, copy (i, j) rolled by -(i, j) · unit; in the order of ``Phases``."""
    (high, wide), (rows, columns) = steps, by
    n, (c, h, w) = len(maps) // (high * wide), maps.shape[1:]
    last = maps.permute(0, 2, 3, 1).reshape(n, high, wide, h, w, c)
    copies = maps.new_empty(n, rows, high, columns, wide, h, w, c)
    for i, j in product(range(rows), range(columns)):
        copy = copies[:, i, :, j]
        for (to_row, row), (to_column, column) in product(_roll_back(h, i * unit[0]), _roll_back(w, j * unit[1])):
            copy[:, :, :, to_row, to_column] = last[:, :, :, row, column]
    whole: Tensor = copies.view(-1, h, w, c).permute(0, 3, 1, 2)
    return whole


def _roll_back(n: int, by: int) -> list[tuple[slice, slice]]:
    """(to, from) of the two parts of an axis of length n that is rolled by -by, 0 ≤ by < n."""
    parts = [(slice(0, n - by), slice(by, n)), (slice(n - by, n), slice(0, by))]
    return parts[: 1 + (by > 0)]


def decimated(maps: Float[Tensor, "b c h w"], steps: Steps, by: Steps) -> Float[Tensor, "B c p q"]:
    """The samples ``[i::s, j::s]`` of every map for all i, j < s, where s is ``by``; in the order of ``Phases``."""
    (high, wide), (rows, columns) = steps, by
    n, (c, h, w) = len(maps) // (high * wide), maps.shape[1:]
    parts = maps.permute(0, 2, 3, 1).reshape(n, high, wide, h // rows, rows, w // columns, columns, c)
    parts = parts.permute(0, 4, 1, 6, 2, 3, 5, 7).reshape(-1, h // rows, w // columns, c)
    return parts.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Step:
    """How one node of the net's graph runs on phases."""

    takes: Steps  # the steps that its inputs are expanded to (``Phases.at``)
    stride: Steps = NO_STRIDE  # of its output relative to its inputs
    unit: Steps | None = None  # of its output (``Phases``)
    dense: nn.Module | None = None  # a version of the layer with stride 1; its output is then decimated to phases

    @property
    def steps(self) -> Steps:
        """The steps that its output is expanded to: those of its inputs times its stride."""
        return self.takes[0] * self.stride[0], self.takes[1] * self.stride[1]


class PhaseTree(FxInterpreter):
    """A net prepared for all rolls of its images.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1, padding_mode="circular"), nn.Flatten())
    >>> tree = PhaseTree(net, (1, 4, 4))
    >>> tree.alone
    ['1']
    >>> x = torch.randn(3, 1, 4, 4)
    >>> logits = {}
    >>> tree(x, lambda name, phases: logits.update({name: phases.everywhere((4, 4))}))
    >>> torch.allclose(logits["output"][:, 1, 2], net(x.roll((1, 2), (2, 3))), atol=1e-6)
    True

    Args:
        net: any net of maps that ``torch.fx`` can trace; it runs in eval mode.
        image: (channels, height, width).
        layers: names of modules whose phases are given beside the output's.

    Attributes:
        alone: the layers that are neither equivariant nor invariant: they run on all remaining rolls, one by one.
        forwards: the cost for an image, in forward passes, by multiply-adds (MACs); nan if the net has no model
            summary.
        peak: the largest number of elements of a layer's phases, for one image.

    Raises:
        UserError: ``torch.fx`` cannot trace the net, a layer returns several tensors, or one of ``layers`` is not
            called.
    """

    def __init__(self, net: nn.Module, image: tuple[int, int, int], layers: Iterable[str] = ()) -> None:
        super().__init__(net)
        self.image, self.size = image, (image[1], image[2])
        self.steps: dict[fx.Node, Step] = {}
        self.alone: list[str] = []
        self.peak = 0
        with self.seeded():
            self._plan()
        self.observed: dict[fx.Node, list[str]] = {}
        for name in layers:
            self.observed.setdefault(self._last_in(name), []).append(name)
        times = {str(node.target): math.prod(step.steps) for node, step in self.steps.items()}
        self.forwards = self.forwards_of(image, lambda name: times.get(name, math.prod(self.size)))

    def __call__(self, x: Float[Tensor, "n c H W"], callback: Callable[[str, Phases], None]) -> None:
        """Pass name and phases of the observed layers and of the output (``"output"``), for normalised images, to a
        callback, one after the other, so that not all are in memory at once. The callback must not keep them, as a
        layer that works in place may overwrite them.
        """
        values: dict[fx.Node, Any] = {}
        with eval_mode(self.net), torch.no_grad():
            for node in self.graph.nodes:
                if node.op == "output":
                    callback("output", values[node.args[0]])
                    break
                values[node] = Phases(x, NO_STRIDE, NO_STRIDE) if node.op == "placeholder" else self._run(node, values)
                for name in self.observed.get(node, ()):
                    callback(name, values[node])
                for used in node.all_input_nodes:
                    if self.last_use[used] is node:
                        del values[used]

    @property
    def shares_nothing(self) -> bool:
        """Whether already the first layers need all rolls of the image, one by one."""
        first = next(node for node in self.graph.nodes if node.op == "placeholder")
        return all(self.steps[node].steps == self.size for node in first.users if node in self.steps)

    def _run(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """A node's value: phases; or the plain value, if it does not depend on the image."""
        step = self.steps.get(node)
        if step is None:
            return self.call(node, lambda source: v.values if isinstance(v := values[source], Phases) else v)
        takes = step.takes if step.dense else step.steps
        inputs = {source: values[source] for source in node.all_input_nodes}
        inputs |= {source: phases.at(takes).values for source, phases in inputs.items() if source in self.steps}
        if step.dense is None:
            return Phases(self.call(node, inputs.__getitem__), step.steps, step.unit)
        (source,) = node.all_input_nodes
        return Phases(decimated(step.dense(inputs[source]), step.takes, step.stride), step.steps, step.unit)

    # --- planning ----------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Run the net on random images, and each layer also on random maps and their rolls."""
        weight = reference_tensor(self.net)
        values: dict[fx.Node, Any] = {}
        for node in self.graph.nodes:
            if node.op == "output":
                if node.args[0] not in self.steps:
                    raise UserError("the phase tree needs a net that gives one tensor, of the image")
                break
            if node.op == "placeholder":
                values[node] = torch.randn(2, *self.image, dtype=weight.dtype, device=weight.device)
                self.steps[node] = Step(NO_STRIDE, unit=NO_STRIDE)
                continue
            value = values[node] = self.call(node, values.__getitem__)
            if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
                raise UserError(f"{node.name}: the phase tree does not follow layers with several outputs")
            if isinstance(value, Tensor) and any(source in self.steps for source in node.all_input_nodes):
                step = self.steps[node] = self._step(node, values)
                # without a dense version, the inputs are expanded to as many rolls as the output
                expanded = [] if step.dense else [values[x] for x in node.all_input_nodes if x in self.steps]
                largest = max(tensor[0].numel() for tensor in [value, *expanded])
                self.peak = max(self.peak, math.prod(step.steps) * largest)

    def _step(self, node: fx.Node, values: dict[fx.Node, Any]) -> Step:
        """How a layer handles rolls, by testing it."""
        inputs = {source: self.steps[source] for source in node.all_input_nodes if source in self.steps}
        rows, columns = zip(*(step.steps for step in inputs.values()), strict=True)
        takes = math.lcm(*rows), math.lcm(*columns)
        units = {
            source: (step.unit[0] * takes[0] // step.steps[0], step.unit[1] * takes[1] // step.steps[1])
            for source, step in inputs.items()
            if step.unit is not None
        }
        if takes == self.size or not units:
            return Step(takes)
        floats = {source: values[source].is_floating_point() for source in inputs}
        noise = {x: torch.randn_like(values[x]) if is_float else values[x] for x, is_float in floats.items()}

        def run(down: int, right: int) -> Tensor:
            """The layer's output for the image rolled by (down, right) · ``takes``."""
            inputs = {source: maps.clone() for source, maps in noise.items()}
            for source, unit in units.items():
                inputs[source] = noise[source].roll((down * unit[0], right * unit[1]), (2, 3))
            output: Tensor = self.call(node, (values | inputs).__getitem__)
            return output

        step = tested_step(self.size, takes, run)
        pairs = zip(step.stride, step.unit, strict=True) if step and step.unit else ()
        if step is None or any(stride > 1 and unit > 1 for stride, unit in pairs):  # a stride that does not divide
            self.alone.append(name_of(node))
        if step is None:
            return Step(self.size)
        if max(step.stride) > 1 and node.op == "call_module" and set(units.values()) == {NO_STRIDE}:
            (source,) = inputs
            return replace(step, dense=dense_version(self.modules[str(node.target)], noise[source], step.stride))
        return step

    def _last_in(self, name: str) -> fx.Node:
        """The node that computes the output of a module: the last one inside it."""
        node: fx.Node
        for node in reversed(self.graph.nodes):
            inside = (module for module, _ in node.meta.get("nn_module_stack", {}).values())
            if (node.op == "call_module" and node.target == name) or name in inside:
                return node
        raise UserError(f"{name}: no call of what the net runs is in this layer")


def tested_step(size: Steps, takes: Steps, run: Callable[[int, int], Tensor]) -> Step | None:
    """How a layer handles rolls: invariant (unit None), or equivariant, with or without a stride; None if neither.

    Args:
        size: (height, width) of the image.
        takes: the steps of the layer's inputs.
        run: (down, right) → the layer's output for the image rolled by (down, right) · ``takes``.
    """

    def rolls(stride: Steps) -> list[Steps]:
        """The rolls that are tested, as multiples of the stride: along each axis, and along both."""
        ends = [n // (t * s) - 1 for n, t, s in zip(size, takes, stride, strict=True)]
        down, right = min(ends[0], 1), min(ends[1], 1)
        return [roll for roll in {(down, 0), (0, right), (ends[0], min(ends[1], 2))} if roll != (0, 0)]

    reference = run(0, 0)
    if all(all_close(run(*by), reference) for by in rolls(NO_STRIDE)):
        return Step(takes)
    if reference.dim() != 4:
        return None
    # the smallest stride at which rolls of the image are rolls of the map by whole pixels
    axes = zip(size, takes, reference.shape[2:], strict=True)
    rows, columns = (n // math.gcd(t * m, n) for n, t, m in axes)
    steps = takes[0] * rows, takes[1] * columns
    if any(n % s for n, s in zip(size, steps, strict=True)):
        return None
    unit = (steps[0] * reference.shape[2] // size[0], steps[1] * reference.shape[3] // size[1])
    for down, right in rolls((rows, columns)):
        output = run(down * rows, right * columns)
        if not all_close(output, reference.roll((down * unit[0], right * unit[1]), (2, 3))):
            return None
    return Step(takes, (rows, columns), unit)


def _unstrided(layer: nn.Module) -> nn.Module:
    """A copy with stride 1."""
    dense = copy.copy(layer) if isinstance(layer, nn.Conv2d) else copy.deepcopy(layer)
    for part in dense.modules():
        if hasattr(part, "stride"):
            setattr(part, "stride", NO_STRIDE if isinstance(part.stride, tuple) else 1)  # noqa: B010
    return dense


def dense_version(layer: nn.Module, noise: Float[Tensor, "b c h w"], stride: Steps) -> nn.Module | None:
    """The layer with stride 1, whose output holds all phases of the strided one: its own ``dense()``, or a copy. None
    if a test on noise shows another result (phases that are selected, windows that start elsewhere).
    """
    try:
        own = getattr(layer, "dense", None)
        dense = own() if callable(own) else _unstrided(layer)
        phases = decimated(dense(noise), NO_STRIDE, stride)
    except (RuntimeError, ValueError):  # it cannot be copied, its windows do not fit, or the sizes differ
        return None
    expected = layer(rolled(noise, NO_STRIDE, stride))
    return dense if phases.shape == expected.shape and all_close(phases, expected) else None
