"""Poolings with learned weights: ``Conv`` (strided), ``Unshuffle`` (SPD-Conv), ``LIP``, ``DDAC``, ``DPP``."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import Pool, Size, at_least_float32, sum_maps, unfold_windows
from .soft import Soft
from .windows import Avg


class Conv(Pool):
    """A strided convolution in place of the pool, as in All-CNN.

    A net follows it with norm and activation, as any convolution. The border ``clip`` is zero padding here.

    Raises:
        UserError: without ``channels``.
    """

    formula = "W ∗ x + b, then [::s], norm, activation"
    keeps = "nothing by itself"
    exact = "is a padded nn.Conv2d"
    source = 'Springenberg et al. 2015, "Striving for simplicity"'

    is_layer = needs_channels = True
    least_window = 3

    def build(self) -> None:
        """Make the convolution."""
        self.conv = nn.Conv2d(self.channels, self.channels, self.kernel_size, self.stride)

    def parameters_by_formula(self, channels: int) -> int:
        """c²k² weights and c biases."""
        return channels**2 * self.kernel_size**2 + channels

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """c²k² per output position."""
        return channels**2 * self.kernel_size**2 * math.prod(output_size)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        padded, zeros = self.pad_for_convolution(x, self.windows[0])
        return F.conv2d(padded, self.conv.weight, self.conv.bias, self.stride, zeros)


class Unshuffle(Pool):
    """Space to depth (pixel unshuffle), then a learned 1×1 convolution from cs² to c channels.

    Computed as one s×s convolution. A net follows it with norm and activation. Maps are padded to a multiple of the
    stride by the border's mode (``clip``: edge values).

    Raises:
        UserError: without ``channels``.
    """

    formula = "W · (the s² phases) + b, norm, activation"
    keeps = "nothing by itself; all s² phases reach the weights"
    exact = "is a convolution with kernel and stride s"
    source = (
        'Shi et al. 2016 (the inverse of its sub-pixel shuffle); Sunkara & Luo 2022, "No more strided '
        'convolutions or pooling"'
    )

    is_layer = needs_channels = tiled = True

    def build(self) -> None:
        """Make the 1×1 convolution."""
        self.conv = nn.Conv2d(self.channels * self.stride**2, self.channels, 1)

    def parameters_by_formula(self, channels: int) -> int:
        """c²s² weights and c biases."""
        return channels**2 * self.stride**2 + channels

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """c²s² per output position."""
        return channels**2 * self.stride**2 * math.prod(output_size)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        # pixel_unshuffle would copy the map
        kernel = self.conv.weight.view(self.channels, self.channels, self.stride, self.stride)
        return F.conv2d(self.pad_to_multiple(x), kernel, self.conv.bias, self.stride)


class LIP(Soft):
    """Local importance pooling: the mean of the window weighted by e^G, where G is a learned 1×1 convolution of x.

    G has no bias, as that would cancel.

    Raises:
        UserError: without ``channels``.
    """

    formula = "Σ e^G x_R / Σ e^G"
    keeps = "constants, range"
    exact = "constant G, where it starts (weights 0), is avg; G = βx is soft"
    source = 'Gao, Wang & Wu 2019, "LIP: local importance-based pooling"'
    differs = """G is a 1×1 convolution without a bound; the authors' is 3×3, with instance norm and 12 · sigmoid behind
        it"""

    needs_channels = True
    least_window = 3  # as in the paper

    def build(self) -> None:
        """Make the convolution that gives G, with weights 0."""
        self.importance = nn.Conv2d(self.channels, self.channels, 1, bias=False)
        nn.init.zeros_(self.importance.weight)

    def parameters_by_formula(self, channels: int) -> int:
        """c² weights of the 1×1 convolution."""
        return channels**2

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """c² per input position, for the logit map."""
        return channels**2 * math.prod(input_size)

    def logits(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The logit map G."""
        y: Tensor = self.importance(x)
        return y


