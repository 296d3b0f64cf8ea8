"""Poolings between ``avg`` and ``max``: mixed, gated, soft, stochastic."""

import math
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import Pool, Size, at_least_single, samples, total
from .windows import Avg, Max


class Mixed(Pool):
    """One learned mixture of the maximum and the mean for the whole layer."""

    formula = "a max(x_R) + (1 − a) mean(x_R)"
    keeps = "constants; the range for a in [0, 1], where it starts (1/2) and to which nothing confines it"
    exact = "a = 1 is max, a = 0 is avg"
    source = 'Lee, Gallagher & Tu 2016, "Generalizing pooling functions in CNNs: mixed, gated, and tree"'

    def build(self) -> None:
        """Make what it holds."""
        self.max, self.avg = (
            pool(self.kernel_size, self.stride, self.padding, border=self.border, ceil_mode=self.ceil_mode)
            for pool in (Max, Avg)
        )
        self.learn()

    def learn(self) -> None:
        """Make what is learned."""
        self.a = nn.Parameter(torch.tensor(0.5))

    def parameters_by_formula(self, channels: int) -> int:
        """One."""
        return 1

    def share(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Of the maximum in the mixture: one number, or one a window."""
        return self.a

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        a = self.share(x)
        y: Tensor = a * self.max(x) + (1 - a) * self.avg(x)
        return y.to(x.dtype)


class Gated(Mixed):
    """``mixed`` with a gate for each window: one learned k×k mask w and one bias b, for all channels.

    The part of a clipped window beyond the border adds nothing to w · x_R.
    """

    formula = "mixed with a = σ(w · x_R + b)"
    keeps = "constants, range"
    exact = "w = b = 0, where it starts, is mixed with a = 1/2; b → ∞ is max, b → −∞ avg"
    source = 'Lee, Gallagher & Tu 2016, "Generalizing pooling functions in CNNs: mixed, gated, and tree"'

    def learn(self) -> None:
        """Make the mask and the bias."""
        self.weight = nn.Parameter(torch.zeros(1, 1, self.kernel_size, self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(1))

    def parameters_by_formula(self, channels: int) -> int:
        """k² + 1."""
        return self.kernel_size**2 + 1

    def multiply_adds(self, channels: int, read: Size, made: Size) -> int:
        """One k×k filter a channel."""
        return channels * self.kernel_size**2 * math.prod(made)

    def share(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """The gate of each window."""
        c = x.shape[1]
        y = self.extend(x, self.windows[0])
        return F.conv2d(y, self.weight.expand(c, -1, -1, -1), self.bias.expand(c), self.stride, groups=c).sigmoid()


class Soft(Pool):
    """A mean in each channel that leans to the strongest response (SoftPool).

    The window's largest βx is subtracted before any exponential, so none overflows.
    """

    formula = "Σ softmax(βx_R) · x_R, β = 1"
    keeps = "constants, range"
    exact = "β = 0 is avg, β → ∞ is max; commutes with adding a constant"
    source = 'Stergiou, Poppe & Kalliatakis 2021, "Refining activation downsampling with SoftPool"'

    beta: float = 1.0

    def logits(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Log-weights of the samples."""
        return self.beta * x

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        (window,) = self.windows
        logits = self.extend(at_least_single(self.logits(x)), window, fill=-torch.inf)
        largest = F.max_pool2d(logits.detach(), self.kernel_size, self.stride)
        weights = [(sample - largest).exp() for sample in samples(logits, window)]
        parts = samples(self.extend(x, window), window)
        return (total(map(torch.mul, weights, parts)) / total(weights)).to(x.dtype)


class Stochastic(Pool):
    """One sample of the window, drawn in proportion to its size; its expectation in eval.

    Negative samples count as 0, a window without a positive one gives 0. Draws from torch's global generator, one
    number a window: the sample at which the running sum passes a share of the whole, uniform in [0, 1).
    """

    formula = "x_i with p_i = x_i / Σ x_R; in eval Σ x_R² / Σ x_R"
    keeps = "constants, range of relu(x)"
    exact = "a single positive sample in the window is drawn; mean ≤ eval ≤ max on maps ≥ 0"
    source = 'Zeiler & Fergus 2013, "Stochastic pooling for regularization of deep CNNs"'

    @classmethod
    def default_window(cls, stride: int) -> int:
        """3 (the paper's), or the stride where that is more."""
        return max(3, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride, ≥ 0."""
        (window,) = self.windows
        parts = samples(self.extend(at_least_single(x).relu(), window), window)
        if self.training:
            below = list(accumulate(part.detach() for part in parts))
            mark = torch.rand_like(below[-1]) * below[-1]
            y = parts[-1]
            for part, end in zip(parts[-2::-1], below[-2::-1], strict=True):
                y = torch.where(mark < end, part, y)
        else:
            whole = total(parts)
            whole = whole + (whole == 0).to(whole.dtype)
            y = total(part / whole * part for part in parts)
        return y.to(x.dtype)


POOLS: dict[str, type[Pool]] = {"mixed": Mixed, "gated": Gated, "soft": Soft, "stochastic": Stochastic}
