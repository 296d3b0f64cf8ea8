"""The feature maps of a comparison, packed into its page, which draws any stage, epoch, image and channel of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..results.runs import FinishedRun
from .comparison import Variant
from .feature_analysis import packed_inside
from .inline_data import pack, pictures
from .maps import colours, epochs_of, read_maps, read_scale

#: numbers that the maps on a page may have, and half as many what lies inside its nets: a byte each on the page
CAP = 10_000_000
#: of maps, and of what a shift changes in them
COLOURS = {"map": "Viridis", "change": "RdBu_r"}


def packed_maps(found: Sequence[Variant], cap: int = CAP) -> dict[str, Any]:
    """All that the page's browser of feature maps knows, as plain data; empty where no run kept any.

    Where the maps have more than ``cap`` numbers, epochs are left out evenly (not the first and the last), then images;
    and the insides of the last nets.

    Args:
        found: the variants; of each, its first seed is shown.
        cap: numbers in all.
    """
    runs = [(variant.name, variant.measured[0], epochs_of(variant.measured[0].folder)) for variant in found]
    runs = [(name, run, each) for name, run, each in runs if each and read_scale(run.folder)]  # pixels has no stages
    if not runs:
        return {}
    epochs = sorted({epoch for _, _, each in runs for epoch in each})
    size = sum(one.size for _, run, each in runs for one in read_maps(run.folder, each[-1])[1].values())
    count = min(len(epochs), max(2, cap // size))
    chosen = [epochs[i] for i in np.linspace(0, len(epochs) - 1, count).round().astype(int)]
    share = min(1.0, cap / (count * size))
    images: dict[str, Any] = {}
    nets, inside = [], cap // 2
    for name, run, each in runs:
        net: dict[str, Any] = {"name": name, "stages": {}, "places": places(run)}
        inside -= sum(one.size for one in run.inside.values())
        net["inside"] = packed_inside(run) if inside >= 0 else {}
        net["images"] = str(run.facts["probe_checksum"])
        for epoch in (one for one in chosen if one in each):
            inputs, maps = read_maps(run.folder, epoch)
            few = max(1, int(share * len(inputs)))
            images[net["images"]] = pictures(inputs[:few])
            for stage, values in maps.items():
                entry = net["stages"].setdefault(stage, {"shape": [few, *values.shape[1:]], "epochs": {}})
                entry["epochs"][epoch] = pack(values[:few])
        nets.append(net)
    return {
        "nets": nets,
        "images": images,
        "epochs": chosen,
        "left_out": {"epochs": len(epochs) - count, "insides": sum(1 for net in nets if not net["inside"])},
        "scales": shared_scales([run for _, run, _ in runs]),
        "colours": {name: colours(scale).tolist() for name, scale in COLOURS.items()},
    }


def shared_scales(runs: Sequence[FinishedRun]) -> dict[str, list[float]]:
    """Stage → low and high end of its colours, over all epochs of all runs."""
    scales: dict[str, list[float]] = {}
    for run in runs:
        for stage, (low, high) in read_scale(run.folder).items():
            before = scales.get(stage, [low, high])
            scales[stage] = [min(low, before[0]), max(high, before[1])]
    return scales


def places(run: FinishedRun) -> dict[str, list[float]]:
    """Stage → where its map lies on the image: the middle of its first unit and the step to the next, in pixels."""
    return {row["layer"].split(".")[0]: [float(row["start"]), float(row["jump"])] for row in run.shapes}
