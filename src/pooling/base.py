"""``Pool``, the base class of all downsamplers, and the operations on windows that they share."""

import itertools
import math
from collections.abc import Iterable
from functools import reduce
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..common.arguments import whole_number
from ..common.errors import UserError
from .geometry import Window

#: (height, width) of a map
Size = tuple[int, int]
BORDERS = ("clip", "circular", "reflect", "replicate")


def circular_pad(x: Float[Tensor, "n c h w"], before: int, after: int, axis: int) -> Float[Tensor, "n c H W"]:
    """``F.pad(mode="circular")`` along one axis; keeps the memory format.

    ``F.pad`` makes a channels_last map contiguous, and takes two to eight times as long (on a CPU).

    Raises:
        ValueError: the padding is larger than the map.
    """
    n = x.shape[axis]
    if max(before, after) > n:
        raise ValueError(f"circular padding of {max(before, after)} needs a map of at least that, this one has {n}")
    if before + after > n:
        return x.index_select(axis, torch.arange(-before, n + after, device=x.device) % n)
    # split first, so that the backward pass reads each value of the map once
    first, middle, last = x.split([after, n - before - after, before], axis)
    # an empty part would cost the result its memory format
    return torch.cat([part for part in (last, first, middle, last, first) if part.shape[axis]], axis)


