"""All H · W rolls of an image, at the output and at every layer: by the phase tree, else one by one.

Both ways give the same table of rolls, so the measures on it do not know which way it came.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor, fft, nn

from ..errors import UserError
from ..metrics.base import LayerOutputs, squares
from ..nets.hooks import stream_outputs
from .adapter import ModelAdapter
from .fx import Steps, padding_of
from .phase_tree import Phases, PhaseTree

#: the tree is used if what it gives for random rolls is what the net gives, up to this share of the largest …
AGREEMENT = {torch.float32: 1e-5, torch.float64: 1e-10}
#: … for so many of them
TRIED = 3
#: images in a forward pass where each roll is one
TOGETHER = 256
#: positions up to which a map's correlations are quicker by products than by FFT
FEW = 64
#: numbers that the largest value of a pass may have: 256 MB in float32
ROOM = 2**26


@dataclass(frozen=True)
class ShiftTable:
    """What shifts do to a batch of images.

    Attributes:
        outputs: of image i under shift g at [i, g]; the first shift is none.
        squared: layer → ``‖φ(gx) - φ(x)‖²`` in the same places.
        lengths: layer → ``‖φ(gx)‖`` in the same places.
        still: layer → φ(x) of the batch, flattened.
    """

    outputs: Float[Tensor, "n shifts d"]
    squared: dict[str, Float[Tensor, "n shifts"]]
    lengths: dict[str, Float[Tensor, "n shifts"]]
    still: dict[str, Float[Tensor, "n _"]]


@dataclass(frozen=True)
class Rolls:
    """How the rolls of a net's images are had.

    Attributes:
        tree: shares what they have in common; None: each is a forward pass of its own.
        size: of the images; there are as many rolls as pixels.
        why: the tree is not used, in a line; empty where it is.
        shifts: (down, right) of each roll, (0, 0) first; all of them, in rows, unless they are a sample.
        forwards: what an image costs, in forward passes.
    """

    adapter: ModelAdapter
    tree: PhaseTree | None
    size: Steps
    why: str
    shifts: Int64[Tensor, "rolls 2"]
    forwards: float

    def __call__(self, x: Float[Tensor, "n c H W"]) -> ShiftTable:
        """The table of a batch of normalised images."""
        if self.tree is None:
            return enumerated(self.adapter, x, self.shifts)
        size, table = self.tree.size, ShiftTable(x.new_empty(0, 1, 1), {}, {}, {})
        outputs: list[Tensor] = []

        def see(name: str, phases: Phases) -> None:
            if name == "output":
                outputs.append(self.adapter.answer(phases.everywhere(size).flatten(1, 2).flatten(0, 1)))
            else:
                table.squared[name] = squared_distances(phases, size).flatten(1)
                table.lengths[name] = lengths(phases, size).flatten(1)
                table.still[name] = phases.split()[:, 0, 0].clone(memory_format=torch.contiguous_format).flatten(1)

        self.tree.stream_outputs(x, see)
        return replace(table, outputs=outputs[0].unflatten(0, (len(x), -1)))

    @property
    def how(self) -> str:
        """What is done, at what cost, and why it is not done for less."""
        every = math.prod(self.size)
        if self.tree is not None:
            return f"all {every:,} rolls by the phase tree, which cost {self.forwards:.3g} forward passes an image"
        drawn = (
            f"{len(self.shifts):,} of {every:,} rolls, drawn" if len(self.shifts) < every else f"all {every:,} rolls"
        )
        return f"{drawn}, a forward pass each, as they share nothing: {self.why}"

    @property
    def batch(self) -> int:
        """Images at once."""
        return TOGETHER if self.tree is None else max(1, min(8, ROOM // max(self.tree.peak, 1)))


def all_shifts(size: Steps) -> Int64[Tensor, "rolls 2"]:
    """Every roll of a map of that size, (0, 0) first."""
    return torch.cartesian_prod(torch.arange(size[0]), torch.arange(size[1]))


def prepare(adapter: ModelAdapter, x: Float[Tensor, "n c H W"]) -> Rolls:
    """The tree, if the net has one that shares anything and agrees with the net on random rolls of two images; else
    one by one.
    """
    height, width = x.shape[-2:]
    alone = Rolls(adapter, None, (height, width), "", all_shifts((height, width)), height * width)
    try:
        tree = PhaseTree(adapter.net, (x.shape[1], height, width), adapter.layers)
    except UserError as error:
        return replace(alone, why=str(error))
    if tree.shares_nothing:
        return replace(alone, why=_closed(adapter.net, tree.alone[0]))
    if tree.peak > ROOM:
        return replace(alone, why=f"{', '.join(tree.alone)}: what all rolls give there does not fit into memory")
    shared = replace(alone, tree=tree, forwards=tree.forwards if math.isfinite(tree.forwards) else height * width)
    why = _difference(shared, x[: min(2, shared.batch)])
    return replace(alone, why=why) if why else shared


def _closed(net: nn.Module, name: str) -> str:
    """Why a layer answers a roll with something else than a roll, as far as its padding says so."""
    mode = padding_of(net, name)
    cause = "" if mode in (None, "circular") else f"pads with {mode}, so it "
    return f"{name} {cause}is not open to rolls of the image"


def _difference(shared: Rolls, x: Float[Tensor, "n c H W"]) -> str:
    """Where the tree's table is not the net's own at some random rolls; empty where it is."""
    generator = torch.Generator().manual_seed(0)
    some = torch.cat([torch.tensor([0]), 1 + torch.randperm(len(shared.shifts) - 1, generator=generator)[:TRIED]])
    right = enumerated(shared.adapter, x, shared.shifts[some])
    try:
        found = shared(x)
    except Exception as error:  # whatever the net's own code raises where there are more maps than it was told
        return f"the tree cannot run the net: {' '.join(str(error).split())}"
    pairs = {"the answer": (found.outputs, right.outputs, right.outputs.abs().max())}
    for name, still in right.still.items():
        pairs[name] = (found.squared[name], right.squared[name], still.square().sum(1).max())
    for name, (one, other, scale) in pairs.items():
        off = (one[:, some] - other).abs().max()
        if not off <= AGREEMENT.get(x.dtype, 1e-2) * scale:
            return f"{name}: the tree's is off by {off / scale:.1e} for rolls by {shared.shifts[some[1:]].tolist()}"
    return ""


def enumerated(adapter: ModelAdapter, x: Float[Tensor, "n c H W"], shifts: Int64[Tensor, "rolls 2"]) -> ShiftTable:
    """Each roll a forward pass; for any net."""

    def rolled(some: Int64[Tensor, "m 2"]) -> Tensor:
        return torch.cat([x.roll((down, right), (2, 3)) for down, right in some.tolist()])

    return one_by_one(adapter, len(x), shifts, rolled)


@torch.no_grad()
def one_by_one(
    adapter: ModelAdapter, n: int, shifts: Int64[Tensor, "shifts 2"], move: Callable[[Tensor], Tensor]
) -> ShiftTable:
    """Each shift a forward pass.

    Args:
        subject: the net.
        n: images.
        shifts: (0, 0) first.
        move: some of the shifts → as the net takes them, all images moved by the first, then all by the next …
    """
    outputs: list[Tensor] = []
    squared: dict[str, list[Tensor]] = {name: [] for name in adapter.layers}
    length: dict[str, list[Tensor]] = {name: [] for name in adapter.layers}
    still: dict[str, Tensor] = {}

    def see(name: str, maps: Tensor) -> None:
        if name not in still:
            still[name] = maps[:n].clone()
        squared[name].append(squares(maps, still[name]).sum(1).view(-1, n))
        length[name].append(LayerOutputs(maps).length.view(-1, n))

    with stream_outputs(adapter.net, adapter.layers, see):
        for some in shifts.split(max(1, TOGETHER // n)):
            outputs.append(adapter.answer(adapter.net(move(some))).unflatten(0, (len(some), -1)))
    return ShiftTable(
        torch.cat(outputs).transpose(0, 1),
        {name: torch.cat(one).T for name, one in squared.items()},
        {name: torch.cat(one).T for name, one in length.items()},
        {name: one.flatten(1) for name, one in still.items()},
    )


def lengths(phases: Phases, size: Steps) -> Float[Tensor, "n H W"]:
    """``‖φ(gx)‖`` for every roll g, at [i, a, b] for that of image i by (a, b): as long as the phase it rolls."""
    (phase, _), found = rolls_of(size, phases.steps), LayerOutputs(phases.values).length
    return found.view(-1, math.prod(phases.steps))[:, phase.to(found.device)]


def squared_distances(phases: Phases, size: Steps) -> Float[Tensor, "n H W"]:
    """``‖φ(gx) - φ(x)‖²`` for every roll g, at [i, a, b] for the roll of image i by (a, b).

    A layer that is open gives, for each phase, a cross-correlation with the map of the image in place; less the mean of
    each channel there, which would only cost precision.
    """
    parts, (phase, turn) = phases.split().flatten(1, 2), rolls_of(size, phases.steps)
    if phases.unit is None:
        return (parts - parts[:, :1]).flatten(2).square().sum(2)[:, phase.to(parts.device)]
    maps = (parts - parts[:, :1].mean((3, 4), keepdim=True)).flatten(0, 1)
    norms = LayerOutputs(maps).length.square().view(len(parts), -1, 1)
    correlate = correlations_by_products if maps[0, 0].numel() <= FEW else correlations_by_fft
    dots = correlate(maps, phases.steps)[..., :: phases.unit[0], :: phases.unit[1]]
    found = norms[:, :1] + norms - 2 * dots.reshape(*norms.shape[:2], -1)
    whole = found.flatten(1)[:, (phase * found.shape[2] + turn).to(found.device)]
    whole[:, 0, 0] = 0  # not even rounding
    distances: Tensor = whole.clamp(min=0)
    return distances


@cache
def rolls_of(size: Steps, steps: Steps) -> tuple[Int64[Tensor, "H W"], Int64[Tensor, "H W"]]:
    """For each roll of the image by (a, b): which phase it rolls, and by which of that phase's own rolls, both counted
    row by row: phase o, of the image rolled by -o, is rolled on by k times its step where ``a = k · step - o``.
    """
    phases, turns = [], []
    for n, step in zip(size, steps, strict=True):
        phases.append(-torch.arange(n) % step)
        turns.append((torch.arange(n) + phases[-1]) // step % (n // step))
    across = size[1] // steps[1]
    return phases[0][:, None] * steps[1] + phases[1], turns[0][:, None] * across + turns[1]


def correlations_by_fft(maps: Float[Tensor, "m c h w"], steps: Steps) -> Float[Tensor, "n Sy Sx h w"]:
    """Of each image's first phase with each of its phases, rolled on by (k, l) pixels of the map, at [i, oy, ox, k, l]:
    ``Σ φ₀[c, y, x] φ[c, y - k, x - l]``.
    """
    # one axis after the other: of many small maps in half the time of rfft2 on a CPU
    spectra = fft.fft(fft.rfft(maps.permute(0, 2, 3, 1), dim=2), dim=1).unflatten(0, (-1, *steps))
    dots: Tensor = fft.irfft2(torch.linalg.vecdot(spectra, spectra[:, :1, :1]), s=maps.shape[2:])
    return dots


def correlations_by_products(maps: Float[Tensor, "m c h w"], steps: Steps) -> Float[Tensor, "n Sy Sx h w"]:
    """The same from the products of all pairs of positions, of which there are few in a small map."""
    height, width = maps.shape[2:]
    places, n = height * width, math.prod(steps)
    flat = maps.permute(0, 2, 3, 1).reshape(-1, n * places, maps.shape[1])
    products = (flat[:, :places] @ flat.mT).view(-1, places, n, places)
    rows, columns = ((torch.arange(side)[:, None] - torch.arange(side)) % side for side in (height, width))
    other = (rows[:, None, :, None] * width + columns[None, :, None, :]).view(places, places)  # of (y, x), of (k, l)
    other = other[None, :, None].expand(len(products), -1, n, -1).to(maps.device)
    return products.gather(3, other).sum(1).view(-1, *steps, height, width)
