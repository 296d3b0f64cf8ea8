"""The options of a net: the group ``model`` of a config."""

from dataclasses import dataclass

from ..common.errors import UserError
from ..common.option_fields import choice_field, count_field, range_field
from ..common.registry import registered
from ..pooling import POOLS
from .layers import ACTIVATIONS, HEADS, NORMS, PADDINGS

#: names of the architectures: the other files of this folder
ARCHITECTURES = list(
    registered(__file__, without=("__init__", "blocks", "layers", "norm", "optimisers", "options", "tasks"))
)
#: of a net
MOST_CONVOLUTIONS = 2000


@dataclass
class Model:
    """A net of ``depth`` stages; a stage is ``convs`` × (convolution, norm, activation), then one downsampler.

    An architecture that lacks an option, or has its own value for it, refuses any other value.
    """

    name: str = choice_field("ladder", ARCHITECTURES)
    variant: str = ""  # of an architecture that has several: allconv a b c, vgg 11 13 16 19
    pool: str = choice_field("max", POOLS)  # the downsampler; none: the stage's last convolution has the stride
    pool_at: list[int] | None = None  # the stages that downsample, from 1; null: all (allconv: the first two)
    extra_conv: bool = False  # a control for pool=conv: its convolution, with stride 1, before each pool
    window: int | None = count_field(None)  # the pool's window; null: its own default, max(2, stride) for most
    stride: int = count_field(2)  # downsampling factor of a stage; 1: none
    depth: int = count_field(3)  # stages
    convs: int | None = count_field(2)  # convolutions per stage; null: the architecture's own
    width: int = count_field(16)  # channels of the first stage, doubling by stage …
    max_width: int = count_field(256)  # … up to here
    parameters: int | None = count_field(None)  # choose the width that comes nearest to this number; null: use width
    dropout: float = range_field(0.0, 0, 1, "a rate in [0, 1)")
    dropout_kind: str = choice_field("unit", ("unit", "channel", "both"))  # before the head; after each stage; both
    padding: str = choice_field("zeros", PADDINGS)
    norm: str = choice_field("batch", NORMS)
    bias: bool = True  # of convolutions without a norm
    activation: str = choice_field("relu", ACTIVATIONS)
    head: str = choice_field("gap", HEADS)

    def check(self) -> None:
        """Raise ``UserError`` for options that do not go together."""
        if self.depth * (self.convs or 1) > MOST_CONVOLUTIONS:
            raise UserError(
                f"model.depth={self.depth} times model.convs={self.convs}: at most {MOST_CONVOLUTIONS:,} convolutions"
            )
        if self.pool == "conv" and self.padding == "valid":
            raise UserError(
                "model.pool=conv cannot do without padding: with model.padding=valid its maps would be smaller than "
                "those of every other pool; take model.pool=none, or another padding"
            )
