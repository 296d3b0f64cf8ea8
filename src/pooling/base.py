"""What all ways to shrink a map share: the constructor, the border, and their entries in the shape ledger."""

import itertools
from collections.abc import Iterable
from functools import reduce
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .geometry import Window

#: (height, width) of a map
Size = tuple[int, int]
BORDERS = ("clip", "circular", "reflect", "replicate")


def around(x: Float[Tensor, "n c h w"], before: int, after: int, axis: int) -> Float[Tensor, "n c H W"]:
    """The map continued around its border: ``F.pad(mode="circular")`` of one axis.

    F.pad gives a contiguous map of a channels_last one, and takes two to eight times as long (on a CPU).

    Raises:
        ValueError: more than the map has on that axis.
    """
    n = x.shape[axis]
    if max(before, after) > n:
        raise ValueError(f"circular padding of {max(before, after)} needs a map of at least that, this one has {n}")
    if before + after > n:
        return x.index_select(axis, torch.arange(-before, n + after, device=x.device) % n)
    # cut before it is joined, so that the backward pass meets each sample of the map once
    first, inside, last = x.split([after, n - before - after, before], axis)
    # an empty part would cost the result its memory format
    return torch.cat([part for part in (last, first, inside, last, first) if part.shape[axis]], axis)


def at_least_single(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """In float32 where the type is shorter: what sums many numbers one after the other."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Samples(torch.autograd.Function):
    """Views of the k² samples of every window; the same as slicing, but one backward pass fills one map for all of
    them, where each slice would fill its own (1.1 to 1.5 times the time of ``soft``); any memory format stays.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Float[Tensor, "n c H W"], kernel: int, stride: int) -> tuple[Float[Tensor, "n c p q"], ...]:
        """From a map whose size the windows fit."""
        return tuple(x[place] for place in Samples.places(x.shape, kernel, stride))

    @staticmethod
    def places(shape: torch.Size, kernel: int, stride: int) -> list[tuple[slice, ...]]:
        """Of the samples on the map, row by row."""
        p, q = (stride * ((n - kernel) // stride) + 1 for n in shape[2:])
        each = slice(None)
        offsets = itertools.product(range(kernel), repeat=2)
        return [(each, each, slice(i, i + p, stride), slice(j, j + q, stride)) for i, j in offsets]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """What the derivatives need."""
        x, *ctx.window = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "n c p q"]) -> tuple[Float[Tensor, "n c H W"], None, None]:
        """Each sample's gradient at its place."""
        (x,) = ctx.saved_tensors
        whole = torch.zeros_like(x)
        for place, gradient in zip(Samples.places(x.shape, *ctx.window), gradients, strict=True):
            whole[place].add_(gradient)
        return whole, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Float[Tensor, "n c H W"], *_: None) -> tuple[Float[Tensor, "n c p q"], ...]:
        """The samples of the tangent."""
        return Samples.forward(tangent, *ctx.window)


def samples(x: Float[Tensor, "n c H W"], window: Window) -> tuple[Float[Tensor, "n c p q"], ...]:
    """The k² samples of every window, row by row, as one map each; of a map that the windows fit (``Pool.extend``)."""
    # a compiler makes one pass of the slices by itself, and takes no derivatives written by hand
    views = Samples.forward if torch.compiler.is_compiling() else Samples.apply
    parts: tuple[Tensor, ...] = views(x, window.kernel, window.stride)
    return parts


def total(maps: Iterable[Float[Tensor, "..."]]) -> Float[Tensor, "..."]:
    """Their sum."""
    return reduce(torch.add, maps)


