"""``Stochastic``: a sample of the window, drawn at random."""

from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Pool, at_least_float32, sum_maps, unfold_windows


class Stochastic(Pool):
    """Stochastic pooling: a sample of the window drawn with probability proportional to its value; in eval the
    expectation.

    Negative values count as 0, and a window without a positive value gives 0. Draws one uniform number per window from
    torch's global generator, and inverts the cumulative sum.
    """

    formula = "x_i with p_i = x_i / Σ x_R; in eval Σ x_R² / Σ x_R"
    keeps = "constants, range of relu(x)"
    exact = "a single positive sample in the window is drawn; mean ≤ eval ≤ max on maps ≥ 0"
    source = 'Zeiler & Fergus 2013, "Stochastic pooling for regularization of deep CNNs"'

    least_window = 3  # as in the paper

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride, ≥ 0."""
        (window,) = self.windows
        samples = unfold_windows(self.pad(at_least_float32(x).relu(), window), window)
        if self.training:
            cumulative = list(accumulate(sample.detach() for sample in samples))
            threshold = torch.rand_like(cumulative[-1]) * cumulative[-1]
            y = samples[-1]
            for sample, upper in zip(samples[-2::-1], cumulative[-2::-1], strict=True):
                y = torch.where(threshold < upper, sample, y)
        else:
            total = sum_maps(samples)
            total = total + (total == 0).to(total.dtype)
            y = sum_maps(sample / total * sample for sample in samples)
        return y.to(x.dtype)


POOLS: dict[str, type[Pool]] = {"stochastic": Stochastic}
