"""The exactness matrix, pool × padding × protocol: how much a shift changes a small net's output, by running it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, fft, nn

from ..common.errors import UserError
from ..common.memory import refuse_too_large
from ..common.option_fields import check_fields
from ..models import architecture
from ..models.blocks import Network
from ..models.layers import PADDINGS
from ..models.options import Model
from ..nets.hooks import record_outputs
from ..pooling import POOLS
from ..transforms import SHIFTS, roll

#: a relative change below this is rounding: nets in float64, a few layers deep
ROUNDING = 1e-10
CHANNELS, OUTPUTS = 3, 10

#: protocol → the output that is compared, and the shift; S is the total stride
PROTOCOLS = {
    "roll": "Logits, roll by any shift",
    "roll by S": "Logits, roll by multiples of S",
    "roll, map": "Last map but for a roll, roll by any shift",
    "crop": "Logits, crop by any shift",
}


@dataclass
class Setting:
    """Plain CNNs of ``depth`` stages, one convolution each, with random weights, in eval mode; and the shifts."""

    size: int = 32  # of the images, in pixels a side
    stride: int = 2  # of each stage
    head: str = "gap"  # or flatten
    depth: int = 2
    images: int = 4  # of white noise
    shifts: int = 8  # drawn for each image and protocol, of at most ``margin`` along each axis
    seed: int = 0  # of weights, images and shifts

    @property
    def total(self) -> int:
        """The total stride S."""
        return int(self.stride**self.depth)

    @property
    def margin(self) -> int:
        """Largest shift, in pixels: twice the total stride, and more than one pixel."""
        return 2 * max(self.total, 2)


@dataclass(frozen=True)
class Cell:
    """A pool, a padding and a protocol: median and maximum of ``‖f(gx) − f(x)‖ / ‖f(x)‖`` over all images and shifts;
    nan where the pool is not defined with this padding or stride.
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
    """The cells of all protocols for each pool and padding, in the order of ``pools`` and ``PADDINGS``; ``UserError``,
    at once, if not even a net without pooling can be built with this setting.
    """
    model = Model(stride=setting.stride, depth=setting.depth, head=setting.head, width=8, convs=1)
    side = setting.size + 2 * setting.margin
    refuse_too_large(f"size={setting.size}, {setting.images} images", 24 * setting.images * setting.shifts * side**2)
    _network(model, setting, "none", "zeros")
    return (_cells(model, setting, pool, padding) for pool in pools for padding in PADDINGS)


def _cells(model: Model, setting: Setting, pool: str, padding: str) -> list[Cell]:
    try:
        changes = _changes(_network(model, setting, pool, padding), setting)
    except UserError:
        changes = dict.fromkeys(PROTOCOLS, torch.full((1,), torch.nan))
    return [Cell(pool, padding, protocol, x.median().item(), x.max().item()) for protocol, x in changes.items()]


def _network(model: Model, setting: Setting, pool: str, padding: str) -> Network:
    """A net as after training: all weights differ from their initial values, and norms have statistics."""
    model = replace(model, pool=pool, padding=padding)
    check_fields(model, "model.")
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
    """Shifts (down, right), uniform over the multiples of ``step`` up to ``margin`` along both axes, without (0, 0)."""
    reach = setting.margin // step
    side = 2 * reach + 1
    index = torch.randint(side**2 - 1, (setting.images * setting.shifts,), generator=generator)
    index += index >= side**2 // 2
    return step * torch.stack([index // side - reach, index % side - reach], 1)


def _changes(net: Network, setting: Setting) -> dict[str, Float[Tensor, " n"]]:
    """Protocol → the relative change of every image and shift."""
    generator = torch.Generator().manual_seed(setting.seed)
    side, margin, stage = setting.size + 2 * setting.margin, setting.margin, net.stages[-1]
    padded = torch.randn(setting.images, CHANNELS, side, side, generator=generator, dtype=torch.float64)
    padded = padded.repeat_interleave(setting.shifts, 0)
    shifts, multiples = (_shifts(setting, step, generator) for step in (1, setting.total))
    with record_outputs(net, [stage]) as maps, torch.no_grad():

        def run(protocol: str, by: Tensor) -> tuple[Tensor, Tensor]:
            logits = net(SHIFTS[protocol](padded, by, margin))
            return logits, maps[stage]

        logits, last_map = run("roll", torch.zeros_like(shifts))
        rolled, rolled_map = run("roll", shifts)
        changes = (
            change(logits, rolled),
            change(logits, run("roll", multiples)[0]),
            change_up_to_rolls(last_map, rolled_map),
            change(logits, run("crop", shifts)[0]),
        )
        return dict(zip(PROTOCOLS, changes, strict=True))


def change(reference: Float[Tensor, "n ..."], shifted: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """``‖shifted − reference‖ / ‖reference‖`` of each image."""
    relative: Tensor = (shifted - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)
    return relative


def change_up_to_rolls(reference: Float[Tensor, "n c h w"], shifted: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """``change`` after the roll of the reference map that fits best: 0 if the map has only moved."""
    correlation = fft.ifft2((fft.fft2(reference).conj() * fft.fft2(shifted)).sum(1)).real
    best = correlation.flatten(1).argmax(1)
    width = reference.shape[3]
    return change(roll(reference, torch.stack([best // width, best % width], 1)), shifted)
