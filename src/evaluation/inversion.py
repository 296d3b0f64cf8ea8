"""Images that a layer cannot tell from a given one, by gradient descent on pixels: metamers.

Mahendran & Vedaldi 2015, "Understanding deep image representations by inverting them"; Feather et al. 2023, "Model
metamers reveal divergent invariances between biological and artificial neural networks".
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..common.errors import UserError
from ..nets.hooks import eval_mode
from ..pooling.windows import Max
from .adapter import OUTPUT, ModelAdapter

#: a function of images (n, c, h, w) with pixels in [0, 1]: a layer's activations, flat; a second argument is the share
#: of the gradient that passes where there is none, 0 if left out (``LEAK``)
Activations = Callable[..., Float[Tensor, "n d"]]

#: makes an optimiser of pixels
Optimiser = Callable[[list[Tensor]], torch.optim.Optimizer]

#: relative layer distance below which an image is a metamer: a tenth of the distance between two images
THRESHOLD = 0.1
#: Adam's step size at the first step, in units of the range of pixels, and the share of it at the last
STEP, LAST = 0.3, 0.05
#: share of the gradient, at the first step, that passes a ReLU of a negative number, and a value that is not the
#: largest of its window; it falls to 0 at the last step, so that the end is that of the true gradient. Without it,
#: pixels whose unit is off, or is not the largest, stay as they were
LEAK = 0.4
ADAM: Optimiser = partial(torch.optim.Adam, lr=STEP)
#: images that are optimised at once
BATCH = 64
#: pairs of images behind the median distance between two images
PAIRS = 1000


@dataclass(frozen=True)
class Matched:
    """Images after an optimisation, and how far each is from its target.

    Attributes:
        images: pixels in [0, 1].
        distance: from the target's activation, relative to ``scale``: 1, as far as another image.
        steps: that were taken.
    """

    images: Float[Tensor, "n c h w"]
    distance: Float[Tensor, " n"]
    steps: Int64[Tensor, " n"]

    @property
    def reached(self) -> Bool[Tensor, " n"]:
        """Which are below ``THRESHOLD``: metamers. The others are not."""
        return self.distance < THRESHOLD


class _LeakyGradient(torch.autograd.Function):
    """A ReLU whose gradient is ``leak`` where its output is 0, so that a unit that is off can be switched on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, leak: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.leak = leak
        return x.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, gradient, ctx.leak * gradient), None


