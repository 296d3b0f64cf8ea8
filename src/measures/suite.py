"""Everything that is measured on a net: ``FAMILIES``, and what a run takes of them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from src.activations import evaluating
from src.config import MEASURES
from src.data.batches import EVALUATION_BATCH, Batches
from src.data.sets import Images
from src.data.splits import Splits, canvas
from src.measures import Grid, Note, PerImage, Row
from src.measures.accuracy import accuracy_rows, location_leak
from src.measures.aliasing import aliasing_rows
from src.measures.all_crops import crop_rows
from src.measures.all_rolls import roll_rows
from src.measures.base import PairMeasure
from src.measures.capture import capture_rows
from src.measures.consistency import Consistency
from src.measures.effective_field import field_rows
from src.measures.folding import folded
from src.measures.goodfellow import unit_rows
from src.measures.invariance_error import InvarianceError
from src.measures.lee import speed_rows
from src.measures.output_distance import OutputDistance
from src.measures.pairs import Tell, nobody, pair_rows
from src.measures.rows import Estimate
from src.measures.subject import OUTPUT, Scene, Subject, grids_of, in_place
from src.measures.untrained import untrained
from src.transforms import TABLE, TRANSFORMS

if TYPE_CHECKING:
    from src.config import Config
    from src.models.training import Training

#: families that look at what a convolution has and gives; for the others its norm is folded into it, which is quicker
UNFOLDED = ("aliasing", "layers")
#: families whose numbers depend on how many images there are, as what a probe learns: two nets need the same
COUNTED = ("layers", "units")

TRAIN_SAMPLE = 5000
#: test images that are looked at while a net trains
FOLLOWED_IMAGES = 250
#: the least that means over images are taken of for an untrained twin
TWIN_IMAGES = 125

Found = Iterator[Row | Grid | Note | PerImage]


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


def rows(
    subject: Subject,
    scene: Scene,
    what: Collection[str] = MEASURES,
    tell: Tell = nobody,
    few: Scene | None = None,
) -> Found:
    """All rows of a net on some images, and the grids to look at; ``tell`` hears how far it is.

    ``few``, if given, are the images for what is a mean over images, the same in expectation however many there are.

    >>> from torch import nn
    >>> from src.measures.subject import normaliser
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    >>> pixels = torch.arange(3 * 12 * 12).view(3, 1, 12, 12).remainder(251).to(torch.uint8)
    >>> subject = Subject(net, ["1", "2"], normaliser((0.5,), (0.5,)))
    >>> found = list(rows(subject, Scene(pixels, margin=2), ["shift", "rotate"]))
    >>> sorted({(row.transform, row.protocol) for row in found if isinstance(row, Row)})
    [('rotate', 'disc'), ('rotate', 'quarter'), ('shift', 'crop'), ('shift', 'roll')]
    """
    names = [name for family, names in MOVES.items() if family in what for name in names]
    quick = replace(subject, net=folded(subject.net, subject.layers))
    few = few or scene
    yield from _without_answers(subject, few)
    yield from pair_rows(quick, few, names, tell=tell)
    for family, found in FAMILIES.items():
        if family in what:
            tell(f"measuring {family}")
            yield from found(subject if family in UNFOLDED else quick, scene if family in COUNTED else few)


@torch.no_grad()
def _without_answers(subject: Subject, scene: Scene) -> Iterator[Note]:
    """A note, where the net's answer is infinite or nan for some images."""
    with evaluating(subject.net):
        answers = torch.cat([subject.answer(subject.net(x)) for x in in_place(subject, scene)])
    if missing := int((~answers.isfinite().all(1)).sum()):
        words = f"the net's answer is infinite or nan for {missing} of {len(answers)} images: their measures are nan"
        yield Note("answers", words)


