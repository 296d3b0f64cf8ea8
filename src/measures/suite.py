"""Everything that is measured on a net: ``FAMILIES``, and what a run takes of them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from src.activations import watch
from src.config import MEASURES
from src.data.batches import EVALUATION_BATCH, Batches
from src.data.splits import Splits, canvas
from src.measures import Grid, Row
from src.measures.accuracy import accuracy_rows, location_leak
from src.measures.aliasing import aliasing
from src.measures.all_crops import crop_rows
from src.measures.all_rolls import roll_rows
from src.measures.base import PairMeasure, resamples
from src.measures.capture import capture_rows
from src.measures.consistency import Consistency
from src.measures.effective_field import EffectiveField, effective_size
from src.measures.goodfellow import Goodfellow, draw_units, thresholds
from src.measures.invariance_error import InvarianceError
from src.measures.lee import LEE, MOTIONS, velocities
from src.measures.output_distance import OutputDistance
from src.measures.pairs import OUTPUT, Tell, nobody, pair_rows
from src.measures.rows import Estimate
from src.measures.subject import Scene, Subject
from src.models import module
from src.transforms import TABLE, TRANSFORMS, cut

if TYPE_CHECKING:
    from src.config import Config
    from src.models.training import Training

TRAIN_SAMPLE = 5000
#: test images that are looked at while a net trains
FOLLOWED_IMAGES = 250
#: the least that an untrained twin is measured on
TWIN_IMAGES = 250
#: images that gradients are taken of
FIELD_IMAGES, SPEED_IMAGES = 64, 250
#: shifts that Goodfellow's units are tried by, in pixels
UNIT_SHIFTS = (1.0, 4.0)

Found = Iterator[Row | Grid]


def speed_rows(subject: Subject, scene: Scene) -> Found:
    """Local equivariance error: how fast the answer changes when the image begins to move (``amount`` 0)."""
    few = scene.take(torch.arange(min(SPEED_IMAGES, len(scene.canvas))))
    measures = {motion: LEE() for motion in MOTIONS}
    for images, _ in _in_place(subject, few):
        for motion, measure in measures.items():
            answers = subject.answer
            measure.update(*velocities(_Answering(subject.net, answers), images, MOTIONS[motion]))
    weights = resamples(len(few.canvas), scene.seed)
    for motion, measure in measures.items():
        for name, estimate in measure.estimates(weights):
            yield Row("output", "velocity", motion, 0, name, estimate)


class _Answering(torch.nn.Module):
    """A net followed by ``answer``."""

    def __init__(self, net: torch.nn.Module, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.net, self.answer = net, answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.net(x))


def aliasing_rows(subject: Subject, scene: Scene) -> Found:
    """Aliasing fraction of every layer that subsamples."""
    found = aliasing(subject.net, (images for images, _ in _in_place(subject, scene)))
    weights = resamples(len(scene.canvas), scene.seed)
    for layer, measure in found.items():
        for name, estimate in measure.estimates(weights):
            yield Row(layer, "none", "subsampling", 0, name, estimate)


def field_rows(subject: Subject, scene: Scene) -> Found:
    """Effective receptive field of every layer: its size, and its picture."""
    few = scene.take(torch.arange(min(FIELD_IMAGES, len(scene.canvas))))
    fields = {layer: EffectiveField() for layer in subject.layers}
    with torch.enable_grad(), watch(subject.net, subject.layers) as outputs:
        for images, _ in _in_place(subject, few):
            x = images.detach().clone().requires_grad_()
            subject.net(x.clone())
            for layer, field in fields.items():
                field.update(outputs[layer], x)
    for layer, field in fields.items():
        values = field.compute().cpu()
        size = Estimate(effective_size(values), float("nan"), float("nan"), len(few.canvas))
        yield Row(layer, "none", "test", 0, "effective_field", size)
        yield Grid(layer, "effective_field", values.float().numpy())


def unit_rows(subject: Subject, scene: Scene) -> Found:
    """Goodfellow's invariance under shifts: thresholds from half of the images, scores from the other half."""
    half = len(scene.canvas) // 2
    first, second = (scene.take(one) for one in torch.arange(2 * half).split(half)) if half > 1 else (scene, scene)
    kept: dict[str, list[torch.Tensor]] = {layer: [] for layer in subject.layers}
    units: dict[str, torch.Tensor] = {}
    with watch(subject.net, subject.layers) as maps, torch.no_grad():
        for images, _ in _in_place(subject, first):
            subject.net(images)
            for layer, outputs in kept.items():
                flat = maps[layer].flatten(1)
                outputs.append(flat[:, units.setdefault(layer, draw_units(flat.shape[1], seed=scene.seed))])
    limits = {layer: thresholds(torch.cat(outputs)) for layer, outputs in kept.items()}

    def fresh(place: str) -> list[PairMeasure]:
        return [] if place == OUTPUT else [Goodfellow(limits[place], units[place])]

    yield from pair_rows(subject, second, ["shift/crop"], fresh, UNIT_SHIFTS)


