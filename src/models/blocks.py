"""The pieces every architecture is made of, and the axes they share: each is defined here once."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from src.errors import Refusal
from src.ledger import ledger
from src.pooling import POOLS

if TYPE_CHECKING:
    from src.config import Model

#: maps (n, c, h, w): a Tensor, or torch.fx's stand-in while the ledger follows the net's graph
Maps: TypeAlias = Any

PADDINGS = ("zeros", "circular", "reflect", "replicate", "valid")
HEADS = ("gap", "flatten")
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "none": lambda channels: nn.Identity(),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Network(nn.Module):
    """A net as a row of named layers; the base of every architecture, plain PyTorch.

    Its layers are called in the order they were added. The names are part of the contract, the same in every
    architecture: ``stage1`` … ``stageN`` (a stage's output, after its downsampler), ``features`` (what the head reads,
    one vector an image) and ``logits``.

    Args:
        model: the config of the net.
        image: (channels, height, width) of its input.
        outputs: number of logits.

    Raises:
        ShapeError: a map would vanish, or a window is larger than its map.
    """

    def __init__(self, model: "Model", image: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.image = image
        self.order: list[str] = []
        self.build(model)
        self._add_head(model, outputs)

    def build(self, model: "Model") -> None:
        """Add the layers up to the last stage."""
        raise NotImplementedError

    def add(self, name: str, layer: nn.Module) -> None:
        """Append a layer."""
        self.add_module(name, layer)
        self.order.append(name)

    def forward(self, x: Maps) -> Maps:
        """Normalised images (n, c, h, w) → logits (n, outputs)."""
        for name in self.order:
            x = getattr(self, name)(x)
        return x

    @property
    def stages(self) -> list[str]:
        """Names of the stages, first to last."""
        return [name for name in self.order if name.startswith("stage")]

    def _add_head(self, model: "Model", outputs: int) -> None:
        channels, height, width = ledger(self, self.image).layers[-1].shape
        if model.head == "gap":
            self.add("features", nn.Sequential(OrderedDict(gap=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())))
        else:
            channels *= height * width
            self.add("features", nn.Flatten())
        if model.dropout and model.dropout_kind in ("unit", "both"):
            self.add("dropout", nn.Dropout(model.dropout))
        self.add("logits", nn.Linear(channels, outputs))


@dataclass(frozen=True)
class Stage:
    """One rung of the ladder: what the axes say about it."""

    name: str
    channels_in: int
    channels: int
    #: stride of the stage's last convolution: ``model.stride`` without pooling, else 1
    last_stride: int


def stages(model: "Model", channels: int) -> list[Stage]:
    """The stages of a model whose first one reads so many channels."""
    rungs = []
    for i in range(model.depth):
        width = min(model.width * 2**i, model.max_width)
        rungs.append(Stage(f"stage{i + 1}", channels, width, model.stride if model.pool == "none" else 1))
        channels = width
    return rungs


def convolution(model: "Model", channels_in: int, channels: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    """A convolution that keeps the map's size at stride 1 (unless ``padding=valid``); no bias before a norm."""
    valid = model.padding == "valid"
    conv = nn.Conv2d(
        channels_in,
        channels,
        kernel,
        stride,
        padding=0 if valid else kernel // 2,
        padding_mode="zeros" if valid else str(model.padding),  # type: ignore[arg-type]
        bias=model.norm == "none",
    )
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
    return conv


def downsampler(model: "Model", channels: int) -> "OrderedDict[str, nn.Module]":
    """What ends a stage: its pool, if it has one (with norm and activation where the pool is a layer), and dropout."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    pool = POOLS[model.pool]
    if pool is not None:
        border = "clip" if model.padding in ("zeros", "valid") else str(model.padding)
        try:
            layers["pool"] = pool(model.window, model.stride, border=border, channels=channels)
        except ValueError as error:
            raise Refusal(f"model.pool={model.pool}: {error}") from None
        if pool.is_layer:
            layers["pool_norm"] = NORMS[model.norm](channels)
            layers["pool_act"] = ACTIVATIONS[model.activation]()
    if model.dropout and model.dropout_kind in ("channel", "both"):
        layers["dropout"] = nn.Dropout2d(model.dropout)
    return layers
