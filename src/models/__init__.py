"""Architectures. The file's name is its registration: ``ladder.py`` holds the one ``Network`` that ``model=ladder`` is.

An architecture is plain PyTorch, so the ledger of any config is had without Lightning; ``module`` joins it with
``Training``, what all share as LightningModules.
"""

from bisect import bisect_left
from dataclasses import replace
from functools import cache
from importlib import import_module

from ..errors import UserError
from .blocks import Network
from .options import ARCHITECTURES, Model

#: how far, as a share of it, a net may be from the ``model.parameters`` it is to match
TOLERANCE = 0.1

Image = tuple[int, int, int]


def architecture(name: str) -> type[Network]:
    """The network class of an architecture: the one ``Network`` its file defines."""
    file = import_module(f"{__name__}.{name}")
    (network,) = (
        one
        for one in vars(file).values()
        if isinstance(one, type) and one.__module__ == file.__name__ and issubclass(one, Network)
    )
    return network


def network(model: Model, image: Image, outputs: int) -> Network:
    """The net of a config, plain PyTorch, its weights drawn from torch's random stream."""
    return architecture(model.name)(scale_width_to_params(model, image, outputs), image, outputs)


def scale_width_to_params(model: Model, image: Image, outputs: int) -> Model:
    """The config at the width that comes nearest to ``model.parameters``; itself where that is null.

    Raises:
        UserError: no width comes within ``TOLERANCE`` of it.
    """
    wanted = model.parameters
    if wanted is None:
        return model
    import torch

    @cache
    def count(width: int) -> int:
        with torch.device("meta"):
            net = architecture(model.name)(replace(model, width=width), image, outputs)
        return sum(one.numel() for one in net.parameters())

    most = 1
    while count(most) < wanted and count(most) < count(2 * most):  # max_width is where it grows no more
        most *= 2
    enough = 1 + bisect_left(range(1, most), wanted, key=count)
    width = min(max(1, enough - 1), enough, key=lambda one: abs(count(one) - wanted))
    if abs(count(width) - wanted) > TOLERANCE * wanted:
        raise UserError(
            f"model.parameters={wanted}: the nearest that model={model.name} comes to is {count(width)}, at width "
            f"{width}; change the number, model.depth or model.max_width"
        )
    return replace(model, width=width)


__all__ = ["ARCHITECTURES", "Model", "Network", "architecture", "network", "scale_width_to_params"]
