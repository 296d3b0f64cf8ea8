"""Architectures, in plain PyTorch. Each file that defines a ``Network`` registers it by the file's name."""

from bisect import bisect_left
from dataclasses import replace
from functools import cache
from importlib import import_module

from ..common.errors import UserError
from ..common.registry import file_of
from .blocks import Network
from .options import ARCHITECTURES, Model

#: largest relative difference between ``model.parameters`` and the net that matches it
TOLERANCE = 0.1

Image = tuple[int, int, int]


def architecture(name: str) -> type[Network]:
    """The only ``Network`` class that the architecture's file defines; ``UserError``, which names the file, if it
    defines none, or several.
    """
    file = import_module(f"{__name__}.{name}")
    classes = {value for value in vars(file).values() if isinstance(value, type) and value.__module__ == file.__name__}
    networks = sorted((value for value in classes if issubclass(value, Network)), key=lambda value: value.__name__)
    if len(networks) != 1:
        there = " and ".join(value.__name__ for value in networks) or "none"
        raise UserError(f"{file_of(file)}: defines {there}, where one subclass of Network is needed: model={name}")
    return networks[0]


def network(model: Model, image: Image, outputs: int) -> Network:
    """The net of a config, with weights drawn from torch's global generator."""
    return architecture(model.name)(scale_width_to_params(model, image, outputs), image, outputs)


def scale_width_to_params(model: Model, image: Image, outputs: int) -> Model:
    """The config with the width whose number of parameters is nearest to ``model.parameters``; unchanged if it is null;
    ``UserError`` if no width comes within ``TOLERANCE`` of it.
    """
    target = model.parameters
    if target is None:
        return model
    import torch

    @cache
    def count(width: int) -> int:
        with torch.device("meta"):
            net = architecture(model.name)(replace(model, width=width), image, outputs)
        return sum(parameter.numel() for parameter in net.parameters())

    upper = 1
    while count(upper) < target and count(upper) < count(2 * upper):  # above max_width the net no longer grows
        upper *= 2
    enough = 1 + bisect_left(range(1, upper), target, key=count)
    width = min(max(1, enough - 1), enough, key=lambda width: abs(count(width) - target))
    if abs(count(width) - target) > TOLERANCE * target:
        raise UserError(
            f"model.parameters={target}: the nearest that model={model.name} comes to is {count(width)}, at width "
            f"{width}; change the number, model.depth or model.max_width"
        )
    return replace(model, width=width)


__all__ = ["ARCHITECTURES", "Model", "Network", "architecture", "network", "scale_width_to_params"]
