"""Batch norm whose batch is that of all ranks together, so that a net learns the same on one device as on several.

PyTorch's ``SyncBatchNorm`` does this on GPUs alone; here a CPU's result is to be the same.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
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
