"""The few images that are looked at in every run of a sweep: the same config, the same images."""

import torch
from jaxtyping import Int64
from torch import Tensor

from .options import Probe
from .sets import Images, read
from .splits import Splits

#: parts of red, green and blue in a grey picture (ITU-R BT.601)
GREY = (0.299, 0.587, 0.114)


def probe_images(probe: Probe, splits: Splits) -> Images:
    """Test images drawn by a seed, or as many of each class as can be, or named files; labels of files are -1.

    A file's middle square is taken, at the side of the set's images, in grey where these are.

    Raises:
        UserError: a file is no image.
    """
    if probe.files:
        found = read([(path, -1) for path in probe.files], splits.image[1])
        if splits.image[0] == 1:
            weights = torch.tensor(GREY)[:, None, None]
            images = (found.images * weights).sum(1, keepdim=True).round().to(torch.uint8)
            return Images(images, found.labels)
        return Images(found.images, found.labels)
    order = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(probe.seed))
    if probe.choice == "balanced":
        order = order[in_turn(splits.test.labels[order])]
    return splits.test.take(order[: probe.images])


def in_turn(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """ResourcePool of labels, so that the first of each class come first, then the second of each, as they stand.

    >>> in_turn(torch.tensor([7, 7, 3, 7, 3])).tolist()
    [0, 2, 1, 4, 3]
    """
    classes, index = labels.unique(return_inverse=True)
    seen = (index[:, None] == torch.arange(len(classes))).cumsum(0).gather(1, index[:, None])[:, 0]
    order: Tensor = seen.argsort(stable=True)
    return order
