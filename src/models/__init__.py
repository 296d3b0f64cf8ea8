"""Architectures. The file's name is its registration: ``ladder.py`` holds the one ``Network`` that ``model=ladder`` is.

An architecture is plain PyTorch, so the ledger of any config is had without Lightning; ``module`` joins it with
``Training``, what all share as LightningModules.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from src.models.blocks import Network

if TYPE_CHECKING:
    from src.config import Config
    from src.models.training import Training

SHARED = ("__init__", "blocks", "optimisers", "training")
ARCHITECTURES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in SHARED)


def architecture(name: str) -> type[Network]:
    """The network class of an architecture: the one ``Network`` its file defines."""
    file = import_module(f"src.models.{name}")
    (network,) = (
        one
        for one in vars(file).values()
        if isinstance(one, type) and one.__module__ == file.__name__ and issubclass(one, Network)
    )
    return network


def module(cfg: "Config", image: tuple[int, int, int], classes: int) -> "Training":
    """The LightningModule of a config: ``class Ladder(Ladder, Training)``, with its weights drawn by ``cfg.seed``."""
    import torch

    from src.models.training import Training  # here, so that only what trains pays for importing Lightning

    network = architecture(cfg.model.name)
    torch.manual_seed(cfg.seed)
    net: Training = type(network.__name__, (network, Training), {})(cfg.model, image, classes)
    net.cfg = cfg
    return net.to(memory_format=torch.channels_last)  # as the images come: about a quarter faster
