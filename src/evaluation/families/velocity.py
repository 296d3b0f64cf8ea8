"""Local equivariance error: how fast the answer changes when the image begins to move (Gruver et al. 2022)."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fft, func, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...metrics.base import LayerOutputs, Measure, Population, relative, resamples, undefined
from ...metrics.rows import Note, Row
from ...nets.hooks import eval_mode
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter, populations, untransformed_batches

#: images that derivatives are taken of
IMAGES = 250

Motion = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]


def slopes(x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """Derivatives by rows and by columns, a pixel, of the periodic function through the pixels; exact below Nyquist."""
    spectrum, derivatives = fft.fft2(x), []
    for axis, n in ((2, x.shape[2]), (3, x.shape[3])):
        frequencies = fft.fftfreq(n, device=x.device, dtype=x.dtype)
        frequencies = torch.where(frequencies == -0.5, 0, frequencies)  # its slope cannot be told from the samples
        shape = [1, 1, 1, 1]
        shape[axis] = n
        derivatives.append(fft.ifft2(spectrum * (2j * torch.pi * frequencies).view(shape)).real)
    return derivatives[0], derivatives[1]


def _places(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns from the centre, in pixels."""
    h, w = x.shape[2:]
    rows, columns = (torch.arange(n, device=x.device, dtype=x.dtype) - (n - 1) / 2 for n in (h, w))
    return rows[:, None], columns[None, :]


def _down(x: Tensor) -> Tensor:
    return -slopes(x)[0]


def _right(x: Tensor) -> Tensor:
    return -slopes(x)[1]


def _turn(x: Tensor) -> Tensor:
    (by_row, by_column), (rows, columns) = slopes(x), _places(x)
    return torch.pi / 180 * (columns * by_row - rows * by_column)


def _grow(x: Tensor) -> Tensor:
    (by_row, by_column), (rows, columns) = slopes(x), _places(x)
    return -0.01 * (rows * by_row + columns * by_column)


#: motion → velocity of the pixels at its start: by a pixel (down, right), by a degree, by a per cent
MOTIONS: dict[str, Motion] = {"down": _down, "right": _right, "rotate": _turn, "scale": _grow}


class LEE(Measure):
    """``lee``: ``E‖d/dt f(g_t x)‖²`` at t = 0, ≥ 0; ``lee_relative``: the same over ``E‖f(x) - f(x')‖²``.

    The first has the outputs' own scale; the second compares nets: 0.01 for a pixel is a tenth of the way to another
    image a pixel. The mean is of squares. x' runs over all other images of ``others`` (None: of the batch).

    >>> summed = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x = torch.randn(8, 1, 6, 6)
    >>> measure = LEE()
    >>> measure.update(*velocities(summed, x, MOTIONS["down"]))
    >>> measure.compute()["lee"].item() < 1e-10
    True
    """

    higher_is_better = False

    def __init__(self, others: Population | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.others = others

    def of_images(self, outputs: Float[Tensor, "n d"], velocity: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Squared speed of each image's outputs, and how far the others are."""
        found = torch.stack([velocity.square().sum(1), LayerOutputs(outputs, self.others).squared], 1)
        return undefined(found, outputs)

    def of_means(self, means: Float[Tensor, "... k"]) -> dict[str, Float[Tensor, "..."]]:
        """By name."""
        return {"lee": means[..., 0], "lee_relative": relative(means[..., 0], means[..., 1])}


def velocities(
    net: nn.Module, x: Float[Tensor, "n c h w"], motion: Motion
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """f(x) and d/dt f(g_t x): one forward pass that carries the derivative along, in eval mode.

    Raises:
        RuntimeError: PyTorch has no such derivative of something in the net.
    """
    with ExitStack() as stack:
        stack.enter_context(eval_mode(net))
        stack.enter_context(torch.no_grad())
        # the one way of attention that has such a derivative
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch's own, at the first derivative
        for module in net.modules():
            if isinstance(module, nn.GroupNorm):
                stack.callback(module.register_forward_pre_hook(_contiguous).remove)
        found: tuple[Tensor, Tensor] = func.jvp(net, (x.clone(),), (motion(x),))[:2]  # a net may write to its input
    return found


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of channels_last maps, torch fails to carry a group norm's derivative along."""
    return tuple(one.contiguous() for one in inputs)


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row | Note]:
    """Local equivariance error: how fast the answer changes when the image begins to move (``amount`` 0); a note why
    not, where PyTorch cannot say.
    """
    few = test_set.take(torch.arange(min(IMAGES, len(test_set.canvas))))
    others = populations(adapter, untransformed_batches(adapter, few), layers=[])[OUTPUT]
    measures = {motion: LEE(others) for motion in MOTIONS}
    for images in untransformed_batches(adapter, few):
        for motion, measure in measures.items():
            try:
                found = velocities(_Answering(adapter), images, MOTIONS[motion])
            except RuntimeError as error:  # a layer of one's own may have no derivative that goes forward
                yield Note("velocity", f"not measured, PyTorch has no derivative for it: {str(error).splitlines()[0]}")
                return
            measure.update(*found)
    weights = resamples(len(few.canvas), test_set.seed)
    for motion, measure in measures.items():
        for name, estimate in measure.estimates(weights):
            yield Row("output", "velocity", motion, 0, name, estimate)


class _Answering(nn.Module):
    """Images → answers."""

    def __init__(self, adapter: ModelAdapter) -> None:
        super().__init__()
        self.net, self.answer = adapter.net, adapter.answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.net(x))
