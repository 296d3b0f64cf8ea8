"""Class divergence: how far a class's values of a unit lie from those of all classes. Followed in training, and not
part of ``measures.csv``.
"""

import numpy as np
from jaxtyping import Float, Int64
from scipy.stats import wasserstein_distance
from torch import Tensor

from .quantities import Quantity

QUANTITIES = (
    Quantity("class_divergence", low=0,
        formula="mean over units u of the last layer and classes c of W₁(p(u | c), p(u)) / σ(u), u before any softmax",
        null="that of shuffled labels, which falls with images a class; said to peak where a net generalises best",
        source="after Class-Conditional Neuron Pre-Activation Divergence (CND), whose divergence is another"),
)  # fmt: skip


def class_divergence(units: Float[Tensor, "n u"], labels: Int64[Tensor, " n"]) -> float:
    """The mean Wasserstein-1 distance between a unit's values in a class and in all images, in its standard deviations.

    In [0, ∞): 0 where no unit tells classes apart. It does not change when a unit is scaled or shifted. Constant units
    are left out; nan if all are, or any number is not finite.

    >>> import torch
    >>> class_divergence(torch.tensor([[3.0], [3.0], [1.0], [1.0]]), torch.tensor([0, 0, 1, 1]))
    1.0
    """
    values, classes = units.detach().double().cpu().numpy(), labels.cpu().numpy()
    if not np.isfinite(values).all():
        return float("nan")
    distances = [
        wasserstein_distance(unit[classes == c], unit) / unit.std()
        for unit in values.T
        if unit.std() > 0
        for c in np.unique(classes)
    ]
    return float(np.mean(distances)) if distances else float("nan")
