"""What a metric says in one line of inputs that it cannot use, and of numbers that are not defined."""

import inspect
from collections.abc import Callable

import pytest
import torch

from src.common.errors import UserError
from src.metrics.base import layer_measures, pair_measures
from src.metrics.consistency import Consistency
from src.metrics.cosine import Cosine
from src.metrics.fidelity import Fidelity
from src.metrics.invariance_error import InvarianceError
from src.metrics.output_distance import OutputDistance

MAPS = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def unchecked(measure: type) -> Callable[..., None]:
    """``update`` as it is where the package is used: here, a type checker stands before it."""
    update: Callable[..., None] = inspect.unwrap(measure.update)
    return update


@pytest.mark.parametrize("measure", pair_measures())
@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ((MAPS.int(), MAPS.int()), r"floating-point numbers is needed, not torch\.int32"),
        (([1.0], MAPS), "floating-point numbers is needed, not list"),
        ((MAPS, MAPS[:3]), "both must be of the same layer for the same images"),
        ((MAPS, MAPS[..., :4]), r"outputs of shapes \(4, 3, 5, 5\) and \(4, 3, 5, 4\): both must"),
        ((MAPS.flatten(), MAPS.flatten()), r"outputs of shape \(300,\): \(n, channels, …\) is needed"),
        ((MAPS[:0], MAPS[:0]), r"outputs of shape \(0, 3, 5, 5\): "),
        ((MAPS[:, :0], MAPS[:, :0]), r"outputs of shape \(4, 0, 5, 5\): "),
    ],
)
def test_pairs_that_do_not_fit_are_refused(measure, inputs, reason):
    with pytest.raises(UserError, match=f"^{measure.__name__}: .*{reason}"):
        unchecked(measure)(measure(), *inputs, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("measure", pair_measures())
@pytest.mark.parametrize("other", [MAPS[..., :4], MAPS[:, :2], MAPS.flatten(1)])
def test_all_batches_are_of_one_layer_until_a_reset(measure, other):
    metric, labels = measure(), torch.zeros(4, dtype=torch.long)
    metric.update(MAPS, MAPS, labels)
    with pytest.raises(UserError, match=f"^{measure.__name__}: outputs of .* after \\(3, 5, 5\\) for an image"):
        unchecked(measure)(metric, other, other, labels)
    metric.update(MAPS[:2], MAPS[:2], labels[:2])
    metric.reset()
    metric.update(other, other, labels)


def test_missing_labels_are_asked_for():
    with pytest.raises(UserError, match=r"^Fidelity: 4 labels are needed"):
        Fidelity().update(MAPS.flatten(1), MAPS.flatten(1))


@pytest.mark.parametrize("measure", layer_measures())
def test_a_layer_metric_refuses_tensors_that_are_not_outputs(measure):
    for outputs in (MAPS.int(), MAPS.flatten(), MAPS[:0], None):
        with pytest.raises(UserError, match=f"^{measure.__name__}: "):
            unchecked(measure)(measure(), outputs)


@pytest.mark.parametrize("measure", [InvarianceError, OutputDistance, Cosine])
def test_a_number_that_compares_with_other_images_needs_some(measure):
    with pytest.raises(UserError, match=r"a batch of 1 image: .* at least 2 are needed"):
        measure().update(MAPS[:1], MAPS[:1])
    assert measure.needs_population and not Consistency.needs_population
    Consistency().update(MAPS[:1], MAPS[:1])


@pytest.mark.parametrize("measure", [InvarianceError, OutputDistance, Consistency])
def test_a_number_of_constant_outputs_is_nan_with_a_warning(measure):
    metric = measure()
    metric.update(torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.warns(UserWarning, match="of 4 images: nan, as all outputs, or predictions, are the same"):
        metric.compute()
