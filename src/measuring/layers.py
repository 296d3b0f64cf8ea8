"""List the layers of a net, in seconds: without data, weights or measures."""

from ..common.errors import UserError
from ..nets.external import Image, LoadedNet, default_layers, list_layers, load_net, with_hints
from ..reporting.terminal import show_layers
from .options import Options


def show_layers_of_net(options: Options) -> None:
    """Print the layers of a net, with those that are measured by default; ``UserError`` if there is no such net, or it
    does not take images of that size.
    """
    loaded = load_net(options.net or "", "none", options.classes)
    image = image_of(loaded, options)
    title = f"{options.net}, {image[1]}×{image[2]}"
    with with_hints():
        show_layers(list_layers(loaded.net, image), default_layers(loaded.net, image), title)


def image_of(loaded: LoadedNet, options: Options) -> Image:
    """(channels, height, width) of the images that the net is given; ``UserError`` if they are not square."""
    channels, height, width = loaded.image
    if options.size:
        return channels, options.size, options.size
    if height != width:
        raise UserError(
            f"net={options.net}: meant for {height}×{width} images, and those here are square: give size=PIXELS"
        )
    return channels, height, width
