"""The options of a net: the group ``model`` of a config."""

from dataclasses import dataclass

from ..errors import UserError
from ..fields import choice, count, within
from ..pooling import POOLS
from ..registry import registered
from .layers import ACTIVATIONS, HEADS, NORMS, PADDINGS

#: files of this folder that are no architectures
_SHARED = ("__init__", "blocks", "layers", "norm", "optimisers", "options", "tasks")
#: the file's name is the architecture's
ARCHITECTURES = list(registered(__file__, without=_SHARED))


@dataclass
class Model:
    """A net: a ladder of stages; a stage is ``convs`` × (convolution, norm, activation), then one downsampler.

    An architecture that lacks an axis, or has its own value for it, says so and refuses any other.
    """

    name: str = choice("ladder", ARCHITECTURES)
    variant: str = ""  # of an architecture that has several: allconv a b c, vgg 11 13 16 19
    pool: str = choice("max", POOLS)  # how a stage shrinks its map; none: its last convolution carries the stride
    pool_at: list[int] | None = None  # the stages that shrink, counted from 1; null: all (allconv: the first two)
    extra_conv: bool = False  # the convolution of pool=conv, at stride 1, before each pool: the control of its size
    window: int | None = count(None)  # the pool's window; null: its own default, max(2, stride) for most
    stride: int = count(2)  # how much a stage shrinks its map; 1: not at all
    depth: int = count(3)  # stages
    convs: int | None = count(2)  # convolutions a stage; null: the architecture's own
    width: int = count(16)  # channels of the first stage, doubling by stage …
    max_width: int = count(256)  # … up to here
    parameters: int | None = count(None)  # null: width stands; a number: the width that comes nearest to so many
    dropout: float = within(0.0, 0, 1, "a rate in [0, 1)")
    dropout_kind: str = choice("unit", ("unit", "channel", "both"))  # before the head; after each stage; both
    padding: str = choice("zeros", PADDINGS)
    norm: str = choice("batch", NORMS)
    bias: bool = True  # of convolutions that no norm follows
    activation: str = choice("relu", ACTIVATIONS)
    head: str = choice("gap", HEADS)

    def check(self) -> None:
        """Raises:
        UserError: options that do not go together.
        """
        if self.pool == "conv" and self.padding == "valid":
            raise UserError(
                "model.pool=conv cannot do without padding: with model.padding=valid its maps would be smaller than "
                "those of every other pool; take model.pool=none, or another padding"
            )
