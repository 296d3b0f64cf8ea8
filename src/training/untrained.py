"""The net before training, the baseline of every number of a trained net."""

from collections.abc import Iterator
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from ..config import Config
from ..data.batches import Batches
from ..data.splits import Splits
from ..models.norm import calibrate
from .lightning_module import Training, module

#: training images for the batch norm statistics of the untrained net
CALIBRATION = 2000


def untrained(cfg: Config, splits: Splits, device: torch.device) -> Training:
    """The net that training starts from: weights by the seed, fitted where it is fitted (``PCA``), and batch norms with
    the statistics of the first 2,000 training images (``models.norm.calibrate``).
    """
    net = module(cfg, splits.image, len(splits.classes))
    net.fit(splits.train.images, splits.normalise)
    net.to(device)
    calibrate(net, first_images(cfg, splits, device))
    return net


def first_images(cfg: Config, splits: Splits, device: torch.device) -> Iterator[Float[Tensor, "n c h w"]]:
    """The first normalised training batches, of at least 2,000 images where there are as many."""
    size, augment = cfg.train.batch_size, str(cfg.data.augment)
    batches = Batches(splits.train.to(device), size, splits.normalise, seed=cfg.seed, augment=augment)
    return (images for images, _, _ in islice(batches, -(-CALIBRATION // size)))
