"""The net that training starts from: what every number of a trained net is held against."""

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

#: training images that give an untrained net's batch norms their statistics
CALIBRATION = 2000


def untrained(cfg: Config, splits: Splits, device: torch.device) -> Training:
    """The net that a run's training starts from: with the weights of its seed; fitted, where it is (``PCA``); and its
    batch norms with the statistics of the first 2,000 images that training sees (``models.norm.calibrate``).
    """
    net = module(cfg, splits.image, len(splits.classes))
    net.fit(splits.train.images, splits.normalise)
    net.to(device)
    calibrate(net, first_images(cfg, splits, device))
    return net


def first_images(cfg: Config, splits: Splits, device: torch.device) -> Iterator[Float[Tensor, "n c h w"]]:
    """The first batches of a run's training, at least 2,000 images where there are as many, as the net takes them."""
    size, augment = cfg.train.batch_size, str(cfg.data.augment)
    batches = Batches(splits.train.to(device), size, splits.mean, splits.std, seed=cfg.seed, augment=augment)
    return (images for images, _, _ in islice(batches, -(-CALIBRATION // size)))
