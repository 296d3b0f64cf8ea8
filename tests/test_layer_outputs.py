"""Statistics of a layer's outputs that metrics share, against NumPy: any shape, memory format and chunk size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from src.metrics import NVI, Cosine, InvarianceError, OutputDistance, layer_outputs
from src.metrics.layer_outputs import LayerOutputs, Population, TransformedOutputs

sizes = st.tuples(st.integers(2, 9), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "sliced": lambda x: torch.cat([x, x], 3)[..., : x.shape[3]],
    "transposed": lambda x: x.mT.contiguous().mT,
    "vector": lambda x: x.flatten(1),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def made(size: tuple[int, ...], layout: str, seed: int = 0) -> Tensor:
    noise = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return LAYOUTS[layout](noise)


def per_channel(x: np.ndarray) -> np.ndarray:
    return x.reshape(*x.shape[:2], -1).sum(2)


def share(pairs: np.ndarray) -> np.ndarray:
    """Jackknife pseudo-values: n times the mean over all pairs, minus n - 1 times the same without this image."""
    n = len(pairs)
    whole = (pairs.sum() - np.trace(pairs)) / (n * (n - 1))
    if n == 2:
        return np.full(2, whole)
    without = [np.delete(np.delete(pairs, i, 0), i, 1) for i in range(n)]
    return np.array([n * whole - (one.sum() - np.trace(one)) / (n - 2) for one in without])


@every_layout
@given(size=sizes, at_once=st.integers(1, 200))
def test_statistics_of_outputs_match_numpy(layout, size, at_once):
    x, gx = made(size, layout), made(size, layout, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_outputs, "CHUNK", at_once)
        reference = LayerOutputs(x)
        transformed = TransformedOutputs(reference, gx)
        found = [
            reference.squared_deviation,
            transformed.squared_difference,
            reference.squared_distance,
            reference.distance,
            reference.norm,
            reference.cosine,
        ]
    a, b = x.numpy(), gx.numpy()
    flat = a.reshape(len(a), -1)
    difference = ((flat[:, None] - flat) ** 2).sum(2)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    right = [
        per_channel((a - a.mean(0)) ** 2),
        per_channel((b - a) ** 2),
        share(difference),
        share(np.sqrt(difference)),
        np.linalg.norm(flat, axis=1),
        share(unit @ unit.T),
    ]
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@every_layout
@given(size=sizes, turns=st.integers(1, 4), at_once=st.integers(1, 400))
def test_fewer_reference_images_are_repeated(layout, size, turns, at_once):
    others, maps = made(size, layout), made((turns * size[0], *size[1:]), layout, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_outputs, "CHUNK", at_once)
        found = layer_outputs.squared_differences(maps, others)
    difference = maps.numpy() - np.concatenate([others.numpy()] * turns)
    np.testing.assert_allclose(found, per_channel(difference**2), rtol=1e-6)


@every_layout
@pytest.mark.parametrize("n", [2, 125, 1000])
def test_a_constant_channel_has_no_deviation_and_a_faint_one_has_its_own(layout, n):
    x = made((n, 3, 2, 2), "contiguous").float()
    x[:, 0], x[:, 1] = 1234.567, 100 * (1 + 1e-4 * x[:, 1])
    deviation = LayerOutputs(LAYOUTS[layout](x)).squared_deviation
    parts = [one.sum(1) for one in deviation.chunk(3, 1)]
    assert (parts[0] == 0).all()
    expected = per_channel(((x - x.double().mean(0)) ** 2).numpy())
    assert parts[1].mean() == pytest.approx(expected[:, 1].mean(), rel=0.01)
    np.testing.assert_allclose(parts[2], expected[:, 2], rtol=1e-4, atol=1e-5)


@every_layout
@pytest.mark.parametrize("parts", [[24], [1, 23], [12, 12], [5, 7, 9, 3], [2] * 12])
def test_distances_to_other_images_do_not_depend_on_the_batches(layout, parts):
    x = made((24, 3, 4, 2), layout)
    everyone = Population(keep_outputs=True)
    for part in x.split(parts):
        everyone.add(part)
    whole, batches = LayerOutputs(x), [LayerOutputs(part, everyone) for part in x.split(parts)]
    for name in ("squared_deviation", "squared_distance", "distance", "cosine"):
        found = torch.cat([getattr(batch, name) for batch in batches])
        np.testing.assert_allclose(found, getattr(whole, name), rtol=1e-9, atol=1e-12)
    flat = [LayerOutputs(part.flatten(1), everyone) for part in x.split(parts)]  # as the phase tree gives them
    np.testing.assert_allclose(torch.cat([one.squared_distance for one in flat]), whole.squared_distance, rtol=1e-9)
    np.testing.assert_allclose(torch.cat([one.cosine for one in flat]), whole.cosine, rtol=1e-9)


@pytest.mark.parametrize("kind", [OutputDistance, InvarianceError, Cosine, NVI])
@pytest.mark.parametrize("parts", [[5, 7, 9, 3], [2] * 12, [12, 12]])
def test_a_metric_in_a_custom_loop_does_not_depend_on_the_batches(kind, parts):
    x, gx = made((24, 3, 4, 2), "contiguous"), made((24, 3, 4, 2), "contiguous", seed=1)
    if kind is OutputDistance:
        x, gx = x.flatten(1), gx.flatten(1)
    whole, batched = kind(), kind()
    for measure, sizes in ((whole, [24]), (batched, parts)):
        measure.update(x[:5], gx[:5])
        measure.reset()  # forgets these
        for one, other in zip(x.split(sizes), gx.split(sizes), strict=True):
            measure.update(one, other)
    found, right = batched.compute(), whole.compute()
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value.item() for name, value in right.items()}, rel=1e-9
    )
