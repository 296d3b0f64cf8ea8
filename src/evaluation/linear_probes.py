"""Linear probes: what do a layer's frozen features tell, and where? Both are asked of the same features."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from ..metrics.base import wilson
from ..metrics.channel_health import ROUNDING
from ..metrics.rows import Estimate, Row
from .accuracy import position_estimates

TOLERANCE = 1e-3  # of the gradient of the logistic regression's mean loss
SIDE = 4  # of the map that a probe sees
TEST, INNER = 0.3, 0.25  # shares: of images, held out; of the others, those that choose the strength
STRENGTHS = (1.0, 30.0, 1000.0)  # of the l2 penalty, beside the summed loss of all training images

Array = Float64[np.ndarray, "_ _"]


def pooled(outputs: Float[Tensor, "n c *hw"], side: int = SIDE) -> Float[Tensor, "n d"]:
    """A layer's outputs as features: a map is averaged to at most side×side, which keeps positions, then flattened.

    >>> pooled(torch.ones(2, 3, 28, 2)).shape
    torch.Size([2, 24])
    """
    if outputs.ndim == 4:
        outputs = F.adaptive_avg_pool2d(outputs, (min(side, outputs.shape[2]), min(side, outputs.shape[3])))
    return outputs.flatten(1)


class Features(Metric):
    """The ``pooled`` features of all batches, (n, d), on the CPU: of each channel at most 16 numbers an image."""

    full_state_update = False
    kept: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("kept", default=[], dist_reduce_fx="cat")

    def update(self, outputs: Float[Tensor, "n c *hw"]) -> None:
        """Add a batch."""
        self.kept.append(pooled(outputs.detach()))

    def compute(self) -> Float[Tensor, "n d"]:
        """All so far."""
        return dim_zero_cat(self.kept).cpu()


def reduced(features: Float[Tensor, "n d"], train: Int64[np.ndarray, " m"], dim: int) -> Array:
    """The same dimension for every layer: standardised, turned by PCA and cut to ``dim``, standardised again.

    Layers of fewer features keep as many as they have, turned as well: alike features, as of channels that duplicate
    one another, would be a hard problem for a solver. Directions without variance are no features. All is fitted on
    the training images alone, and no other image's feature goes beyond theirs.
    """
    x = _standardised(features.double().numpy(), train)
    axes = _axes(x[train], dim)
    return _standardised(x @ axes, train)


def _axes(x: Array, dim: int) -> Array:
    """The first principal axes, each a column of any length: by the smaller of the two Gram matrices, a third of the
    time of a singular value decomposition.
    """
    wide = x.shape[1] > x.shape[0]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = max(1, min(dim, int((values > ROUNDING**2 * values[-1]).sum())))  # one of zeros, where nothing varies
    found: Array = vectors[:, : -kept - 1 : -1]
    return x.T @ found if wide else found


def _standardised(x: Array, train: Int64[np.ndarray, " m"]) -> Array:
    """By the training images' mean and spread, and within their range: a unit that hardly fires for any of them may be
    a thousand standard deviations away for another, and no probe has learned what that means.
    """
    mean, spread = x[train].mean(0), x[train].std(0)
    seen = np.clip(x, x[train].min(0), x[train].max(0))
    found: Array = (seen - mean) / np.where(spread > ROUNDING * np.abs(mean), spread, np.inf)
    return found


def fitted(models: list[Any], x: Array, y: np.ndarray, train: Int64[np.ndarray, " m"]) -> Any:
    """The model that scores best on a quarter of the training images, fitted anew on all of them."""
    count = round(INNER * len(train))
    inner, rest = train[:count], train[count:]
    scores = [model.fit(x[rest], y[rest]).score(x[inner], y[inner]) for model in models]
    return models[int(np.argmax(scores))].fit(x[train], y[train])


def what(x: Array, labels: Int64[np.ndarray, " n"], train: Int64[np.ndarray, " m"]) -> np.ndarray:
    """The classes that a multinomial logistic regression says, of all images."""
    from sklearn.linear_model import LogisticRegression

    models = [LogisticRegression(C=1 / s, tol=TOLERANCE, max_iter=500) for s in STRENGTHS]
    answers: np.ndarray = fitted(models, x, labels, train).predict(x)
    return answers


def where(x: Array, positions: Float64[np.ndarray, "n 2"], train: Int64[np.ndarray, " m"]) -> np.ndarray:
    """The positions that a ridge regression says, of all images."""
    from sklearn.linear_model import Ridge

    answers: np.ndarray = fitted([Ridge(s) for s in STRENGTHS], x, positions, train).predict(x)
    return answers


def probe_rows(
    features: dict[str, Float[Tensor, "n _"]],
    labels: Int64[Tensor, " n"] | None = None,
    positions: Float[Tensor, "n 2"] | None = None,
    dim: int = 64,
    seed: int = 0,
    shuffled: bool = False,
) -> Iterator[Row]:
    """Rows of the probes of every layer or control, on the 30% of the images that are held out.

    ``probe_accuracy``: of the class ("what"), with Wilson's interval. ``probe_r2``: of the object's (x, y) ("where"),
    1 - SSE/SST with the held-out images' own mean, at most 1 and 0 at chance, by bootstrap over them.
    ``probe_dimension``: features that the probes got, ``dim`` or, of a smaller layer, all of its own.

    A number alone says little. Beside a net's layers give those of an untrained net, and the pixels: flattened, their
    PCA at the same dimension is probed; ``pooled``, they are a layer's map. And ask once more with ``shuffled``.

    Args:
        features: of each layer or control, as from ``Features``; a row's ``layer`` is its name.
        labels: of the images; null asks for no class.
        positions: of the object; null asks for none.
        dim: of the features that the probes get.
        seed: of the split, the same for all, and of the shuffle.
        shuffled: the null: labels and positions of other images; the measures' names end in ``_shuffled``.
    """
    n = len(next(iter(features.values())))
    rng = np.random.default_rng(seed)
    test, train = np.split(rng.permutation(n), [round(TEST * n)])
    order = rng.permutation(n) if shuffled else np.arange(n)
    for name, one in features.items():
        if not one.isfinite().all():  # such features tell nothing, and no solver takes them
            continue
        x = reduced(one, train, dim)
        found = {"probe_dimension": Estimate(x.shape[1], float("nan"), float("nan"), len(test))}
        y = None if labels is None else labels.cpu().numpy()[order]
        if y is not None and len(np.unique(y[train])) > 1:  # of one class there is nothing to learn
            found["probe_accuracy"] = _share(what(x, y, train)[test] == y[test])
        if positions is not None:
            z = positions.double().cpu().numpy()[order]
            answers, truths = (torch.from_numpy(part[test]) for part in (where(x, z, train), z))
            found["probe_r2"] = position_estimates(answers, truths)["r2"]
        for measure, estimate in found.items():
            yield Row(name, "none", "test", 0, measure + "_shuffled" * shuffled, estimate)


def _share(right: np.ndarray) -> Estimate:
    count, n = int(right.sum()), len(right)
    return Estimate(count / n, *wilson(count / n, n), n)
