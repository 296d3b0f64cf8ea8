"""Poolings between ``avg`` and ``max``: mixed, gated, soft, stochastic."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from src.pooling.base import Pool
from src.pooling.windows import Avg, Max


class Mixed(Pool):
    """``a max(x_R) + (1 - a) mean(x_R)``, one learned number a per layer, at first 1/2.

    a = 1 is ``max``, a = 0 is ``avg``; nothing confines a to [0, 1]. Keeps constants.
    Source: Lee, Gallagher & Tu 2016, "Generalizing pooling functions in CNNs: mixed, gated, and tree".
    """

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
    """``mixed`` with a = σ(w · x_R + b) for each window: one learned k×k mask w and b per layer, for all channels.

    w = b = 0, where it starts, is ``mixed`` with a = 1/2; b → ∞ is ``max``, b → -∞ ``avg``. Keeps constants. The part
    of a clipped window beyond the border adds nothing to w · x_R. Source: Lee, Gallagher & Tu 2016.
    """

    def learn(self) -> None:
        """Make the mask and the bias."""
        self.weight = nn.Parameter(torch.zeros(1, 1, self.kernel_size, self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(1))

    def parameters_by_formula(self, channels: int) -> int:
        """k² + 1."""
        return self.kernel_size**2 + 1

    def multiply_adds(self, channels: int) -> int:
        """One k×k filter a channel."""
        return channels * self.kernel_size**2

    def share(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """The gate of each window."""
        c = x.shape[1]
        y = self.extend(x, self.windows[0])
        return F.conv2d(y, self.weight.expand(c, -1, -1, -1), self.bias.expand(c), self.stride, groups=c).sigmoid()


class Soft(Pool):
    """``Σ softmax_R(βx) · x`` in each channel: a mean that leans to the strongest response (SoftPool).

    β = 0 is ``avg``, β → ∞ is ``max``. Commutes with adding a constant: the window's largest βx is subtracted before
    any exponential, so none overflows. Source: Stergiou, Poppe & Kalliatakis 2021, "Refining activation downsampling
    with SoftPool".
    """

    beta: float = 1.0

    def logits(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Log-weights of the samples."""
        return self.beta * x

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        weights = self.parts(self.logits(x), fill=-torch.inf).softmax(2)
        return (weights * self.parts(x)).sum(2).to(x.dtype)


class Stochastic(Pool):
    """Training: one sample of the window, drawn with p ∝ x; eval: its expectation ``Σ x² / Σ x``.

    Negative samples count as 0, a window without a positive one gives 0. mean ≤ eval ≤ max on maps ≥ 0; one positive
    sample in the window: ``max`` in both modes. Draws from torch's global generator: the largest x / e with e
    exponential is at each sample with probability ∝ x. Source: Zeiler & Fergus 2013, "Stochastic pooling for
    regularization of deep CNNs".
    """

    @classmethod
    def default_window(cls, stride: int) -> int:
        """3 (the paper's), or the stride where that is more."""
        return max(3, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride, ≥ 0."""
        parts = self.parts(x.relu())
        if self.training:
            e = torch.empty(parts.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
            drawn = (parts.detach() / e.exponential_()).argmax(2, keepdim=True)
            return parts.gather(2, drawn)[:, :, 0]
        total = parts.sum(2, keepdim=True)
        return (parts / (total + (total == 0).to(x.dtype)) * parts).sum(2)


POOLS: dict[str, type[Pool]] = {"mixed": Mixed, "gated": Gated, "soft": Soft, "stochastic": Stochastic}
