"""Poolings between average and max: ``Mixed``, ``Gated``, ``Soft`` (SoftPool), ``AdaPool``, ``Stochastic``."""

import math
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import Pool, Size, at_least_float32, clamp_forward, sum_maps, unfold_windows
from .windows import Avg, Max


class Mixed(Pool):
    """Mixed pooling: one learned mixture of maximum and mean for the whole layer."""

    formula = "a max(x_R) + (1 − a) mean(x_R)"
    keeps = "constants; the range for a in [0, 1], where it starts (1/2) and to which nothing confines it"
    exact = "a = 1 is max, a = 0 is avg"
    source = 'Lee, Gallagher & Tu 2016, "Generalizing pooling functions in CNNs: mixed, gated, and tree"'

    def build(self) -> None:
        """Make both pools and the learned parameters."""
        self.max, self.avg = (
            pool(self.kernel_size, self.stride, self.padding, border=self.border, ceil_mode=self.ceil_mode)
            for pool in (Max, Avg)
        )
        self.add_weights()

    def add_weights(self) -> None:
        """Make the learned parameters."""
        self.a = nn.Parameter(torch.tensor(0.5))

    def parameters_by_formula(self, channels: int) -> int:
        """The mixing weight a."""
        return 1

    def mixing_weight(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """Weight a of the maximum: one number, or one per window."""
        return self.a

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        a = self.mixing_weight(x)
        y: Tensor = a * self.max(x) + (1 - a) * self.avg(x)
        return y.to(x.dtype)


class Gated(Mixed):
    """Gated pooling: ``mixed`` with a gate per window, from one learned k×k mask w and one bias b for all channels.

    The part of a clipped window outside the map adds nothing to w · x_R.
    """

    formula = "mixed with a = σ(w · x_R + b)"
    keeps = "constants, range"
    exact = "w = b = 0, where it starts, is mixed with a = 1/2; b → ∞ is max, b → −∞ avg"
    source = 'Lee, Gallagher & Tu 2016, "Generalizing pooling functions in CNNs: mixed, gated, and tree"'

    def add_weights(self) -> None:
        """Make the mask and the bias."""
        self.weight = nn.Parameter(torch.zeros(1, 1, self.kernel_size, self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(1))

    def parameters_by_formula(self, channels: int) -> int:
        """k² of the mask and one bias."""
        return self.kernel_size**2 + 1

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """One k×k filter per channel."""
        return channels * self.kernel_size**2 * math.prod(output_size)

    def mixing_weight(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """The gate of each window."""
        c = x.shape[1]
        y = self.pad(x, self.windows[0])
        return F.conv2d(y, self.weight.expand(c, -1, -1, -1), self.bias.expand(c), self.stride, groups=c).sigmoid()


class Soft(Pool):
    """SoftPool: the mean of the window, weighted by a softmax of its own values.

    The window's largest βx is subtracted before the exponential, against overflow.
    """

    formula = "Σ softmax(βx_R) · x_R, β = 1"
    keeps = "constants, range"
    exact = "β = 0 is avg, β → ∞ is max; commutes with adding a constant"
    source = 'Stergiou, Poppe & Kalliatakis 2021, "Refining activation downsampling with SoftPool"'

    beta: float = 1.0

    def logits(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Logits of the weights of the samples."""
        return self.beta * x

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        (window,) = self.windows
        logits = self.pad(at_least_float32(self.logits(x)), window, fill=-torch.inf)
        largest = F.max_pool2d(logits.detach(), self.kernel_size, self.stride)
        weights = [(sample - largest).exp() for sample in unfold_windows(logits, window)]
        samples = unfold_windows(self.pad(x, window), window)
        return (sum_maps(map(torch.mul, weights, samples)) / sum_maps(weights)).to(x.dtype)


class AdaPool(Pool):
    """adaPool: a learned mixture of two weighted means of the window: ``soft``, and one by similarity to the mean.

    The similarity is the Dice-Sørensen coefficient, DSC(a, b) = 2 |a b| / (a² + b²), in [0, 1]. The mixing weight b is
    one number for the layer, clipped to [0, 1].
    """

    formula = "b Σ softmax(DSC(x_R, mean(x_R))) · x_R + (1 − b) soft"
    keeps = "constants, range"
    exact = """b = 0 is soft; b = 1 the similarity part, for which f(cx) = c f(x); it is avg where all samples have one
        size"""
    source = 'Stergiou & Poppe 2023, "AdaPool: exponential adaptive pooling for information-retaining downsampling"'
    differs = "one b for a layer, which starts at 1/2; the authors learn one for each place of the output"

    def build(self) -> None:
        """Make the mean, ``soft`` and the mixing weight."""
        self.soft, self.avg = (
            pool(self.kernel_size, self.stride, self.padding, border=self.border, ceil_mode=self.ceil_mode)
            for pool in (Soft, Avg)
        )
        self.b = nn.Parameter(torch.tensor(0.5))

    def parameters_by_formula(self, channels: int) -> int:
        """The mixing weight b."""
        return 1

    def similarity_part(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """The mean of the window, weighted by a softmax of each sample's similarity to the plain mean."""
        (window,) = self.windows
        mean = self.avg(x)
        samples = unfold_windows(self.pad(x, window), window)
        weights = [(dice(a, mean) + out).exp() for a, out in zip(samples, self.outside(x, window), strict=True)]
        return sum_maps(map(torch.mul, weights, samples)) / sum_maps(weights)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        y, b = at_least_float32(x), clamp_forward(self.b, 0, 1)
        mixture: Tensor = b * self.similarity_part(y) + (1 - b) * self.soft(y)
        return mixture.to(x.dtype)


def dice(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The Dice-Sørensen coefficient of two numbers, 2 |a b| / (a² + b²), in [0, 1]; of two zeros 0.

    Of their ratio, against under- and overflow.
    """
    a, b = a.abs(), b.abs()
    larger = torch.maximum(a, b)
    ratio = torch.minimum(a, b) / larger.where(larger > 0, 1)
    return 2 * ratio / (1 + ratio.square())


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


POOLS: dict[str, type[Pool]] = {
    "mixed": Mixed,
    "gated": Gated,
    "soft": Soft,
    "adapool": AdaPool,
    "stochastic": Stochastic,
}
