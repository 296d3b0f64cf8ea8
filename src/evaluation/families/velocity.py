"""Local equivariance error: how fast the output changes when the image starts to move (Gruver et al. 2022)."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fft, func, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...metrics.base import Measure
from ...metrics.layer_outputs import LayerOutputs, Population, nan_where_not_finite, ratio_or_nan
from ...metrics.quantities import Quantity
from ...metrics.rows import Note, Row
from ...nets.hooks import eval_mode
from ...stats.bootstrap import bootstrap_weights
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, populations, untransformed_batches

QUANTITIES = (
    Quantity("lee", low=0, better="lower", formula="E‖d/dt f(g_t x)‖² at t = 0, by a pixel, a degree or a per cent",
        null="0: locally invariant", source="Gruver et al. 2022"),
    Quantity("lee_relative", low=0, better="lower", formula="lee / E‖f(x) - f(x')‖², x' all other images",
        null="0: locally invariant; 0.01 for a pixel: a tenth of the distance to another image a pixel"),
)  # fmt: skip
#: the number of images that derivatives are computed for
IMAGES = 250

#: images → the derivative of their pixels by the parameter of a motion
Motion = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]


def slopes(x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """Derivatives by rows and by columns, per pixel, of the band-limited periodic function through the pixels."""
    spectrum, derivatives = fft.fft2(x), []
    for axis, n in ((2, x.shape[2]), (3, x.shape[3])):
        frequencies = fft.fftfreq(n, device=x.device, dtype=x.dtype)
        frequencies = torch.where(frequencies == -0.5, 0, frequencies)  # Nyquist: not determined by the samples
        shape = [1, 1, 1, 1]
        shape[axis] = n
        derivatives.append(fft.ifft2(spectrum * (2j * torch.pi * frequencies).view(shape)).real)
    return derivatives[0], derivatives[1]


def _coordinates(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns relative to the centre, in pixels."""
    h, w = x.shape[2:]
    rows, columns = (torch.arange(n, device=x.device, dtype=x.dtype) - (n - 1) / 2 for n in (h, w))
    return rows[:, None], columns[None, :]


def _rotate(x: Tensor) -> Tensor:
    (by_row, by_column), (rows, columns) = slopes(x), _coordinates(x)
    return torch.pi / 180 * (columns * by_row - rows * by_column)


def _scale(x: Tensor) -> Tensor:
    (by_row, by_column), (rows, columns) = slopes(x), _coordinates(x)
    return -0.01 * (rows * by_row + columns * by_column)


#: by a pixel (down, right), by a degree, by a per cent
MOTIONS: dict[str, Motion] = {
    "down": lambda x: -slopes(x)[0], "right": lambda x: -slopes(x)[1], "rotate": _rotate, "scale": _scale,
}  # fmt: skip


class LEE(Measure):
    """``lee``: ``E‖d/dt f(g_t x)‖²`` at t = 0, ≥ 0; ``lee_relative``: the same over ``E‖f(x) - f(x')‖²``.

    The first depends on the scale of the outputs; the second is comparable between nets: 0.01 for a pixel is a tenth of
    the distance to another image a pixel. Both are means of squares. The population is that of all images, which x' are
    taken from; None: the batch.

    >>> average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x = torch.randn(8, 1, 6, 6)
    >>> metric = LEE()
    >>> metric.update(*velocities(average, x, MOTIONS["down"]))
    >>> metric.compute()["lee"].item() < 1e-10
    True
    """

    higher_is_better = False

    def __init__(self, population: Population | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.population = population

    def of_images(self, outputs: Float[Tensor, "n d"], velocity: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """The squared speed of each image's output, and its squared distance to the other images."""
        to_others = LayerOutputs(outputs, self.population).squared_distance
        return nan_where_not_finite(torch.stack([velocity.square().sum(1), to_others], 1), outputs)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """The mean squared speed, and its ratio to the mean squared distance between images."""
        return {"lee": means[..., 0], "lee_relative": ratio_or_nan(means[..., 0], means[..., 1])}


def velocities(
    net: nn.Module, x: Float[Tensor, "n c h w"], motion: Motion
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """f(x) and d/dt f(g_t x), by forward-mode differentiation in one forward pass, in eval mode; ``RuntimeError`` if
    PyTorch has no forward derivative of an operation in the net.
    """
    with ExitStack() as stack:
        stack.enter_context(eval_mode(net))
        stack.enter_context(torch.no_grad())
        # the only implementation of attention with a forward derivative
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch's own, at the first call
        for module in net.modules():
            if isinstance(module, nn.GroupNorm):
                # torch fails at the forward derivative of a group norm for channels_last maps
                hook = module.register_forward_pre_hook(lambda _, inputs: tuple(x.contiguous() for x in inputs))
                stack.callback(hook.remove)
        outputs: tuple[Tensor, Tensor] = func.jvp(net, (x.clone(),), (motion(x),))[:2]  # a net may overwrite its input
    return outputs


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row | Note]:
    """The local equivariance error of the output for each motion (``amount`` 0); a note instead, if PyTorch cannot
    differentiate the net.
    """
    few = test_set.take(torch.arange(min(IMAGES, len(test_set.padded))))
    population = populations(adapter, untransformed_batches(adapter, few), layers=[])[OUTPUT]
    metrics = {motion: LEE(population) for motion in MOTIONS}
    motions: dict[str, Motion] = {name: partial(adapter.move, motion=motion) for name, motion in MOTIONS.items()}
    for images in untransformed_batches(adapter, few):
        for motion, metric in metrics.items():
            try:
                outputs, velocity = velocities(_SelectedOutput(adapter), images, motions[motion])
            except RuntimeError as error:  # a custom layer may have no forward derivative
                yield Note("velocity", f"not measured, PyTorch has no derivative for it: {str(error).splitlines()[0]}")
                return
            metric.update(outputs, velocity)
    weights = bootstrap_weights(len(few.padded), test_set.seed)
    for motion, metric in metrics.items():
        for name, estimate in metric.estimates(weights):
            yield Row("output", "velocity", motion, 0, name, estimate)


class _SelectedOutput(nn.Module):
    """The net as a module that returns the adapter's output."""

    def __init__(self, adapter: ModelAdapter) -> None:
        super().__init__()
        self.net, self.select_output = adapter.net, adapter.select_output

    def forward(self, x: Tensor) -> Tensor:
        return self.select_output(self.net(x))
