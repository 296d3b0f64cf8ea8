"""What linear pools throw away: closed forms, and the projection without a matrix against that by a matrix."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.pooling import POOLS
from src.pooling.null_space import is_linear, matrix_of, project, row_space

SIDE, CHANNELS = 12, 2
MAPS = torch.rand(3, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
#: pools that are linear maps, with the share of dimensions that they throw away with a circular border
LINEAR = {"avg": 3 / 4, "blur": 3 / 4, "wavelet": 3 / 4, "ideal": 1 - 25 / 144, "flc": 3 / 4}
#: with weights as they are built: two are learned layers, three start as means, one as flc
LINEAR_AS_BUILT = ("conv", "unshuffle", "lip", "ddac", "rank", "diffstride")


def pool(name: str, channels: int = 1, border: str = "circular") -> nn.Module:
    torch.manual_seed(0)
    kind = POOLS[name]
    assert kind is not None
    return kind(stride=2, border=border, channels=channels).double().eval()


def kept(maps: Tensor, basis: Tensor) -> Tensor:
    """The projection of each map onto the row space."""
    return (maps.flatten(1) @ basis.T @ basis).view_as(maps)


def basis(layer: nn.Module) -> Tensor:
    return row_space(matrix_of(layer, (1, SIDE, SIDE)))


@pytest.mark.parametrize("name", LINEAR)
def test_the_dimension_of_the_null_space_is_known(name: str) -> None:
    assert 1 - len(basis(pool(name))) / SIDE**2 == pytest.approx(LINEAR[name])


def test_avg_throws_away_all_patches_with_mean_zero_and_nothing_else() -> None:
    gone = MAPS - kept(MAPS, basis(pool("avg")))
    assert F.avg_pool2d(gone, 2).abs().max() < 1e-12
    assert torch.allclose(gone, MAPS - F.interpolate(F.avg_pool2d(MAPS, 2), scale_factor=2))


def test_ideal_throws_away_the_frequencies_outside_its_band_and_nothing_else() -> None:
    frequencies = torch.fft.fftfreq(SIDE, 1 / SIDE).abs()
    inside = (frequencies[:, None] < SIDE / 4) & (frequencies < SIDE / 4)
    expected = torch.fft.ifft2(torch.fft.fft2(MAPS) * inside).real
    assert torch.allclose(kept(MAPS, basis(pool("ideal"))), expected)


def test_a_stride_throws_away_the_other_phases_and_unshuffling_nothing() -> None:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[::2, ::2] = True
    strided = row_space(matrix_of(lambda x: x[..., ::2, ::2], (1, SIDE, SIDE)))
    assert torch.allclose(kept(MAPS, strided), MAPS * mask)
    phases = row_space(matrix_of(lambda x: F.pixel_unshuffle(x, 2), (1, SIDE, SIDE)))
    assert len(phases) == SIDE**2 and torch.allclose(kept(MAPS, phases), MAPS)


@pytest.mark.parametrize("border", ["clip", "circular"])
@pytest.mark.parametrize("name", [*LINEAR, *LINEAR_AS_BUILT])
def test_the_projection_is_that_by_singular_value_decomposition(name: str, border: str) -> None:
    layer, maps = pool(name, CHANNELS, border), MAPS.view(1, 3, SIDE, SIDE)[:, :CHANNELS]
    exact = kept(maps, row_space(matrix_of(layer, (CHANNELS, SIDE, SIDE))))
    found = project(layer, maps)
    assert (found - exact).norm() < 1e-3 * exact.norm()
    assert torch.allclose(layer(found), layer(maps), atol=1e-3), "what is thrown away changes no output"


def test_which_pools_are_linear() -> None:
    maps = torch.rand(4, CHANNELS, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = [name for name, kind in POOLS.items() if kind and is_linear(pool(name, CHANNELS), maps)]
    assert set(found) == {*LINEAR, *LINEAR_AS_BUILT}


def test_a_map_in_the_null_space_is_thrown_away_whole() -> None:
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(SIDE // 2, SIDE // 2)
    assert project(pool("avg"), board[None, None]).abs().max() == 0
