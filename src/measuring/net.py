"""Measure a net of a library, or of one's own, on images."""

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..data.checksums import folder_checksum
from ..data.external import check, sample
from ..evaluation.adapter import EvaluationSet, ModelAdapter, adapt_model, untransformed_batches
from ..evaluation.families import MetamerOptions
from ..evaluation.suite import evaluate_families
from ..models.norm import calibrate
from ..nets.external import DEFAULT, Image, check_net, is_own, load_net, output_size, with_hints
from ..nets.hooks import first_line
from ..reporting.terminal import console, show_measured, show_notes
from ..results import files
from ..results.runs import FinishedRun
from ..transforms import check_max_shift
from .layers import image_of
from .options import METAMERS, NET, Options, families_of, names_of, numbers_of
from .output import fastest_device, log, show_page
from .table import Table


def measure_net(options: Options) -> None:
    """Measure a net of a library, or one's own, and the same with random weights; ``UserError`` if there is no such
    net, weights, layers or images.
    """
    name = options.net or ""
    check_net(name)
    check(options.data.name, options.data.root or options.root)
    loaded = load_net(name, options.weights, options.classes)
    image = image_of(loaded, options)
    check_max_shift("max_shift", options.max_shift or NET["max_shift"], *image[1:])
    channels, side, _ = image
    if options.mean:
        loaded = replace(loaded, mean=numbers_of("mean", options.mean, channels))
    if options.std:
        loaded = replace(loaded, std=numbers_of("std", options.std, channels))
    out = Path(options.out or Path("outputs", "measure", name.replace("/", "-").replace(":", "-"), files.MEASURES))
    families = families_of(options.what)
    provenance = provenance_of_net(options) | {"pixels": side}
    table = Table(out, families, provenance, bool(options.out))
    beside = {_title(before): run for before, run in tables_beside(options, provenance)}
    device = fastest_device()
    with with_hints():
        adapter = adapt_model(loaded, image, names_of(options.layers))
    test_set = evaluation_set(options, adapter, image)
    adapter.net.to(device)
    if options.weights == "none":
        calibrate_untrained(adapter, test_set)
    as_built = is_own(name) and options.weights == DEFAULT  # one's own net, which comes with its weights
    title = _title(provenance)
    console.print(f"  {title}: {len(test_set.padded)} images of {options.data.name}, {side}×{side}", markup=False)
    with errors_of_own_code(name), console.status("measuring") as status:
        found = list(evaluate_families(adapter, test_set, families, status.update))
        if options.floor and options.weights != "none" and not as_built:
            twin = replace(adapter, net=load_net(name, "none", options.classes).net.to(device))
            calibrate_untrained(twin, test_set)
            floor = evaluate_families(twin, test_set, families, lambda words: status.update(f"random weights: {words}"))
            found += [replace(row, measure=f"{row.measure}_untrained") for row in floor]
    show_measured(table.write(found), out)
    run = FinishedRun(out.parent, {}, out)
    show_notes(run.notes)
    show_page(run, title, out, f" of {options.data.name}, {side}×{side} pixels", beside)
    settings = NET | {key: value for key, value in asdict(options).items() if value is not None}
    log(options, title, out, found, settings | {"what": families, "layers": adapter.layers, "size": side})


@contextmanager
def errors_of_own_code(name: str) -> Iterator[None]:
    """An exception in the file of one's own net, as in a later call than the first, as a ``UserError`` that names the
    line; all others as they are.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None) if is_own(name) else None
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        if not lines:
            raise
        raise UserError(f"net={name}: {file}, line {lines[-1]}: {type(error).__name__}: {first_line(error)}") from error


def _title(provenance: Mapping[str, Any]) -> str:
    name, weights = provenance["net"], provenance["weights"]
    return f"{name}, as built" if is_own(name) and weights == DEFAULT else f"{name}, weights {weights}"


def tables_beside(options: Options, provenance: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], FinishedRun]]:
    """The tables of other nets that ``beside=`` names, and how each was measured; ``UserError`` if one was measured on
    other images, or with other shifts.
    """
    for path in map(Path, names_of(options.beside)):
        before = files.read_json(files.beside(path, files.MEASURED), {}) if path.exists() else {}
        if not before.get("net") or not before.get("weights"):
            raise UserError(f"beside={path}: is no table of a net that was measured; give a measures.csv of net=")
        for key in ("data", "pictures", "images", "pixels", "seed", "max_shift"):
            if before.get(key) != provenance[key]:
                raise UserError(
                    f"beside={path}: was measured with {key}={before.get(key)}, not {provenance[key]}; nets are "
                    "compared on the same images"
                )
        yield before, FinishedRun(path.parent, {}, path)


def calibrate_untrained(adapter: ModelAdapter, test_set: EvaluationSet) -> None:
    """Give the batch norms of a net with random weights the statistics of the images, as a training step does.

    With mean 0 and variance 1, as they are built, it would be another net than the one that training starts from.
    """
    batches = untransformed_batches(adapter, replace(test_set, batch=max(3, test_set.batch)))  # none of one image
    calibrate(adapter.net, batches)


def evaluation_set(options: Options, adapter: ModelAdapter, image: Image) -> EvaluationSet:
    """The images that the net is measured on, with their labels if it has an output for each class; ``UserError`` if
    they are missing, or not such as the net takes.
    """
    given = NET | {key: getattr(options, key) for key in NET if getattr(options, key) is not None}
    margin, seed = given["max_shift"], given["seed"]
    root = options.data.root or options.root or "data"
    channels, side, _ = image
    found = sample(options.data.name, root, side, channels, margin, given["images"], seed)
    answers, classes = output_size(adapter.net, image), len(found.classes)
    labels = found.labels if adapter.classifies and answers == classes else None
    if labels is None:
        console.print(f"  the net has {answers} outputs, the data {classes} classes: measured without labels")
    positions = found.positions if found.positions.numel() else None
    metamers = MetamerOptions(*(given[key] for key in METAMERS))
    return EvaluationSet(found.padded, margin, labels, positions, seed, given["batch"], metamers=metamers)


def provenance_of_net(options: Options) -> dict[str, Any]:
    """Everything that the numbers of the table depend on, but the families."""
    keys = ("net", "weights", "classes", "size", "layers", "floor", "mean", "std", *NET)
    asked = NET | {key: value for key in keys if (value := getattr(options, key)) is not None}
    root = Path(options.data.root or options.root or "data").expanduser()
    pictures = folder_checksum(root) if options.data.name == "folder" else None
    return {key: asked.get(key) for key in keys if key != "batch"} | {"data": options.data.name, "pictures": pictures}
