"""Statistics that are followed while a net trains, on fixed images: ``measure.follow`` names some of ``FOLLOWED``.

A statistic is a function of a ``Look`` in a file of this package, and a line here. It gives columns of ``history.csv``:
``layers/LAYER/NAME``, of fixed validation images without their labels; or ``train/NAME``, of fixed training images with
the labels that they are trained with.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ...common.errors import UserError
from ...common.registry import file_of

#: name, that of a function → the file that has it
FOLLOWED = {
    "effective_rank": "of_layers",
    "participation_ratio": "of_layers",
    "dead_share": "of_layers",
    "local_dimension": "of_layers",
    "prediction_change": "of_fitting",
    "susceptibility": "of_fitting",
    "gradient_disparity": "of_fitting",
    "class_divergence": "of_fitting",
}
#: those that a net without classes does not have
OF_CLASSES = ("prediction_change", "susceptibility", "class_divergence")


def statistic(name: str) -> Callable[[Any], dict[str, float]]:
    """The function of a name of ``FOLLOWED``: a ``Look`` → column → number; ``UserError`` if its file has none."""
    module = import_module(f"{__name__}.{FOLLOWED[name]}")
    function: Callable[[Any], dict[str, float]] | None = getattr(module, name, None)
    if function is None:
        raise UserError(f"{file_of(module)}: has no function {name}, which FOLLOWED says is there")
    return function
