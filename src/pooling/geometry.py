"""Arithmetic of a sliding window: output size and padding."""

from dataclasses import dataclass
from typing import Any


def pair(value: Any) -> tuple[Any, ...]:
    """A module's setting for (rows, columns), which may be one number for both."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis.

    Args:
        kernel: number of taps.
        stride: step between windows.
        padding: samples added before (and at most after) the map. ``None`` means "same": ``ceil(n / stride)`` windows,
            whatever the kernel, so that all downsamplers of the same stride give the same size.
        dilation: distance between taps.
        ceil: with integer padding, one more window if the last samples would be left over (PyTorch's ``ceil_mode``).
    """

    kernel: int
    stride: int = 1
    padding: int | None = None
    dilation: int = 1
    ceil: bool = False

    @property
    def extent(self) -> int:
        """Samples from the first tap to the last, ``d(k - 1) + 1``."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def before(self) -> int:
        """Samples added before the map. "Same" centres an overlapping window on its sample, as a convolution does;
        non-overlapping windows start at the border.
        """
        if self.padding is not None:
            return self.padding
        return (self.extent - 1) // 2 if self.extent > self.stride else 0

    def output_size(self, n: int) -> int:
        """Number of windows on a map of ``n``: ``floor((n + 2p - extent) / stride) + 1`` (``ceil``: rounded up, if the
        last window still starts on the map), or ``ceil(n / stride)`` for "same".
        """
        if self.padding is None:
            return -(-n // self.stride)
        steps = n + 2 * self.padding - self.extent
        if not self.ceil:
            return steps // self.stride + 1
        return min(-(-steps // self.stride), (n + self.padding - 1) // self.stride) + 1

    def pads(self, n: int) -> tuple[int, int]:
        """Samples to add (before, after) so that the windows cover the result exactly; negative: to crop."""
        covered = (self.output_size(n) - 1) * self.stride + self.extent
        return self.before, covered - n - self.before
