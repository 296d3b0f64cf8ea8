"""Poolings that choose among, or weigh, the s² polyphase components ``x[i::s, j::s]`` of a map: aps, lps, tips."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from src.geometry import Window
from src.pooling.base import Pool


class Polyphase(Pool):
    """What the phases share. ``kernel_size`` is not used; rows that complete the last phase of an odd map follow the
    border (``clip``: the edge repeated)."""

    @property
    def windows(self) -> list[Window]:
        """Any one sample of an s×s tile; which one depends on the whole map."""
        return [self.window(self.stride)]

    def phases(self, x: Float[Tensor, "n c H W"]) -> Float[Tensor, "n c phases p q"]:
        """The s² phases of a map of whole tiles."""
        y: Tensor = F.pixel_unshuffle(x, self.stride).unflatten(1, (x.shape[1], self.stride**2))
        return y


def pick(phases: Float[Tensor, "n c phases p q"], kept: Int[Tensor, " n"]) -> Float[Tensor, "n c p q"]:
    """One phase of each image; gradients reach that phase only."""
    return phases[torch.arange(len(phases), device=phases.device), :, kept]


class APS(Polyphase):
    """Of the s² phases ``x[i::s, j::s]``, the one with the largest l2 norm over channels and positions together.

    A roll of the input permutes the phases but not their norms, so with circular convolutions, N divisible by the
    stride and no ties, a roll of the input by any (i, j) is a roll of the output, bit for bit.
    Source: Chaman & Dokmanić 2021, "Truly shift-invariant convolutional neural networks".
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride; gradients reach the kept phase only."""
        phases = self.phases(self.tile(x))
        return pick(phases, phases.square().sum((1, 3, 4)).argmax(1))


class Scored(Polyphase):
    """Phases with a learned logit each: the mean over the phase's pixels of a score ``v · relu(Wx + b)``.

    The score is pointwise, for all phases the same, so a roll of the input permutes the logits, whatever the border.

    Raises:
        ValueError: without ``channels``.
    """

    #: units between the map and its score
    hidden = 8

    needs_channels = True

    def build(self) -> None:
        """Make what it holds."""
        # a bias behind the last weights would add the same to all logits
        self.score = nn.Sequential(
            nn.Conv2d(self.channels, self.hidden, 1), nn.ReLU(), nn.Conv2d(self.hidden, 1, 1, bias=False)
        )

    def parameters_by_formula(self, channels: int) -> int:
        """8c weights, 8 biases, 8 weights."""
        return self.hidden * (channels + 2)

    def multiply_adds(self, channels: int) -> int:
        """The score of each pixel of a tile."""
        return self.stride**2 * self.hidden * (channels + 1)

    def logits(self, x: Float[Tensor, "n c H W"]) -> Float[Tensor, "n phases"]:
        """One a phase, in float32 at least."""
        scores = self.phases(self.score(x)).mean((1, 3, 4))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))


def weigh(phases: Float[Tensor, "n c phases p q"], weights: Float[Tensor, "n phases"]) -> Float[Tensor, "n c p q"]:
    """The weighted sum of the phases."""
    return torch.einsum("ncspq,ns->ncpq", phases, weights.to(phases.dtype))


class LPS(Scored):
    """The phase of the largest learned logit in eval, a Gumbel-softmax mixture of temperature ``tau`` in training.

    The logit as the phase's norm would be ``aps``, and as there a roll of the input is a roll of the output in eval,
    bit for bit; not in training. τ → 0 draws one phase. Draws from torch's global generator.
    Source: Rojas-Gomez et al. 2022, "Learnable polyphase sampling for shift invariant and equivariant CNNs".
    """

    tau: float = 1.0

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        x = self.tile(x)
        phases, logits = self.phases(x), self.logits(x)
        if self.training:
            return weigh(phases, F.gumbel_softmax(logits, self.tau))
        return pick(phases, logits.argmax(1))


class TIPS(Scored):
    """``Σ softmax(logits) · phase``: the phases in a learned mixture, the same in training and eval.

    Equal logits: the mean of each tile, ``avg`` with k = s; one logit far above the others: that phase. The mean of the
    output does not see rolls of the input; the output itself does, as a mixture pairs other neighbours after a roll by
    one, so a net is exactly invariant only as the weights become one-hot. Source: Saha & Gokhale 2024, "Improving shift
    invariance in CNNs with translation invariant polyphase sampling".
    """

    def multiply_adds(self, channels: int) -> int:
        """The scores, and the sum over a tile."""
        return super().multiply_adds(channels) + channels * self.stride**2

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        x = self.tile(x)
        return weigh(self.phases(x), self.logits(x).softmax(1))


POOLS: dict[str, type[Pool]] = {"aps": APS, "lps": LPS, "tips": TIPS}
