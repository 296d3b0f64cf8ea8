"""Measure the nets of finished runs again, or compare their layers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..config import MEASURES, Config, from_dict, to_dict
from ..data.checksums import files_checksum
from ..data.splits import Splits, pictures_of, split
from ..evaluation.families import metamers
from ..evaluation.families.layers import AGAINST, against_rows
from ..reporting.terminal import console, show_closing, show_notes
from ..results import files
from ..results.identity import read_checkpoint, write_identity
from ..results.measures import named_values
from ..results.runs import FinishedRun
from ..training.evaluate_run import adapter_of_run, evaluation_set, measure
from ..training.lightning_module import Training, module
from ..training.untrained import untrained
from ..transforms import check_max_shift
from .options import OF_MEASURE, Options, families_of
from .output import fastest_device, log, show_page
from .table import Table, output_paths, refuse_other_settings


def measure_again(options: Options) -> None:
    """Measure the net in a checkpoint, which is read as data only; the errors are those of ``load_run``."""
    net, cfg, splits = load_run(options.checkpoint or "", options)
    console.print(
        f"  {cfg.model.name}, pool {cfg.model.pool}: {cfg.measure.images} test images of {cfg.data.name}", markup=False
    )
    run, out = output_paths(options, files.MEASURES)
    own = out.resolve() == run / files.MEASURES and (run / files.CONFIG).exists()
    if own:
        refuse_other_settings(options, cfg, run)
    table = Table(out, list(cfg.measure.what), None if own else provenance_of_run(options, cfg), bool(options.out))
    with console.status("measuring") as status:
        found = list(measure(net, cfg, splits, status.update))
    rows = table.write(found)
    if own and {*MEASURES} <= {*cfg.measure.what}:
        write_identity(run, cfg)  # now every number is of this version
    done = FinishedRun(run, {}, out)
    show_notes(done.notes)
    show_closing(named_values(rows), out)
    show_page(done, f"{cfg.model.name}, pool {cfg.model.pool}, {cfg.data.name}", out, f" of {cfg.data.name}")
    log(options, run.name, out, found, to_dict(cfg) | {"checkpoint": options.checkpoint}, cfg)


def compare_layers(options: Options) -> None:
    """How alike the layers of the nets in two checkpoints are, on the test images of the first; ``UserError`` also if
    they take images of different shapes.
    """
    net, cfg, splits = load_run(options.checkpoint or "", options)
    other, _, others = load_run(options.against or "", options)
    if splits.image != others.image:
        shapes = ["×".join(map(str, split.image)) for split in (splits, others)]
        raise UserError(
            f"against={options.against}: takes images of {shapes[1]}, and the checkpoint's net of {shapes[0]}"
        )
    test_set = evaluation_set(cfg, splits)
    ours, theirs = adapter_of_run(net, splits), adapter_of_run(other, others)
    twin = replace(ours, net=untrained(cfg, splits, net.device))
    name = Path(options.against or "").resolve().parent.parent.name
    run, out = output_paths(options, f"against-{name}.csv")
    table = Table(out, None, provenance_of_run(options, cfg), bool(options.out))
    with console.status("measuring"):
        found = list(against_rows(ours, theirs, test_set))
        found += [replace(row, measure=f"{AGAINST}_untrained") for row in against_rows(twin, theirs, test_set)]
    found += metamers.against_rows(FinishedRun(run, {}).pictures, theirs, test_set.seed)
    rows = table.write(found)
    recognised = [row for row in rows if row.measure == "metamer_recognised_against"]
    shares = ", ".join(f"{row.layer} {row.estimate.value:.0%}" for row in recognised)
    said = f"  recognised metamers: {shares}\n" if recognised else ""
    said += f"  CKA on {len(test_set.padded)} test images of {cfg.data.name}\n  {out}"
    console.print(said, soft_wrap=True, markup=False)
    title = f"{run.name} against {name}"
    show_page(FinishedRun(run, {}, out), title, out)
    compared = {"checkpoint": options.checkpoint, "against": options.against}
    log(options, title, out, found, to_dict(cfg) | compared, cfg)


def provenance_of_run(options: Options, cfg: Config) -> dict[str, Any]:
    """Everything that the numbers depend on, but the families, of a table that is not the run's own."""
    nets = {key: getattr(options, key) for key in ("checkpoint", "against")}
    nets = {key: str(Path(path).resolve()) for key, path in nets.items() if path}
    sums = {f"{key}_checksum": files_checksum([Path(path)]) for key, path in nets.items()}
    measured = {key: getattr(cfg.measure, key) for key in OF_MEASURE}
    return nets | sums | measured | {"pictures": pictures_of(cfg.data)}


def load_run(path: str, options: Options) -> tuple[Training, Config, Splits]:
    """The net in a run's checkpoint, its config with what the options say of measuring, and its images; ``UserError``
    if there is no such file, it is no checkpoint of this project, or its weights do not fit its config.
    """
    cfg, weights = read_checkpoint(Path(path))
    asked: dict[str, Any] = {key: getattr(options, key) for key in OF_MEASURE if getattr(options, key) is not None}
    if options.what:
        asked["what"] = families_of(options.what)
    root = options.data.root or options.root or cfg.data.root
    tree = to_dict(cfg)
    cfg = from_dict(tree | {"measure": tree["measure"] | asked, "data": tree["data"] | {"root": root}})

    splits = split(cfg.data)
    check_max_shift("max_shift", cfg.measure.max_shift, *splits.image[1:])
    net = module(cfg, splits.image, len(splits.classes))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path} does not hold the weights of its own config, a {cfg.model.name}: {reason}") from error
    return net.to(fastest_device()), cfg, splits
