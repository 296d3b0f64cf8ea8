"""What measures share of a layer's outputs, against NumPy: any shape, any order in memory, parts of any size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from src.measures import base
from src.measures.base import Moved, Still

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


@every_layout
@given(size=sizes, at_once=st.integers(1, 200))
def test_all_by_hand(layout, size, at_once):
    x, gx = made(size, layout), made(size, layout, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "AT_ONCE", at_once)
        still = Still(x)
        moved = Moved(still, gx)
        found = [still.deviation, moved.apart, still.squared, still.distance, still.length, still.cosine]
    a, b = x.numpy(), gx.numpy()
    flat = a.reshape(len(a), -1)
    apart = ((flat[:, None] - flat) ** 2).sum(2)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    others = len(a) - 1
    right = [
        per_channel((a - a.mean(0)) ** 2),
        per_channel((b - a) ** 2),
        apart.sum(1) / others,
        np.sqrt(apart).sum(1) / others,
        np.linalg.norm(flat, axis=1),
        ((unit @ unit.T).sum(1) - 1) / others,
    ]
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


@every_layout
@given(size=sizes, turns=st.integers(1, 4), at_once=st.integers(1, 400))
def test_fewer_others_are_taken_again_and_again(layout, size, turns, at_once):
    others, maps = made(size, layout), made((turns * size[0], *size[1:]), layout, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "AT_ONCE", at_once)
        found = base.squares(maps, others)
    apart = maps.numpy() - np.concatenate([others.numpy()] * turns)
    np.testing.assert_allclose(found, per_channel(apart**2), rtol=1e-6)


@every_layout
@pytest.mark.parametrize("n", [2, 125, 1000])
def test_a_constant_channel_deviates_by_nothing_and_a_faint_one_by_what_it_does(layout, n):
    x = made((n, 3, 2, 2), "contiguous").float()
    x[:, 0], x[:, 1] = 1234.567, 100 * (1 + 1e-4 * x[:, 1])
    deviation = Still(LAYOUTS[layout](x)).deviation
    parts = [one.sum(1) for one in deviation.chunk(3, 1)]
    assert (parts[0] == 0).all()
    expected = per_channel(((x - x.double().mean(0)) ** 2).numpy())
    assert parts[1].mean() == pytest.approx(expected[:, 1].mean(), rel=0.01)
    np.testing.assert_allclose(parts[2], expected[:, 2], rtol=1e-4, atol=1e-5)