def _in_place(subject: Subject, scene: Scene) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(images as the net takes them, their indices), batch by batch."""
    device = next(subject.net.parameters()).device
    for index in scene.batches():
        yield subject.normalise(cut(scene.canvas[index].to(device), scene.margin)), index


#: what ``measure.what`` can name (the schema lists the same: ``config.MEASURES``) → transforms, taken in one pass …
MOVES: dict[str, list[str]] = {
    "shift": ["shift/roll", "shift/crop"],
    "embed": ["shift/embed"],
    **{one.name: [key for key in TRANSFORMS if key.startswith(f"{one.name}/")] for one in TABLE if one.name != "shift"},
}
#: … or rows of its own
FAMILIES: dict[str, Callable[[Subject, Scene], Found]] = {
    "rolls": roll_rows,
    "crops": crop_rows,
    "velocity": speed_rows,
    "aliasing": aliasing_rows,
    "layers": capture_rows,
    "field": field_rows,
    "units": unit_rows,
}


def rows(subject: Subject, scene: Scene, what: Collection[str] = MEASURES, tell: Tell = nobody) -> Found:
    """All rows of a net on some images, and the grids to look at; ``tell`` hears how far it is.

    >>> from torch import nn
    >>> from src.measures.subject import normaliser
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    >>> pixels = torch.arange(3 * 12 * 12).view(3, 1, 12, 12).remainder(251).to(torch.uint8)
    >>> subject = Subject(net, ["1", "2"], normaliser((0.5,), (0.5,)))
    >>> found = list(rows(subject, Scene(pixels, margin=2), ["shift", "rotate"]))
    >>> sorted({(row.transform, row.protocol) for row in found})
    [('rotate', 'disc'), ('rotate', 'quarter'), ('shift', 'crop'), ('shift', 'roll')]
    """
    names = [name for family, names in MOVES.items() if family in what for name in names]
    yield from pair_rows(subject, scene, names, tell=tell)
    for family, found in FAMILIES.items():
        if family in what:
            tell(f"measuring {family}")
            yield from found(subject, scene)


def scene_of(cfg: "Config", splits: Splits) -> Scene:
    """The test images that a run is measured on."""
    generator = torch.Generator().manual_seed(cfg.measure.seed)
    chosen = splits.test.take(torch.randperm(len(splits.test), generator=generator)[: cfg.measure.images])
    surrounded = canvas(chosen, cfg.measure.max_shift, splits.beyond)
    positions = chosen.positions if chosen.positions.numel() else None
    return Scene(surrounded, cfg.measure.max_shift, chosen.labels, positions, cfg.measure.seed)


def subject_of_run(net: "Training", splits: Splits) -> Subject:
    """The net of a run: every stage, and what its head reads."""
    return Subject(net, [*net.stages, "features"], splits.normalise, net.task.answer, net.task.what)


def follow_rows(net: "Training", splits: Splits, scene: Scene) -> Iterator[Row]:
    """The few rows that are followed while a net trains: what a shift by 1 px does to the answer and to every layer."""
    subject = subject_of_run(net, splits)
    on_output: list[type[PairMeasure]] = [OutputDistance, Consistency] if subject.what else [OutputDistance]

    def fresh(place: str) -> list[PairMeasure]:
        return [kind() for kind in on_output] if place == OUTPUT else [InvarianceError()]

    few = scene.take(torch.arange(min(FOLLOWED_IMAGES, len(scene.canvas))))
    yield from pair_rows(subject, few, ["shift/roll", "shift/crop"], fresh, only=[1])


def measure(net: "Training", cfg: "Config", splits: Splits, tell: Tell = nobody) -> Found:
    """All that a run measures: accuracies, then every family, of the net and of its untrained twin.

    The twin has the same seed and no training, and a quarter of the images will do for it; its rows end in
    ``_untrained``.
    """
    sample = splits.train.take(torch.arange(min(TRAIN_SAMPLE, len(splits.train))))
    twin = module(cfg, splits.image, len(splits.classes)).to(net.device)
    scene = scene_of(cfg, splits)
    few = scene.take(torch.arange(min(len(scene.canvas), max(len(scene.canvas) // 4, TWIN_IMAGES))))
    nets: list[tuple[Training, str, Scene]] = [(net, "", scene), (twin, "_untrained", few)]
    for one, suffix, images in nets:
        parts, accuracies = {"test": splits.test, **splits.others}, dict[str, Estimate]()
        if not suffix:
            parts |= {"val": splits.val, "train": sample}
        for name, part in parts.items():
            batches = Batches(part.to(net.device), EVALUATION_BATCH, splits.mean, splits.std)
            for row in accuracy_rows(one, batches, net.task, name):
                if row.measure == "accuracy":
                    accuracies[name] = row.estimate
                yield replace(row, measure=row.measure + suffix)
        if {"test", "dissimilar"} <= accuracies.keys():
            leak = location_leak(accuracies["test"], accuracies["dissimilar"])
            yield Row("output", "none", "test", 0, f"location_leak{suffix}", leak)
        subject = subject_of_run(one, splits)
        for found in rows(subject, images, cfg.measure.what, tell):
            yield replace(found, measure=found.measure + suffix)
