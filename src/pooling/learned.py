"""Downsamplers with weights of their own: conv."""

from jaxtyping import Float
from torch import Tensor, nn

from src.pooling.base import Pool


class Conv(Pool):
    """An extra learned convolution with the stride, in the pool's place: All-CNN's replacement of pooling.

    A net follows it with norm and activation, as any convolution. The border ``clip`` is zero padding here: a learned
    window has no part to leave out. Source: Springenberg et al. 2015, "Striving for simplicity".

    Raises:
        ValueError: without ``channels``.
    """

    is_layer = True

    def __init__(
        self,
        kernel_size: int | None = None,
        stride: int | None = None,
        padding: int | None = None,
        *,
        border: str = "clip",
        channels: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, border=border, channels=channels)
        if channels is None:
            raise ValueError("pool=conv has weights: it needs channels=")
        self.conv = nn.Conv2d(channels, channels, self.kernel_size, self.stride)

    @classmethod
    def default_window(cls, stride: int) -> int:
        """3, or the stride where that is more, so that no sample is left unread."""
        return max(3, stride)

    def parameters_by_formula(self, channels: int) -> int:
        """c²k² weights and c biases."""
        return channels**2 * self.kernel_size**2 + channels

    def multiply_adds(self, channels: int) -> int:
        """c²k²."""
        return channels**2 * self.kernel_size**2

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Maps shrunk by the stride."""
        y: Tensor = self.conv(self.extend(x, self.windows[0]))
        return y


POOLS: dict[str, type[Pool]] = {"conv": Conv}
