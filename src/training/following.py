"""Statistics that a run follows while its net trains (``measure.follow``)."""

from typing import Any

import torch

from ..config import Config
from ..data.batches import Batches
from ..data.splits import Splits
from ..evaluation.followed import statistic
from ..evaluation.followed.look import Look
from ..nets.hooks import eval_mode
from .callbacks import OnlineEvaluation
from .lightning_module import Training

#: validation images of a look, and of a forward pass
IMAGES, BATCH = 250, 125
#: training batches of a look
TRAIN_BATCHES = 5


class FollowStatistics(OnlineEvaluation):
    """Computes ``measure.follow`` every ``measure.every`` epochs (0: each epoch), for ``history.csv`` and W&B.

    The images are always the same: the first 250 validation images, and the first five training batches, without
    augmentation. A look leaves the net, the gradients, and the random streams as they are. The checkpoint holds the
    last predictions, with which the next look compares its own.
    """

    def __init__(self, cfg: Config, splits: Splits) -> None:
        super().__init__(self.look, cfg.measure.every or 1)
        self.cfg, self.splits = cfg, splits
        self.predictions: torch.Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """The last predictions."""
        return {"predictions": self.predictions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the last predictions."""
        self.predictions = state_dict["predictions"]

    def look(self, net: Training) -> dict[str, float]:
        """Column → number, of the net as it is."""
        names, device = self.cfg.measure.follow, net.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), eval_mode(net):
            look = self._look(net)
            numbers = {column: value for name in names for column, value in statistic(name)(look).items()}
        if "prediction_change" in names:
            self.predictions = look.predictions
        return numbers

    def _look(self, net: Training) -> Look:
        splits, device = self.splits, net.device
        size = max(1, min(self.cfg.train.batch_size, len(splits.train) // TRAIN_BATCHES))
        some = splits.train.take(torch.arange(min(TRAIN_BATCHES * size, len(splits.train))))
        first = splits.val.take(torch.arange(min(IMAGES, len(splits.val))))
        images = [batch for batch, _, _ in Batches(first.to(device), BATCH, splits.normalise)]
        return Look(
            net, [*net.stages, "features"], net.task, images,
            list(Batches(some.to(device), size, splits.normalise)),
            self.cfg.train.lr, self.cfg.measure.seed, self.predictions,
        )  # fmt: skip
