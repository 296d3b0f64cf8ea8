"""``evaluate``: measure any ``nn.Module`` on images, in one call."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Int64, Shaped
from rich.console import Console
from torch import Tensor, nn

from ..errors import UserError
from ..metrics.rows import COLUMNS, Note, Row
from ..nets.external import LoadedNet
from .adapter import EvaluationSet, ModelAdapter, adapt_model
from .families import ON_REQUEST
from .suite import ALL, evaluate_families

if TYPE_CHECKING:
    from pandas import DataFrame

OUT_OF_FRAME = {"edge": "replicate", "black": "constant"}


def evaluate(
    net: nn.Module,
    images: Shaped[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"] | None = None,
    what: Sequence[str] = ("shift",),
    layers: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    max_shift: int = 8,
    out_of_frame: str = "edge",
    untrained: nn.Module | None = None,
    seed: int = 0,
    batch: int = 125,
    quiet: bool = False,
) -> "DataFrame":
    """What shifts and other transforms do to the output of a net and to its layers.

    >>> images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2048, 10))
    >>> table = evaluate(net, images, max_shift=2, quiet=True)
    >>> list(table.columns)
    ['layer', 'transform', 'protocol', 'amount', 'measure', 'value', 'low', 'high', 'n']
    >>> "invariance_error" in set(table[table.layer == "1"].measure)
    True

    Args:
        net: takes float images (n, c, h, w) and gives a vector for each image; measured in eval mode, on its device.
        images: at least 2; bytes from 0 to 255, or floats in [0, 1].
        labels: class of each, where the net has an output for each class.
        what: families of measures, as ``measure.what`` of a config names them.
        layers: names or patterns of modules; none: the last of each resolution, and what the last Linear reads.
        mean, std: of each channel in [0, 1]: the net is given ``(images - mean) / std``; None: the images themselves.
        max_shift: largest shift, in pixels.
        out_of_frame: what a cropped shift brings in from beyond the image: ``edge`` repeats it, ``black`` is 0.
        untrained: the same net with random weights: its numbers are added as ``…_untrained``.
        seed: of the directions of shifts and of the bootstrap.
        batch: images a forward pass.
        quiet: shows no progress.

    Returns:
        A row a number: layer (``output``: the net's own), transform, protocol, amount (pixels, degrees …), measure,
        value, its 95% interval (low, high) over images, and n, the images. ``attrs["notes"]`` says what was not
        measured, and why.

    Raises:
        UserError: images, labels, layers or families that do not fit.
    """
    from pandas import DataFrame

    test_set = _evaluation_set(images, labels, max_shift, out_of_frame, seed, batch)
    for name in what:
        if name not in (*ALL, *ON_REQUEST):
            raise UserError(f"what={name}: choose among {', '.join((*ALL, *ON_REQUEST))}")
    adapter = _adapter(net, images, layers, mean, std)
    nets = [(adapter, "")]
    if untrained is not None:
        nets.append((replace(_adapter(untrained, images, layers, mean, std), layers=adapter.layers), "_untrained"))
    found, notes = [], {}
    with Console(stderr=True, quiet=quiet).status("measuring") as status:
        for one, suffix in nets:
            for result in evaluate_families(one, test_set, what, status.update):
                if isinstance(result, Row):
                    found.append(replace(result, measure=result.measure + suffix).values())
                elif isinstance(result, Note):
                    notes[result.measure + suffix] = result.words
    frame = DataFrame(found, columns=list(COLUMNS))
    frame.attrs["notes"] = notes
    return frame


def _evaluation_set(
    images: Tensor, labels: Tensor | None, max_shift: int, out_of_frame: str, seed: int, batch: int
) -> EvaluationSet:
    if images.ndim != 4 or len(images) < 2:
        raise UserError(f"images of shape {tuple(images.shape)}: (n, c, h, w) is needed, n at least 2")
    if labels is not None and (labels.shape != (len(images),) or labels.dtype != torch.int64):
        raise UserError(f"labels of shape {tuple(labels.shape)}, {labels.dtype}: one int64 class an image is needed")
    if out_of_frame not in OUT_OF_FRAME:
        raise UserError(f"out_of_frame={out_of_frame}: choose one of {', '.join(OUT_OF_FRAME)}")
    if max_shift < 1 or batch < 1:
        raise UserError(f"max_shift={max_shift}, batch={batch}: must be whole numbers of at least 1")
    if images.dtype != torch.uint8:
        if not images.is_floating_point() or images.min() < 0 or images.max() > 1:
            raise UserError("images: bytes from 0 to 255 or floats in [0, 1] are needed; mean= and std= normalise them")
        images = 255 * images.float()
    padded = F.pad(images.float(), (max_shift,) * 4, mode=OUT_OF_FRAME[out_of_frame]).to(images.dtype)
    return EvaluationSet(padded, max_shift, labels, None, seed, batch)


def _adapter(
    net: nn.Module, images: Tensor, layers: Sequence[str], mean: Sequence[float] | None, std: Sequence[float] | None
) -> ModelAdapter:
    channels, height, width = images.shape[1:]
    image = channels, height, width
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise UserError(f"{name}={list(values)}: one number a channel is needed, the images have {channels}")
    loaded = LoadedNet(net, image, tuple(mean or [0.0] * channels), tuple(std or [1.0] * channels), None)
    return adapt_model(loaded, image, layers)
