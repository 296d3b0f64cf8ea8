"""Means of the window with weights from its own values: ``Soft`` (SoftPool), ``AdaPool``."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import Pool, at_least_float32, clamp_forward, sum_maps, unfold_windows
from .windows import Avg


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


POOLS: dict[str, type[Pool]] = {"soft": Soft, "adapool": AdaPool}