class Pool(nn.Module):
    """A downsampler of maps ``(n, c, h, w)``; the base of every entry in ``POOLS``.

    Args:
        kernel_size: side of the window; ``None`` takes the operation's own default for the stride.
        stride: how much the map shrinks; ``None`` takes ``kernel_size``, as in ``nn.MaxPool2d``.
        padding: ``None`` gives ``ceil(n / stride)`` outputs, an int gives the output size of ``nn.MaxPool2d``.
        border: what a window sees beyond the border. ``clip``: nothing, the window is cut off there (no value is
            ever invented; as ``nn.AvgPool2d(count_include_pad=False)``). ``circular``, ``reflect``, ``replicate``:
            the map continued.
        ceil_mode: with integer padding, sizes are rounded up, as in ``nn.MaxPool2d``.
        channels: channels of the map; only operations with weights need it.

    Raises:
        ValueError: a window, stride or border that the operation is not defined for.
    """

    #: what there is to know of each pool, on one line each, which a class says of itself; shown by ``src.pools``:
    #: an output, of the window x_R or the map x that it reads
    formula: ClassVar[str]
    #: of a map. First, between commas, what is kept of every map with a circular border, whatever the weights:
    #: ``constants``, ``range`` (of values), ``mean``; then the rest in words
    keeps: ClassVar[str]
    #: limits at which it is another pool, and shifts with which it commutes
    exact: ClassVar[str]
    #: paper
    source: ClassVar[str]
    #: how it differs from its authors' own layer, if it does
    differs: ClassVar[str] = ""

    #: followed by norm and activation in a net, as any other convolution
    is_layer: ClassVar[bool] = False
    #: has weights for each channel
    needs_channels: ClassVar[bool] = False
    #: strides it is defined for; empty: all
    strides: ClassVar[tuple[int, ...]] = ()
    #: what it makes of a constant map of ones, and whether its output stays in the range of a positive map times that
    gain: ClassVar[float] = 1.0
    keeps_range: ClassVar[bool] = True

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
        if border not in BORDERS:
            raise ValueError(f"border={border!r}: choose one of {', '.join(BORDERS)}")
        if stride is None:
            stride = 2 if kernel_size is None else kernel_size
        if stride < 1 or (kernel_size is not None and kernel_size < 1):
            raise ValueError(f"window {kernel_size} and stride {stride} must be at least 1")
        if kernel_size is None:
            kernel_size = self.default_window(stride)
        if self.needs_channels and channels is None:
            raise ValueError(f"{type(self).__name__} has weights: it needs channels=")
        self.kernel_size, self.stride, self.padding, self.border = kernel_size, stride, padding, border
        self.ceil_mode, self.channels = ceil_mode, channels or 0
        self.build()

    def build(self) -> None:
        """Make what the operation holds, weights or filters; called at the end of the constructor."""

    @classmethod
    def default_window(cls, stride: int) -> int:
        """Side of the window where none is given."""
        return max(2, stride)

    @property
    def windows(self) -> list[Window]:
        """The sliding windows the map passes through, in order: all that the ledger needs for shapes and fields."""
        return [self.window(self.kernel_size)]

    def window(self, kernel: int) -> Window:
        """A window of that side with the pool's stride and padding."""
        return Window(kernel, self.stride, self.padding, ceil=self.ceil_mode)

    def parameters_by_formula(self, channels: int) -> int:
        """Learned numbers for a map of so many channels."""
        return 0

    def multiply_adds(self, channels: int, read: Size, made: Size) -> int:
        """Multiply-adds for maps of the size that is read and made, all channels together; comparisons, plain sums, and
        means whose weights are a pointwise function of the window (lp, soft, lip, stochastic) count as none, as
        activations do.
        """
        return 0

    def extend(self, x: Float[Tensor, "n c h w"], window: Window, fill: float | None = 0.0) -> Float[Tensor, "n c H W"]:
        """The map with what ``window`` needs beyond its border; where that is ``clip``, ``fill`` (None: the edge)."""
        (top, bottom), (left, right) = window.pads(x.shape[-2]), window.pads(x.shape[-1])
        if not any((top, bottom, left, right)):
            return x
        if self.border == "clip" and fill is not None:
            return F.pad(x, (left, right, top, bottom), value=fill)
        # F.pad continues a map but cannot crop it in the same call
        if self.border == "circular":
            x = around(around(x, top, max(bottom, 0), 2), left, max(right, 0), 3)
        else:
            mode = "replicate" if self.border == "clip" else self.border
            x = F.pad(x, (left, max(right, 0), top, max(bottom, 0)), mode=mode)
        return x[..., : x.shape[-2] + min(bottom, 0), : x.shape[-1] + min(right, 0)]

    def for_convolution(self, x: Float[Tensor, "n c h w"], window: Window) -> tuple[Float[Tensor, "n c H W"], int]:
        """``extend``, less the zeros that a convolution can add itself (without a copy of the map), and how many."""
        fits = all(after <= window.before for _, after in map(window.pads, x.shape[-2:]))
        return (x, window.before) if self.border == "clip" and fits else (self.extend(x, window), 0)

    def tile(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
        """The map as whole s×s tiles, continued as the border says (``clip``: the edge repeated)."""
        return self.extend(x, self.window(self.stride), fill=None)

    def extra_repr(self) -> str:
        """Shown by ``print(net)``."""
        padding = "" if self.padding is None else f", padding={self.padding}"
        ceil = ", ceil_mode=True" if self.ceil_mode else ""
        return f"kernel_size={self.kernel_size}, stride={self.stride}{padding}{ceil}, border={self.border}"
