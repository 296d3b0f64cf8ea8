"""Feature maps and feature analyses as plain data for the page, where ``map_browser.js`` and ``feature_analysis.js``
draw them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..results import files
from ..results.runs import FinishedRun
from ..results.saved_maps import read_maps
from .inline_data import serialize_images, serialize_map_values
from .maps import colours, epochs_of, read_scale
from .metamers import columns_of
from .variant import Variant

#: largest number of map values on a page, a byte each; the feature analyses may have half as many
MOST_VALUES = 10_000_000
#: colour scales of maps, and of their changes under a shift
COLOUR_SCALES = {"map": "Viridis", "change": "RdBu_r"}
#: target of a stage's linear probe → its measure
PROBE_MEASURES = {"class": "probe_accuracy", "position": "probe_r2"}


def serialize_maps(variants: Sequence[Variant], most_values: int = MOST_VALUES) -> dict[str, Any]:
    """All data of the page's map browser; empty where no run has maps.

    Above ``most_values``, epochs are left out evenly (not the first and the last), then images; and the feature
    analyses of the last nets. Of each variant, the first seed is shown.
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
        analysis_budget -= sum(array.size for array in (*run.inside.values(), *run.pictures.values()))
        images_key = str(run.facts.get("probe_checksum"))
        for epoch in (epoch for epoch in shown_epochs if epoch in epochs):
            inputs, maps = read_maps(run.folder, epoch)
            image_count = max(1, int(share_of_images * len(inputs)))
            images[images_key] = serialize_images(inputs[:image_count])
            for stage, values in maps.items():
                entry = stages.setdefault(stage, {"shape": [image_count, *values.shape[1:]], "epochs": {}})
                entry["epochs"][epoch] = serialize_map_values(values[:image_count])
        analysis = serialize_analysis(run) if analysis_budget >= 0 else {}
        net = {"name": name, "stages": stages, "geometry": stage_geometry(run), "analysis": analysis}
        net["metamers"] = serialize_metamers(run) if analysis_budget >= 0 else {}
        nets.append(net | {"images": images_key})
    return {
        "nets": nets, "images": images, "epochs": shown_epochs,
        "left_out": {"epochs": len(all_epochs) - count, "analyses": sum(1 for net in nets if not net["analysis"])},
        "scales": shared_scales([run for _, run, _ in runs]),
        "colours": {name: colours(scale).tolist() for name, scale in COLOUR_SCALES.items()},
    }  # fmt: skip


def serialize_metamers(run: FinishedRun) -> dict[str, Any]:
    """The images that were inverted, under ``image``, and the metamers of each layer, a row an image; empty without."""
    with files.reading(run.folder / files.PICTURES):
        return {
            column.title: serialize_images(column.pictures) | {"reached": column.reached.tolist()}
            for column in columns_of(run.pictures)
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
    with files.reading(run.folder / files.SHAPES):
        return {row["layer"].split(".")[0]: [float(row["start"]), float(row["jump"])] for row in run.shapes}


def serialize_analysis(run: FinishedRun) -> dict[str, Any]:
    """The arrays of ``inside.npz`` that the page draws; empty where the run has none."""
    if not (arrays := run.inside):
        return {}
    with files.reading(run.folder / files.INSIDE):
        keys = {"labels": "labels", "shift": "shift", "answers": "predictions"}
        net: dict[str, Any] = {key: arrays[name].tolist() for name, key in keys.items() if name in arrays}
        if "filters" in arrays:
            net["filters"] = _maps(arrays["filters"])
        if "cam" in arrays:
            net["cam"] = _maps(arrays["cam"][:, None])
        names = [name.removesuffix("/facts") for name in arrays if name.endswith("/facts")]
        return net | {"classes": run.facts.get("classes", []), "stages": {name: _stage(run, name) for name in names}}


def _stage(run: FinishedRun, stage: str) -> dict[str, Any]:
    """Facts of the channels, patches, changes under a shift, and linear probes of a stage."""
    prefix = f"{stage}/"
    arrays = {name.removeprefix(prefix): array for name, array in run.inside.items() if name.startswith(prefix)}
    data: dict[str, Any] = {
        "facts": [[None if np.isnan(x) else round(float(x), 4) for x in row] for row in arrays["facts"]],
        "order": arrays["order"].tolist(),
        "field": arrays["field"].tolist(),
        "probes": {target: _probe(run, stage, measure) for target, measure in PROBE_MEASURES.items()},
    }
    if "patches" in arrays:
        data["patches"] = {"channels": arrays["patch_channels"].tolist(), **serialize_images(arrays["patches"])}
    for name, key in (("moved", "change"), ("back", "change_after_inverse")):
        if name in arrays:
            largest = float(np.nanmax(np.abs(arrays[name].astype(np.float32)), initial=0))
            data[key] = _maps(arrays[name]) | {"largest": largest}
    return data


def _maps(maps: np.ndarray) -> dict[str, Any]:
    return {"shape": list(maps.shape), "maps": serialize_map_values(maps)}


def _probe(run: FinishedRun, stage: str, measure: str) -> list[float] | None:
    """Of the stage, and of the pixels."""
    values = [run.estimate(layer, "test", 0, measure)[0] for layer in (stage, "pixels")]
    return None if np.isnan(values).any() else values
