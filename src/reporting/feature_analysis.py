"""The feature analysis of a run's net as plain data for the page, where ``feature_analysis.js`` draws it."""

from typing import Any

import numpy as np

from ..results.runs import FinishedRun
from .inline_data import serialize_images, serialize_map_values

#: target of a stage's linear probe → its measure
PROBE_MEASURES = {"class": "probe_accuracy", "position": "probe_r2"}


def serialize_analysis(run: FinishedRun) -> dict[str, Any]:
    """The arrays of ``inside.npz`` that the page draws; empty where the run has none."""
    arrays = run.inside
    if not arrays:
        return {}
    net: dict[str, Any] = {name: arrays[name].tolist() for name in ("labels", "shift") if name in arrays}
    if "answers" in arrays:
        net["predictions"] = arrays["answers"].tolist()
    if "filters" in arrays:
        net["filters"] = _maps(arrays["filters"])
    if "cam" in arrays:
        net["cam"] = _maps(arrays["cam"][:, None])
    stages = [name.removesuffix("/facts") for name in arrays if name.endswith("/facts")]
    return net | {"classes": run.facts.get("classes", []), "stages": {stage: _stage(run, stage) for stage in stages}}


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
