"""Everything that is measured on a net: transforms, and the families of ``evaluation.families``."""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import nn

from ..common.errors import UserError
from ..metrics import Note, PerImage, Result, Row
from ..nets.hooks import eval_mode
from ..transforms import TABLE, TRANSFORMS
from .adapter import OUTPUT, EvaluationSet, ModelAdapter, untransformed_batches
from .families import FAMILIES, ON_REQUEST, file_of_family
from .fuse_batch_norm import fuse_conv_bn
from .pairs import Progress, no_progress, pair_rows

Results = Iterator[Result]
#: the name of a layer that is itself called ``OUTPUT``, in results; no module can be called so by accident
OUTPUT_MODULE = f"{OUTPUT} (module)"
#: of the layers of a net with such a layer, while it is measured
PREFIX = "measured_net."
#: what ``measure.what`` can name (``config.MEASURES`` lists the same) → transforms, measured in one pass
TRANSFORMS_OF: dict[str, list[str]] = {
    "shift": ["shift/roll", "shift/crop"],
    "embed": ["shift/embed"],
    **{t.name: [key for key in TRANSFORMS if key.startswith(f"{t.name}/")] for t in TABLE if t.name != "shift"},
}
#: every family of measures, without those on request
ALL = (*TRANSFORMS_OF, *(name for name in FAMILIES if name not in ON_REQUEST))


def evaluate_families(
    adapter: ModelAdapter, test_set: EvaluationSet, families: Collection[str] = ALL, progress: Progress = no_progress,
    few: EvaluationSet | None = None,
) -> Results:  # fmt: skip
    """All results of a net on some images, for these families; ``progress`` receives messages. ``few`` are fewer
    images, for all families whose expectation does not depend on their number; None: all images.

    >>> from torch import nn
    >>> from src.evaluation.adapter import normaliser
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    >>> pixels = torch.arange(3 * 12 * 12).view(3, 1, 12, 12).remainder(251).to(torch.uint8)
    >>> adapter = ModelAdapter(net, ["1", "2"], normaliser((0.5,), (0.5,)))
    >>> results = list(evaluate_families(adapter, EvaluationSet(pixels, margin=2), ["shift", "rotate"]))
    >>> sorted({(row.transform, row.protocol) for row in results if isinstance(row, Row)})
    [('rotate', 'disc'), ('rotate', 'quarter'), ('shift', 'crop'), ('shift', 'roll')]
    """
    if OUTPUT in adapter.layers:
        results = evaluate_families(_with_prefix(adapter), test_set, families, progress, few)
        yield from (_without_prefix(result) for result in results)
        return
    names = [name for key, names in TRANSFORMS_OF.items() if key in families for name in names]
    height, width = (side - 2 * test_set.margin for side in test_set.padded.shape[2:])
    undefined = [name for name in names if not TRANSFORMS[name].takes((height, width))]
    fused = replace(adapter, net=fuse_conv_bn(adapter.net, adapter.layers))
    few = few or test_set
    yield from _outputs_not_finite(adapter, few)
    for name in undefined:
        yield Note(name, f"not measured: it needs square images, and these have {height} × {width} pixels")
    yield from pair_rows(fused, few, [name for name in names if name not in undefined], progress=progress)
    for name in (name for name in FAMILIES if name in families):
        progress(f"measuring {name}")
        family = import_module(f".families.{name}", __package__)
        net = fused if getattr(family, "FUSES_NORMS", True) else adapter
        images = test_set if getattr(family, "NEEDS_ALL_IMAGES", False) else few
        yield from _of_family(name, family.rows(net, images), getattr(family, "PREFIXES", (name,)))


def _of_family(name: str, results: Any, prefixes: Collection[str]) -> Results:
    """The results of a family, and a note where all its numbers are nan and it does not say why; a ``UserError`` that
    names its file if it gives something else.
    """
    file = file_of_family(name)
    if not isinstance(results, Iterable):
        raise UserError(
            f"{file}: rows gives {type(results).__name__}; it must yield Row, Heatmap, Note, PerImage or Pictures"
        )
    numbers: list[float] = []
    explained = False
    for result in results:
        if not isinstance(result, Result):
            raise UserError(
                f"{file}: rows yields {type(result).__name__}, where Row, Heatmap, Note, PerImage or Pictures is needed"
            )
        if isinstance(result, Row):
            numbers.append(result.estimate.value)
        explained = explained or isinstance(result, Note)
        yield result
    if numbers and not explained and all(map(math.isnan, numbers)):
        prefix = name if name.startswith(tuple(prefixes)) else next(iter(prefixes))
        yield Note(prefix, f"all its numbers are nan ({len(numbers)})")


def _with_prefix(adapter: ModelAdapter) -> ModelAdapter:
    """The same net inside a module, so that no layer has the name of the net's output, by which results are kept."""
    layers = [PREFIX + layer for layer in adapter.layers]
    grids = {PREFIX + layer: grid for layer, grid in adapter.grids.items()}
    views = {PREFIX + layer: view for layer, view in adapter.views.items()}
    net = nn.Sequential(OrderedDict([(PREFIX.removesuffix("."), adapter.net)]))
    return replace(adapter, net=net, layers=layers, grids=grids, views=views)


def _without_prefix(result: Result) -> Result:
    """A result with the names that the user's net has; its module ``output`` as ``OUTPUT_MODULE``."""

    def name(text: str) -> str:
        return OUTPUT_MODULE if text == PREFIX + OUTPUT else text.removeprefix(PREFIX)

    if isinstance(result, Note):
        return replace(result, words=result.words.replace(PREFIX, ""))
    if isinstance(result, Row | PerImage):  # CKA has another layer as its protocol
        return replace(result, layer=name(result.layer), protocol=name(result.protocol))
    return replace(result, layer=name(result.layer))


@torch.no_grad()
def _outputs_not_finite(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Note]:
    """A note, if the net's output is infinite or nan for some images."""
    with eval_mode(adapter.net):
        batches = untransformed_batches(adapter, test_set)
        outputs = torch.cat([adapter.select_output(adapter.net(x)) for x in batches])
    if missing := int((~outputs.isfinite().all(1)).sum()):
        words = f"the net's answer is infinite or nan for {missing} of {len(outputs)} images: their measures are nan"
        yield Note("answers", words)
