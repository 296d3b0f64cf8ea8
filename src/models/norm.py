"""Batch norm whose batch is that of all ranks together, so that a net learns the same on one device as on several; and
the running statistics of nets that have not been trained.

PyTorch's ``SyncBatchNorm`` does the first on GPUs alone; here a CPU's result is to be the same.
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
    """The sum over ranks; each has its share in the loss of every rank, so its gradient is a sum as well."""

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


class _Shared(_BatchNorm):
    """The batch norm beside which it is inherited, but for training on several ranks."""

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        """Normalised by the mean and the variance of all ranks' images; outside training by the running ones."""
        calibrating = self.momentum is None  # by one process alone
        ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if self.training and ranks > 1 and not calibrating:
            return self._over_ranks(x)
        normalised: Tensor = super().forward(x)
        return normalised

    def _over_ranks(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None
        others = [0, *range(2, x.dim())]
        channels = (1, -1, *(1,) * (x.dim() - 2))
        wide = x.float()
        count = wide.new_tensor([x.numel() / x.shape[1]])
        sums = _Sum.apply(torch.cat([wide.sum(others), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = wide - mean.view(channels)  # in two steps, as a difference of squares would lose digits
        variance = _Sum.apply(centred.square().sum(others)) / total
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        y = centred * (variance + self.eps).rsqrt().view(channels)
        if self.affine:
            y = y * self.weight.view(channels) + self.bias.view(channels)
        result: Tensor = y.to(x.dtype)
        return result


class BatchNorm2d(_Shared, nn.BatchNorm2d):
    """Of maps (n, c, h, w)."""


class BatchNorm1d(_Shared, nn.BatchNorm1d):
    """Of vectors (n, c)."""


def calibrate(net: nn.Module, batches: Iterable[Float[Tensor, "n c h w"]]) -> None:
    """Give a net's batch norms the running statistics that training on these batches would, if nothing were learned.

    A batch norm is built with mean 0 and variance 1, but a training step normalises by its batch: the net that training
    starts from is the one with the statistics of its images. Without them an untrained net's answers are another
    function of its images. Statistics are means over batches, in train mode (dropout included); parameters, flags and
    torch's random stream stay as they are; what else a net keeps in train mode (as a spectral norm does) moves on.

    Args:
        net: without batch norms it stays as it is.
        batches: of 2 images or more, as the net takes them.
    """
    flags = {module: module.training for module in net.modules()}
    momenta = {one: one.momentum for one in net.modules() if isinstance(one, _BatchNorm)}
    device = next(net.parameters(), torch.empty(0)).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            update_bn(batches, net)
    finally:
        for module, flag in flags.items():
            module.training = flag
        for norm, momentum in momenta.items():  # where a batch was broken off, ``update_bn`` gives none back
            norm.momentum = momentum


@contextmanager
def calibrated(net: nn.Module, batches: Iterable[Float[Tensor, "n c h w"]]) -> Iterator[None]:
    """``calibrate`` inside the ``with``; the statistics of before come back afterwards."""
    norms = [one for one in net.modules() if isinstance(one, _BatchNorm)]
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    calibrate(net, batches)
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            for name, buffer in buffers.items():
                norm.get_buffer(name).copy_(buffer)
