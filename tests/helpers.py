"""What several files of tests use."""

from torch import nn

from src.config import Model, from_dict
from src.models import architecture

Image = tuple[int, int, int]


def model(**axes: object) -> Model:
    """A config of a net, as a user could have written it."""
    return from_dict({"model": axes}).model


def network(image: Image, outputs: int = 5, **axes: object) -> nn.Module:
    """A net, small unless told otherwise."""
    config = model(**{"depth": 2, "width": 4} | axes)
    return architecture(config.name)(config, image, outputs)
