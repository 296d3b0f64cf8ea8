"""Aliasing: the share of a map's energy that a strided layer aliases, as it lies above the new Nyquist frequency."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, fft, nn

from ...metrics.base import Measure
from ...metrics.quantities import Quantity
from ...metrics.rows import Row
from ...nets.hooks import eval_mode
from ...pooling import Pool
from ...pooling.polyphase import Polyphase
from ...stats.bootstrap import bootstrap_weights
from ..adapter import EvaluationSet, ModelAdapter, untransformed_batches
from ..fx import NO_STRIDE
from ..phase_tree import rolled

QUANTITIES = (
    Quantity("aliasing_fraction", low=0, high=1, better="lower",
        formula="energy above the Nyquist frequency of the strided map, before striding / total energy",
        null="1 - 1/s² for white noise at stride s; 0: band-limited",
        source="Shannon 1949; in CNNs, Azulay & Weiss 2019"),
)  # fmt: skip
#: fused batch norms would change the maps
FUSES_NORMS = False


class AliasingFraction(Measure):
    """The share of energy at frequencies above half a period in ``stride`` pixels, along either axis, in [0, 1]: the
    ratio of the mean energies.

    The maps are those before striding; after it, these frequencies cannot be distinguished from lower ones (Shannon
    1949; in CNNs: Azulay & Weiss 2019).

    >>> fraction, stripes = AliasingFraction(), torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    >>> fraction.update(stripes, 2)
    >>> fraction.compute()["aliasing_fraction"].item()
    1.0
    """

    higher_is_better = False

    @staticmethod
    def of_images(maps: Float[Tensor, "n c h w"], stride: int) -> Float[Tensor, "n 2"]:
        """Each image's energy above the new Nyquist frequency, and in total: means over frequencies and channels."""
        power = fft.fft2(maps.float() if maps.dtype == torch.half else maps).abs().square().mean(1)
        # in integers: with floats, rounding may put the new Nyquist frequency above itself
        periods = [torch.arange(n, device=maps.device) for n in maps.shape[2:]]
        above = [2 * stride * k.minimum(len(k) - k) > len(k) for k in periods]
        high = above[0][:, None] | above[1]
        return torch.stack([(power * high).mean((1, 2)), power.mean((1, 2))], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The ratio of both energies."""
        return {"aliasing_fraction": means[..., 0] / means[..., 1]}


def undecimated(layer: nn.Module, maps: Float[Tensor, "n c h w"], stride: int) -> Float[Tensor, "n _ H W"]:
    """A strided layer's output before striding: its outputs for the s² rolls of the map, interleaved.

    So it includes any filter of the layer. A pool that selects a phase has no filter: its input is returned.
    """
    if isinstance(layer, Polyphase):
        return maps
    n, h, w = len(maps), maps.shape[2] // stride * stride, maps.shape[3] // stride * stride
    phases = layer(rolled(maps[..., :h, :w], NO_STRIDE, (stride, stride)))
    c, p, q = phases.shape[1:]
    interleaved = phases.view(n, stride, stride, c, p, q).permute(0, 3, 4, 1, 5, 2)
    dense: Tensor = interleaved.reshape(n, c, p * stride, q * stride)
    return dense


def strided(net: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """(name, layer, stride) of the strided layers: convolutions and pools with equal strides above 1."""
    parts_of_pools = tuple(f"{name}." for name, module in net.named_modules() if isinstance(module, Pool))
    for name, layer in net.named_modules():
        kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, Pool)
        if isinstance(layer, kinds) and not name.startswith(parts_of_pools):
            sides = layer.stride if isinstance(layer.stride, tuple) else (layer.stride,) * 2
            if sides[0] == sides[1] > 1:
                yield name, layer, int(sides[0])


@torch.no_grad()
def aliasing(net: nn.Module, batches: Iterator[Float[Tensor, "n c h w"]]) -> dict[str, AliasingFraction]:
    """Layer → ``AliasingFraction``, of all strided layers, by one forward pass in eval mode for each batch."""
    metrics = {name: AliasingFraction() for name, _, _ in strided(net)}
    running: list[str] = []

    def update(layer: nn.Module, inputs: tuple[Tensor, ...], name: str, stride: int) -> None:
        if min(inputs[0].shape[2:]) >= 2 * stride and not running:
            running.append(name)  # ``undecimated`` calls the layer, and so this hook, again
            metrics[name].update(undecimated(layer, inputs[0], stride), stride)
            running.pop()

    with ExitStack() as stack:
        stack.enter_context(eval_mode(net))
        for name, layer, stride in strided(net):
            hook = layer.register_forward_pre_hook(partial(update, name=name, stride=stride))
            stack.callback(hook.remove)
        for batch in batches:
            net(batch)
    return {name: metric for name, metric in metrics.items() if metric.update_called}


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row]:
    """The aliasing fraction of every strided layer."""
    metrics = aliasing(adapter.net, untransformed_batches(adapter, test_set))
    weights = bootstrap_weights(len(test_set.padded), test_set.seed)
    for layer, metric in metrics.items():
        for name, estimate in metric.estimates(weights):
            yield Row(layer, "none", "subsampling", 0, name, estimate)
