"""The feature maps of a comparison as plain data for its page, where ``map_browser.js`` draws them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..results.runs import FinishedRun
from .feature_analysis import serialize_analysis
from .inline_data import serialize_images, serialize_map_values
from .maps import colours, epochs_of, read_maps, read_scale
from .variant import Variant

#: largest number of map values on a page, a byte each; the feature analyses may have half as many
MOST_VALUES = 10_000_000
#: colour scales of maps, and of their changes under a shift
COLOUR_SCALES = {"map": "Viridis", "change": "RdBu_r"}


def serialize_maps(variants: Sequence[Variant], most_values: int = MOST_VALUES) -> dict[str, Any]:
    """All data of the page's map browser; empty where no run has maps.

    Above ``most_values``, epochs are left out evenly (not the first and the last), then images; and the feature
    analyses of the last nets.

    Args:
        variants: of each, its first seed is shown.
        most_values: number of map values in all.
    """
    first_seeds = [(variant.name, variant.measured[0]) for variant in variants]
    runs = [(name, run, epochs_of(run.folder)) for name, run in first_seeds]
    runs = [(name, run, epochs) for name, run, epochs in runs if epochs and read_scale(run.folder)]
    if not runs:
        return {}
    all_epochs = sorted({epoch for _, _, epochs in runs for epoch in epochs})
    last_maps = [read_maps(run.folder, epochs[-1])[1] for _, run, epochs in runs]
    values_per_epoch = sum(stage_maps.size for maps in last_maps for stage_maps in maps.values())
    count = min(len(all_epochs), max(2, most_values // values_per_epoch))
    shown_epochs = [all_epochs[i] for i in np.linspace(0, len(all_epochs) - 1, count).round().astype(int)]
    share_of_images = min(1.0, most_values / (count * values_per_epoch))
    images: dict[str, Any] = {}
    nets, analysis_budget = [], most_values // 2
    for name, run, epochs in runs:
        stages: dict[str, Any] = {}
        analysis_budget -= sum(array.size for array in run.inside.values())
        images_key = str(run.facts["probe_checksum"])
        for epoch in (epoch for epoch in shown_epochs if epoch in epochs):
            inputs, maps = read_maps(run.folder, epoch)
            image_count = max(1, int(share_of_images * len(inputs)))
            images[images_key] = serialize_images(inputs[:image_count])
            for stage, values in maps.items():
                entry = stages.setdefault(stage, {"shape": [image_count, *values.shape[1:]], "epochs": {}})
                entry["epochs"][epoch] = serialize_map_values(values[:image_count])
        nets.append(
            {
                "name": name,
                "stages": stages,
                "geometry": stage_geometry(run),
                "analysis": serialize_analysis(run) if analysis_budget >= 0 else {},
                "images": images_key,
            }
        )
    return {
        "nets": nets,
        "images": images,
        "epochs": shown_epochs,
        "left_out": {"epochs": len(all_epochs) - count, "analyses": sum(1 for net in nets if not net["analysis"])},
        "scales": shared_scales([run for _, run, _ in runs]),
        "colours": {name: colours(scale).tolist() for name, scale in COLOUR_SCALES.items()},
    }


def shared_scales(runs: Sequence[FinishedRun]) -> dict[str, list[float]]:
    """Stage → low and high end of its colours, over all epochs of all runs."""
    scales: dict[str, list[float]] = {}
    for run in runs:
        for stage, (low, high) in read_scale(run.folder).items():
            lowest, highest = scales.get(stage, [low, high])
            scales[stage] = [min(low, lowest), max(high, highest)]
    return scales


def stage_geometry(run: FinishedRun) -> dict[str, list[float]]:
    """Stage → where its map lies on the image: centre of its first unit and step to the next, in pixels."""
    return {row["layer"].split(".")[0]: [float(row["start"]), float(row["jump"])] for row in run.shapes}
