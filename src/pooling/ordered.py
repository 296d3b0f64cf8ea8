"""Poolings by the order of a window's values: ``Rank`` (ordered weights)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..common.errors import UserError
from .base import Pool, Size, at_least_float32, sum_maps, unfold_windows
from .geometry import Window
from .windows import fraction_inside

#: how far from 1 the sum of fixed weights may be, by rounding
SUM = 1e-3


class Rank(Pool):
    """Rank pooling: a weighted mean of the window's sorted values, one weight for each rank, the same for all channels.

    The weights are learned, as a softmax, so that whatever is learned is a mean: constants and the range are kept. With
    ``weights=`` they are fixed: the first is that of the largest value. In a window of m < n samples, at the border
    ``clip``, the weights are the increments of Yager's quantifier, the cumulative weight as a function of rank / n.

    Raises:
        UserError: other than k² weights, or not those of a mean.
    """

    formula = "Σ w_i · (the i-th largest of x_R), w = softmax(v)"
    keeps = "constants, range"
    exact = """w = (1, 0, …) is max, equal weights, where it starts, are avg, (…, 0, 1) is min; 1/k for the first k is
        the mean of the top k, weight on the middle ranks alone the median"""
    source = 'Yager 1988 (ordered weighted averages); Kumar 2018, "Ordinal pooling networks"'

    fixed: Tensor | None
    v: nn.Parameter  # where the weights are learned

    def __init__(self, *args: Any, weights: Sequence[float] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        n = self.kernel_size**2
        if weights is not None and len(weights) != n:
            side = self.kernel_size
            raise UserError(f"Rank: weights: a window of {side}×{side} needs {n} of them, not {len(weights)}")
        shares = None if weights is None else [float(weight) for weight in weights]
        if shares and not (all(share >= 0 for share in shares) and abs(math.fsum(shares) - 1) < SUM):
            raise UserError(f"Rank: weights: those of a mean are needed, 0 or more with the sum 1, not {weights}")
        fixed = None if shares is None else torch.tensor(shares)
        self.register_buffer("fixed", fixed, persistent=False)
        if weights is None:
            self.v = nn.Parameter(torch.zeros(n))

    def parameters_by_formula(self, channels: int) -> int:
        """k² if the weights are learned."""
        return self.kernel_size**2 if self.fixed is None else 0

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """k² per output; comparisons count as none."""
        return channels * self.kernel_size**2 * math.prod(output_size)

    @property
    def weights(self) -> Float[Tensor, " n"]:
        """The weight of each rank, from that of the largest value on."""
        return self.v.softmax(0) if self.fixed is None else self.fixed

    def weights_by_place(self, size: torch.Size, window: Window) -> Float[Tensor, "n p q"]:
        """The weights for the samples that each window has on a map of that size; 0 for those that it has not."""
        weights, n = self.weights, self.kernel_size**2
        rows, columns = (fraction_inside(window, side, weights.new_ones(self.kernel_size)) for side in size[2:])
        share = torch.arange(n + 1, device=weights.device)[:, None, None] / (n * rows[:, None] * columns)
        reached = (n * share[:, None] - torch.arange(n, device=weights.device)[:, None, None]).clamp(0, 1)
        return (weights[:, None, None] * reached).sum(1).diff(dim=0)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        (window,) = self.windows
        padded = self.pad(at_least_float32(x), window, fill=-torch.inf)
        ranked = sorted_maps(unfold_windows(padded, window))
        if self.border != "clip" or padded.shape == x.shape:
            return sum_maps(map(torch.mul, self.weights, ranked)).to(x.dtype)
        # masked_fill would not keep the memory format
        present = (torch.where(sample == -torch.inf, 0.0, sample) for sample in ranked)
        return sum_maps(map(torch.mul, present, self.weights_by_place(x.shape, window))).to(x.dtype)


def sorted_maps(maps: Sequence[Float[Tensor, "n c p q"]]) -> list[Float[Tensor, "n c p q"]]:
    """Maps sorted at every place, the largest first, by odd-even transposition; keeps the memory format, as
    ``torch.sort`` of a stack would not.
    """
    ranked = list(maps)
    for turn in range(len(ranked)):
        for i in range(turn % 2, len(ranked) - 1, 2):
            a, b = ranked[i], ranked[i + 1]
            ranked[i : i + 2] = torch.maximum(a, b), torch.minimum(a, b)
    return ranked


POOLS: dict[str, type[Pool]] = {"rank": Rank}
