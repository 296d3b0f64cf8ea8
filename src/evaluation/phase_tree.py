"""The phase tree: a net's outputs for ALL rolls of its images, exactly, for the price of a few forward passes.

A layer is *open to rolls* if rolling its input rolls its output: convolutions with circular padding, norms,
activations, sums. A layer with stride s is so for multiples of s alone: of the s² phases of its input each gives a map
of 1/s² the area, from which all other rolls follow. So maps split into phases, in the batch, and every layer between
two strides costs as much as one dense forward, whatever the number of rolls. A global pool is *closed*: its output is
the same for all rolls of its input. Any other layer (zero padding, a flatten, a stride that does not divide its map)
gets all rolls of its input that are left, one by one: what comes before it stays shared, and nothing is approximated.

Which of these a layer is, is found by running it on random maps and their rolls, not by its name.
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

from ..errors import UserError
from ..nets.hooks import eval_mode, reference_tensor
from .fx import ONE, FxInterpreter, Steps, close, name_of


@dataclass(frozen=True)
class Phases:
    """A layer's outputs for the rolls of n images by up to ``steps`` pixels, from which those for all rolls follow.

    Attributes:
        values: (n · Sy · Sx, …): for image i rolled by (-oy, -ox) at [(i · Sy + oy) · Sx + ox].
        steps: (Sy, Sx).
        unit: by how many of its own pixels a map is rolled where the image is rolled by ``steps``; None: the values do
            not see such rolls.
    """

    values: Tensor
    steps: Steps
    unit: Steps | None

    def split(self) -> Float[Tensor, "n Sy Sx ..."]:
        """The phases in axes of their own."""
        apart: Tensor = self.values.unflatten(0, (-1, *self.steps))
        return apart

    def at(self, steps: Steps) -> "Phases":
        """The same for more rolls."""
        by = (steps[0] // self.steps[0], steps[1] // self.steps[1])
        if by == ONE:
            return self
        if self.unit is not None:
            copies = rolled(self.values, self.steps, by, self.unit)
            return Phases(copies, steps, (self.unit[0] * by[0], self.unit[1] * by[1]))
        (high, wide), rest = self.steps, self.values.shape[1:]
        one = self.values.view(-1, 1, high, 1, wide, *rest)
        return Phases(one.expand(-1, by[0], -1, by[1], -1, *rest).reshape(-1, *rest), steps, None)

    def everywhere(self, size: Steps) -> Float[Tensor, "n H W ..."]:
        """The values for image i rolled by (a, b) at [i, a, b]; of all H · W rolls."""
        whole = self.at(size).split()  # its place (-a, -b), modulo the size, is the roll by (a, b)
        return whole.flip(1, 2).roll((1, 1), (1, 2))


def rolled(maps: Float[Tensor, "b c h w"], steps: Steps, by: Steps, unit: Steps = ONE) -> Float[Tensor, "B c h w"]:
    """``by[0] · by[1]`` copies of every map, each rolled back by its place among them; in the order of ``Phases``."""
    (high, wide), (rows, columns) = steps, by
    n, (c, h, w) = len(maps) // (high * wide), maps.shape[1:]
    last = maps.permute(0, 2, 3, 1).reshape(n, high, wide, h, w, c)
    copies = maps.new_empty(n, rows, high, columns, wide, h, w, c)
    for i, j in product(range(rows), range(columns)):
        one = copies[:, i, :, j]
        for (to, of), (to_the, of_the) in product(_moved_back(h, i * unit[0]), _moved_back(w, j * unit[1])):
            one[:, :, :, to, to_the] = last[:, :, :, of, of_the]
    whole: Tensor = copies.view(-1, h, w, c).permute(0, 3, 1, 2)
    return whole


def _moved_back(n: int, by: int) -> list[tuple[slice, slice]]:
    """(to, from) of the two parts of an axis that is rolled back by less than its size."""
    parts = [(slice(0, n - by), slice(by, n)), (slice(n - by, n), slice(0, by))]
    return parts[: 1 + (by > 0)]


def decimated(maps: Float[Tensor, "b c h w"], steps: Steps, by: Steps) -> Float[Tensor, "B c p q"]:
    """The samples ``[i::s, j::s]`` of every map, for all i, j < s; in the order of ``Phases``."""
    (high, wide), (rows, columns) = steps, by
    n, (c, h, w) = len(maps) // (high * wide), maps.shape[1:]
    parts = maps.permute(0, 2, 3, 1).reshape(n, high, wide, h // rows, rows, w // columns, columns, c)
    parts = parts.permute(0, 4, 1, 6, 2, 3, 5, 7).reshape(-1, h // rows, w // columns, c)
    return parts.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Step:
    """What becomes of the phases at one node of the net's graph.

    Attributes:
        takes: the steps its inputs are brought to.
        stride: by which it is coarser than its inputs.
        unit: of what it gives (``Phases``).
        dense: the same with stride 1, where that is a layer; its outputs are then dealt out to the phases.
    """

    takes: Steps
    stride: Steps = ONE
    unit: Steps | None = None
    dense: nn.Module | None = None

    @property
    def steps(self) -> Steps:
        """Of what it gives."""
        return self.takes[0] * self.stride[0], self.takes[1] * self.stride[1]

    @property
    def uneven(self) -> bool:
        """Whether it is a stride that does not divide its map."""
        return self.unit is not None and any(s > 1 and u > 1 for s, u in zip(self.stride, self.unit, strict=True))


class PhaseTree(FxInterpreter):
    """A net made ready for all rolls of its images.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1, padding_mode="circular"), nn.Flatten())
    >>> tree = PhaseTree(net, (1, 4, 4))
    >>> tree.alone
    ['1']
    >>> x = torch.randn(3, 1, 4, 4)
    >>> logits = tree(x)["output"].everywhere((4, 4))
    >>> torch.allclose(logits[:, 1, 2], net(x.roll((1, 2), (2, 3))), atol=1e-6)
    True

    Args:
        net: any net of maps that ``torch.fx`` can follow; it is run in eval mode.
        image: (channels, height, width).
        layers: names of modules whose phases are wanted besides the output's.

    Attributes:
        alone: the layers that are not open to rolls: each gets all that are left of them, one by one.
        forwards: what it costs, in forward passes of the same images, by the ledger's multiply-adds; nan where the
            ledger has no formula.
        peak: numbers in the largest of its values, an image.

    Raises:
        UserError: ``torch.fx`` cannot follow the net, or it has layers that give several maps at
            once, or one that is wanted runs nothing.
    """

    def __init__(self, net: nn.Module, image: tuple[int, int, int], layers: Iterable[str] = ()) -> None:
        super().__init__(net)
        self.image, self.size = image, (image[1], image[2])
        self.steps: dict[fx.Node, Step] = {}
        self.alone: list[str] = []
        self.peak = 0
        with self.trying():
            self._plan()
        self.wanted: dict[fx.Node, list[str]] = {}
        for name in layers:
            self.wanted.setdefault(self._last_in(name), []).append(name)
        self.forwards = self._cost()
        self.overwrites = any(getattr(module, "inplace", False) for module in net.modules())

    def __call__(self, x: Float[Tensor, "n c H W"]) -> dict[str, Phases]:
        """The phases of the wanted layers and of the output (``"output"``) for normalised images."""
        found: dict[str, Phases] = {}

        def keep(name: str, phases: Phases) -> None:
            found[name] = replace(phases, values=phases.values.clone()) if self.overwrites else phases

        self.stream_outputs(x, keep)
        return found

    def stream_outputs(self, x: Float[Tensor, "n c H W"], see: Callable[[str, Phases], None]) -> None:
        """``see`` is given the same one after the other, so that not all are held at once; it may keep what it makes of
        them, not them, which a layer that works in place may overwrite.
        """
        values: dict[fx.Node, Any] = {}
        with eval_mode(self.net), torch.no_grad():
            for node in self.graph.nodes:
                if node.op == "output":
                    see("output", values[node.args[0]])
                    break
                values[node] = Phases(x, ONE, ONE) if node.op == "placeholder" else self._run(node, values)
                for name in self.wanted.get(node, ()):
                    see(name, values[node])
                for used in node.all_input_nodes:
                    if self.last_use[used] is node:
                        del values[used]

    @property
    def shares_nothing(self) -> bool:
        """Whether all rolls of the image itself are needed, one by one."""
        first = next(node for node in self.graph.nodes if node.op == "placeholder")
        return all(self.steps[node].steps == self.size for node in first.users if node in self.steps)

    def _run(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """A node's value: phases, or what it gives as it is."""
        step = self.steps.get(node)
        if step is None:
            return self.call(node, lambda one: value.values if isinstance(value := values[one], Phases) else value)
        takes = step.takes if step.dense else step.steps
        given = {
            one: values[one].at(takes).values if one in self.steps else values[one] for one in node.all_input_nodes
        }
        if step.dense is None:
            return Phases(self.call(node, given.__getitem__), step.steps, step.unit)
        (one,) = node.all_input_nodes
        return Phases(decimated(step.dense(given[one]), step.takes, step.stride), step.steps, step.unit)

    # --- planning ----------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Run the net on random images, and each layer again on random maps and their rolls."""
        weight = reference_tensor(self.net)
        values: dict[fx.Node, Any] = {}
        for node in self.graph.nodes:
            if node.op == "output":
                if node.args[0] not in self.steps:
                    raise UserError("the phase tree needs a net that gives one tensor, of the image")
                break
            if node.op == "placeholder":
                values[node] = torch.randn(2, *self.image, dtype=weight.dtype, device=weight.device)
                self.steps[node] = Step(ONE, unit=ONE)
                continue
            value = values[node] = self.call(node, values.__getitem__)
            if isinstance(value, tuple | list) and any(isinstance(one, Tensor) for one in value):
                raise UserError(f"{node.name}: the phase tree does not follow layers with several outputs")
            if isinstance(value, Tensor) and any(one in self.steps for one in node.all_input_nodes):
                step = self.steps[node] = self._step(node, values)
                # what a layer without a dense twin is given is brought to as many rolls as it gives
                given = [] if step.dense else [values[one] for one in node.all_input_nodes if one in self.steps]
                largest = max(one[0].numel() for one in [value, *given])
                self.peak = max(self.peak, math.prod(step.steps) * largest)

    def _step(self, node: fx.Node, values: dict[fx.Node, Any]) -> Step:
        """How a layer takes rolls, by trying."""
        inputs = {one: self.steps[one] for one in node.all_input_nodes if one in self.steps}
        takes = _common([one.steps for one in inputs.values()])
        units = {
            one: (step.unit[0] * takes[0] // step.steps[0], step.unit[1] * takes[1] // step.steps[1])
            for one, step in inputs.items()
            if step.unit is not None
        }
        if takes == self.size or not units:
            return Step(takes)
        fresh = {one: _noise_like(values[one]) for one in inputs}
        trial = Trial(self.size, takes, fresh, units, lambda drawn: self.call(node, (values | drawn).__getitem__))
        step = trial.step()
        if step is None or step.uneven:
            self.alone.append(name_of(node))
        if step is None:
            return Step(self.size)
        if max(step.stride) > 1 and node.op == "call_module" and set(units.values()) == {ONE}:
            (one,) = inputs
            return replace(step, dense=dense_twin(self.modules[str(node.target)], fresh[one], step.stride))
        return step

    def _last_in(self, name: str) -> fx.Node:
        """The node whose value is the output of a module: the last one in it."""
        nodes = [
            node
            for node in self.graph.nodes
            if (node.op == "call_module" and node.target == name)
            or name in (one for one, _ in node.meta.get("nn_module_stack", {}).values())
        ]
        if not nodes:
            raise UserError(f"{name}: no call of what the net runs is in this layer")
        last: fx.Node = nodes[-1]
        return last

    def _cost(self) -> float:
        """Forward passes, by the ledger."""
        times = {str(node.target): math.prod(step.steps) for node, step in self.steps.items()}
        return self.forwards_of(self.image, lambda name: times.get(name, math.prod(self.size)))


def _common(steps: list[Steps]) -> Steps:
    """The least that all of them divide."""
    return math.lcm(*(one[0] for one in steps)), math.lcm(*(one[1] for one in steps))


def _noise_like(value: Tensor) -> Tensor:
    return torch.randn_like(value) if value.is_floating_point() else value


@dataclass(frozen=True)
class Trial:
    """A layer run on noise, and on the same noise rolled.

    Attributes:
        size: of the image.
        takes: steps that the layer's inputs have.
        inputs: noise.
        units: of the inputs that are open.
        run: the layer.
    """

    size: Steps
    takes: Steps
    inputs: dict[fx.Node, Tensor]
    units: dict[fx.Node, Steps]
    run: Callable[[dict[fx.Node, Tensor]], Tensor]

    def step(self) -> Step | None:
        """What it is: closed, open, open with a stride, or (None) none of them."""
        still = self.moved(0, 0)
        if all(close(self.moved(*by), still) for by in self.rolls(ONE)):
            return Step(self.takes)
        if still.dim() != 4:
            return None
        # the smallest stride at which a roll of the image is one by whole pixels of the map
        stride = tuple(n // math.gcd(t * m, n) for n, t, m in zip(self.size, self.takes, still.shape[2:], strict=True))
        steps = (self.takes[0] * stride[0], self.takes[1] * stride[1])
        if any(n % s for n, s in zip(self.size, steps, strict=True)):
            return None
        unit = (steps[0] * still.shape[2] // self.size[0], steps[1] * still.shape[3] // self.size[1])
        for rows, columns in self.rolls((stride[0], stride[1])):
            moved = self.moved(rows * stride[0], columns * stride[1])
            if not close(moved, still.roll((rows * unit[0], columns * unit[1]), (2, 3))):
                return None
        return Step(self.takes, (stride[0], stride[1]), unit)

    def rolls(self, stride: Steps) -> list[Steps]:
        """Along one axis, along the other, and along both, as multiples of the stride."""
        ends = [n // (t * s) - 1 for n, t, s in zip(self.size, self.takes, stride, strict=True)]
        down, right = min(ends[0], 1), min(ends[1], 1)
        return [one for one in {(down, 0), (0, right), (ends[0], min(ends[1], 2))} if one != (0, 0)]

    def moved(self, rows: int, columns: int) -> Tensor:
        """What the layer gives when the image is rolled by multiples of ``takes``."""
        rolls = {one: (rows * unit[0], columns * unit[1]) for one, unit in self.units.items()}
        return self.run({
            one: noise.roll(rolls[one], (2, 3)) if one in rolls else noise.clone() for one, noise in self.inputs.items()
        })  # fmt: skip


def _unstrided(layer: nn.Module) -> nn.Module:
    twin = copy.copy(layer) if isinstance(layer, nn.Conv2d) else copy.deepcopy(layer)
    for part in twin.modules():
        if hasattr(part, "stride"):
            setattr(part, "stride", ONE if isinstance(part.stride, tuple) else 1)  # noqa: B010
    return twin


def dense_twin(layer: nn.Module, noise: Float[Tensor, "b c h w"], stride: Steps) -> nn.Module | None:
    """A layer with stride 1 that gives all phases of the strided one at once: its own ``dense()``, where it has one.
    None where trying shows that it does not (phases that are chosen, windows that start elsewhere).
    """
    try:
        dense = getattr(layer, "dense", None)
        twin = dense() if callable(dense) else _unstrided(layer)
        found = decimated(twin(noise), ONE, stride)
    except (RuntimeError, ValueError):  # no copy of it can be made, its windows do not fit, or its size is another
        return None
    right = layer(rolled(noise, ONE, stride))
    return twin if found.shape == right.shape and close(found, right) else None