class DDAC(Pool):
    """Content-aware low-pass filters: a k×k filter per position and group of channels, a softmax of predicted logits.

    The logits are a convolution of the map with the same window and stride; outside the map a filter has no weight. The
    number of groups is the largest divisor of the channels up to 8.

    Raises:
        UserError: without ``channels``.
    """

    formula = "Σ softmax(F ∗ x) · x_R, 8 groups"
    keeps = "constants, range"
    exact = "equal logits, where it starts (weights 0), are avg"
    source = 'Zou et al. 2020, "Delving deeper into anti-aliasing in convnets"'
    differs = """a softmax for each group, no norm in front of it, weights that start at 0; the authors have one softmax
        over all 8 groups, which makes 1/8 of a constant 1, a batch norm and Kaiming's start"""

    needs_channels = True
    least_window = 3

    def build(self) -> None:
        """Make the convolution that predicts the filters' logits, with weights 0."""
        self.groups = self.groups_of(self.channels)
        self.filters = nn.Conv2d(self.channels, self.groups * self.kernel_size**2, self.kernel_size, self.stride)
        nn.init.zeros_(self.filters.weight)
        nn.init.zeros_(self.filters.bias)  # type: ignore[arg-type]

    @staticmethod
    def groups_of(channels: int) -> int:
        """Number of groups: the largest divisor of the channels up to 8."""
        return max(g for g in range(1, 9) if channels % g == 0)

    def parameters_by_formula(self, channels: int) -> int:
        """gk² filters of ck² weights and a bias."""
        return self.groups_of(channels) * self.kernel_size**2 * (channels * self.kernel_size**2 + 1)

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """ck² for each of the gk² logits, and ck² for the filters themselves."""
        area = self.kernel_size**2
        return channels * area * (self.groups_of(channels) * area + 1) * math.prod(output_size)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        (window,) = self.windows
        padded, zeros = self.pad_for_convolution(x, window)
        logits = F.conv2d(padded, self.filters.weight, self.filters.bias, self.stride, zeros)
        logits = logits.unflatten(1, (self.groups, -1))
        weights = (logits + torch.stack(self.outside(x, window), 2)).softmax(2).to(x.dtype).unbind(2)
        samples = unfold_windows(self.pad(x, window), window)
        grouped = (sample.unflatten(1, (self.groups, -1)) for sample in samples)
        y: Tensor = sum_maps(sample * w[:, :, None] for sample, w in zip(grouped, weights, strict=True)).flatten(1, 2)
        return y


class DPP(Pool):
    """Detail-preserving pooling: a sample counts the more, the further it is from the window's mean.

    The weights are an inverse bilateral filter with a learned exponent λ and offset α for each channel, both as e to a
    parameter. The asymmetric form (``asymmetric = True``) favours values above the mean. Computed from logarithms of
    the weights, against under- and overflow.

    Raises:
        UserError: without ``channels``.
    """

    formula = "Σ w x_R / Σ w, w = α + ((x_R − mean(x_R))² + ε²)^(λ/2), ε = 0.001"
    keeps = "constants, range"
    exact = "λ = 0 is avg, as is α → ∞; asymmetric, α = 0 and λ → ∞ is max; commutes with adding a constant"
    source = 'Saeedan, Weber, Goesele & Roth 2018, "Detail-preserving pooling in deep networks"'
    differs = """the light form, whose reference is the window's mean (the full form learns a filter for it); α = λ = 1
        at the start, the authors draw both from [1, e]"""

    needs_channels = True
    asymmetric: bool = False
    epsilon: float = 1e-3

    def build(self) -> None:
        """Make the mean and the logarithms of α and λ."""
        self.avg = Avg(self.kernel_size, self.stride, self.padding, border=self.border, ceil_mode=self.ceil_mode)
        self.log_alpha, self.log_lambda = (nn.Parameter(torch.zeros(self.channels)) for _ in range(2))

    def parameters_by_formula(self, channels: int) -> int:
        """α and λ of each channel."""
        return 2 * channels

    def logarithm_of_weight(self, difference: Float[Tensor, "n c p q"]) -> Float[Tensor, "n c p q"]:
        """log w, for samples less the window's mean."""
        alpha, exponent = (parameter[:, None, None] for parameter in (self.log_alpha, self.log_lambda.exp()))
        size = difference.relu() if self.asymmetric else difference
        return torch.logaddexp(alpha, exponent * torch.hypot(size, size.new_full((), self.epsilon)).log())

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        (window,) = self.windows
        y = at_least_float32(x)
        mean, samples = self.avg(y), unfold_windows(self.pad(y, window), window)
        logits = [
            self.logarithm_of_weight(sample - mean) + out
            for sample, out in zip(samples, self.outside(y, window), strict=True)
        ]
        largest = torch.stack([logit.detach() for logit in logits]).amax(0)
        weights = [(logit - largest).exp() for logit in logits]
        return (sum_maps(map(torch.mul, weights, samples)) / sum_maps(weights)).to(x.dtype)


POOLS: dict[str, type[Pool]] = {"conv": Conv, "unshuffle": Unshuffle, "lip": LIP, "ddac": DDAC, "dpp": DPP}
