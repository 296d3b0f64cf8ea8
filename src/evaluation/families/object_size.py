"""Accuracy on small, medium and large objects: the thirds of the range that the data set draws sizes from."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...metrics.quantities import Quantity
from ...metrics.rows import Note, Row
from ...nets.hooks import eval_mode
from ..accuracy import share_estimate
from ..adapter import EvaluationSet, ModelAdapter, untransformed_batches

QUANTITIES = (
    Quantity("accuracy_small", low=0, high=1, better="higher",
        formula="accuracy on objects in the lowest third of the set's range of sizes", null="1 / classes"),
    Quantity("accuracy_medium", low=0, high=1, better="higher",
        formula="accuracy on objects in the middle third of the set's range of sizes", null="1 / classes"),
    Quantity("accuracy_large", low=0, high=1, better="higher",
        formula="accuracy on objects in the highest third of the set's range of sizes", null="1 / classes"),
)  # fmt: skip
THIRDS = ("small", "medium", "large")
PREFIXES = (*(f"accuracy_{third}" for third in THIRDS), "object_size")


def thirds(sizes: Float[Tensor, " n"], low: float, high: float) -> Int64[Tensor, " n"]:
    """The third of [low, high] that each size lies in: 0, 1 or 2. The edges depend on the range alone, not on the
    images, so that nets and samples compare; they are terciles where sizes are uniform.

    >>> thirds(torch.tensor([0.12, 0.16, 0.17, 0.21, 0.25]), 0.12, 0.25).tolist()
    [0, 0, 1, 2, 2]
    """
    edges = torch.tensor([low + (high - low) / 3, low + (high - low) * 2 / 3], dtype=sizes.dtype)
    return (sizes[:, None] >= edges).sum(1)


@torch.no_grad()
def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row | Note]:
    """The accuracy of each third that has images, with Wilson's interval; a note if sizes or classes are unknown."""
    if test_set.sizes is None or test_set.size_range is None or test_set.labels is None or not adapter.classifies:
        yield Note("object_size", "not measured: classes and sizes of objects are needed, which data=shapes has")
        return
    with eval_mode(adapter.net):
        batches = untransformed_batches(adapter, test_set)
        answers = torch.cat([adapter.select_output(adapter.net(x)).argmax(1).cpu() for x in batches])
    correct, third = answers == test_set.labels, thirds(test_set.sizes, *test_set.size_range)
    for number, name in enumerate(THIRDS):
        hits = correct[third == number]
        if len(hits):
            estimate = share_estimate(hits.double().mean().item(), len(hits))
            yield Row("output", "none", "test", 0, f"accuracy_{name}", estimate)
