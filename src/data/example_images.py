"""Example images, whose feature maps every run saves: the same config gives the same images."""

import torch
from jaxtyping import Int64
from torch import Tensor

from .image_files import read
from .images import Images
from .options import Probe
from .splits import Splits


def probe_images(probe: Probe, splits: Splits) -> Images:
    """Test images drawn at random, or balanced over classes, or read from files, whose labels are -1.

    Files are centre-cropped, resized to the size of the set's images, and made grey if these are. ``UserError`` if a
    file is no image.
    """
    if probe.files:
        images = read([(path, -1) for path in probe.files], splits.image[1])
        pixels = images.images
        if splits.image[0] == 1:
            weights = torch.tensor((0.299, 0.587, 0.114))[:, None, None]  # of ITU-R BT.601
            pixels = (pixels * weights).sum(1, keepdim=True).round().to(torch.uint8)
        return Images(pixels, images.labels)
    order = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(probe.seed))
    if probe.choice == "balanced":
        order = order[in_turn(splits.test.labels[order])]
    return splits.test.take(order[: probe.images])


def in_turn(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Indices that interleave the classes: the first image of each class, in order, then the second of each, …

    >>> in_turn(torch.tensor([7, 7, 3, 7, 3])).tolist()
    [0, 2, 1, 4, 3]
    """
    classes, index = labels.unique(return_inverse=True)
    seen = (index[:, None] == torch.arange(len(classes))).cumsum(0).gather(1, index[:, None])[:, 0]
    order: Tensor = seen.argsort(stable=True)
    return order
