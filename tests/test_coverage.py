"""Intervals cover the true value: simulations in which it is known, for every measure with an interval.

Each simulation draws n images hundreds of times; the true value is the mean of the measure over eight draws of very
many images. A 95% interval should cover it in 95 of 100 draws; 92 are required.
``test_every_interval_has_a_simulation`` checks that no measure with an interval is missing.
"""

import math
import statistics
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from src.data.splits import split
from src.evaluation.accuracy import accuracy_rows, location_leak, position_estimates, share_estimate
from src.evaluation.all_rolls import ShiftTable
from src.evaluation.families.aliasing import AliasingFraction
from src.evaluation.families.velocity import LEE
from src.evaluation.worst_case import ShiftLayer, ShiftOutputs
from src.metrics import Row
from src.metrics.base import LayerMeasure, Measure, layer_measures, pair_measures
from src.metrics.cka import CKA
from src.metrics.equivariance_error import EquivarianceError
from src.metrics.position_equivariance import PositionEquivariance
from src.metrics.rows import Estimate
from src.models.tasks import Task
from src.stats.bootstrap import bootstrap_weights
from src.training.evaluate_run import measure
from src.training.lightning_module import module
from tests.helpers import only_rows, tiny

TIMES, AT_LEAST = 400, 0.92
#: the middle 95% of what shuffled labels give, and no interval around a truth
NO_INTERVALS = {"class_selectivity_null"}
Found = Iterator[tuple[str, Estimate]]


def draw(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Outputs of a net: correlated, and about as skewed as trained nets' are (squared distances from the mean vary by
    0.3 to 0.5 of their own mean there, here by 0.7).
    """
    latent = (0.25 * torch.randn(n, 8, generator=generator, dtype=torch.float64)).exp()
    mix = torch.randn(8, d, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return latent @ mix + 0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)


def shifted(x: Tensor, generator: torch.Generator, by: float = 0.6) -> Tensor:
    """The same, moved by more where they are larger."""
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x + by * (0.2 + x.flatten(1).norm(dim=1) / 9).view(-1, *[1] * (x.dim() - 1)) * noise


def estimated(one: Measure, n: int) -> Found:
    yield from one.estimates(bootstrap_weights(n))


def answers(n: int, generator: torch.Generator) -> Found:
    """Every registered measure of answers, with labels that are often right."""
    x = draw(n, 5, generator)
    gx = shifted(x, generator)
    labels = torch.where(torch.rand(n, generator=generator) < 0.8, x.argmax(1), 0)
    for kind in pair_measures():
        if kind.on == "output":
            one = kind()
            one.update(x, gx, labels)
            yield from estimated(one, n)


def nearly_always(n: int, generator: torch.Generator) -> Found:
    """The same of a net that a transform hardly ever changes: shares near 1."""
    x = 4 * nn.functional.one_hot(torch.randint(0, 5, (n,), generator=generator), 5).double()
    gx = torch.where(torch.rand(n, 1, generator=generator) < 0.03, x.roll(1, 1), x)
    for kind in pair_measures():
        if kind.on == "output" and kind.of_classes:
            one = kind()
            one.update(x, gx, x.argmax(1))
            yield from estimated(one, n)


def layers(n: int, generator: torch.Generator) -> Found:
    """Every registered measure of layers under transforms."""
    x = (draw(n, 24, generator) + 2).relu().view(n, 6, 2, 2)  # no channel that hardly ever fires: see ``NVI``
    gx = shifted(x, generator).relu()
    for kind in pair_measures():
        if kind.on == "layers":
            one = kind()
            one.update(x, gx)
            yield from estimated(one, n)


def untouched(n: int, generator: torch.Generator) -> Found:
    """Every registered measure of a layer's maps."""
    rough = torch.rand(n, 1, 1, 1, generator=generator)
    noise = torch.randn(n, 4, 9, 9, generator=generator)
    images = noise[:, :1].cumsum(2).cumsum(3) + rough * noise[:, 1:2] * 9
    maps = (images + 3 * noise * rough).relu()
    labels = torch.arange(n) % 3
    for kind in layer_measures():
        one: LayerMeasure = kind()
        one.update(maps, labels, images)
        yield from estimated(one, n)


def many_shifts(n: int, generator: torch.Generator) -> Found:
    """All rolls of a few images: answers, and a layer."""
    x, levels = draw(n, 4, generator), torch.rand(n, 1, 1, generator=generator, dtype=torch.float64)
    outputs = torch.cat([x[:, None], x[:, None] + 2 * levels * torch.randn(n, 15, 4, generator=generator)], 1)
    one = ShiftOutputs()
    one.update(outputs, torch.where(torch.rand(n, generator=generator) < 0.95, x.argmax(1), 0))
    yield from estimated(one, n)
    maps = draw(n, 24, generator).relu()
    transformed = (maps[:, None] + levels * torch.randn(n, 15, 24, generator=generator)).relu()
    transformed = torch.cat([maps[:, None], transformed], 1)
    layer, squared = ShiftLayer(), (transformed - transformed[:, :1]).square().sum(2)
    layer.update(ShiftTable(outputs, {"layer": squared}, {"layer": transformed.norm(dim=2)}, {"layer": maps}), "layer")
    yield from estimated(layer, n)


