"""Poolings that select or mix the s² polyphase components ``x[i::s, j::s]`` of a map: ``APS``, ``LPS``, ``TIPS``."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import Pool, Size, at_least_float32, sum_maps, unfold_windows
from .geometry import Window


class Polyphase(Pool):
    """Base class. Maps are padded to a multiple of the stride by the border's mode (``clip``: edge values)."""

    tiled = True  # the choice of the phase depends on the whole map; that is not in the receptive field

    def phases(self, x: Float[Tensor, "n c H W"]) -> tuple[Float[Tensor, "n c p q"], ...]:
        """The s² phases of a map whose sides are multiples of s, row by row."""
        return unfold_windows(x, Window(self.stride, self.stride))

    def mean(self, x: Float[Tensor, "n 1 H W"]) -> Float[Tensor, "n phases"]:
        """Mean of each phase of a map whose sides are multiples of s, in at least float32."""
        s = self.stride
        tiles = at_least_float32(x).unflatten(2, (-1, s)).unflatten(4, (-1, s))
        means: Tensor = tiles.mean((1, 2, 4)).flatten(1)
        return means


def weighted_sum(
    phases: Sequence[Float[Tensor, "n c p q"]], weights: Float[Tensor, "n phases"]
) -> Float[Tensor, "n c p q"]:
    """Weighted sum of the phases. One-hot weights select a phase bit for bit, and only it gets gradients."""
    columns = weights.to(phases[0].dtype)[..., None, None, None].unbind(1)
    return sum_maps(map(torch.mul, columns, phases))


def one_hot_argmax(values: Float[Tensor, "n phases"]) -> Float[Tensor, "n phases"]:
    """1 at the largest value of each image, else 0."""
    return F.one_hot(values.argmax(1), values.shape[1]).to(values.dtype)


class APS(Polyphase):
    """Adaptive polyphase sampling: of the s² phases, the one of largest l2 norm over channels and positions together.

    A roll of the input permutes the phases but not their norms.
    """

    formula = "x[i::s, j::s] of largest ‖·‖₂"
    keeps = "constants, range; every kept sample bit for bit; aliases"
    exact = "circular, s | N, no ties: every roll of the input is a roll of the output, bit for bit"
    source = 'Chaman & Dokmanić 2021, "Truly shift-invariant convolutional neural networks"'

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride; only the selected phase gets gradients."""
        x = self.pad_to_multiple(x)
        energy = at_least_float32(x.detach()).square().sum(1, keepdim=True)
        return weighted_sum(self.phases(x), one_hot_argmax(self.mean(energy)))


class Scored(Polyphase):
    """Base class of learned selection: a phase's logit is the mean over its pixels of a score ``v · relu(Wx + b)``.

    The score is pointwise and shared by all phases, so a roll of the input permutes the logits, whatever the border.

    Raises:
        UserError: without ``channels``.
    """

    hidden = 8  # units of the score
    needs_channels = True

    def build(self) -> None:
        """Make the score."""
        # a bias of the last layer would add the same to all logits
        self.score = nn.Sequential(
            nn.Conv2d(self.channels, self.hidden, 1), nn.ReLU(), nn.Conv2d(self.hidden, 1, 1, bias=False)
        )

    def parameters_by_formula(self, channels: int) -> int:
        """8c weights, 8 biases, 8 weights."""
        return self.hidden * (channels + 2)

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """The score of each pixel."""
        return self.stride**2 * self.hidden * (channels + 1) * math.prod(output_size)

    def logits(self, x: Float[Tensor, "n c H W"]) -> Float[Tensor, "n phases"]:
        """One logit per phase, in at least float32."""
        return self.mean(self.score(x))


class LPS(Scored):
    """Learnable polyphase sampling: the phase of largest learned logit; in training a Gumbel-softmax mixture.

    Not shift-equivariant in training. Draws from torch's global generator.
    """

    formula = "x[i::s, j::s] of largest learned logit"
    keeps = "constants, range; every kept sample bit for bit (eval); aliases"
    exact = "circular, s | N, in eval: as aps, which it is with the phase's norm for logit; τ → 0 draws one phase"
    source = 'Rojas-Gomez et al. 2022, "Learnable polyphase sampling for shift invariant and equivariant CNNs"'
    differs = """a phase's logit is the mean of a pointwise score; the authors' comes from two 3×3 circular convolutions
        of the phase"""

    tau: float = 1.0  # temperature of the Gumbel softmax

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        x = self.pad_to_multiple(x)
        logits = self.logits(x)
        weights = F.gumbel_softmax(logits, self.tau) if self.training else one_hot_argmax(logits)
        return weighted_sum(self.phases(x), weights)


class TIPS(Scored):
    """Translation invariant polyphase sampling: a learned mixture of the phases, the same in training and eval.

    A roll by one pixel mixes other neighbours, so a net is exactly invariant only in the limit of one-hot weights.
    """

    formula = "Σ softmax(logits) · x[i::s, j::s]"
    keeps = "constants, range"
    exact = "equal logits are avg with k = s; circular, s | N: the map's mean does not see rolls, the map does"
    source = 'Saha & Gokhale 2024, "Improving shift invariance in CNNs with translation invariant polyphase sampling"'
    differs = """a phase's logit is the mean of a pointwise score; the authors' is convolutional, and trained by
        two more losses"""

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """The scores, and the weighted sum."""
        weighted = channels * self.stride**2 * math.prod(output_size)
        return super().multiply_adds(channels, input_size, output_size) + weighted

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps downsampled by the stride."""
        x = self.pad_to_multiple(x)
        return weighted_sum(self.phases(x), self.logits(x).softmax(1))


POOLS: dict[str, type[Pool]] = {"aps": APS, "lps": LPS, "tips": TIPS}
