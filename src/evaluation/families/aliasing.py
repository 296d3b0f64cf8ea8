"""Aliasing: how much of what a layer subsamples lies above the new Nyquist frequency, and comes back as another one."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, fft, nn

from ...metrics.base import Measure, resamples
from ...metrics.rows import Row
from ...nets.hooks import eval_mode
from ...pooling import Pool
from ...pooling.polyphase import Polyphase
from ..adapter import EvaluationSet, ModelAdapter, untransformed_batches
from ..fx import ONE
from ..phase_tree import rolled

#: a norm folded into its convolution would change what is looked at
FOLDS_NORMS = False


def aliasing_fraction(maps: Float[Tensor, "n c h w"], stride: int) -> Float[Tensor, ""]:
    """Energy above half a period in ``stride`` pixels, on either axis, over the whole energy; in [0, 1].

    Of the map as it is before every ``stride``-th sample is taken: these frequencies cannot be told from lower ones
    afterwards (Shannon 1949; in nets: Azulay & Weiss 2019).

    >>> stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    >>> [aliasing_fraction(x, 2).item() for x in (stripes, torch.ones(1, 1, 8, 8))]
    [1.0, 0.0]
    """
    means = AliasingFraction.energies(maps, stride).mean(0)
    return means[0] / means[1]


class AliasingFraction(Measure):
    """``aliasing_fraction`` over all images: the energies' means are divided."""

    higher_is_better = False

    @staticmethod
    def energies(maps: Float[Tensor, "n c h w"], stride: int) -> Float[Tensor, "n 2"]:
        """Of each image: above the new Nyquist frequency, and in all; a mean over frequencies and channels."""
        power = fft.fft2(maps.float() if maps.dtype == torch.half else maps).abs().square().mean(1)
        # in whole numbers: as a float, the new Nyquist frequency itself may lie above itself
        periods = [torch.arange(n, device=maps.device) for n in maps.shape[2:]]
        above = [2 * stride * one.minimum(len(one) - one) > len(one) for one in periods]
        high = above[0][:, None] | above[1]
        return torch.stack([(power * high).mean((1, 2)), power.mean((1, 2))], 1)

    def of_images(self, maps: Float[Tensor, "n c h w"], stride: int) -> Float[Tensor, "n k"]:
        """The two energies."""
        return self.energies(maps, stride)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """One number."""
        return {"aliasing_fraction": means[..., 0] / means[..., 1]}


def undecimated(layer: nn.Module, maps: Float[Tensor, "n c h w"], stride: int) -> Float[Tensor, "n _ H W"]:
    """A strided layer's output before samples are left out: its outputs for the map's s² rolls, interleaved.

    So whatever filters first, filters here too. A pool that picks a phase filters nothing: its input itself.
    """
    if isinstance(layer, Polyphase):
        return maps
    n, h, w = len(maps), maps.shape[2] // stride * stride, maps.shape[3] // stride * stride
    parts = layer(rolled(maps[..., :h, :w], ONE, (stride, stride)))
    c, p, q = parts.shape[1:]
    whole = parts.view(n, stride, stride, c, p, q).permute(0, 3, 4, 1, 5, 2)
    dense: Tensor = whole.reshape(n, c, p * stride, q * stride)
    return dense


def strided(net: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """(name, layer, stride) of the layers that subsample: convolutions and pools with a square stride above 1."""
    inside = [f"{name}." for name, one in net.named_modules() if isinstance(one, Pool)]
    for name, layer in net.named_modules():
        kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, Pool)
        if isinstance(layer, kinds) and not name.startswith(tuple(inside)):
            sides = layer.stride if isinstance(layer.stride, tuple) else (layer.stride,) * 2
            if sides[0] == sides[1] > 1:
                yield name, layer, int(sides[0])


@torch.no_grad()
def aliasing(net: nn.Module, batches: Iterator[Float[Tensor, "n c h w"]]) -> dict[str, AliasingFraction]:
    """``AliasingFraction`` of every layer of a net that subsamples, one forward pass a batch.

    Args:
        net: run in eval mode.
        batches: what it takes.
    """
    found = {name: AliasingFraction() for name, _, _ in strided(net)}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], name: str, stride: int) -> None:
        if min(inputs[0].shape[2:]) >= 2 * stride and not busy:
            busy.append(name)  # the layer is called again here
            found[name].update(undecimated(layer, inputs[0], stride), stride)
            busy.pop()

    busy: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(eval_mode(net))
        for name, layer, stride in strided(net):
            hook = layer.register_forward_pre_hook(partial(look, name=name, stride=stride))
            stack.callback(hook.remove)
        for batch in batches:
            net(batch)
    return {name: one for name, one in found.items() if one.update_called}


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row]:
    """Aliasing fraction of every layer that subsamples."""
    found = aliasing(adapter.net, untransformed_batches(adapter, test_set))
    weights = resamples(len(test_set.canvas), test_set.seed)
    for layer, measure in found.items():
        for name, estimate in measure.estimates(weights):
            yield Row(layer, "none", "subsampling", 0, name, estimate)
