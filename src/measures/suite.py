"""Everything a run measures on its net, as one table."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from src.data.batches import EVALUATION_BATCH, Batches
from src.data.splits import Splits, canvas
from src.measures import Row, pair_measures
from src.measures.accuracy import accuracy_rows
from src.measures.shifts import shift_rows
from src.models import module

if TYPE_CHECKING:
    from src.config import Config
    from src.models.training import Training

TRAIN_SAMPLE = 5000


def measure(net: "Training", cfg: "Config", splits: Splits) -> Iterator[Row]:
    """All rows of ``measures.csv``: accuracies, then every shift measure, of the net and of its untrained twin.

    The twin has the same seed and no training; its rows end in ``_untrained``.
    """
    sample = splits.train.take(torch.arange(min(TRAIN_SAMPLE, len(splits.train))))
    generator = torch.Generator().manual_seed(cfg.measure.seed)
    chosen = torch.randperm(len(splits.test), generator=generator)[: cfg.measure.images]
    margin = cfg.measure.max_shift
    labels = splits.test.labels[chosen]
    scene = canvas(splits.test.take(chosen), margin, splits.beyond)
    twin = module(cfg, splits.image, len(splits.classes)).to(net.device)
    measures = [kind for kind in pair_measures() if net.task.what or not kind.of_classes]
    nets: list[tuple[Training, str]] = [(net, ""), (twin, "_untrained")]
    for one, suffix in nets:
        parts = {"test": splits.test, **splits.others}
        if not suffix:
            parts |= {"val": splits.val, "train": sample}
        for name, part in parts.items():
            batches = Batches(part.to(net.device), EVALUATION_BATCH, splits.mean, splits.std)
            for row in accuracy_rows(one, batches, net.task, name):
                yield replace(row, measure=row.measure + suffix)
        layers = [*net.stages, "features"]
        rows = shift_rows(
            one, layers, scene, margin, splits.normalise, measures, cfg.measure.seed, net.task.answer, labels
        )
        yield from (replace(row, measure=row.measure + suffix) for row in rows)
