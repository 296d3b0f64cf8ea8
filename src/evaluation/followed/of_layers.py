"""Statistics of layers on fixed validation images, without labels: ``layers/LAYER/NAME``."""

from ...metrics.local_dimension import local_dimension as of_points
from .look import Look


def _of_all(look: Look, name: str) -> dict[str, float]:
    return {f"layers/{layer}/{name}": numbers[name] for layer, numbers in look.numbers_of_layers.items()}


def effective_rank(look: Look) -> dict[str, float]:
    """``metrics.dimension.effective_rank`` of every layer."""
    return _of_all(look, "effective_rank")


def participation_ratio(look: Look) -> dict[str, float]:
    """``metrics.dimension.participation_ratio`` of every layer."""
    return _of_all(look, "participation_ratio")


def dead_share(look: Look) -> dict[str, float]:
    """``metrics.channel_health.dead_share`` of every layer."""
    return _of_all(look, "dead_share")


def local_dimension(look: Look) -> dict[str, float]:
    """``metrics.local_dimension.local_dimension`` of what the head reads."""
    return {f"layers/{look.layers[-1]}/local_dimension": of_points(look.head_features)}