@dataclass
class _Leak:
    """Hooks that leave outputs as they are, and let a share of the gradient pass where there is none."""

    share: float = 0

    def hook(self, net: nn.Module) -> Iterator[RemovableHandle]:
        """Register the hooks."""
        for module in net.modules():
            if type(module) is nn.ReLU and not module.inplace:
                yield module.register_forward_hook(self._relu)
            elif type(module) is Max or (type(module) is nn.MaxPool2d and _sums_windows(module)):
                yield module.register_forward_hook(self._max)

    def _relu(self, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        leaky: Tensor = _LeakyGradient.apply(inputs[0], self.share)
        return leaky

    def _max(self, pool: Max | nn.MaxPool2d, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """The gradient also reaches the other values of a window: one that is not the largest can become it."""
        (x,) = inputs
        if isinstance(pool, Max):
            (window,) = pool.windows
            sums = F.avg_pool2d(pool.pad(x, window), pool.kernel_size, pool.stride, divisor_override=1)
        else:
            window_of = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
            sums = F.avg_pool2d(x, *window_of, divisor_override=1)
        constant = output.detach()
        return constant + (1 - self.share) * (output - constant) + self.share * (sums - sums.detach())


def _sums_windows(pool: nn.MaxPool2d) -> bool:
    """Whether ``avg_pool2d`` has the windows of a max pool."""
    return pool.dilation in (1, (1, 1)) and not pool.return_indices


class _LayerRan(Exception):
    """The layer has run: the rest of the net need not."""


@contextmanager
def activations_of(adapter: ModelAdapter, layer: str) -> Iterator[Activations]:
    """The function from pixels in [0, 1] to a layer's activations, in eval mode, with frozen weights inside the
    ``with``; ``OUTPUT`` is the net's output. The net runs up to the layer, unless that runs several times a pass: then
    its last output counts. With a ``leak``, gradients also pass a ReLU where it is 0, as Feather et al. let them, and
    the values of a max pool's window that are not the largest.

    Raises:
        UserError: the layer gives no tensor.
    """
    net, kept, leaking = adapter.net, list[Tensor](), _Leak()
    module = net if layer == OUTPUT else net.get_submodule(layer)
    runs = 0  # of the layer in a pass; 0: not known yet

    def keep(_: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise UserError(f"{layer}: gives {type(output).__name__}, where a tensor is needed")
        kept.append(output.clone())  # the net may overwrite it in place
        if runs == 1:
            raise _LayerRan

    def activations(pixels: Tensor, leak: float = 0) -> Tensor:
        nonlocal runs
        leaking.share = leak
        x = adapter.normalise(pixels * 255)
        if layer == OUTPUT:
            return adapter.select_output(net(x)).flatten(1)
        kept.clear()
        with suppress(_LayerRan):
            net(x)
        runs = runs or len(kept)
        return kept.pop().flatten(1)

    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    hooks = [*leaking.hook(net)]
    if layer != OUTPUT:
        hooks.append(module.register_forward_hook(keep))
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        with eval_mode(net):
            yield activations
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in trainable:
            parameter.requires_grad_(True)


def noise(count: int, shape: tuple[int, ...], seed: int, number: int) -> Float[Tensor, "count c h w"]:
    """Start ``number`` of images: uniform noise in [0, 1], the same for every net and layer. The first images have the
    same noise whatever ``count`` is.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    return torch.stack([torch.rand(shape, generator=generator) for _ in range(count)])


def random_pairs(n: int, seed: int, most: int = PAIRS) -> tuple[Int64[Tensor, " p"], Int64[Tensor, " p"]]:
    """All pairs of different images, or ``most`` of them at random."""
    first, second = torch.triu_indices(n, n, 1)
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(seed))[:most]
    return first[order], second[order]


def median_distance(outputs: Float[Tensor, "n d"], seed: int = 0) -> float:
    """The median distance between two different images; nan where it is 0, as of a layer that is constant.

    >>> median_distance(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    first, second = random_pairs(len(outputs), seed)
    distances = [
        (outputs[i] - outputs[j]).norm(dim=1) for i, j in zip(first.split(BATCH), second.split(BATCH), strict=True)
    ]
    return float(torch.cat(distances).median()) or math.nan


def match(
    activations: Activations, targets: Float[Tensor, "n d"], starts: Float[Tensor, "n c h w"], scale: float, steps: int,
    threshold: float = THRESHOLD, optimiser: Optimiser = ADAM,
) -> Matched:  # fmt: skip
    """Change each start until its activation is that of its target: projected gradient descent on the distance,
    whose gradient does not shrink as it falls.

    After each step pixels are clamped to [0, 1]. An image stops when its distance over ``scale`` is below the
    threshold, else after ``steps`` steps; by a cosine, the step size falls to ``LAST`` of its first value, and the leak
    of gradients from ``LEAK`` to 0. Adam scales the gradient of each pixel by itself, so no image depends on the others
    of its batch.
    """
    parts = [
        _match(activations, *part, scale, steps, threshold, optimiser)
        for part in zip(targets.split(BATCH), starts.split(BATCH), strict=True)
    ]  # fmt: skip
    return Matched(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _match(
    activations: Activations, targets: Tensor, starts: Tensor, scale: float, steps: int, threshold: float,
    optimiser: Optimiser,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    images, distance = starts.clone(), starts.new_full((len(starts),), math.inf)
    taken, running = torch.zeros(len(starts), dtype=torch.long), torch.arange(len(starts), device=starts.device)
    pixels = starts.clone().requires_grad_()
    descent = optimiser([pixels])
    (first,) = (group["lr"] for group in descent.param_groups)
    for step in range(steps + 1):
        falling = (1 + math.cos(math.pi * step / steps)) / 2
        with torch.enable_grad():
            squared = ((activations(pixels, LEAK * falling) - targets[running]) / scale).square().sum(1)
            left = squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()
            (gradient,) = torch.autograd.grad(left.sum(), pixels)
        pixels.grad = gradient.nan_to_num(0, 0, 0)  # HOG's has none where an image is constant
        images[running], distance[running] = pixels.detach(), left.detach()
        taken[running.cpu()] = step
        going = distance[running] >= threshold
        if step == steps or not going.any():
            break
        if not going.all():
            running = running[going]
            pixels, descent = _without(pixels, descent, going, optimiser)
        descent.param_groups[0]["lr"] = first * (LAST + (1 - LAST) * falling)
        descent.step()
        pixels.data.clamp_(0, 1)
    return images, distance, taken


def _without(
    pixels: Tensor, descent: torch.optim.Optimizer, going: Bool[Tensor, " n"], optimiser: Optimiser
) -> tuple[Tensor, torch.optim.Optimizer]:
    """The images that go on, with what the optimiser keeps of them."""
    kept = pixels.detach()[going].requires_grad_()
    assert pixels.grad is not None
    kept.grad = pixels.grad[going]
    smaller = optimiser([kept])
    state = descent.state.get(pixels, {})
    smaller.state[kept] = {key: value[going] if value.dim() else value for key, value in state.items()}
    return kept, smaller
