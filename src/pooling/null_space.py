"""What a linear layer throws away: its null space, as a matrix for small maps, and by projection for any.

A linear layer A keeps of a map x its projection onto the row space, A⁺A x; the rest, x - A⁺A x, lies in the null space:
adding any multiple of it changes no output.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, func

#: a layer: maps (n, c, h, w) to maps or vectors (n, …)
Layer = Callable[[Tensor], Tensor]
#: singular values below this share of the largest are 0; in float64, rounding is far below
SINGULAR = 1e-9
#: a residual below this share of the output is rounding in float32
ROUNDING = 1e-4
#: steps of conjugate gradients, and the residual at which they end
STEPS, TOLERANCE = 100, 1e-5


def matrix_of(layer: Layer, shape: tuple[int, int, int]) -> Float[Tensor, "m n"]:
    """The matrix of a linear layer for maps (c, h, w): its outputs for the unit impulses, in float64.

    >>> matrix_of(lambda x: x[..., ::2], (1, 1, 4)).tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    size = shape[0] * shape[1] * shape[2]
    impulses = torch.eye(size, dtype=torch.float64).view(size, *shape)
    with torch.no_grad():
        columns = layer(impulses) - layer(torch.zeros_like(impulses[:1]))
    matrix: Tensor = columns.flatten(1).T
    return matrix


def row_space(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "r n"]:
    """An orthonormal basis of what the matrix keeps, by singular value decomposition; r is its rank.

    >>> row_space(torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64)).shape
    torch.Size([1, 2])
    """
    _, values, basis = torch.linalg.svd(matrix, full_matrices=False)
    rows: Tensor = basis[values > SINGULAR * values.max()]
    return rows


def is_linear(layer: Layer, maps: Float[Tensor, "n c h w"]) -> bool:
    """Whether a layer is linear up to a constant: on these maps with random signs, and on noise.

    Maps are repeated to 8: a layer that chooses a phase, as ``aps``, makes the same choice for two maps now and then.

    >>> is_linear(lambda x: 2 * x + 1, torch.rand(4, 1, 2, 2)), is_linear(torch.relu, torch.rand(4, 1, 2, 2))
    (True, False)
    """
    generator = torch.Generator().manual_seed(0)
    maps = maps.repeat(-(-8 // len(maps)), 1, 1, 1)
    signs = torch.randint(0, 2, maps.shape, generator=generator).to(maps) * 2 - 1
    a, b = maps * signs, torch.randn(maps.shape, generator=generator).to(maps) * maps.std()
    with torch.no_grad():
        constant = layer(torch.zeros_like(maps[:1]))
        both, sums = layer(a + b) - constant, layer(a) + layer(b) - 2 * constant
    return bool((both - sums).abs().max() <= ROUNDING * sums.abs().max())


def project(layer: Layer, maps: Float[Tensor, "n c h w"], steps: int = STEPS) -> Float[Tensor, "n c h w"]:
    """What a linear layer keeps of maps, without its matrix: the least-norm map with the same outputs.

    By conjugate gradients on the normal equations (CGLS, Hestenes & Stiefel 1952) from 0, which stay in the row space.
    Directions whose singular value is so small that they are not reached in ``steps`` steps count as thrown away.
    """
    zero = torch.zeros_like(maps)
    with torch.no_grad():
        constant = layer(zero)
        residual = layer(maps) - constant
    transposed: Callable[[Tensor], tuple[Tensor]] = func.vjp(layer, zero)[1]
    found, (direction,) = zero, transposed(residual)
    squared, first = _squared(direction), _squared(direction)
    for _ in range(steps):
        with torch.no_grad():
            image = layer(direction) - constant
        length = _ratio(squared, _squared(image))
        found = found + _times(length, direction)
        residual = residual - _times(length, image)
        (gradient,) = transposed(residual)
        before, squared = squared, _squared(gradient)
        if bool((squared <= TOLERANCE**2 * first).all()):
            break
        direction = gradient + _times(_ratio(squared, before), direction)
    return found.detach()


def _squared(maps: Tensor) -> Float[Tensor, " n"]:
    return maps.flatten(1).square().sum(1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator, 0)


def _times(factors: Float[Tensor, " n"], maps: Tensor) -> Tensor:
    return factors.view(-1, *[1] * (maps.dim() - 1)) * maps
