"""The class probe and the share of pixel variance kept, of features reduced to the same number d of dimensions.

The row's amount is d, its protocol how the d features are made: ``pca``, the first d principal components; or
``random``, a Gaussian projection, of the layer ``pixels`` alone. The layer ``pixels`` with ``pca`` is the optimum of
``equal_dimension_variance``: no d features rebuild the training images' pixels with a smaller error. A layer with fewer
than d directions has no row for d.

It costs four fits of a logistic regression a layer and d, so ``measure.what`` has to name it. ``measure.dimensions``
are the numbers d.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ...metrics.quantities import Quantity
from ...metrics.rows import Estimate, Row
from ...nets.hooks import record_outputs
from ...stats.bootstrap import bootstrap_interval, bootstrap_weights
from ..accuracy import share_estimate
from ..adapter import EvaluationSet, ModelAdapter, untransformed_batches
from ..linear_probes import PENALTIES, VALIDATION, class_share, pooled, principal_axes, standardised
from ..linear_probes import split as split_images

QUANTITIES = (
    Quantity("equal_dimension_accuracy", low=0, high=1, better="higher",
        formula="held-out accuracy of a multinomial logistic regression on d features (amount = d)",
        null="equal_dimension_accuracy_shuffled; also pixels by PCA or at random, and the untrained net's",
        source="Alain & Bengio 2016"),
    Quantity("equal_dimension_variance", high=1, better="higher",
        formula="held-out 1 - SSE / SST of all pixels, rebuilt from d features by a ridge regression (amount = d)",
        null="0: always the mean image; the optimum on training images: pixels by PCA"),
)  # fmt: skip
#: what a probe learns depends on the number of images
NEEDS_ALL_IMAGES = True
#: as in the family ``layers``, whose features these are
FUSES_NORMS = False
#: the least number of images
MIN_IMAGES = 40
#: pixels of larger images are averaged to maps of this side, as memory grows with images × pixels
PIXELS_SIDE = 64
#: weights of the l2 penalty of the reconstruction, where features have unit variance; the least is practically none
RECONSTRUCTION_PENALTIES = (1e-6, *PENALTIES)

Array = Float64[np.ndarray, "_ _"]
Index = Int64[np.ndarray, " _"]


@torch.no_grad()
def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row]:
    """Both numbers of every layer and of the pixels at each of ``test_set.dimensions``; of the last layer also with the
    labels and pixels of other images (``_shuffled``).
    """
    n = len(test_set.padded)
    if n < MIN_IMAGES or not test_set.dimensions:
        return
    features, pixels = _features(adapter, test_set)
    train, test = split_images(n, test_set.seed)
    labels = None if test_set.labels is None else test_set.labels.cpu().numpy()
    order = np.random.default_rng([test_set.seed, 1]).permutation(n)  # not the split's
    sources = [(layer, "pca", values) for layer, values in features.items()] + [("pixels", "random", pixels)]
    for layer, protocol, values in sources:
        if not np.isfinite(values).all():  # no solver takes such features
            continue
        projected = _projected(values, train, max(test_set.dimensions), protocol, test_set.seed)
        for d in (d for d in test_set.dimensions if d <= projected.shape[1]):
            x = projected[:, :d]
            yield from _rows(layer, protocol, x, labels, pixels, train, test)
            if layer == adapter.layers[-1]:
                shuffled = None if labels is None else labels[order]
                yield from _rows(layer, protocol, x, shuffled, pixels[order], train, test, "_shuffled")


def _features(adapter: ModelAdapter, test_set: EvaluationSet) -> tuple[dict[str, Array], Array]:
    """The pooled features of every layer and, under ``pixels``, the images; and the images alone."""
    kept: dict[str, list[Tensor]] = {layer: [] for layer in adapter.layers}
    images: list[Tensor] = []
    with record_outputs(adapter.net, adapter.layers, adapter.views) as maps:
        for batch in untransformed_batches(adapter, test_set):
            images.append(pooled(batch, PIXELS_SIDE).cpu())
            adapter.net(batch)
            for layer in adapter.layers:
                kept[layer].append(pooled(maps[layer].detach()))
    kept["pixels"] = images
    features = {layer: torch.cat(batches).double().cpu().numpy() for layer, batches in kept.items()}
    return features, features["pixels"]


def _projected(features: Array, train: Index, dim: int, protocol: str, seed: int) -> Array:
    """The first ``dim`` principal components by the training images, or as many as there are; or random projections."""
    centred = features - features[train].mean(0)
    if protocol == "pca":
        axes = principal_axes(centred[train], dim)
    else:
        axes = np.random.default_rng([seed, 2]).standard_normal((features.shape[1], min(dim, features.shape[1])))
    projected: Array = centred @ axes
    return projected


def _rows(
    layer: str, protocol: str, x: Array, labels: np.ndarray | None, pixels: Array, train: Index, test: Index,
    ending: str = "",
) -> Iterator[Row]:  # fmt: skip
    d = x.shape[1]
    if labels is not None and len(np.unique(labels[train])) > 1:  # a single class cannot be fitted
        share = class_share(standardised(x, train), labels, train, test)
        estimate = share_estimate(share, len(test))
        yield Row(layer, "none", protocol, d, f"equal_dimension_accuracy{ending}", estimate)
    kept = variance_estimate(pixels[test], rebuilt(x, pixels, train)[test])
    yield Row(layer, "none", protocol, d, f"equal_dimension_variance{ending}", kept)


def rebuilt(x: Array, pixels: Array, train: Index, penalties: tuple[float, ...] = RECONSTRUCTION_PENALTIES) -> Array:
    """The pixels of all images, (n, p), from their d features (n, d) by a ridge regression on the training images, with
    the penalty that does best on a quarter of them when fitted on the others.
    """
    from sklearn.linear_model import Ridge

    scale = x[train].std(0)
    x = (x - x[train].mean(0)) / np.where(scale > 0, scale, np.inf)  # a penalty weighs features of equal variance
    count = round(VALIDATION * len(train))
    validation, rest = train[:count], train[count:]
    models = [Ridge(penalty) for penalty in penalties]
    scores = [variance_kept(pixels[validation], _predicted(model, x, pixels, rest)[validation]) for model in models]
    return _predicted(models[int(np.argmax(scores))], x, pixels, train)


def _predicted(model: Any, x: Array, pixels: Array, train: Index) -> Array:
    predicted: Array = model.fit(x[train], pixels[train]).predict(x).reshape(pixels.shape)  # also of a single pixel
    return predicted


def variance_kept(pixels: Array, predicted: Array) -> float:
    """``1 - SSE / SST``, summed over images and pixels; SST is about the mean of these images.

    >>> variance_kept(np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]]))
    0.5
    """
    total = float(np.square(pixels - pixels.mean(0)).sum())
    return 1 - float(np.square(pixels - predicted).sum()) / total if total > 0 else float("nan")


def variance_estimate(pixels: Array, predicted: Array) -> Estimate:
    """``variance_kept`` with its interval, by bootstrap over images: each draw has its SSE, about the same mean."""
    n = len(pixels)
    errors, deviations = (
        torch.from_numpy(np.square(pixels - values).sum(1)) for values in (predicted, pixels.mean(0, keepdims=True))
    )
    weights = bootstrap_weights(n)
    low, high = bootstrap_interval(1 - (weights @ errors) / (weights @ deviations), n)
    return Estimate(variance_kept(pixels, predicted), low, min(high, 1.0), n)