def drawn(images: Images, count: int, seed: int) -> Images:
    """Some of them, at random."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.take(order[:count])


def _for_the_twin(images: int) -> int:
    return min(images, max(images // 8, TWIN_IMAGES))


def scene_of(cfg: "Config", splits: Splits) -> Scene:
    """The test images that a run is measured on."""
    chosen = drawn(splits.test, cfg.measure.images, cfg.measure.seed)
    surrounded = canvas(chosen, cfg.measure.max_shift, splits.beyond)
    positions = chosen.positions if chosen.positions.numel() else None
    return Scene(surrounded, cfg.measure.max_shift, chosen.labels, positions, cfg.measure.seed)


def subject_of_run(net: "Training", splits: Splits) -> Subject:
    """The net of a run: every stage, and what its head reads."""
    position = net.task.position if net.task.where else None
    return Subject(net, [*net.stages, "features"], splits.normalise, net.task.answer, net.task.what, position)


def follow_rows(net: "Training", splits: Splits, scene: Scene) -> Iterator[Row]:
    """The few rows that are followed while a net trains: what a shift by 1 px does to the answer and to every layer."""
    subject = subject_of_run(net, splits)
    on_output: list[type[PairMeasure]] = [OutputDistance, Consistency] if subject.what else [OutputDistance]

    def fresh(place: str) -> list[PairMeasure]:
        return [kind() for kind in on_output] if place == OUTPUT else [InvarianceError()]

    few = scene.take(torch.arange(min(FOLLOWED_IMAGES, len(scene.canvas))))
    found = pair_rows(subject, few, ["shift/roll", "shift/crop"], fresh, only=[1])
    return (row for row in found if isinstance(row, Row))


def measure(net: "Training", cfg: "Config", splits: Splits, tell: Tell = nobody) -> Found:
    """All that a run measures: accuracies, then every family, of the net and of its untrained twin.

    The twin is the net that training started from (``untrained``); its rows end in ``_untrained``. An eighth of
    the images will do for its means, which vary more with the seed; it has all where numbers depend on how many there
    are.

    The protocol ``train`` is a sample of the training images with the labels that they were trained with. Where some of
    these are wrong on purpose (``data.label_noise``), ``train_clean`` is the same images with their true labels, as
    ``val`` and ``test`` have them.
    """
    sample = splits.train.take(torch.arange(min(TRAIN_SAMPLE, len(splits.train))))
    twin = untrained(cfg, splits, net.device)
    scene = scene_of(cfg, splits)
    eighth = scene.take(torch.arange(_for_the_twin(len(scene.canvas))))
    grids = grids_of(net, splits.image, net.stages)
    nets: list[tuple[Training, str, Scene]] = [(net, "", scene), (twin, "_untrained", eighth)]
    for one, suffix, few in nets:
        parts, accuracies = {"test": splits.test, **splits.others}, dict[str, Estimate]()
        if suffix:
            parts = {name: drawn(part, _for_the_twin(len(part)), cfg.measure.seed) for name, part in parts.items()}
        else:
            parts |= {"val": splits.val, "train": sample}
            if cfg.data.label_noise > 0:
                parts["train_clean"] = replace(sample, labels=splits.true_labels[: len(sample)])
        quick = folded(one)
        for name, part in parts.items():
            batches = Batches(part.to(net.device), EVALUATION_BATCH, splits.mean, splits.std)
            for row in accuracy_rows(quick, batches, net.task, name):
                if isinstance(row, PerImage):
                    if name in {"test", *splits.others} and not suffix:
                        yield row
                    continue
                if row.measure == "accuracy":
                    accuracies[name] = row.estimate
                yield replace(row, measure=row.measure + suffix)
        if {"test", "dissimilar"} <= accuracies.keys():
            leak = location_leak(accuracies["test"], accuracies["dissimilar"])
            yield Row("output", "none", "test", 0, f"location_leak{suffix}", leak)
        subject = replace(subject_of_run(one, splits), grids=grids)
        for found in rows(subject, scene, cfg.measure.what, tell, few):
            if suffix and isinstance(found, PerImage):
                continue
            yield replace(found, measure=found.measure + suffix)
