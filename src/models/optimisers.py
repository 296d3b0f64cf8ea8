"""Optimisers and learning-rate schedules, by name."""

from collections.abc import Callable, Iterable
from functools import partial

from torch import nn, optim
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    # fused: all parameters by one kernel, in a third of the time of one after the other, on a CPU too
    "adamw": partial(optim.AdamW, fused=True),
    "adam": partial(optim.Adam, fused=True),
    "adadelta": partial(optim.Adadelta, eps=1e-6),  # its lr is a factor: 1 is Zeiler's
    "sgd": partial(optim.SGD, momentum=0.9, nesterov=True, fused=True),
}

SCHEDULES: dict[str, Callable[[optim.Optimizer, float, int], LRScheduler]] = {
    # up for the first 30% of the steps, then down to nothing (Smith & Topin 2018)
    "onecycle": lambda optimizer, lr, steps: OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False),
    "cosine": lambda optimizer, lr, steps: CosineAnnealingLR(optimizer, steps),
    "constant": lambda optimizer, lr, steps: ConstantLR(optimizer, factor=1.0, total_iters=steps),
}

#: those that do not look at how many steps there are: a run can go on for more epochs than it was begun for
EXTENSIBLE = ("constant",)


def optimiser(name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> optim.Optimizer:
    """The optimiser; weights decay, biases and norm scales (one axis) do not."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[name](groups, lr=lr)
