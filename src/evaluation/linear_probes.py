"""Linear probes: class and object position, predicted from the same frozen features of a layer."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..metrics.channel_health import ROUNDING
from ..metrics.quantities import Quantity
from ..metrics.rows import Estimate, Row
from .accuracy import position_estimates, share_estimate

QUANTITIES = (
    Quantity("probe_accuracy", low=0, high=1, better="higher",
        formula="held-out accuracy of a multinomial logistic regression on a layer's frozen features",
        null="probe_accuracy_shuffled; also the pixels' and the untrained net's", source="Alain & Bengio 2016"),
    Quantity("probe_r2", high=1, better="higher",
        formula="held-out 1 - SSE / SST of the object's (x, y), by a ridge regression on a layer's frozen features",
        null="0: always the mean position"),
    Quantity("probe_dimension", low=1, formula="number of features that the probes get"),
)  # fmt: skip
#: of the gradient of the logistic regression's mean loss
TOLERANCE = 1e-3
#: of the map that a probe gets, after average pooling
SIDE = 4
#: the held-out share of the images; the share of the others that selects the penalty
TEST, VALIDATION = 0.3, 0.25
#: weights of the l2 penalty, relative to the summed loss of all training images
PENALTIES = (1.0, 30.0, 1000.0)

Array = Float64[np.ndarray, "_ _"]


def pooled(outputs: Float[Tensor, "n c *hw"], side: int = SIDE) -> Float[Tensor, "n d"]:
    """A layer's outputs as features: maps are average-pooled to at most side×side, to keep positions, and flattened; so
    at most 16 numbers per image and channel.

    >>> pooled(torch.ones(2, 3, 28, 2)).shape
    torch.Size([2, 24])
    """
    if outputs.ndim == 4:
        outputs = F.adaptive_avg_pool2d(outputs, (min(side, outputs.shape[2]), min(side, outputs.shape[3])))
    return outputs.flatten(1)


def reduced(features: Float[Tensor, "n d"], train: Int64[np.ndarray, " m"], dim: int) -> Array:
    """The features in the same dimension for every layer: standardised, reduced to ``dim`` by PCA, standardised again.

    Layers with fewer features keep their dimension, and get the PCA as well: correlated features, as of duplicate
    channels, are hard for a solver. Directions without variance are dropped. Everything is fitted on the training
    images, and the features of other images are clipped to their range.
    """
    x = standardised(features.double().numpy(), train)
    axes = principal_axes(x[train], dim)
    return standardised(x @ axes, train)


def principal_axes(x: Array, dim: int) -> Array:
    """The first principal axes, as columns that are not normalised; from the smaller of the two Gram matrices, in a
    third of the time of a singular value decomposition.
    """
    wide = x.shape[1] > x.shape[0]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    count = max(1, min(dim, int((values > ROUNDING**2 * values[-1]).sum())))  # 1 also where nothing varies
    axes: Array = vectors[:, : -count - 1 : -1]
    return x.T @ axes if wide else axes


def standardised(x: Array, train: Int64[np.ndarray, " m"]) -> Array:
    """The features by the training images' mean and standard deviation, clipped to their range: a unit that hardly
    fires for any of them may be a thousand standard deviations away for another image.
    """
    mean, std = x[train].mean(0), x[train].std(0)
    clipped = np.clip(x, x[train].min(0), x[train].max(0))
    scaled: Array = (clipped - mean) / np.where(std > ROUNDING * np.abs(mean), std, np.inf)
    return scaled


def best_fit(models: list[Any], x: Array, y: np.ndarray, train: Int64[np.ndarray, " m"]) -> Any:
    """The model that scores best on a quarter of the training images when fitted on the rest, fitted on all of them."""
    count = round(VALIDATION * len(train))
    validation, rest = train[:count], train[count:]
    scores = [model.fit(x[rest], y[rest]).score(x[validation], y[validation]) for model in models]
    return models[int(np.argmax(scores))].fit(x[train], y[train])


def split(n: int, seed: int) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " k"]]:
    """The images that probes learn from, and the 30% that are held out."""
    test, train = np.split(np.random.default_rng(seed).permutation(n), [round(TEST * n)])
    return train, test


def class_share(x: Array, y: np.ndarray, train: Int64[np.ndarray, " m"], test: Int64[np.ndarray, " k"]) -> float:
    """The held-out accuracy of a multinomial logistic regression, with the penalty of ``best_fit``."""
    from sklearn.linear_model import LogisticRegression

    models = [LogisticRegression(C=1 / penalty, tol=TOLERANCE, max_iter=500) for penalty in PENALTIES]
    return float(np.mean(best_fit(models, x, y, train).predict(x)[test] == y[test]))


def probe_rows(
    features: dict[str, Float[Tensor, "n _"]], labels: Int64[Tensor, " n"] | None = None,
    positions: Float[Tensor, "n 2"] | None = None, dim: int = 64, seed: int = 0, shuffled: bool = False,
) -> Iterator[Row]:  # fmt: skip
    """Rows of the probes of every layer or control, on the 30% of the images that are held out: of the class a
    multinomial logistic regression, of the position a ridge regression.

    ``probe_accuracy``: of the class, with Wilson's interval. ``probe_r2``: of the object's (x, y), 1 - SSE/SST with the
    held-out images' own mean, at most 1 and 0 at chance, by bootstrap over them. ``probe_dimension``: the number of
    features that the probes get, at most ``dim``.

    Compare them with three controls: an untrained net's layers; the pixels, flattened (their PCA at the same dimension)
    or ``pooled`` as a layer's map; and ``shuffled`` targets.

    Args:
        features: name of a layer or control, the row's ``layer`` → its features, on the CPU: ``pooled``.
        labels, positions: None: no class probe, no position probe.
        seed: of the split, the same for all layers, and of the shuffle.
        shuffled: the null: use labels and positions of other images; the measures' names end in ``_shuffled``.
    """
    from sklearn.linear_model import Ridge

    n = len(next(iter(features.values())))
    rng = np.random.default_rng(seed)
    test, train = np.split(rng.permutation(n), [round(TEST * n)])
    order = rng.permutation(n) if shuffled else np.arange(n)
    for name, outputs in features.items():
        if not outputs.isfinite().all():  # no solver takes such features
            continue
        x = reduced(outputs, train, dim)
        estimates = {"probe_dimension": Estimate(x.shape[1], float("nan"), float("nan"), len(test))}
        y = None if labels is None else labels.cpu().numpy()[order]
        if y is not None and len(np.unique(y[train])) > 1:  # a single class cannot be fitted
            estimates["probe_accuracy"] = share_estimate(class_share(x, y, train, test), len(test))
        if positions is not None:
            z = positions.double().cpu().numpy()[order]
            predicted = best_fit([Ridge(penalty) for penalty in PENALTIES], x, z, train).predict(x)
            tested = (torch.from_numpy(values[test]) for values in (predicted, z))
            estimates["probe_r2"] = position_estimates(*tested)["r2"]
        for measure, estimate in estimates.items():
            yield Row(name, "none", "test", 0, measure + "_shuffled" * shuffled, estimate)
