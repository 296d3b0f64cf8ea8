"""Maximum-sampling bias: the share of windows of a strided layer whose output is the window's largest sample."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...metrics.base import Measure
from ...metrics.quantities import Quantity
from ...metrics.rows import Row
from ...nets.hooks import eval_mode
from ...pooling import Pool
from ...pooling.base import unfold_windows
from ...pooling.geometry import pair
from ...pooling.windows import Avg
from ...stats.bootstrap import bootstrap_weights
from ..adapter import EvaluationSet, ModelAdapter, untransformed_batches
from .aliasing import strided, undecimated

QUANTITIES = (
    Quantity("maximum_sampling_bias", low=0, high=1,
        formula="share of windows whose output is the window's largest sample; windows of equal samples left out",
        null="maximum_sampling_bias_null; 1: max pooling; 0: any mean of more than one sample",
        source="Saha & Gokhale 2024"),
)  # fmt: skip
#: fused batch norms would change the maps
FUSES_NORMS = False
#: samples count as equal if they differ by at most this share of the window's range
TOLERANCE = 1e-5


class MaximumSamplingBias(Measure):
    """The share of windows whose output is their largest sample, in [0, 1], and the same of a sample drawn at random
    from each window (``…_null``). Windows whose samples are all equal, as those of zeros behind a ReLU, say nothing and
    are left out.

    >>> bias, x = MaximumSamplingBias(), torch.rand(2, 3, 8, 8)
    >>> bias.update(nn.MaxPool2d(2)(x), window_samples(x, Avg(2)))
    >>> [round(value.item(), 6) for value in bias.compute().values()]
    [1.0, 0.25]
    """

    @staticmethod
    def of_images(outputs: Float[Tensor, "n c p q"], samples: Float[Tensor, "k n c p q"]) -> Float[Tensor, "n 3"]:
        """For each image: the share of windows that have unequal samples, of those whose output is the largest sample
        too, and that expected of a random sample. A sample beyond a clipped border is nan.
        """
        outside = samples.isnan()
        largest = samples.masked_fill(outside, -torch.inf).amax(0)
        smallest = samples.masked_fill(outside, torch.inf).amin(0)
        reach = TOLERANCE * (largest - smallest)
        counts = largest > smallest

        def share(hits: Bool[Tensor, "... n c p q"] | Float[Tensor, "n c p q"]) -> Float[Tensor, " n"]:
            return (hits * counts).double().mean((1, 2, 3))

        hits = (outputs - largest).abs() <= reach
        at_random = ((largest - samples).abs() <= reach).double().sum(0) / (~outside).sum(0)
        return torch.stack([share(counts), share(hits), share(at_random)], 1)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The ratios to the share of windows with unequal samples."""
        return {
            "maximum_sampling_bias": means[..., 1] / means[..., 0],
            "maximum_sampling_bias_null": means[..., 2] / means[..., 0],
        }


def window_samples(maps: Float[Tensor, "n c h w"], pool: Pool) -> Float[Tensor, "k n c p q"]:
    """The k samples of each window of a pool; nan beyond a clipped border."""
    window = pool.windows[0]
    window = pool.window(window.kernel) if window.stride != pool.stride else window  # maxblur: its maximum's window
    return torch.stack(unfold_windows(pool.pad(maps, window, fill=torch.nan), window))


def compared(
    layer: nn.Module, maps: Float[Tensor, "n c h w"], outputs: Tensor, stride: int
) -> tuple[Tensor, Float[Tensor, "k n c p q"]]:
    """Outputs of a strided layer, and the samples of the windows that each could be taken from.

    Of a pool, they are those of its window. A layer with weights, as a strided convolution, mixes channels: there they
    are the outputs that the layer gives for the s² rolls of its input, of which a stride keeps one.
    """
    if isinstance(layer, Pool) and not layer.is_layer:
        return outputs / layer.gain, window_samples(maps, layer)
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        kernel, padding = pair(layer.kernel_size)[0], pair(layer.padding)[0]
        return outputs, window_samples(maps, Avg(kernel, stride, padding, ceil_mode=layer.ceil_mode))
    dense = undecimated(layer, maps, stride)
    return dense[..., ::stride, ::stride], window_samples(dense, Avg(stride, stride))


@torch.no_grad()
def maximum_sampling(net: nn.Module, batches: Iterator[Float[Tensor, "n c h w"]]) -> dict[str, MaximumSamplingBias]:
    """Layer → ``MaximumSamplingBias``, by one forward pass in eval mode for each batch; of all strided layers but those
    whose windows are not all alike (``fractional``).
    """
    layers = [(name, layer, stride) for name, layer, stride in strided(net) if _has_regular_windows(layer)]
    metrics = {name: MaximumSamplingBias() for name, _, _ in layers}
    running: list[str] = []

    def update(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str, stride: int) -> None:
        if min(inputs[0].shape[2:]) >= 2 * stride and not running:
            running.append(name)  # ``undecimated`` calls the layer, and so this hook, again
            metrics[name].update(*compared(layer, inputs[0], output, stride))
            running.pop()

    with ExitStack() as stack:
        stack.enter_context(eval_mode(net))
        for name, layer, stride in layers:
            stack.callback(layer.register_forward_hook(partial(update, name=name, stride=stride)).remove)
        for batch in batches:
            net(batch)
    return {name: metric for name, metric in metrics.items() if metric.update_called}


def _has_regular_windows(layer: nn.Module) -> bool:
    return not isinstance(layer, Pool) or layer.commutes_with_rolls


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row]:
    """The maximum-sampling bias of every strided layer."""
    metrics = maximum_sampling(adapter.net, untransformed_batches(adapter, test_set))
    weights = bootstrap_weights(len(test_set.padded), test_set.seed)
    for layer, metric in metrics.items():
        for name, estimate in metric.estimates(weights):
            yield Row(layer, "none", "subsampling", 0, name, estimate)