def at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half-precision values in float32, for sums of many terms; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _UnfoldWindows(torch.autograd.Function):
    """Views of the k² samples of every window: slicing, but with one backward pass that fills one gradient map, where
    each slice would fill its own (``soft`` is 1.1 to 1.5 times as fast). Keeps the memory format.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Float[Tensor, "n c H W"], kernel: int, stride: int) -> tuple[Float[Tensor, "n c p q"], ...]:
        return tuple(x[index] for index in _UnfoldWindows.window_slices(x.shape, kernel, stride))

    @staticmethod
    def window_slices(shape: torch.Size, kernel: int, stride: int) -> list[tuple[slice, ...]]:
        """Index of each of the k² samples in the map, row by row."""
        p, q = (stride * ((n - kernel) // stride) + 1 for n in shape[2:])
        offsets = itertools.product(range(kernel), repeat=2)
        return [(slice(None), slice(None), slice(i, i + p, stride), slice(j, j + q, stride)) for i, j in offsets]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, *ctx.window = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "n c p q"]) -> tuple[Float[Tensor, "n c H W"], None, None]:
        (x,) = ctx.saved_tensors
        gradient = torch.zeros_like(x)
        for index, part in zip(_UnfoldWindows.window_slices(x.shape, *ctx.window), gradients, strict=True):
            gradient[index].add_(part)
        return gradient, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Float[Tensor, "n c H W"], *_: None) -> tuple[Float[Tensor, "n c p q"], ...]:
        return _UnfoldWindows.forward(tangent, *ctx.window)


def unfold_windows(x: Float[Tensor, "n c H W"], window: Window) -> tuple[Float[Tensor, "n c p q"], ...]:
    """The k² samples of every window, row by row, as one map each; for a map that ``Pool.pad`` has padded."""
    # a compiler fuses the slices by itself, and takes no hand-written derivatives
    unfold = _UnfoldWindows.forward if torch.compiler.is_compiling() else _UnfoldWindows.apply
    samples: tuple[Tensor, ...] = unfold(x, window.kernel, window.stride)
    return samples


def clamp_forward(x: Float[Tensor, "..."], low: float, high: float = math.inf) -> Float[Tensor, "..."]:
    """``x.clamp(low, high)`` whose gradient is that of x: a learned number that was clipped can come back."""
    return x + (x.clamp(low, high) - x).detach()


def sum_maps(maps: Iterable[Float[Tensor, "..."]]) -> Float[Tensor, "..."]:
    """The sum of maps, added in order."""
    return reduce(torch.add, maps)


class Pool(nn.Module):
    """A downsampler of maps ``(n, c, h, w)``; the base of every entry in ``POOLS``.

    Args:
        kernel_size: side of the window; ``None`` takes the operation's own default for the stride.
        stride: downsampling factor; ``None`` takes ``kernel_size``, as in ``nn.MaxPool2d``.
        padding: ``None`` gives ``ceil(n / stride)`` outputs, an int gives the output size of ``nn.MaxPool2d``.
        border: padding mode. ``clip``: the window is cut off at the border, no value is made up (as in
            ``nn.AvgPool2d(count_include_pad=False)``). ``circular``, ``reflect``, ``replicate``: as in ``F.pad``.
        ceil_mode: with integer padding, sizes are rounded up, as in ``nn.MaxPool2d``.
        channels: channels of the map; only operations with weights per channel need it.

    Raises:
        UserError: a window, stride or border that the operation is not defined for.
    """

    #: the pool's documentation, one line each, as shown by ``src.pools``. An output as a function of the window x_R or
    #: the map x
    formula: ClassVar[str]
    #: first, separated by commas, the invariants of every map with a circular border, whatever the weights:
    #: ``constants``, ``range`` (of values), ``mean``; then anything else in words
    keeps: ClassVar[str]
    #: limits in which it equals another pool, and shifts with which it commutes
    exact: ClassVar[str]
    #: paper
    source: ClassVar[str]
    #: differences from the authors' own layer, if any
    differs: ClassVar[str] = ""

    is_layer: ClassVar[bool] = False  # in a net, norm and activation follow it, as they follow a convolution
    needs_channels: ClassVar[bool] = False  # has weights for each channel
    strides: ClassVar[tuple[int, ...]] = ()  # for which it is defined; empty: all
    gain: ClassVar[float] = 1.0  # its output for a constant map of ones
    tiled: ClassVar[bool] = False  # its windows are stride × stride tiles; ``kernel_size`` is not used
    commutes_with_rolls: ClassVar[bool] = True  # by multiples of the stride, with a circular border, in eval
    least_window: ClassVar[int] = 2  # the default window is the stride, but at least this

    def __init__(
        self,
        kernel_size: int | None = None,
        stride: int | None = None,
        padding: int | None = None,
        *,
        border: str = "clip",
        ceil_mode: bool = False,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        if border not in BORDERS:
            raise UserError(f"{kind}: border={border!r}: choose one of {', '.join(BORDERS)}")
        sizes = {"kernel_size": (kernel_size, 1), "stride": (stride, 1), "padding": (padding, 0)}
        kernel_size, stride, padding = (
            None if value is None else whole_number(f"{kind}: {name}", value, least)
            for name, (value, least) in sizes.items()
        )
        if stride is None:
            stride = kernel_size or 2
        if kernel_size is None:
            kernel_size = self.default_window(stride)
        if self.needs_channels and channels is None:
            raise UserError(f"{kind} has weights: it needs channels=")
        self.kernel_size, self.stride, self.padding, self.border = kernel_size, stride, padding, border
        self.ceil_mode, self.channels = ceil_mode, channels or 0
        self.build()

    def build(self) -> None:
        """Make the weights, buffers or submodules; called at the end of the constructor."""

    @classmethod
    def default_window(cls, stride: int) -> int:
        """Side of the window if ``kernel_size`` is None."""
        return max(cls.least_window, stride)

    @property
    def windows(self) -> list[Window]:
        """The sliding windows that the map passes through, in order: they give output sizes and receptive fields."""
        return [self.window(self.stride if self.tiled else self.kernel_size)]

    def window(self, kernel: int) -> Window:
        """A window of that side with the pool's stride and padding."""
        return Window(kernel, self.stride, self.padding, ceil=self.ceil_mode)

    def parameters_by_formula(self, channels: int) -> int:
        """Number of learned parameters for a map with this many channels."""
        return 0

    def multiply_adds(self, channels: int, input_size: Size, output_size: Size) -> int:
        """Multiply-adds (MACs) per image, all channels together. Comparisons, plain sums, and means whose weights are a
        pointwise function of the window (lp, soft, lip, stochastic) count as none, as activations do.
        """
        return 0

    def pad(self, x: Float[Tensor, "n c h w"], window: Window, fill: float | None = 0.0) -> Float[Tensor, "n c H W"]:
        """The map padded so that ``window`` fits; with border ``clip`` by the value ``fill`` (None: edge values)."""
        (top, bottom), (left, right) = window.pads(x.shape[-2]), window.pads(x.shape[-1])
        if not any((top, bottom, left, right)):
            return x
        if self.border == "clip" and fill is not None:
            return F.pad(x, (left, right, top, bottom), value=fill)
        # in these modes F.pad cannot pad and crop in the same call
        if self.border == "circular":
            x = circular_pad(circular_pad(x, top, max(bottom, 0), 2), left, max(right, 0), 3)
        else:
            mode = "replicate" if self.border == "clip" else self.border
            x = F.pad(x, (left, max(right, 0), top, max(bottom, 0)), mode=mode)
        return x[..., : x.shape[-2] + min(bottom, 0), : x.shape[-1] + min(right, 0)]

    def pad_for_convolution(self, x: Float[Tensor, "n c h w"], window: Window) -> tuple[Float[Tensor, "n c H W"], int]:
        """``pad`` before a convolution, and the convolution's ``padding``: zeros that it adds without a copy."""
        fits = all(after <= window.before for _, after in map(window.pads, x.shape[-2:]))
        return (x, window.before) if self.border == "clip" and fits else (self.pad(x, window), 0)

    def outside(self, x: Float[Tensor, "n c h w"], window: Window) -> tuple[Float[Tensor, "1 1 p q"], ...]:
        """What to add to the logits of the k² samples of every window: -inf outside the map, where the border is
        ``clip``, else 0.
        """
        return unfold_windows(self.pad(x.new_zeros(1, 1, *x.shape[2:]), window, fill=-torch.inf), window)

    def pad_to_multiple(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
        """The map padded to a multiple of the stride, by the border's mode (``clip``: edge values)."""
        return self.pad(x, self.window(self.stride), fill=None)

    def extra_repr(self) -> str:
        """Arguments, for ``print(net)``."""
        padding = "" if self.padding is None else f", padding={self.padding}"
        ceil = ", ceil_mode=True" if self.ceil_mode else ""
        return f"kernel_size={self.kernel_size}, stride={self.stride}{padding}{ceil}, border={self.border}"
