"""All H · W rolls of an image, at the output and at every layer: by the phase tree, else one by one.

Both ways give the same table, so the metrics do not depend on the way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor, fft

from ..common.errors import UserError
from ..metrics.layer_outputs import LayerOutputs, squared_differences
from ..nets.hooks import stream_outputs
from .adapter import ModelAdapter
from .fx import Steps, padding_of
from .phase_tree import Phases, PhaseTree

#: a shared computation is used if it agrees with the net on random shifts, up to this share of the largest value
AGREEMENT = {torch.float32: 1e-5, torch.float64: 1e-10}
#: why a net shares no computation between shifts of an image
PERMUTED = "the pixels of its images are permuted"
#: random shifts of that test
TESTED_SHIFTS = 3
#: images of a forward pass where each shift is an image of its own
FORWARD_BATCH = 256
#: up to this number of positions, correlations of maps are faster by matrix products than by FFT
SMALL_MAP = 64
#: the largest number of elements of a tensor: 256 MB in float32
MAX_ELEMENTS = 2**26


@dataclass(frozen=True)
class ShiftTable:
    """A batch of images under many shifts."""

    outputs: Float[Tensor, "n shifts d"]  # the net's, for image i shifted by shift g at [i, g]; the first is (0, 0)
    squared_difference: dict[str, Float[Tensor, "n shifts"]]  # layer → ``‖φ(gx) - φ(x)‖²`` at [i, g]
    norms: dict[str, Float[Tensor, "n shifts"]]  # layer → ``‖φ(gx)‖`` at [i, g]
    reference: dict[str, Float[Tensor, "n _"]]  # layer → φ(x), flattened


@dataclass(frozen=True)
class Rolls:
    """How a net's outputs for rolls of its images are computed."""

    adapter: ModelAdapter
    tree: PhaseTree | None  # shares computation between rolls; None: each roll is a forward pass of its own
    size: Steps  # (height, width) of the images; there are as many rolls as pixels
    why: str  # the reason why the tree is not used; empty if it is
    shifts: Int64[Tensor, "rolls 2"]  # (down, right), (0, 0) first; all in row-major order, unless they are a sample
    forwards: float  # the cost for an image, in forward passes

    def __call__(self, x: Float[Tensor, "n c H W"]) -> ShiftTable:
        """The table of a batch of normalised images."""
        if self.tree is None:
            return one_by_one_rolls(self.adapter, x, self.shifts)
        size, table = self.tree.size, ShiftTable(x.new_empty(0, 1, 1), {}, {}, {})
        outputs: list[Tensor] = []

        def callback(name: str, phases: Phases) -> None:
            if name == "output":
                outputs.append(self.adapter.select_output(phases.everywhere(size).flatten(1, 2).flatten(0, 1)))
            else:
                table.squared_difference[name] = squared_distances(phases, size).flatten(1)
                table.norms[name] = norms(phases, size).flatten(1)
                table.reference[name] = phases.split()[:, 0, 0].clone(memory_format=torch.contiguous_format).flatten(1)

        self.tree(x, callback)
        return replace(table, outputs=outputs[0].unflatten(0, (len(x), -1)))

    @property
    def how(self) -> str:
        """The method, its cost, and the reason why it is not faster: a sentence for people."""
        count, total = len(self.shifts), math.prod(self.size)
        if self.tree is not None:
            return f"all {total:,} rolls by the phase tree, which cost {self.forwards:.3g} forward passes per image"
        rolls = f"{count:,} of {total:,} rolls, drawn at random" if count < total else f"all {total:,} rolls"
        return f"{rolls}, one by one: {self.why}"

    @property
    def batch(self) -> int:
        """Images of a batch."""
        return FORWARD_BATCH if self.tree is None else max(1, min(8, MAX_ELEMENTS // max(self.tree.peak, 1)))


def all_shifts(size: Steps) -> Int64[Tensor, "rolls 2"]:
    """All rolls of a map of that size, (0, 0) first."""
    return torch.cartesian_prod(*map(torch.arange, size))


def prepare(adapter: ModelAdapter, x: Float[Tensor, "n c H W"]) -> Rolls:
    """By the phase tree, if it shares any computation and agrees with the net on random rolls of two of the normalised
    images; else one by one.
    """
    height, width = x.shape[-2:]
    one_by_one = Rolls(adapter, None, (height, width), "", all_shifts((height, width)), height * width)
    if adapter.permutation is not None:
        return replace(one_by_one, why=PERMUTED)
    if adapter.views:
        return replace(one_by_one, why=f"{next(iter(adapter.views))} gives no maps of channels first")
    try:
        tree = PhaseTree(adapter.net, (x.shape[1], height, width), adapter.layers)
    except UserError as error:
        return replace(one_by_one, why=str(error))
    if tree.shares_nothing:
        mode = padding_of(adapter.net, tree.alone[0])
        pads = "" if mode in (None, "circular") else f"pads with {mode}, so it "
        return replace(one_by_one, why=f"{tree.alone[0]} {pads}is not equivariant to rolls of the image")
    if tree.peak > MAX_ELEMENTS:
        return replace(one_by_one, why=f"{', '.join(tree.alone)}: what all rolls give there does not fit into memory")
    shared = replace(one_by_one, tree=tree, forwards=tree.forwards if math.isfinite(tree.forwards) else height * width)
    why = _difference(shared, x[: min(2, shared.batch)])
    return replace(one_by_one, why=why) if why else shared


def _difference(shared: Rolls, x: Float[Tensor, "n c H W"]) -> str:
    """Where the tree's table differs from the net's at some random rolls; empty if it does not."""
    generator = torch.Generator().manual_seed(0)
    drawn = 1 + torch.randperm(len(shared.shifts) - 1, generator=generator)[:TESTED_SHIFTS]
    index = torch.cat([torch.tensor([0]), drawn])
    expected = one_by_one_rolls(shared.adapter, x, shared.shifts[index])
    try:
        table = shared(x)
    except Exception as error:  # anything that the net's own code raises for larger batches
        return f"the tree cannot run the net: {' '.join(str(error).split())}"
    tests = {"the answer": (table.outputs, expected.outputs, expected.outputs.abs().max())}
    for name, reference in expected.reference.items():
        scale = reference.square().sum(1).max()
        tests[name] = (table.squared_difference[name], expected.squared_difference[name], scale)
    for name, (values, expected_values, scale) in tests.items():
        error_size = (values[:, index] - expected_values).abs().max()
        if not error_size <= AGREEMENT.get(x.dtype, 1e-2) * scale:
            rolls = shared.shifts[index[1:]].tolist()
            return f"{name}: the tree's is off by {error_size / scale:.1e} for rolls by {rolls}"
    return ""


def one_by_one_rolls(
    adapter: ModelAdapter, x: Float[Tensor, "n c H W"], shifts: Int64[Tensor, "rolls 2"]
) -> ShiftTable:
    """A forward pass for each roll; for any net."""

    def rolled(some: Int64[Tensor, "m 2"]) -> Tensor:
        return adapter.move(x, lambda images: torch.cat([images.roll(shift, (2, 3)) for shift in some.tolist()]))

    return one_by_one(adapter, len(x), shifts, rolled)


@torch.no_grad()
def one_by_one(
    adapter: ModelAdapter, n: int, shifts: Int64[Tensor, "shifts 2"], shift_images: Callable[[Tensor], Tensor]
) -> ShiftTable:
    """A forward pass for each shift of n images; (0, 0) is the first. ``shift_images`` gives the net's input for some
    shifts: all images shifted by the first, then all by the second …
    """
    outputs: list[Tensor] = []
    squared: dict[str, list[Tensor]] = {name: [] for name in adapter.layers}
    norms: dict[str, list[Tensor]] = {name: [] for name in adapter.layers}
    reference: dict[str, Tensor] = {}

    def callback(name: str, maps: Tensor) -> None:
        if name not in reference:
            reference[name] = maps[:n].clone()
        squared[name].append(squared_differences(maps, reference[name]).sum(1).view(-1, n))
        norms[name].append(LayerOutputs(maps).norm.view(-1, n))

    with stream_outputs(adapter.net, adapter.layers, callback, adapter.views):
        for some in shifts.split(max(1, FORWARD_BATCH // n)):
            outputs.append(adapter.select_output(adapter.net(shift_images(some))).unflatten(0, (len(some), -1)))
    return ShiftTable(
        torch.cat(outputs).transpose(0, 1),
        {name: torch.cat(chunks).T for name, chunks in squared.items()},
        {name: torch.cat(chunks).T for name, chunks in norms.items()},
        {name: maps.flatten(1) for name, maps in reference.items()},
    )


def norms(phases: Phases, size: Steps) -> Float[Tensor, "n H W"]:
    """``‖φ(gx)‖`` for every roll g, at [i, a, b] for image i rolled by (a, b): the norm of the phase that it rolls."""
    (phase, _), values = rolls_of(size, phases.steps), LayerOutputs(phases.values).norm
    return values.view(-1, math.prod(phases.steps))[:, phase.to(values.device)]


def squared_distances(phases: Phases, size: Steps) -> Float[Tensor, "n H W"]:
    """``‖φ(gx) - φ(x)‖²`` for every roll g, at [i, a, b] for image i rolled by (a, b).

    For an equivariant layer, by the cross-correlation of each phase with the original image's map; each channel minus
    its mean there, which cancels and would only cost precision.
    """
    parts, (phase, turn) = phases.split().flatten(1, 2), rolls_of(size, phases.steps)
    if phases.unit is None:
        return (parts - parts[:, :1]).flatten(2).square().sum(2)[:, phase.to(parts.device)]
    maps = (parts - parts[:, :1].mean((3, 4), keepdim=True)).flatten(0, 1)
    energy = LayerOutputs(maps).norm.square().view(len(parts), -1, 1)
    correlate = correlations_by_products if maps[0, 0].numel() <= SMALL_MAP else correlations_by_fft
    dots = correlate(maps, phases.steps)[..., :: phases.unit[0], :: phases.unit[1]]
    squared = energy[:, :1] + energy - 2 * dots.reshape(*energy.shape[:2], -1)
    by_roll = squared.flatten(1)[:, (phase * squared.shape[2] + turn).to(squared.device)]
    by_roll[:, 0, 0] = 0  # exactly, without rounding
    distances: Tensor = by_roll.clamp(min=0)
    return distances


@cache
def rolls_of(size: Steps, steps: Steps) -> tuple[Int64[Tensor, "H W"], Int64[Tensor, "H W"]]:
    """For each roll of the image by (a, b): the phase that it rolls, and the roll of that phase, both as row-major
    indices. Phase o belongs to the image rolled by -o; it is rolled by k steps where ``a = k · step - o``.
    """
    phases, turns = [], []
    for n, step in zip(size, steps, strict=True):
        phases.append(-torch.arange(n) % step)
        turns.append((torch.arange(n) + phases[-1]) // step % (n // step))
    across = size[1] // steps[1]
    return phases[0][:, None] * steps[1] + phases[1], turns[0][:, None] * across + turns[1]


def correlations_by_fft(maps: Float[Tensor, "m c h w"], steps: Steps) -> Float[Tensor, "n Sy Sx h w"]:
    """The correlation of each image's first phase with each of its phases rolled by (k, l) pixels of the map, at
    [i, oy, ox, k, l]: ``Σ φ₀[c, y, x] φ[c, y - k, x - l]``.
    """
    # one axis after the other: for many small maps in half the time of rfft2 on a CPU
    spectra = fft.fft(fft.rfft(maps.permute(0, 2, 3, 1), dim=2), dim=1).unflatten(0, (-1, *steps))
    dots: Tensor = fft.irfft2(torch.linalg.vecdot(spectra, spectra[:, :1, :1]), s=maps.shape[2:])
    return dots


def correlations_by_products(maps: Float[Tensor, "m c h w"], steps: Steps) -> Float[Tensor, "n Sy Sx h w"]:
    """The same as ``correlations_by_fft``, from the products of all pairs of positions; faster for small maps."""
    height, width = maps.shape[2:]
    positions, n = height * width, math.prod(steps)
    flat = maps.permute(0, 2, 3, 1).reshape(-1, n * positions, maps.shape[1])
    products = (flat[:, :positions] @ flat.mT).view(-1, positions, n, positions)
    rows, columns = ((torch.arange(side)[:, None] - torch.arange(side)) % side for side in (height, width))
    source = (rows[:, None, :, None] * width + columns[None, :, None, :]).view(positions, positions)  # (y, x), (k, l)
    source = source[None, :, None].expand(len(products), -1, n, -1).to(maps.device)
    return products.gather(3, source).sum(1).view(-1, *steps, height, width)
