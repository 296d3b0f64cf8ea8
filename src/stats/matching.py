"""How alike the channels of two nets are, one by one: each is matched with one of the other net by correlation.

The matching is that of "Convergent Learning" (Li, Yosinski, Clune, Lipson & Hopcroft 2015, arXiv 1511.07543): channels
of two nets that learned from different initial weights are paired one-to-one so that the sum of the correlations of
their outputs is largest. A match that is chosen and judged on the same images looks better than it is, the more so the
more channels there are to choose from. So here it is chosen on half of the images and judged on the other half.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

#: of each half two, so that the floor has another image to compare with
LEAST_IMAGES = 4


def matched_correlation(
    a: Float[np.ndarray, "images channels h w"], b: Float[np.ndarray, "images channels h w"]
) -> float:
    """The mean correlation of the channels of two nets that are matched one-to-one; in [-1, 1], 1: the same channels in
    some order, each with an offset and a positive scale of its own.

    A correlation is Pearson's, over images × positions. The match is the one with the largest sum of correlations on
    one half of the images (Hungarian method, Li et al. 2015); the mean is taken on the other half, and over both ways.
    So it is 0 on average for independent outputs. The halves are the first and the last images, in their order. A
    channel that is constant on a half (dead) has a correlation of 0 there, and counts. nan if an output is.

    Raises:
        ValueError: fewer than four images, or shapes that differ.

    >>> maps = np.random.default_rng(0).normal(size=(6, 3, 2, 2))
    >>> round(matched_correlation(maps, 5 + 2 * maps[:, [2, 0, 1]]), 9)
    1.0
    """
    return _mean([float((x * y).sum((1, 2)).mean()) for x, y in _matched(a, b)])


def matched_correlation_shuffled(
    a: Float[np.ndarray, "images channels h w"], b: Float[np.ndarray, "images channels h w"]
) -> float:
    """The floor of ``matched_correlation``: the same match, judged where each image is compared with another one; in
    [-1, 1].

    It is the mean over all orders of the other net's images in which none stays in its place. What is left is what all
    images have in common by place: objects in the middle, an empty border, the padding of the net.

    Raises:
        ValueError: fewer than four images, or shapes that differ.
    """
    return _mean([_of_other_images(x, y) for x, y in _matched(a, b)])


def _matched(
    a: Float[np.ndarray, "images channels h w"], b: Float[np.ndarray, "images channels h w"]
) -> Iterator[tuple[Float[np.ndarray, "channels held hw"], Float[np.ndarray, "channels held hw"]]]:
    """For either half of the images, the channels of both nets on it in the order of the match of the other half."""
    if a.shape != b.shape or len(a) < LEAST_IMAGES:
        raise ValueError(f"channels are matched on {LEAST_IMAGES} images or more of equal maps: {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return
    first, second = slice(None, len(a) // 2), slice(len(a) // 2, None)
    for chosen, held in ((first, second), (second, first)):
        correlations = np.einsum("cnp,dnp->cd", _standardised(a[chosen]), _standardised(b[chosen]))
        rows, columns = linear_sum_assignment(correlations, maximize=True)
        yield _standardised(a[held])[rows], _standardised(b[held])[columns]


def _standardised(maps: Float[np.ndarray, "n channels h w"]) -> Float[np.ndarray, "channels n hw"]:
    """Each channel with a mean of 0 and a length of 1, so that a product is a correlation; 0 where it is constant."""
    n, channels = maps.shape[:2]
    flat = np.moveaxis(maps.astype(np.float64), 1, 0).reshape(channels, n, -1)
    constant = flat.min((1, 2)) == flat.max((1, 2))  # not by its length: a mean is rounded
    centred = flat - flat.mean((1, 2), keepdims=True)
    centred[constant] = 0
    length = np.sqrt(np.square(centred).sum((1, 2), keepdims=True))
    return np.asarray(centred / np.where(length > 0, length, 1))


def _of_other_images(x: Float[np.ndarray, "channels n hw"], y: Float[np.ndarray, "channels n hw"]) -> float:
    """The mean correlation over all orders of y's images without a fixed one: there, all other images are as likely."""
    all_pairs, same = (x.sum(1) * y.sum(1)).sum(1), (x * y).sum((1, 2))
    return float(((all_pairs - same) / (x.shape[1] - 1)).mean())


def _mean(halves: list[float]) -> float:
    return float(np.mean(halves)) if halves else float("nan")
