"""What lies inside the kept net of a run, packed for the page: what channels look for, and what a shift changes."""

from typing import Any

import numpy as np

from ..results.runs import FinishedRun
from .inline_data import pack, pictures

#: what a layer's probe answers → its measure
PROBES = {"what": "probe_accuracy", "where": "probe_r2"}


def packed_inside(run: FinishedRun) -> dict[str, Any]:
    """The arrays of ``inside.npz`` that the page draws, as plain data; empty where the run has none.

    Beside each stage stand its probes: value, and the same probe's on the pixels.
    """
    found = run.inside
    if not found:
        return {}
    whole: dict[str, Any] = {name: found[name].tolist() for name in ("labels", "answers", "shift") if name in found}
    if "filters" in found:
        filters = found["filters"]
        whole["filters"] = {"shape": list(filters.shape), "maps": pack(filters)}
    if "cam" in found:
        whole["cam"] = {"shape": [len(found["cam"]), 1, *found["cam"].shape[1:]], "maps": pack(found["cam"][:, None])}
    stages = [name.removesuffix("/facts") for name in found if name.endswith("/facts")]
    return whole | {"classes": run.facts.get("classes", []), "stages": {stage: _stage(run, stage) for stage in stages}}


def _stage(run: FinishedRun, stage: str) -> dict[str, Any]:
    one = {name.removeprefix(f"{stage}/"): array for name, array in run.inside.items() if name.startswith(f"{stage}/")}
    said: dict[str, Any] = {
        "facts": [[None if np.isnan(x) else round(float(x), 4) for x in row] for row in one["facts"]],
        "order": one["order"].tolist(),
        "field": one["field"].tolist(),
        "probes": {word: _probe(run, stage, measure) for word, measure in PROBES.items()},
    }
    if "patches" in one:
        said["patches"] = {"channels": one["patch_channels"].tolist(), **pictures(one["patches"])}
    for name in ("moved", "back"):
        if name in one:
            ends = float(np.nanmax(np.abs(one[name].astype(np.float32)), initial=0))
            said[name] = {"shape": list(one[name].shape), "maps": pack(one[name]), "most": ends}
    return said


def _probe(run: FinishedRun, stage: str, measure: str) -> list[float] | None:
    """Of the stage, and of the pixels."""
    values = [run.estimate(layer, "test", 0, measure)[0] for layer in (stage, "pixels")]
    return None if np.isnan(values).any() else values
