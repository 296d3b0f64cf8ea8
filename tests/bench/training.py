"""What Lightning with history, metrics, maps, checkpoints and W&B costs over a bare loop of the same batches."""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from src.config import Config, from_dict
from src.data.batches import EVALUATION_BATCH, Batches
from src.data.splits import split
from src.models import network
from src.models.optimisers import SCHEDULES, optimiser
from src.reporting.wandb_logger import WandbLogger
from src.training.run import _fit
from tests.bench.paired import DEVICE, now

IMAGES = None  # all of them, as in the default run


def config() -> Config:
    """The default net, on as many images as give a steady time."""
    return from_dict({"data": {"train_size": IMAGES}, "train": {"epochs": 1}, "wandb": {"mode": "offline"}})


def with_lightning() -> float:
    """Seconds of ``trainer.fit``, everything on."""
    with tempfile.TemporaryDirectory() as folder:
        cfg, run = config(), Path(folder) / "run"
        run.mkdir()
        tracker = WandbLogger(cfg, run)
        from lightning.pytorch import Trainer

        seconds = 0.0
        fit = Trainer.fit

        def timed(self: Trainer, *args: object, **kwargs: object) -> None:
            nonlocal seconds
            start = now()
            fit(self, *args, **kwargs)  # type: ignore[arg-type]
            seconds = now() - start

        Trainer.fit = timed  # type: ignore[method-assign, assignment]
        try:
            _fit(cfg, run, tracker)
        finally:
            Trainer.fit = fit  # type: ignore[method-assign]
            tracker.finish(failed=False)
    return seconds


def bare() -> float:
    """Seconds of the same training and validation in a plain loop, summing loss and accuracy."""
    cfg = config()
    splits = split(cfg.data)
    torch.manual_seed(0)
    net = network(cfg.model, splits.image, len(splits.classes)).to(DEVICE, memory_format=torch.channels_last)
    optimizer = optimiser("adamw", net.parameters(), cfg.train.lr, cfg.train.weight_decay)
    train = Batches(splits.train.to(DEVICE), cfg.train.batch_size, splits.normalise, seed=0)
    val = Batches(splits.val.to(DEVICE), EVALUATION_BATCH, splits.normalise)
    schedule = SCHEDULES["onecycle"](optimizer, cfg.train.lr, len(train))
    start = now()
    sums = torch.zeros(2, device=DEVICE)
    for x, y, _ in train:
        logits = net(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        sums += torch.stack([loss.detach(), (logits.argmax(1) == y).float().mean()])
    net.eval()
    with torch.no_grad():
        for x, y, _ in val:
            logits = net(x)
            sums += torch.stack([F.cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()])
    return now() - start
