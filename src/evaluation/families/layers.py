"""One pass over the original images: all metrics of single layers, probes, and similarities between layers."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...metrics.base import layer_measures
from ...metrics.channel_health import ChannelCorrelation, duplicate_share, max_cosine, max_cosine_null
from ...metrics.cka import CKAMatrix
from ...metrics.rows import Estimate, Row
from ...nets.hooks import record_outputs, reference_tensor
from ...stats.bootstrap import bootstrap_weights
from ..adapter import EvaluationSet, ModelAdapter, untransformed_batches
from ..linear_probes import pooled, probe_rows

#: fused batch norms would change the maps
FUSES_NORMS = False
#: what a probe learns depends on the number of images: nets are comparable at equal numbers only
NEEDS_ALL_IMAGES = True
#: the least number of images for probes and CKA
MIN_IMAGES = 40
#: measure: the CKA of a layer with one of another net
AGAINST = "cka_against"


@torch.no_grad()
def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row]:
    """Rows of every layer: health, duplicates, dimension, selectivity, Moran's I, probes, and CKA between layers (of a
    pair, the row's protocol is the earlier layer).

    Memory holds one batch of maps, and the few numbers per image that the metrics keep.
    """
    kinds = [kind for kind in layer_measures() if test_set.labels is not None or not kind.needs_labels]
    metrics = {layer: [kind() for kind in kinds] for layer in adapter.layers}
    features: dict[str, list[Tensor]] = {layer: [] for layer in [*adapter.layers, "pixels"]}
    filters = {layer: weights for layer in adapter.layers if (weights := filters_of(adapter.net, layer)) is not None}
    correlations = {layer: ChannelCorrelation() for layer in filters}
    cka, enough = CKAMatrix(), len(test_set.padded) >= MIN_IMAGES
    device = reference_tensor(adapter.net).device
    with record_outputs(adapter.net, adapter.layers, adapter.views) as maps:
        for index, images in zip(test_set.batches(), untransformed_batches(adapter, test_set), strict=True):
            labels = None if test_set.labels is None else test_set.labels[index].to(device)
            adapter.net(images.clone())  # the net may overwrite its input
            for layer, some in metrics.items():
                for metric in some:
                    if maps[layer].dim() == 4 or not metric.of_maps:
                        metric.update(maps[layer], labels, images)
                features[layer].append(pooled(maps[layer].detach()))
                if layer in correlations and maps[layer].shape[1] == len(filters[layer]):
                    correlations[layer].update(maps[layer])
            features["pixels"].append(images.flatten(1))
            if enough:
                cka.update([maps[layer] for layer in adapter.layers])
    draws = bootstrap_weights(len(test_set.padded), test_set.seed)
    for layer, some in metrics.items():
        for metric in some:
            if metric.update_called:
                yield from (_row(layer, name, estimate) for name, estimate in metric.estimates(draws))
    for layer, correlation in correlations.items():
        if correlation.update_called:
            yield from _duplicates(layer, filters[layer], correlation.compute(), len(test_set.padded))
    if enough:
        yield from (
            _row(layer, "cka", Estimate(*values, int(cka.n)), other)
            for layer, other, values in _pairs(adapter.layers, adapter.layers, cka)
            if adapter.layers.index(other) < adapter.layers.index(layer)
        )
        yield from _probes(test_set, {name: torch.cat(batches).cpu() for name, batches in features.items()})


@torch.no_grad()
def against_rows(adapter: ModelAdapter, other: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row]:
    """CKA of every layer of a net with every layer of another, on the same images (4 or more), which each net
    normalises in its own way. ``protocol`` is the other layer.
    """
    cka = CKAMatrix()
    ours, theirs = (record_outputs(one.net, one.layers, one.views) for one in (adapter, other))
    with ours as maps, theirs as others:
        batches = (untransformed_batches(net, test_set) for net in (adapter, other))
        for images, other_images in zip(*batches, strict=True):
            adapter.net(images)
            outputs = [maps[layer] for layer in adapter.layers]
            other.net(other_images)
            cka.update(outputs, [others[layer] for layer in other.layers])
    for layer, other_layer, values in _pairs(adapter.layers, other.layers, cka):
        yield _row(layer, AGAINST, Estimate(*values, int(cka.n)), other_layer)


def _row(layer: str, name: str, estimate: Estimate, protocol: str = "test") -> Row:
    return Row(layer, "none", protocol, 0, name, estimate)


def filters_of(net: nn.Module, layer: str) -> Float[Tensor, "c k h w"] | None:
    """The weights of a layer's last convolution, one filter per channel; None if it has none."""
    convolutions = [module for module in net.get_submodule(layer).modules() if isinstance(module, nn.Conv2d)]
    return convolutions[-1].weight if convolutions else None


def _duplicates(layer: str, filters: Tensor, correlation: Tensor, n: int) -> Iterator[Row]:
    """The share of duplicate channels, and the largest cosine of two filters with its null."""
    count, size = len(filters), filters[0].numel()
    undefined = bool(correlation.isnan().all())  # all channels are constant, or outputs are nan
    if count < 2 or size < 2:
        return
    for name, value in (
        ("duplicate_share", float("nan") if undefined else duplicate_share(filters, correlation)),
        ("max_filter_cosine", max_cosine(filters)),
        ("max_filter_cosine_null", max_cosine_null(count, size)),
    ):
        yield _row(layer, name, Estimate(value, float("nan"), float("nan"), n))


def _pairs(
    layers: list[str], others: list[str], cka: CKAMatrix
) -> Iterator[tuple[str, str, tuple[float, float, float]]]:
    """(layer, other layer, (value, low, high)) of every layer of one net with every layer of the other."""
    numbers = torch.stack([cka.compute().view(len(layers), -1), *cka.intervals()], -1)
    for layer, row in zip(layers, numbers.tolist(), strict=True):
        for other, (value, low, high) in zip(others, row, strict=True):
            yield layer, other, (value, low, high)


def _probes(test_set: EvaluationSet, features: dict[str, Tensor]) -> Iterator[Row]:
    """Class and position probes of every layer and of the pixels; and of the last layer with shuffled targets."""
    labels, positions = test_set.labels, test_set.positions
    if labels is None and positions is None:
        return
    yield from probe_rows(features, labels, positions, seed=test_set.seed)
    last = list(features)[-2:-1] or list(features)
    yield from probe_rows({name: features[name] for name in last}, labels, positions, seed=test_set.seed, shuffled=True)
