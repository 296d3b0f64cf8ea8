"""``evaluate``: measure any ``nn.Module`` on images, in one call."""

from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from rich.console import Console
from torch import Tensor, nn

from ..common import arguments
from ..common.errors import UserError, did_you_mean
from ..metrics.rows import COLUMNS, Note, Row
from ..nets.external import LoadedNet, output_size
from ..transforms import check_max_shift
from .adapter import EvaluationSet, ModelAdapter, adapt_model
from .families import ON_REQUEST
from .suite import ALL, evaluate_families

if TYPE_CHECKING:
    from pandas import DataFrame

OUT_OF_FRAME = {"edge": "replicate", "black": "constant"}


def evaluate(
    net: nn.Module,
    images: Shaped[Tensor | np.ndarray, "n c h w"],
    labels: Int[Tensor | np.ndarray, " n"] | Sequence[int] | None = None,
    what: str | Sequence[str] = ("shift",),
    layers: str | Sequence[str] = (),
    mean: Sequence[float] | Tensor | np.ndarray | None = None,
    std: Sequence[float] | Tensor | np.ndarray | None = None,
    max_shift: int = 8,
    out_of_frame: str = "edge",
    untrained: nn.Module | None = None,
    seed: int = 0,
    batch: int = 125,
    quiet: bool = False,
) -> "DataFrame":
    """What shifts and other transforms do to the output of a net and to its layers.

    >>> import torch
    >>> images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2048, 10))
    >>> table = evaluate(net, images, max_shift=2, quiet=True)
    >>> list(table.columns)
    ['layer', 'transform', 'protocol', 'amount', 'measure', 'value', 'low', 'high', 'n']
    >>> "invariance_error" in set(table[table.layer == "1"].measure)
    True

    Args:
        net: takes float images (n, c, h, w) and gives a vector for each image (n, d), or a tuple or a dict whose first
            entry, or entry ``logits`` or ``out``, is that; measured in eval mode, on its device.
        images: at least 2; bytes from 0 to 255, or floats in [0, 1].
        labels: class of each, from 0 to the number of outputs - 1, where the net has an output for each class.
        what: families of measures (one, or several), as ``measure.what`` of a config names them.
        layers: names or patterns of modules (one, or several); none: the last of each resolution, and what the last
            Linear reads.
        mean, std: of each channel in [0, 1], std above 0: the net is given ``(images - mean) / std``; None: the images
            themselves.
        max_shift: largest shift, in pixels: 1 … 8 of them are measured, then 16, 32 …, and the largest itself; above 8
            it must be below the image's side.
        out_of_frame: what a cropped shift brings in from beyond the image: ``edge`` repeats it, ``black`` is 0.
        untrained: the same net with random weights: its numbers are added as ``…_untrained``.
        seed: of the directions of shifts and of the bootstrap, from 0 to 2³² - 1.
        batch: images per forward pass.
        quiet: shows no progress.

    Returns:
        One row per number: layer (``output``: the net's own; a module of that name is ``output (module)``), transform,
        protocol, amount (pixels, degrees …), measure, value, its 95% interval (low, high) over images, and n, the
        images. ``attrs["notes"]`` says what was not measured, and why; also of numbers that are nan.

    Raises:
        UserError: an argument that does not fit; said before anything is measured.
    """
    from pandas import DataFrame

    families = arguments.names_of("what", what)
    for name in families:
        if name not in (*ALL, *ON_REQUEST):
            choices = (*ALL, *ON_REQUEST)
            raise UserError(f"what={name}: {did_you_mean(name, choices)}choose among {', '.join(choices)}")
    test_set = _evaluation_set(images, labels, max_shift, out_of_frame, seed, batch)
    nets = _adapters(net, untrained, test_set, arguments.names_of("layers", layers), mean, std)
    found, notes = [], {}
    with Console(stderr=True, quiet=quiet).status("measuring") as status:
        for suffix, adapter in nets.items():
            for result in evaluate_families(adapter, test_set, families, status.update):
                if isinstance(result, Row):
                    found.append(replace(result, measure=result.measure + suffix).values())
                elif isinstance(result, Note):
                    notes[result.measure + suffix] = result.words
    frame = DataFrame(found, columns=list(COLUMNS))
    if undefined := frame[frame.value.isna()].groupby("measure", sort=False).layer.unique().to_dict():
        names = "; ".join(f"{measure} of {', '.join(layers)}" for measure, layers in undefined.items())
        notes["nan"] = f"{names}: nan, as where all images have the same output or class, or one that is not finite"
    frame.attrs["notes"] = notes
    return frame


def _evaluation_set(
    images: object, labels: object, max_shift: object, out_of_frame: str, seed: object, batch: object
) -> EvaluationSet:
    pixels = arguments.image_tensor(images)
    classes = None if labels is None else arguments.label_tensor(labels, len(pixels))
    largest = arguments.whole_number("max_shift", max_shift, least=1)
    check_max_shift("max_shift", largest, *pixels.shape[2:])
    batch_size = arguments.whole_number("batch", batch, least=1)
    random_seed = arguments.whole_number("seed", seed, least=0, below=2**32)
    if out_of_frame not in [*OUT_OF_FRAME]:
        raise UserError(f"out_of_frame={out_of_frame}: choose one of {', '.join(OUT_OF_FRAME)}")
    padded = F.pad(pixels.float(), (largest,) * 4, mode=OUT_OF_FRAME[out_of_frame]).to(pixels.dtype)
    return EvaluationSet(padded, largest, classes, None, random_seed, batch_size)


def _adapters(
    net: object, untrained: object, test_set: EvaluationSet, layers: list[str], mean: object, std: object
) -> dict[str, ModelAdapter]:
    """What measures' names end in → the net; the untrained one is observed at the layers of the other. ``UserError`` if
    a net does not take the images, has no output for a label, or lacks a layer of the other.
    """
    channels, *sides = test_set.padded.shape[1:]
    height, width = (side - 2 * test_set.margin for side in sides)
    image = channels, height, width
    center = (0.0,) * channels if mean is None else arguments.channel_numbers("mean", mean, channels)
    scale = (1.0,) * channels if std is None else arguments.channel_numbers("std", std, channels, positive=True)

    def adapted(name: str, module: object, patterns: list[str]) -> ModelAdapter:
        found = arguments.module(name, module)
        if any(tensor.is_meta for tensor in (*found.parameters(), *found.buffers())):
            raise UserError(f"{name}: weights on the meta device have shapes, but no numbers that could be measured")
        return adapt_model(LoadedNet(found, image, center, scale, None), image, patterns)

    adapter = adapted("net", net, layers)
    outputs = output_size(adapter.net, image)
    if test_set.labels is not None and adapter.classifies:
        arguments.refuse_labels_without_output(test_set.labels, outputs)
    if untrained is None:
        return {"": adapter}
    names = {name for name, _ in arguments.module("untrained", untrained).named_modules()}
    if missing := [layer for layer in adapter.layers if layer not in names]:
        raise UserError(f"untrained: it has no layer {', '.join(missing[:3])}; it must be the same net as the other")
    twin = adapted("untrained", untrained, [escape(layer) for layer in adapter.layers])
    twin = replace(twin, layers=adapter.layers)  # in their order
    if (others := output_size(twin.net, image)) != outputs:
        raise UserError(f"untrained: it has {others} outputs, the net {outputs}; it must be the same net as the other")
    return {"": adapter, "_untrained": twin}