def velocities(n: int, generator: torch.Generator) -> Found:
    x = draw(n, 4, generator)
    one = LEE()
    one.update(x, shifted(x, generator) - x)
    yield from estimated(one, n)


def moving(n: int, generator: torch.Generator) -> Found:
    """Maps that move along but for some, with the floor beside; and positions."""
    x = draw(n, 16, generator).view(n, 1, 4, 4)
    pixels = draw(n, 16, generator).view(n, 1, 4, 4)
    one = EquivarianceError()
    one.update(shifted(x, generator), x, None, shifted(pixels, generator, 0.1), pixels)
    yield from estimated(one, n)
    shifts = torch.rand(n, 2, generator=generator) - 0.5
    positions = torch.rand(n, 2, generator=generator)
    two = PositionEquivariance()
    two.update(positions, positions + shifts * torch.rand(n, 1, generator=generator), shifts)
    yield from estimated(two, n)


def subsampled(n: int, generator: torch.Generator) -> Found:
    noise = torch.randn(n, 2, 8, 8, generator=generator)
    one = AliasingFraction()
    one.update(noise.cumsum(3) * torch.rand(n, 1, 1, 1, generator=generator) + noise, 2)
    yield from estimated(one, n)


def shares(n: int, generator: torch.Generator) -> Found:
    """Accuracies, and what location is worth."""
    net, part = nn.Linear(4, 4, bias=False), draw(n, 4, generator).float()
    nn.init.eye_(net.weight)
    labels = torch.where(torch.rand(n, generator=generator) < 0.9, part.argmax(1), 3)
    (row,) = [
        row for row in only_rows(accuracy_rows(net, [(part, labels, torch.empty(n, 0))], Task("what", 4), "test"))
        if row.measure == "accuracy"
    ]  # fmt: skip
    yield "accuracy", row.estimate
    right, wrong = torch.rand(2, n, generator=generator) < torch.tensor([[0.95], [0.6]])
    similar, dissimilar = (share_estimate(correct.double().mean().item(), n) for correct in (right, wrong))
    yield "probe_accuracy", similar
    yield "location_leak", location_leak(similar, dissimilar)


def places(n: int, generator: torch.Generator) -> Found:
    truths = torch.rand(n, 2, generator=generator)
    found = truths + 0.2 * torch.rand(n, 1, generator=generator) * torch.randn(n, 2, generator=generator)
    for name, estimate in position_estimates(found, truths).items():
        yield name, estimate
        yield f"probe_{name}", estimate


def alike(n: int, generator: torch.Generator) -> Found:
    x = draw(n, 12, generator)
    one = CKA()
    for part in shifted(x, generator).split(40):  # its HSICs are unbiased for any batch size
        one.update(x[: len(part)], part)
        x = x[len(part) :]
    yield "cka", one.estimate()


#: world → images in a draw, images for the truth
WORLDS: dict[Callable[[int, torch.Generator], Found], tuple[int, int]] = {
    answers: (120, 6000),
    nearly_always: (120, 6000),
    layers: (250, 6000),
    untouched: (60, 6000),
    many_shifts: (17, 6000),
    velocities: (120, 6000),
    moving: (60, 20_000),
    subsampled: (60, 20_000),
    shares: (120, 100_000),
    places: (60, 20_000),
    alike: (320, 24_000),
}


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_intervals_cover_the_true_value(world: Callable[[int, torch.Generator], Found]) -> None:
    n, many = WORLDS[world]
    truths = [dict(world(many, torch.Generator().manual_seed(-seed))) for seed in range(1, 9)]
    truth = {name: statistics.fmean(values[name].value for values in truths) for name in truths[0]}
    first = world(n, torch.Generator().manual_seed(0))
    held = {name: 0 for name, one in first if math.isfinite(one.low) and name not in NO_INTERVALS}
    assert held
    for seed in range(1, TIMES + 1):
        for name, one in world(n, torch.Generator().manual_seed(seed)):
            if name in held:
                held[name] += one.low <= truth[name] <= one.high
    short = {name: count / TIMES for name, count in held.items() if count / TIMES < AT_LEAST}
    assert not short, short


def test_every_interval_has_a_simulation() -> None:
    """Every measure of a run that has an interval is in one of the simulations."""
    named = {name for world, (n, _) in WORLDS.items() for name, _ in world(n, torch.Generator().manual_seed(0))}
    given = set()
    for task in ("what", "both"):
        cfg = tiny(data={"task": task}, measure={"images": 60})
        splits = split(cfg.data)
        for one in measure(module(cfg, splits.image, len(splits.classes)), cfg, splits):
            if isinstance(one, Row) and math.isfinite(one.estimate.low):
                plain = one.measure.removesuffix("_untrained").removesuffix("_shuffled")
                given.add(plain if plain in named else plain.removesuffix("_floor"))
    assert given - NO_INTERVALS <= named
