"""A net whose pools do nothing: what is left of a measure without them is not due to pooling."""

import copy

from torch import nn

from ..pooling import Pool

#: layers that shrink maps and mix no channels
POOLS = (Pool, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d)


def without_pools(net: nn.Module) -> nn.Module | None:
    """A copy of a net with the identity for each pool, whose maps then stay large; None if it has no pools. Global
    pools stay.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    >>> [type(layer).__name__ for layer in without_pools(net)]
    ['Conv2d', 'Identity', 'AdaptiveAvgPool2d']
    """
    pools = [name for name, module in net.named_modules() if isinstance(module, POOLS)]
    outermost = [name for name in pools if name and not name.startswith(tuple(f"{other}." for other in pools))]
    if not outermost:
        return None
    changed = copy.deepcopy(net)
    for name in outermost:
        changed.set_submodule(name, nn.Identity())
    return changed
