"""Building blocks of the architectures: ``Network``, stages, convolutions, downsamplers."""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

from ..common.errors import UserError
from ..pooling import POOLS, Pool
from ..pooling.base import circular_pad
from ..pooling.learned import Conv
from ..summary import summarize
from .layers import ACTIVATIONS, CONTINUED, HEADS, NORMS
from .options import Model

#: maps (n, c, h, w): a Tensor, or a ``torch.fx.Proxy`` while the model summary traces the net
Maps: TypeAlias = Any

#: ``Network.unsupported_axes`` of a net without feature maps
NO_MAPS: dict[str, Any] = {"variant": "", "convs": None, "max_width": 256, "padding": "zeros", "head": "flatten"}
NO_MAPS |= {"pool": "none", "pool_at": None, "extra_conv": False, "window": None, "stride": 1}
#: ``Network.unsupported_axes`` of a linear classifier on fixed features
NO_LAYERS: dict[str, Any] = NO_MAPS | {"depth": 1, "norm": "none", "bias": True, "activation": "relu"}


class Network(nn.Module):
    """A sequence of named layers; the base class of every architecture.

    Every architecture has layers of these names: ``stage1`` … ``stageN`` (a stage with its downsampler), ``features``
    (the head's input, one vector per image) and ``logits``.

    Args:
        model: the config of the net.
        image: (channels, height, width) of its input.
        outputs: number of outputs.

    Raises:
        ShapeError: a map would vanish, or a window is larger than its map.
        UserError: an option is set that the architecture does not have; or ``build`` names stages in another way.
    """

    #: options of ``Model`` that this architecture does not have → the only value it accepts
    unsupported_axes: ClassVar[dict[str, Any]] = {"variant": ""}
    #: values of ``model.variant``, if it has variants
    variants: ClassVar[tuple[str, ...]] = ()
    #: its own default of ``model.window``, in ``conf/model/``, which pools without a window take no notice of
    window: ClassVar[int | None] = None

    def __init__(self, model: Model, image: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self._refuse(model)
        self.image = image
        self.order: list[str] = []
        self.build(model)
        self._check_stages()
        self._add_head(model, outputs)

    def build(self, model: Model) -> None:
        """Add the layers up to the last stage."""
        raise NotImplementedError

    def fit(self, images: UInt8[Tensor, "n c h w"], normalise: Callable[[Tensor], Tensor]) -> None:
        """Fit parameters that gradients do not train to the training images, before training; most nets have none."""

    def add(self, name: str, layer: nn.Module) -> None:
        """Append a layer.

        Raises:
            UserError: the net has something of that name already.
        """
        if hasattr(self, name):
            there = "a layer" if name in self.order else "an attribute"
            raise UserError(f"{self._file()}: adds {name}, the name of {there} that the net has already")
        self.add_module(name, layer)
        self.order.append(name)

    def forward(self, x: Maps) -> Maps:
        """Normalised images (n, c, h, w) → outputs (n, outputs)."""
        for name in self.order:
            x = getattr(self, name)(x)
        return x

    @property
    def stages(self) -> list[str]:
        """Names of the stages, first to last."""
        return [name for name in self.order if name.startswith("stage")]

    def _check_stages(self) -> None:
        """Refuse stages of other names than ``stage1`` … ``stageN``, by which all else finds them; a net whose class
        has no axis ``depth`` may have none.
        """
        right = [f"stage{number}" for number, _ in enumerate(self.stages, 1)]
        if self.stages != right or not (right or "depth" in self.unsupported_axes):
            names = ", ".join(self.order) or "nothing"
            raise UserError(f"{self._file()}: adds {names}; its stages must be stage1, stage2 … in this order")
        for name in {"features", "logits"} & {*self.order}:
            raise UserError(f"{self._file()}: adds {name}, which the base class adds")

    @classmethod
    def _file(cls) -> str:
        """The file of the architecture, for messages."""
        return f"{cls.__module__.replace('.', '/')}.py"

    @classmethod
    def _refuse(cls, model: Model) -> None:
        for key, value in cls.unsupported_axes.items():
            if (asked := getattr(model, key)) != value:
                reason = f"model={model.name} has no such axis, leave it at {_plain(value)}"
                raise UserError(f"model.{key}={_plain(asked)}: {reason}")
        pool = POOLS[model.pool]
        if model.window not in (None, cls.window) and (pool is None or pool.tiled) and not model.extra_conv:
            raise UserError(f"model.window={model.window}: model.pool={model.pool} has no window; leave it at null")
        if cls.variants and model.variant not in cls.variants:
            raise UserError(
                f"model.variant={_plain(model.variant)}: for model={model.name} choose one of {', '.join(cls.variants)}"
            )

    def _add_head(self, model: Model, outputs: int) -> None:
        layers = summarize(self, self.image, tight=True).layers
        channels, height, width = layers[-1].shape if layers else self.image
        if (pool := HEADS[model.head]) is None:
            channels *= height * width
            self.add("features", nn.Flatten())
        else:
            self.add("features", nn.Sequential(OrderedDict([(model.head, pool(channels)), ("flatten", nn.Flatten())])))
        if model.dropout and model.dropout_kind in ("unit", "both"):
            self.add("dropout", nn.Dropout(model.dropout))
        self.add("logits", nn.Linear(channels, outputs))


def _plain(value: Any) -> str:
    """A value as written on a command line: ``null``, ``true``, ``max``."""
    return str(value) if isinstance(value, str) and value else json.dumps(value)


@dataclass(frozen=True)
class Stage:
    """The shape of a stage."""

    name: str
    channels_in: int
    channels: int
    downsamples: bool  # by ``model.stride``
    last_stride: int  # of the last convolution: ``model.stride`` if the stage downsamples without a pool, else 1


def channels_of(model: Model, stage: int) -> int:
    """Channels of a stage, counted from 1: ``width``, doubled from stage to stage up to ``max_width``."""
    return int(min(model.width * 2 ** (stage - 1), model.max_width))


def stages(model: Model, channels_in: int, downsampling: Sequence[int] | None = None) -> list[Stage]:
    """The stages of a net whose first stage takes ``channels_in`` channels.

    ``downsampling`` names the stages that downsample if ``model.pool_at`` is null; None: all.

    Raises:
        UserError: ``model.pool_at`` names a stage that does not exist, or a stage twice.
    """
    numbers = range(1, model.depth + 1)
    at = model.pool_at if model.pool_at is not None else downsampling or numbers
    if not set(at) <= set(numbers) or len(set(at)) < len(at):
        raise UserError(f"model.pool_at={at}: must name stages from 1 to {model.depth}, each at most once")
    stage_list = []
    for i in numbers:
        last_stride = model.stride if i in at and model.pool == "none" else 1
        stage_list.append(Stage(f"stage{i}", channels_in, channels_of(model, i), i in at, last_stride))
        channels_in = channels_of(model, i)
    return stage_list


class CircularConv2d(nn.Conv2d):
    """``nn.Conv2d(padding_mode="circular")``, bit for bit, that keeps channels_last maps: 3/4 of the time on a CPU."""

    def forward(self, x: Maps) -> Maps:
        """Maps (n, c, h, w) → (n, channels, h/stride, w/stride)."""
        rows, columns = map(int, self.padding)
        x = circular_pad(circular_pad(x, rows, rows, 2), columns, columns, 3)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def convolution(
    model: Model,
    channels_in: int,
    channels: int,
    stride: int = 1,
    kernel: int = 3,
    groups: int = 1,
    bias: bool | None = None,
) -> nn.Conv2d:
    """A convolution that keeps the map's size at stride 1 (except with ``full`` and ``valid`` padding).

    ``bias`` None: only if ``model.norm`` is none, as a norm has a bias of its own.
    """
    conv = (CircularConv2d if model.padding == "circular" else nn.Conv2d)(
        channels_in,
        channels,
        kernel,
        stride,
        padding=kernel // 2 + growth(model, kernel),
        groups=groups,
        padding_mode=str(model.padding) if model.padding in CONTINUED else "zeros",  # type: ignore[arg-type]
        bias=model.bias and (model.norm == "none" if bias is None else bias),
    )
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
    return conv


def growth(model: Model, kernel: int) -> int:
    """Pixels by which a k×k convolution of stride 1 grows each side of its map: 0, or ±(k // 2) (``full``, ``valid``).

    A shortcut around the convolution must be padded by as many.
    """
    return {"full": kernel // 2, "valid": -(kernel // 2)}.get(str(model.padding), 0)


def unit(model: Model, channels_in: int, channels: int, name: str = "", **conv: Any) -> "OrderedDict[str, nn.Module]":
    """Convolution, norm, activation, under the names ``conv…``, ``norm…``, ``act…``."""
    return OrderedDict(
        [
            (f"conv{name}", convolution(model, channels_in, channels, **conv)),
            (f"norm{name}", NORMS[model.norm](channels)),
            (f"act{name}", ACTIVATIONS[model.activation]()),
        ]
    )


def downsampler(model: Model, stage: Stage) -> "OrderedDict[str, nn.Module]":
    """The layers after a stage's convolutions that downsample it: the extra convolution if any, then the pool.

    The extra convolution is the layer of ``model.pool=conv``, with stride 1.

    Raises:
        UserError: the extra convolution does not go with ``model.pool`` or ``model.padding``.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stage.downsamples and model.extra_conv:
        for key, wrong, right in (("pool", "none", "model.pool=conv"), ("padding", "valid", "another padding")):
            if getattr(model, key) == wrong:
                raise UserError(f"model.extra_conv=true: does not go with model.{key}={wrong}; take {right}")
        window = model.window or Conv.default_window(model.stride)
        layers |= _pool(model, "extra", Conv, stage.channels, window, 1)
    if stage.downsamples and (pool := POOLS[model.pool]):
        layers |= _pool(model, "pool", pool, stage.channels, model.window, model.stride)
    return layers


def dropout(model: Model, layer: type[nn.Module] = nn.Dropout2d) -> "OrderedDict[str, nn.Module]":
    """The last layer of a stage: dropout of whole channels, if ``model.dropout_kind`` includes it."""
    used = model.dropout and model.dropout_kind in ("channel", "both")
    return OrderedDict([("dropout", layer(model.dropout))] if used else [])


def _pool(
    model: Model, name: str, pool: type[Pool], channels: int, window: int | None, stride: int
) -> "OrderedDict[str, nn.Module]":
    """A pool, followed by norm and activation if it is a layer."""
    border = str(model.padding) if model.padding in CONTINUED else "clip"
    try:
        layers = OrderedDict[str, nn.Module]({name: pool(window, stride, border=border, channels=channels)})
    except ValueError as error:
        raise UserError(f"model.pool={model.pool}: {error}") from None
    if pool.is_layer:
        layers[f"{name}_norm"] = NORMS[model.norm](channels)
        layers[f"{name}_act"] = ACTIVATIONS[model.activation]()
    return layers
