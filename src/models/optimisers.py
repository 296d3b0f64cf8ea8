"""Optimisers and learning-rate schedules, by name."""

from collections.abc import Callable, Iterable
from functools import partial

from torch import nn, optim
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    # fused: one kernel for all parameters takes a third of the time, on a CPU too
    "adamw": partial(optim.AdamW, fused=True),
    "adam": partial(optim.Adam, fused=True),
    "adadelta": partial(optim.Adadelta, eps=1e-6),  # its lr is a factor; Zeiler 2012 has 1
    "sgd": partial(optim.SGD, momentum=0.9, nesterov=True, fused=True),
}

SCHEDULES: dict[str, Callable[[optim.Optimizer, float, int], LRScheduler]] = {
    # up for the first 30% of the steps, then down to almost 0 (Smith & Topin 2018)
    "onecycle": lambda optimizer, lr, steps: OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False),
    "cosine": lambda optimizer, lr, steps: CosineAnnealingLR(optimizer, steps),
    "constant": lambda optimizer, lr, steps: ConstantLR(optimizer, factor=1.0, total_iters=steps),
}

#: schedules that do not depend on the number of steps, so that a finished run can be trained for more epochs
EXTENSIBLE = ("constant",)


def optimiser(name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> optim.Optimizer:
    """The optimiser of the trainable parameters; no weight decay for biases and norm scales (one axis)."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[name](groups, lr=lr)
