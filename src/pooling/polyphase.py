"""Poolings that choose among, or weigh, the s² polyphase components ``x[i::s, j::s]`` of a map: aps, lps, tips."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import Pool, Size, at_least_single, samples, total
from .geometry import Window


class Polyphase(Pool):
    """What the phases share. ``kernel_size`` is not used; rows that complete the last phase of an odd map follow the
    border (``clip``: the edge repeated)."""

    @property
    def windows(self) -> list[Window]:
        """Any one sample of an s×s tile; which one depends on the whole map."""
        return [self.window(self.stride)]

    def phases(self, x: Float[Tensor, "n c H W"]) -> tuple[Float[Tensor, "n c p q"], ...]:
        """The s² phases of a map of whole tiles, row by row."""
        return samples(x, Window(self.stride, self.stride))

    def mean(self, x: Float[Tensor, "n 1 H W"]) -> Float[Tensor, "n phases"]:
        """Of each phase of a map of whole tiles, in float32 at least."""
        s = self.stride
        tiles = at_least_single(x).unflatten(2, (-1, s)).unflatten(4, (-1, s))
        means: Tensor = tiles.mean((1, 2, 4)).flatten(1)
        return means


def weigh(phases: Sequence[Float[Tensor, "n c p q"]], weights: Float[Tensor, "n phases"]) -> Float[Tensor, "n c p q"]:
    """The weighted sum of the phases; weights of 0 and 1 pick one, bit for bit, and gradients reach that one only."""
    columns = weights.to(phases[0].dtype)[..., None, None, None].unbind(1)
    return total(map(torch.mul, columns, phases))


def largest(values: Float[Tensor, "n phases"]) -> Float[Tensor, "n phases"]:
    """1 at the largest of each image, else 0."""
    return F.one_hot(values.argmax(1), values.shape[1]).to(values.dtype)


class APS(Polyphase):
    """Of the s² phases ``x[i::s, j::s]``, the one with the largest l2 norm over channels and positions together.

    A roll of the input permutes the phases but not their norms.
    """

    formula = "x[i::s, j::s] of largest ‖·‖₂"
    keeps = "constants, range; every kept sample bit for bit; aliases"
    exact = "circular, s | N, no ties: every roll of the input is a roll of the output, bit for bit"
    source = 'Chaman & Dokmanić 2021, "Truly shift-invariant convolutional neural networks"'

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride; gradients reach the kept phase only."""
        x = self.tile(x)
        energy = at_least_single(x.detach()).square().sum(1, keepdim=True)
        return weigh(self.phases(x), largest(self.mean(energy)))


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

    def multiply_adds(self, channels: int, read: Size, made: Size) -> int:
        """The score of each pixel of a tile."""
        return self.stride**2 * self.hidden * (channels + 1) * math.prod(made)

    def logits(self, x: Float[Tensor, "n c H W"]) -> Float[Tensor, "n phases"]:
        """One a phase, in float32 at least."""
        return self.mean(self.score(x))


class LPS(Scored):
    """The phase of the largest learned logit in eval, a Gumbel-softmax mixture of temperature ``tau`` in training.

    Not exact in training. Draws from torch's global generator.
    """

    formula = "x[i::s, j::s] of largest learned logit"
    keeps = "constants, range; every kept sample bit for bit (eval); aliases"
    exact = "circular, s | N, in eval: as aps, which it is with the phase's norm for logit; τ → 0 draws one phase"
    source = 'Rojas-Gomez et al. 2022, "Learnable polyphase sampling for shift invariant and equivariant CNNs"'
    differs = (
        "a phase's logit is the mean of a pointwise score; the authors' comes from two 3×3 circular "
        "convolutions of the phase"
    )

    tau: float = 1.0

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        x = self.tile(x)
        logits = self.logits(x)
        return weigh(self.phases(x), F.gumbel_softmax(logits, self.tau) if self.training else largest(logits))


class TIPS(Scored):
    """The phases in a learned mixture, the same in training and eval.

    A mixture pairs other neighbours after a roll by one, so a net is exactly invariant only as the weights become
    one-hot.
    """

    formula = "Σ softmax(logits) · x[i::s, j::s]"
    keeps = "constants, range"
    exact = "equal logits are avg with k = s; circular, s | N: the map's mean does not see rolls, the map does"
    source = 'Saha & Gokhale 2024, "Improving shift invariance in CNNs with translation invariant polyphase sampling"'
    differs = (
        "a phase's logit is the mean of a pointwise score; the authors' is convolutional, and two losses "
        "train it besides"
    )

    def multiply_adds(self, channels: int, read: Size, made: Size) -> int:
        """The scores, and the sum over a tile."""
        return super().multiply_adds(channels, read, made) + channels * self.stride**2 * math.prod(made)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        x = self.tile(x)
        return weigh(self.phases(x), self.logits(x).softmax(1))


POOLS: dict[str, type[Pool]] = {"aps": APS, "lps": LPS, "tips": TIPS}
