"""Everything that is measured on a net: ``FAMILIES``, and what a run takes of them."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from importlib import import_module

import torch

from ..metrics import Heatmap, Note, PerImage, Row
from ..nets.hooks import eval_mode
from ..transforms import TABLE, TRANSFORMS
from .adapter import EvaluationSet, ModelAdapter, untransformed_batches
from .families import FAMILIES
from .fuse_batch_norm import fuse_conv_bn
from .pairs import Progress, no_progress, pair_rows

Found = Iterator[Row | Heatmap | Note | PerImage]


#: what ``measure.what`` can name (the schema lists the same: ``config.MEASURES``) → transforms, taken in one pass …
MOVES: dict[str, list[str]] = {
    "shift": ["shift/roll", "shift/crop"],
    "embed": ["shift/embed"],
    **{one.name: [key for key in TRANSFORMS if key.startswith(f"{one.name}/")] for one in TABLE if one.name != "shift"},
}


#: families of measures: transforms and ``families``
ALL = (*MOVES, *FAMILIES)


def rows(
    adapter: ModelAdapter,
    test_set: EvaluationSet,
    what: Collection[str] = ALL,
    progress: Progress = no_progress,
    few: EvaluationSet | None = None,
) -> Found:
    """All rows of a net on some images, and the grids to look at; ``tell`` hears how far it is.

    ``few``, if given, are the images for what is a mean over images, the same in expectation however many there are.

    >>> from torch import nn
    >>> from src.evaluation.adapter import normaliser
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    >>> pixels = torch.arange(3 * 12 * 12).view(3, 1, 12, 12).remainder(251).to(torch.uint8)
    >>> subject = ModelAdapter(net, ["1", "2"], normaliser((0.5,), (0.5,)))
    >>> found = list(rows(subject, EvaluationSet(pixels, margin=2), ["shift", "rotate"]))
    >>> sorted({(row.transform, row.protocol) for row in found if isinstance(row, Row)})
    [('rotate', 'disc'), ('rotate', 'quarter'), ('shift', 'crop'), ('shift', 'roll')]
    """
    names = [name for family, names in MOVES.items() if family in what for name in names]
    quick = replace(adapter, net=fuse_conv_bn(adapter.net, adapter.layers))
    few = few or test_set
    yield from _without_answers(adapter, few)
    yield from pair_rows(quick, few, names, progress=progress)
    for name in (name for name in FAMILIES if name in what):
        progress(f"measuring {name}")
        family = import_module(f".families.{name}", __package__)
        net = quick if getattr(family, "FOLDS_NORMS", True) else adapter
        yield from family.rows(net, test_set if getattr(family, "NEEDS_ALL_IMAGES", False) else few)


@torch.no_grad()
def _without_answers(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Note]:
    """A note, where the net's answer is infinite or nan for some images."""
    with eval_mode(adapter.net):
        answers = torch.cat([adapter.answer(adapter.net(x)) for x in untransformed_batches(adapter, test_set)])
    if missing := int((~answers.isfinite().all(1)).sum()):
        words = f"the net's answer is infinite or nan for {missing} of {len(answers)} images: their measures are nan"
        yield Note("answers", words)
