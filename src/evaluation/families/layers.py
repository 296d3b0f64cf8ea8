"""One pass over the untouched images: every layer's outputs, seen by all measures that need no transform."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...metrics.base import layer_measures, resamples
from ...metrics.channel_health import ChannelCorrelation, duplicate_share, max_cosine, max_cosine_null
from ...metrics.cka import CKAMatrix
from ...metrics.rows import Estimate, Row
from ...nets.hooks import record_outputs, reference_tensor
from ..adapter import EvaluationSet, ModelAdapter, untransformed_batches
from ..linear_probes import Features, probe_rows

#: a norm folded into its convolution would change what is looked at
FOLDS_NORMS = False
#: what a probe learns depends on how many images there are: two nets need the same
NEEDS_ALL_IMAGES = True

#: images a layer's channels are compared on for duplicates, and the least that probes and CKA can do with
FEWEST = 40
#: the similarity of a layer with one of another net
AGAINST = "cka_against"


@torch.no_grad()
def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row]:
    """Rows of every layer: health, duplicates, dimension, selectivity, Moran's I, probes, and CKA between layers.

    Memory holds one batch of maps, and of every image the few numbers that the measures keep.
    """
    kinds = [one for one in layer_measures() if test_set.labels is not None or not one.needs_labels]
    fed = {layer: [kind() for kind in kinds] for layer in adapter.layers}
    features = {layer: Features() for layer in [*adapter.layers, "pixels"]}
    filters = {layer: found for layer in adapter.layers if (found := filters_of(adapter.net, layer)) is not None}
    correlations = {layer: ChannelCorrelation() for layer in filters}
    alike, enough = CKAMatrix(), len(test_set.canvas) >= FEWEST
    device = reference_tensor(adapter.net).device
    with record_outputs(adapter.net, adapter.layers) as maps:
        for index, images in zip(test_set.batches(), untransformed_batches(adapter, test_set), strict=True):
            labels = None if test_set.labels is None else test_set.labels[index].to(device)
            adapter.net(images.clone())  # it may write to its input
            for layer, measures in fed.items():
                for measure in measures:
                    if maps[layer].dim() == 4 or not measure.of_maps:
                        measure.update(maps[layer], labels, images)
                features[layer].update(maps[layer])
                if layer in correlations and maps[layer].shape[1] == len(filters[layer]):
                    correlations[layer].update(maps[layer])
            features["pixels"].update(images.flatten(1))
            if enough:
                alike.update([maps[layer] for layer in adapter.layers])
    weights = resamples(len(test_set.canvas), test_set.seed)
    for layer, measures in fed.items():
        for measure in measures:
            if measure.update_called:
                yield from (_row(layer, name, estimate) for name, estimate in measure.estimates(weights))
    for layer, correlation in correlations.items():
        if correlation.update_called:
            yield from _duplicates(layer, filters[layer], correlation.compute(), len(test_set.canvas))
    if enough:
        yield from _alike(adapter.layers, alike)
        yield from _probes(test_set, {layer: one.compute() for layer, one in features.items()})


@torch.no_grad()
def against_rows(adapter: ModelAdapter, other: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row]:
    """CKA of every layer of a net with every layer of another, on the same images; the protocol names the other's.

    Args:
        subject: a net.
        other: another, or the same.
        scene: at least 4 images; each net normalises them in its own way.
    """
    matrix = CKAMatrix()
    with record_outputs(adapter.net, adapter.layers) as maps, record_outputs(other.net, other.layers) as others:
        for images, same in zip(
            untransformed_batches(adapter, test_set), untransformed_batches(other, test_set), strict=True
        ):
            adapter.net(images)
            ours = [maps[layer] for layer in adapter.layers]
            other.net(same)
            matrix.update(ours, [others[layer] for layer in other.layers])
    for one, its, values in _each_pair(adapter.layers, other.layers, matrix):
        yield _row(one, AGAINST, Estimate(*values, int(matrix.n)), its)


def _row(layer: str, name: str, estimate: Estimate, protocol: str = "test") -> Row:
    return Row(layer, "none", protocol, 0, name, estimate)


def filters_of(net: nn.Module, layer: str) -> Float[Tensor, "c k h w"] | None:
    """The weights of a layer's last convolution, one filter a channel; None where it has none."""
    convolutions = [one for one in net.get_submodule(layer).modules() if isinstance(one, nn.Conv2d)]
    return convolutions[-1].weight if convolutions else None


def _duplicates(layer: str, filters: Tensor, correlation: Tensor, n: int) -> Iterator[Row]:
    """Share of channels that repeat another, and the largest cosine of two filters beside that of random ones."""
    count, size = len(filters), filters[0].numel()
    undefined = bool(correlation.isnan().all())  # no two channels that vary, or outputs that are nan
    if count < 2 or size < 2:
        return
    numbers = {
        "duplicate_share": float("nan") if undefined else duplicate_share(filters, correlation),
        "max_filter_cosine": max_cosine(filters),
        "max_filter_cosine_null": max_cosine_null(count, size),
    }
    for name, value in numbers.items():
        yield _row(layer, name, Estimate(value, float("nan"), float("nan"), n))


def _alike(layers: list[str], matrix: CKAMatrix) -> Iterator[Row]:
    """Every pair of layers once; the protocol names the other one."""
    for one, other, values in _each_pair(layers, layers, matrix):
        if layers.index(other) < layers.index(one):
            yield _row(one, "cka", Estimate(*values, int(matrix.n)), other)


def _each_pair(
    layers: list[str], others: list[str], matrix: CKAMatrix
) -> Iterator[tuple[str, str, tuple[float, float, float]]]:
    """Value, low and high of every layer with every other."""
    numbers = torch.stack([matrix.compute().view(len(layers), -1), *matrix.intervals()], -1)
    for one, row in zip(layers, numbers.tolist(), strict=True):
        for other, (value, low, high) in zip(others, row, strict=True):
            yield one, other, (value, low, high)


def _probes(test_set: EvaluationSet, features: dict[str, Tensor]) -> Iterator[Row]:
    """ "What" and "where" of every layer and of the pixels; and of the last layer with shuffled answers, the null."""
    labels, positions = (one if one is None else one.cpu() for one in (test_set.labels, test_set.positions))
    if labels is None and positions is None:
        return
    yield from probe_rows(features, labels, positions, seed=test_set.seed)
    last = list(features)[-2:-1] or list(features)
    yield from probe_rows({name: features[name] for name in last}, labels, positions, seed=test_set.seed, shuffled=True)
