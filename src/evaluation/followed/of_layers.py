"""Statistics of layers on fixed validation images, without labels: ``layers/LAYER/NAME``."""

from functools import partial

from ...metrics.local_dimension import local_dimension as of_points
from .look import Look


def _of_all(look: Look, name: str) -> dict[str, float]:
    of_layers, _ = look.measured
    return {f"layers/{layer}/{name}": numbers[name] for layer, numbers in of_layers.items()}


#: those of ``metrics.dimension``, and of ``metrics.channel_health``, of every layer
effective_rank = partial(_of_all, name="effective_rank")
participation_ratio = partial(_of_all, name="participation_ratio")
dead_share = partial(_of_all, name="dead_share")


def local_dimension(look: Look) -> dict[str, float]:
    """``metrics.local_dimension.local_dimension`` of what the head reads."""
    _, head_features = look.measured
    return {f"layers/{look.layers[-1]}/local_dimension": of_points(head_features)}
