"""The exactness matrix: pool × padding × protocol, and how much of a small net's answer a shift changes. By running."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, fft, nn

from ..errors import UserError
from ..fields import refuse_wrong_values
from ..models import architecture
from ..models.blocks import Network
from ..models.layers import PADDINGS
from ..models.options import Model
from ..nets.hooks import record_outputs
from ..pooling import POOLS
from ..transforms import SHIFTS, roll

#: below this, a change is rounding: nets in float64, a few layers deep
ROUNDING = 1e-10
CHANNELS, OUTPUTS = 3, 10

#: protocol → what is watched, and what is done; S is the total stride
PROTOCOLS = {
    "roll": "Logits, roll by any shift",
    "roll by S": "Logits, roll by multiples of S",
    "roll, map": "Last map but for a roll, roll by any shift",
    "crop": "Logits, crop by any shift",
}


@dataclass(frozen=True)
class Setting:
    """The nets and the shifts: ladders of ``depth`` stages, one convolution each, with random weights, in eval.

    Attributes:
        size: of the images, in pixels a side.
        stride: of each stage.
        head: ``gap`` or ``flatten``.
        depth: stages.
        images: of white noise.
        shifts: drawn for each image and protocol, at most ``margin`` along each axis.
        seed: of weights, images and shifts.
    """

    size: int = 32
    stride: int = 2
    head: str = "gap"
    depth: int = 2
    images: int = 4
    shifts: int = 8
    seed: int = 0

    @property
    def total(self) -> int:
        """The total stride S."""
        return int(self.stride**self.depth)

    @property
    def margin(self) -> int:
        """Largest shift, in pixels: two of the total stride, and more than one pixel."""
        return 2 * max(self.total, 2)


@dataclass(frozen=True)
class Cell:
    """One pool, padding and protocol: the relative change ``‖f(gx) − f(x)‖ / ‖f(x)‖`` over all images and shifts.

    Both numbers are nan where the pool is not defined with this padding or stride.
    """

    pool: str
    padding: str
    protocol: str
    median: float
    largest: float

    @property
    def exact(self) -> bool:
        """Whether no shift changes more than rounding does."""
        return self.largest < ROUNDING


def exactness(setting: Setting, pools: Sequence[str] = tuple(POOLS)) -> Iterator[list[Cell]]:
    """Of each pool and padding, in the order of ``pools`` and ``PADDINGS``, the cells of all protocols.

    Raises:
        UserError: not even a net without pooling can be built with this setting; at once, before the first cell.
    """
    model = Model(stride=setting.stride, depth=setting.depth, head=setting.head, width=8, convs=1)
    _network(model, setting, "none", "zeros")
    return (_cells(model, setting, pool, padding) for pool in pools for padding in PADDINGS)


def _cells(model: Model, setting: Setting, pool: str, padding: str) -> list[Cell]:
    try:
        changes = _changes(_network(model, setting, pool, padding), setting)
    except UserError:
        changes = dict.fromkeys(PROTOCOLS, torch.full((1,), torch.nan))
    return [Cell(pool, padding, protocol, x.median().item(), x.max().item()) for protocol, x in changes.items()]


def _network(model: Model, setting: Setting, pool: str, padding: str) -> Network:
    """As after training: no weight is where it started, and the norms have statistics of their own."""
    model = replace(model, pool=pool, padding=padding)
    refuse_wrong_values(model, "model.")
    model.check()
    torch.manual_seed(setting.seed)
    net = architecture(model.name)(model, (CHANNELS, setting.size, setting.size), OUTPUTS).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for name, parameter in net.named_parameters():
        if ".pool." in name:
            nn.init.normal_(parameter, std=0.5)
    return net.eval()


def _shifts(setting: Setting, step: int, generator: torch.Generator) -> Int64[Tensor, "n 2"]:
    """Uniform over the multiples of ``step`` up to ``margin`` along both axes, (0, 0) left out."""
    reach = setting.margin // step
    places = torch.randint((2 * reach + 1) ** 2 - 1, (setting.images * setting.shifts,), generator=generator)
    places += places >= (2 * reach + 1) ** 2 // 2
    return step * torch.stack([places // (2 * reach + 1) - reach, places % (2 * reach + 1) - reach], 1)


def _changes(net: Network, setting: Setting) -> dict[str, Float[Tensor, " n"]]:
    """Of each protocol, all relative changes."""
    generator = torch.Generator().manual_seed(setting.seed)
    side, margin, stage = setting.size + 2 * setting.margin, setting.margin, net.stages[-1]
    canvas = torch.randn(setting.images, CHANNELS, side, side, generator=generator, dtype=torch.float64)
    canvas = canvas.repeat_interleave(setting.shifts, 0)
    anyhow, multiples = (_shifts(setting, step, generator) for step in (1, setting.total))
    with record_outputs(net, [stage]) as maps, torch.no_grad():

        def run(protocol: str, shifts: Tensor) -> tuple[Tensor, Tensor]:
            logits = net(SHIFTS[protocol](canvas, shifts, margin))
            return logits, maps[stage]

        logits, still = run("roll", torch.zeros_like(anyhow))
        rolled, moved = run("roll", anyhow)
        return dict(
            zip(
                PROTOCOLS,
                (
                    change(logits, rolled),
                    change(logits, run("roll", multiples)[0]),
                    change_up_to_rolls(still, moved),
                    change(logits, run("crop", anyhow)[0]),
                ),
                strict=True,
            )
        )


def change(still: Float[Tensor, "n ..."], moved: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """``‖moved − still‖ / ‖still‖`` of each image."""
    relative: Tensor = (moved - still).flatten(1).norm(dim=1) / still.flatten(1).norm(dim=1)
    return relative


def change_up_to_rolls(still: Float[Tensor, "n c h w"], moved: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """The same after the roll of the still map that fits best: 0 where the map has only moved."""
    overlap = fft.ifft2((fft.fft2(still).conj() * fft.fft2(moved)).sum(1)).real
    best = overlap.flatten(1).argmax(1)
    width = still.shape[3]
    return change(roll(still, torch.stack([best // width, best % width], 1)), moved)
