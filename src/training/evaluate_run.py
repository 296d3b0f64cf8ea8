"""What a run measures on its net while it trains and when it is finished, and the net's untrained twin."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from ..config import Config
from ..data.batches import EVALUATION_BATCH, Batches
from ..data.images import Images
from ..data.splits import Splits, pad_images
from ..evaluation.accuracy import accuracy_rows, location_leak
from ..evaluation.adapter import OUTPUT, EvaluationSet, ModelAdapter, sampling_grids
from ..evaluation.families import MetamerOptions
from ..evaluation.fuse_batch_norm import fuse_conv_bn
from ..evaluation.pairs import Progress, no_progress, pair_rows
from ..evaluation.suite import Results, evaluate_families
from ..inspection.feature_analysis import SHIFT, Arrays, analyze_features
from ..metrics import PerImage, Row
from ..metrics.base import PairMeasure
from ..metrics.consistency import Consistency
from ..metrics.invariance_error import InvarianceError
from ..metrics.output_distance import OutputDistance
from ..metrics.rows import Estimate
from ..summary import ModelSummary
from ..transforms import TRANSFORMS
from .lightning_module import Training
from .untrained import untrained

TRAIN_SAMPLE = 5000
#: test images that are looked at while a net trains
FOLLOWED_IMAGES = 250
#: the least that means over images are taken of for an untrained twin
TWIN_IMAGES = 125


def drawn(images: Images, count: int, seed: int) -> Images:
    """Some of them, at random."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.take(order[:count])


def _for_the_twin(images: int) -> int:
    return min(images, max(images // 8, TWIN_IMAGES))


def evaluation_set(cfg: Config, splits: Splits) -> EvaluationSet:
    """The test images that a run is measured on."""
    chosen = drawn(splits.test, cfg.measure.images, cfg.measure.seed)
    surrounded = pad_images(chosen, cfg.measure.max_shift, splits.out_of_frame)
    positions = chosen.positions if chosen.positions.numel() else None
    return EvaluationSet(
        surrounded, cfg.measure.max_shift, chosen.labels, positions, cfg.measure.seed,
        dimensions=tuple(cfg.measure.dimensions), metamers=metamer_options(cfg),
        sizes=chosen.sizes, size_range=splits.object_size,
    )  # fmt: skip


def metamer_options(cfg: Config) -> MetamerOptions:
    """What the family ``metamers`` optimises."""
    asked = cfg.measure
    return MetamerOptions(
        asked.metamer_images, asked.metamer_starts, asked.metamer_steps, tuple(asked.metamer_layers)
    )  # fmt: skip


def adapter_of_run(net: Training, splits: Splits) -> ModelAdapter:
    """The net of a run: every stage, and what its head reads."""
    position = net.task.position if net.task.localizes else None
    return ModelAdapter(
        net, [*net.stages, "features"], splits.normalise, net.task.answer, net.task.classifies, position,
        permutation=splits.permutation,
    )  # fmt: skip


def online_rows(net: Training, splits: Splits, test_set: EvaluationSet) -> Iterator[Row]:
    """The few rows that are followed while a net trains: what a shift by 1 px does to the answer and to every layer."""
    adapter = adapter_of_run(net, splits)
    on_output: list[type[PairMeasure]] = [OutputDistance, Consistency] if adapter.classifies else [OutputDistance]

    def metric_factory(name: str) -> list[PairMeasure]:
        return [kind() for kind in on_output] if name == OUTPUT else [InvarianceError()]

    few = test_set.take(torch.arange(min(FOLLOWED_IMAGES, len(test_set.padded))))
    found = pair_rows(adapter, few, ["shift/roll", "shift/crop"], metric_factory, amounts=[1])
    return (row for row in found if isinstance(row, Row))


def measure(net: Training, cfg: Config, splits: Splits, progress: Progress = no_progress) -> Results:
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
    test_set = evaluation_set(cfg, splits)
    eighth = test_set.take(torch.arange(_for_the_twin(len(test_set.padded))))
    grids = sampling_grids(net, splits.image, net.stages)
    nets: list[tuple[Training, str, EvaluationSet]] = [(net, "", test_set), (twin, "_untrained", eighth)]
    for measured, suffix, few in nets:
        parts, accuracies = {"test": splits.test, **splits.others}, dict[str, Estimate]()
        if suffix:
            parts = {name: drawn(part, _for_the_twin(len(part)), cfg.measure.seed) for name, part in parts.items()}
        else:
            parts |= {"val": splits.val, "train": sample}
            if cfg.data.label_noise > 0:
                parts["train_clean"] = replace(sample, labels=splits.true_labels[: len(sample)])
        quick = fuse_conv_bn(measured)
        for name, part in parts.items():
            batches = Batches(part.to(measured.device), EVALUATION_BATCH, splits.normalise)
            for row in accuracy_rows(quick, batches, measured.task, name):
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
        adapter = replace(adapter_of_run(measured, splits), grids=grids)
        for found in evaluate_families(adapter, test_set, cfg.measure.what, progress, few):
            if suffix and isinstance(found, PerImage):
                continue
            yield replace(found, measure=found.measure + suffix)


def features_of_run(net: Training, cfg: Config, splits: Splits, summary: ModelSummary, probe: Images) -> Arrays:
    """``analyze_features`` of a run's net: its stages, its probe images, and the test images it is measured on."""
    adapter = ModelAdapter(net, net.stages, splits.normalise, net.task.answer, net.task.classifies)
    margin = max(SHIFT)
    shown = EvaluationSet(pad_images(probe, margin, splits.out_of_frame), margin, probe.labels)
    protocol = "roll" if cfg.model.padding == "circular" else "crop"  # the shifts that the net's border is made for
    return analyze_features(
        adapter, summary, evaluation_set(cfg, splits), shown, TRANSFORMS[f"shift/{protocol}"], cfg.probe.channels
    )
