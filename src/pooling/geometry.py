"""The arithmetic of a sliding window: how many places it has, and what it needs beyond the border."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """One sliding window along one axis.

    Args:
        kernel: taps.
        stride: step between places.
        padding: samples added before (and at most after) the map. ``None`` stands for "same": ``ceil(n / stride)``
            places, whatever the kernel, so that every way to shrink a map by a stride gives the same size.
        dilation: distance between taps.
        ceil: with integer padding, one more place where the last samples would be left over (PyTorch's ``ceil_mode``).
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
        """Samples added before the map. "Same" centres an overlapping window on the sample it stands for
        (as a convolution does), and starts a window that tiles the map at the border."""
        if self.padding is not None:
            return self.padding
        return (self.extent - 1) // 2 if self.extent > self.stride else 0

    def places(self, n: int) -> int:
        """Output size for a map of ``n``: ``floor((n + 2p - extent) / stride) + 1`` (``ceil``: rounded up, as long as
        the last window starts on the map), or ``ceil(n / stride)``."""
        if self.padding is None:
            return -(-n // self.stride)
        room = n + 2 * self.padding - self.extent
        if not self.ceil:
            return room // self.stride + 1
        return min(-(-room // self.stride), (n + self.padding - 1) // self.stride) + 1

    def pads(self, n: int) -> tuple[int, int]:
        """Samples to add (before, after) so that the windows cover the result exactly; negative = rows not read."""
        covered = (self.places(n) - 1) * self.stride + self.extent
        return self.before, covered - n - self.before
