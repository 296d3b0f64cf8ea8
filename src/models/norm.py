"""Batch norm synchronised over ranks, on CPUs too (``SyncBatchNorm`` needs GPUs); running statistics of untrained nets.

Training on several devices gives the same net as on one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn


class _Sum(torch.autograd.Function):
    """The sum over ranks. Each rank's term is part of the loss of all ranks, so the gradient is a sum as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Synchronised(_BatchNorm):
    """Mixin: in training on several ranks, a batch norm uses the statistics of the images of all ranks."""

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        """``x``, normalised by the batch's statistics over all ranks in training, else by the running statistics."""
        calibrating = self.momentum is None  # in a single process
        ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if self.training and ranks > 1 and not calibrating:
            return self._over_ranks(x)
        normalised: Tensor = super().forward(x)
        return normalised

    def _over_ranks(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None
        axes = [0, *range(2, x.dim())]
        channels = (1, -1, *(1,) * (x.dim() - 2))
        x32 = x.float()
        count = x32.new_tensor([x.numel() / x.shape[1]])
        sums = _Sum.apply(torch.cat([x32.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x32 - mean.view(channels)  # in two steps, as a difference of squares would lose digits
        variance = _Sum.apply(centred.square().sum(axes)) / total
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        y = centred * (variance + self.eps).rsqrt().view(channels)
        if self.affine:
            y = y * self.weight.view(channels) + self.bias.view(channels)
        result: Tensor = y.to(x.dtype)
        return result


class BatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` of maps (n, c, h, w), synchronised over ranks."""


class BatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` of vectors (n, c), synchronised over ranks."""


def calibrate(net: nn.Module, batches: Iterable[Float[Tensor, "n c h w"]]) -> None:
    """Set the running statistics of an untrained net's batch norms to the means over batches, in train mode.

    A new batch norm has mean 0 and variance 1, but the first training step normalises by its batch: without this an
    untrained net computes another function in eval mode than the one that training starts from. Parameters, train/eval
    flags and torch's random state do not change; other buffers that train mode updates (of spectral norm) do.

    Args:
        net: any net; without batch norms it does not change.
        batches: normalised images, at least 2 per batch.
    """
    flags = {module: module.training for module in net.modules()}
    momenta = {norm: norm.momentum for norm in net.modules() if isinstance(norm, _BatchNorm)}
    device = next(net.parameters(), torch.empty(0)).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            update_bn(batches, net)
    finally:
        for module, flag in flags.items():
            module.training = flag
        for norm, momentum in momenta.items():  # ``update_bn`` does not restore them after an exception
            norm.momentum = momentum


@contextmanager
def calibrated(net: nn.Module, batches: Iterable[Float[Tensor, "n c h w"]]) -> Iterator[None]:
    """``calibrate`` inside the ``with``; the old statistics are restored at its end."""
    norms = [norm for norm in net.modules() if isinstance(norm, _BatchNorm)]
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    calibrate(net, batches)
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            for name, buffer in buffers.items():
                norm.get_buffer(name).copy_(buffer)
