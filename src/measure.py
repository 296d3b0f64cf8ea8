"""Measure a net: one of a library with weights of your own on images of your own, or a finished run again.

    python -m src.measure net=torchvision/resnet18 data=folder data.root=/path/to/images
    python -m src.measure net=timm/resnet18.a1_in1k weights=FILE.safetensors data=folder data.root=/path/to/images
    python -m src.measure net=torchvision/vgg11 layers=list
    python -m src.measure checkpoint=outputs/SWEEP/RUN/checkpoints/best.ckpt
    python -m src.measure checkpoint=PATH against=outputs/SWEEP/OTHER/checkpoints/best.ckpt
    python -m src.measure checkpoint=PATH images=200 max_shift=4 out=again.csv

options: images=N  max_shift=PIXELS  seed=N  data.root=FOLDER  what=shift,rolls,… (all; see measure.what)
         out=FILE (the run's own measures.csv; of net=, outputs/measure/LIBRARY-NAME/measures.csv; a page of figures
         goes beside it: measures.html). Families in the table that are not in what= stay. A table measured with other
         settings (images, max_shift, seed, pictures, net) is replaced as a whole where out= names it, else refused
         wandb.mode=auto|online|offline|disabled (disabled: a look is often repeated, and each is a run of its own at
         W&B, in the group "measure")  wandb.project=NAME  wandb.entity=NAME (the run's own)
against=FILE: instead, how alike its layers are to those of another run, on the same images (CKA;
         out=the run's own against-RUN.csv)
of net=: weights=default (the library's, downloaded)|none (random; batch norms get the images' statistics)
         |FILE (.pt .pth .ckpt .safetensors, read as data only)|FILE:KEY (those under that key in it)
         classes=N (outputs, where FILE has others than the library's)  size=PIXELS (the net's own)
         layers=NAME,PATTERN,… (the last of each resolution)|list  data=SET (folder: data.root/CLASS/* or data.root/*)
         batch=N (125)  floor=true|false (the same net with random weights beside it)
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .config import Config
    from .data.splits import Splits
    from .evaluation.adapter import EvaluationSet, ModelAdapter
    from .metrics import Heatmap, Note, PerImage, Row
    from .nets.external import Image
    from .results.runs import FinishedRun
    from .training.lightning_module import Training

#: what both ways of measuring take, and is a setting of the run where there is one
MEASURE = ("images", "max_shift", "seed")
#: what only a net without a run's config takes
OF_NET = ("weights", "classes", "size", "layers", "floor", "batch")
LIST = "list"


@dataclass
class Images:
    """Where images come from."""

    name: str = "folder"
    root: str | None = None


@dataclass
class Wandb:
    """Whether W&B gets what was measured; null is the run's own, or the default of a run."""

    mode: str = "disabled"
    project: str | None = None
    entity: str | None = None


@dataclass
class Options:
    """Options of the command line; null is the default of the run, or of the net."""

    checkpoint: str | None = None
    against: str | None = None
    net: str | None = None
    weights: str = "default"
    classes: int | None = None
    size: int | None = None
    layers: str | None = None
    data: Images = field(default_factory=Images)
    images: int | None = None
    max_shift: int | None = None
    what: str | None = None
    batch: int | None = None
    seed: int | None = None
    floor: bool = True
    root: str | None = None  # data.root, as it was called when there were checkpoints alone
    out: str | None = None
    wandb: Wandb = field(default_factory=Wandb)


#: of a net that has no run; of one for images of 224 pixels, 100 of them take minutes on two cores
NET = {"images": 100, "max_shift": 8, "seed": 0, "batch": 125}


def main() -> None:
    """Measure, write the table, and show its main numbers."""
    from .config import cli_errors, from_command_line

    with cli_errors():
        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        check_options(options)
        (measure_net if options.net else compare_layers if options.against else measure_again)(options)


def check_options(options: Options) -> None:
    """Refuse what does not go together, and numbers that are too small.

    Raises:
        UserError: in one line.
    """
    from .errors import UserError
    from .reporting.wandb_logger import mode_of

    if (options.checkpoint is None) == (options.net is None):
        raise UserError(
            "give one of checkpoint=PATH (of a run) and net=LIBRARY/NAME (of torchvision or timm); see --help"
        )
    for key, least in {"images": 2, "max_shift": 1, "batch": 2, "size": 1, "classes": 1, "seed": 0}.items():
        value = getattr(options, key)
        if value is not None and value < least:
            raise UserError(f"{key}={value}: must be a whole number of at least {least}")
    families_of(options.what)
    mode_of(at_wandb(options))
    if options.out and Path(options.out).suffix == ".html":
        raise UserError(f"out={options.out}: name the table, as in again.csv; its page goes beside it, as again.html")
    default = Options()
    foreign = [key for key in OF_NET if getattr(options, key) != getattr(default, key)]
    foreign += ["data"] * (options.data.name != default.data.name)
    if options.against and (options.net or options.what):
        raise UserError("against= goes with checkpoint=, and measures one thing: leave out net= and what=")
    if options.checkpoint and foreign:
        raise UserError(f"{foreign[0]}= goes with net=; a checkpoint has its own in its config")


def measure_net(options: Options) -> None:
    """Measure a net of a library, and the same with random weights; or list its layers.

    Raises:
        UserError: no such net, weights, layers or images.
    """
    from .data.external import check
    from .errors import UserError
    from .nets.external import default_layers, list_layers, load_net
    from .reporting.terminal import show_layers

    name, listing = options.net or "", options.layers == LIST
    if not listing:
        check(options.data.name, options.data.root or options.root)
    loaded = load_net(name, "none" if listing else options.weights, options.classes)
    channels, *sides = loaded.image
    height, width = (options.size, options.size) if options.size else sides
    if height != width:
        raise UserError(f"net={name}: meant for {height}×{width} images, and those here are square: give size=PIXELS")
    image = channels, height, width
    if listing:
        show_layers(list_layers(loaded.net, image), default_layers(loaded.net, image), f"{name}, {height}×{width}")
        return

    from .evaluation.adapter import adapt_model
    from .evaluation.suite import evaluate_families
    from .reporting.terminal import console, show_measured, show_notes
    from .results import files
    from .results.runs import FinishedRun

    out = Path(options.out or Path("outputs", "measure", name.replace("/", "-"), files.MEASURES))
    families = families_of(options.what)
    table = Table(out, families, how_of_net(options), bool(options.out))
    device = fastest()
    adapter = adapt_model(loaded, image, names_of(options.layers))
    test_set = evaluation_set(options, adapter, image)
    adapter.net.to(device)
    if options.weights == "none":
        with_statistics(adapter, test_set)
    console.print(
        f"  {name}, weights {options.weights}: {len(test_set.padded)} images of {options.data.name}, {height}×{width}"
    )
    with console.status("measuring") as status:
        found = list(evaluate_families(adapter, test_set, families, status.update))
        if options.floor and options.weights != "none":
            twin = replace(adapter, net=load_net(name, "none", options.classes).net.to(device))
            with_statistics(twin, test_set)
            floor = evaluate_families(twin, test_set, families, lambda words: status.update(f"random weights: {words}"))
            found += [replace(row, measure=f"{row.measure}_untrained") for row in floor]
    show_measured(table.write(found), out)
    run = FinishedRun(out.parent, {}, out)
    show_notes(run.notes)
    title = f"{name}, weights {options.weights}"
    show_page(run, title, out)
    settings = NET | {key: value for key, value in asdict(options).items() if value is not None}
    log(options, title, out, found, settings | {"what": families, "layers": adapter.layers, "size": height})


def with_statistics(adapter: "ModelAdapter", test_set: "EvaluationSet") -> None:
    """Give the batch norms of a net with random weights the statistics of the images, as a training step would: with
    mean 0 and variance 1, as they are built, it would be another net than the one that training starts from.
    """
    from .evaluation.adapter import untransformed_batches
    from .models.norm import calibrate

    calibrate(
        adapter.net, untransformed_batches(adapter, replace(test_set, batch=max(3, test_set.batch)))
    )  # of 2 images or more


def families_of(what: str | None) -> list[str]:
    """The families asked for, or all.

    Raises:
        UserError: there is no such family.
    """
    from .config import MEASURE_NAMES, MEASURES
    from .errors import UserError

    asked = names_of(what)
    for name in asked:
        if name not in MEASURE_NAMES:
            raise UserError(f"what={name}: choose among {', '.join(MEASURE_NAMES)}")
    return asked or list(MEASURES)


def names_of(layers: str | None) -> list[str]:
    """``a,b`` or ``[a,b]`` as a list; a comma inside a pattern's brackets is no name's."""
    return [one.strip() for one in (layers or "").removeprefix("[").removesuffix("]").split(",") if one.strip()]


def evaluation_set(options: Options, adapter: "ModelAdapter", image: "Image") -> "EvaluationSet":
    """The images that a net of a library is measured on; with their labels, if it has an output for each class.

    Raises:
        UserError: they are not to be had, or not such as the net takes.
    """
    from .data.external import sample
    from .evaluation.adapter import EvaluationSet
    from .nets.external import outputs
    from .reporting.terminal import console

    given = {key: getattr(options, key) for key in NET if getattr(options, key) is not None}
    images, margin, seed, batch = (NET | given).values()
    root = options.data.root or options.root or "data"
    channels, side, _ = image
    found = sample(options.data.name, root, side, channels, margin, images, seed)
    answers, classes = outputs(adapter.net, image), len(found.classes)
    labels = found.labels if adapter.classifies and answers == classes else None
    if labels is None:
        console.print(f"  the net has {answers} outputs, the data {classes} classes: measured without labels")
    return EvaluationSet(
        found.canvas, margin, labels, found.positions if found.positions.numel() else None, seed, batch
    )


def measure_again(options: Options) -> None:
    """Measure the net in a checkpoint, which is read as data only.

    Raises:
        UserError: no such file, not a checkpoint of this project, or its weights do not fit its config.
    """
    from .config import MEASURES, to_dict
    from .reporting.terminal import console, show_closing, show_notes
    from .results import files
    from .results.runs import FinishedRun, named_values, record
    from .training.evaluate_run import measure

    net, cfg, splits = load_run(options.checkpoint or "", options)
    console.print(f"  {cfg.model.name}, pool {cfg.model.pool}: {cfg.measure.images} test images of {cfg.data.name}")
    run, out = place_of(options, files.MEASURES)
    own = out.resolve() == run / files.MEASURES and (run / files.CONFIG).exists()
    if own:
        check_own(options, cfg, run)
    table = Table(out, list(cfg.measure.what), None if own else how_of_run(options, cfg), bool(options.out))
    with console.status("measuring") as status:
        found = list(measure(net, cfg, splits, status.update))
    rows = table.write(found)
    if own and {*MEASURES} <= {*cfg.measure.what}:
        record(run, cfg)  # all its numbers are of this version now
    done = FinishedRun(run, {}, out)
    show_notes(done.notes)
    show_closing(named_values(rows), out)
    show_page(done, f"{cfg.model.name}, pool {cfg.model.pool}, {cfg.data.name}", out)
    log(options, run.name, out, found, to_dict(cfg) | {"checkpoint": options.checkpoint}, cfg)


def compare_layers(options: Options) -> None:
    """How alike the layers of the nets in two checkpoints are, on the test images of the first.

    Raises:
        UserError: as ``measure_again``, or the nets take images of different shapes.
    """
    from .config import to_dict
    from .errors import UserError
    from .evaluation.families.layers import AGAINST, against_rows
    from .reporting.terminal import console
    from .results.runs import FinishedRun
    from .training.evaluate_run import adapter_of_run, evaluation_set
    from .training.untrained import untrained

    net, cfg, splits = load_run(options.checkpoint or "", options)
    other, _, others = load_run(options.against or "", options)
    if splits.image != others.image:
        shapes = ["×".join(map(str, one.image)) for one in (splits, others)]
        raise UserError(
            f"against={options.against}: takes images of {shapes[1]}, and the checkpoint's net of {shapes[0]}"
        )
    test_set = evaluation_set(cfg, splits)
    ours, theirs = adapter_of_run(net, splits), adapter_of_run(other, others)
    twin = replace(ours, net=untrained(cfg, splits, net.device))
    name = Path(options.against or "").resolve().parent.parent.name
    run, out = place_of(options, f"against-{name}.csv")
    table = Table(out, None, how_of_run(options, cfg), bool(options.out))
    with console.status("measuring"):
        found = list(against_rows(ours, theirs, test_set))
        found += [replace(one, measure=f"{AGAINST}_untrained") for one in against_rows(twin, theirs, test_set)]
    table.write(found)
    said = f"  CKA on {len(test_set.padded)} test images of {cfg.data.name}\n  {out}"
    console.print(said, soft_wrap=True, markup=False)
    title = f"{run.name} against {name}"
    show_page(FinishedRun(run, {}, out), title, out)
    compared = {"checkpoint": options.checkpoint, "against": options.against}
    log(options, title, out, found, to_dict(cfg) | compared, cfg)


@dataclass
class Table:
    """A table to be written; what of it is replaced is said.

    Attributes:
        path: of the table.
        families: that are measured, and replaced; the others stay. None: all of it is replaced.
        how: what its numbers hang on but the families; None: the config of the run that it belongs to says it.
        given: whether it was named, by ``out=``: then one measured with other settings is replaced as a whole.
    """

    path: Path
    families: list[str] | None
    how: dict[str, Any] | None
    given: bool

    def __post_init__(self) -> None:
        """Look at what is there.

        Raises:
            UserError: it is no table of measures; or it has other settings, and ``out=`` does not name it.
        """
        from .errors import UserError
        from .metrics.rows import COLUMNS
        from .results import files

        if not self.path.exists():
            return
        if set(next(iter(files.read_rows(self.path)), COLUMNS)) != set(COLUMNS):
            raise UserError(f"out={self.path}: is there already, and is no table of measures; name another")
        if self.how is None:
            return
        kept = files.beside(self.path, files.MEASURED)
        before = json.loads(kept.read_text()) if kept.exists() else {}
        if keys := [key for key in self.how if before.get(key) != self.how[key]]:
            key = keys[0]
            was = f"was measured with {key}={before.get(key)}, not {self.how[key]}"
            was = was if before else "does not say how it was measured"
            if not self.given:
                raise UserError(f"{self.path} is there already, and {was}; give out=TABLE.csv, or move it away")
            self.families = None  # numbers of two kinds are not mixed

    def write(self, found: "Iterable[Row | Heatmap | Note | PerImage]") -> "list[Row]":
        """Write it, and say what that replaces; gives the rows."""
        from .evaluation.families import ALWAYS
        from .reporting.terminal import console
        from .results import files
        from .results.runs import families_in, write_measures

        before = families_in(self.path)
        asked = {*before} if self.families is None else {*self.families}

        def numbers(names: set[str]) -> str:
            listed = ", ".join(name for name in before if name in names)
            return f"{sum(before[name] for name in names):,} numbers of {listed}"

        families = {*before} - {ALWAYS}
        if gone := families & asked:
            console.print(f"  replaced in {self.path.name}: {numbers(gone)}", soft_wrap=True, markup=False)
        if stay := families - asked:
            console.print(f"  kept in {self.path.name}: {numbers(stay)}", soft_wrap=True, markup=False)
        if self.how is not None:
            files.write_json(files.beside(self.path, files.MEASURED), self.how)
        return write_measures(self.path, found, self.families)


def how_of_net(options: Options) -> dict[str, Any]:
    """What the numbers of a library's net hang on."""
    from .data.checksums import folder_checksum

    keys = ("net", "weights", "classes", "size", "layers", "floor", *NET)
    asked = NET | {key: value for key in keys if (value := getattr(options, key)) is not None}
    root = Path(options.data.root or options.root or "data").expanduser()
    pictures = folder_checksum(root) if options.data.name == "folder" else None
    return {key: asked.get(key) for key in keys if key != "batch"} | {"data": options.data.name, "pictures": pictures}


def how_of_run(options: Options, cfg: "Config") -> dict[str, Any]:
    """What the numbers of a run's net, in a table that is not the run's own, hang on."""
    from .data.checksums import files_checksum
    from .data.splits import pictures_of

    nets = {key: getattr(options, key) for key in ("checkpoint", "against")}
    nets = {key: str(Path(path).resolve()) for key, path in nets.items() if path}
    sums = {f"{key}_checksum": files_checksum([Path(path)]) for key, path in nets.items()}
    measured = {key: getattr(cfg.measure, key) for key in MEASURE}
    return nets | sums | measured | {"pictures": pictures_of(cfg.data)}


def check_own(options: Options, cfg: "Config", run: Path) -> None:
    """Keep numbers measured with other settings out of a run's own table.

    Raises:
        UserError: other images or shifts than the run's, other pictures, or weights that the run does not measure.
    """
    from .data.splits import pictures_of
    from .errors import UserError
    from .results.runs import read_config, recorded

    saved, weights = read_config(run), Path(options.checkpoint or "").stem
    wrong = [
        f"{key}={now}, the run has measure.{key}={before}"
        for key in MEASURE
        if (now := getattr(cfg.measure, key)) != (before := getattr(saved.measure, key))
    ]
    if weights != saved.train.keep:
        wrong.append(f"{weights}.ckpt, the run has train.keep={saved.train.keep}")
    if pictures_of(cfg.data) != recorded(run, saved).get("data.root", ""):
        wrong.append(f"data.root={cfg.data.root} holds other pictures than the run's {saved.data.root} did")
    if wrong:
        raise UserError(
            f"{wrong[0]}: the run's own table takes no numbers measured with other settings; give out=TABLE.csv"
        )


def load_run(path: str, options: Options) -> "tuple[Training, Config, Splits]":
    """The net in a run's checkpoint, its config with what the options say of measuring, and its images.

    Raises:
        UserError: no such file, not a checkpoint of this project, or its weights do not fit its config.
    """
    from .config import from_dict, to_dict
    from .results.runs import read_checkpoint

    cfg, weights = read_checkpoint(Path(path))
    asked: dict[str, Any] = {key: getattr(options, key) for key in MEASURE if getattr(options, key) is not None}
    if options.what:
        asked["what"] = families_of(options.what)
    root = options.data.root or options.root or cfg.data.root
    tree = to_dict(cfg)
    cfg = from_dict(tree | {"measure": tree["measure"] | asked, "data": tree["data"] | {"root": root}})

    from .data.splits import split
    from .errors import UserError
    from .training.lightning_module import module

    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path} does not hold the weights of its own config, a {cfg.model.name}: {reason}") from error
    return net.to(fastest()), cfg, splits


def fastest() -> "torch.device":
    """Where nets are measured: on the GPU, if there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place_of(options: Options, name: str) -> tuple[Path, Path]:
    """The folder of the checkpoint's run, and the table: ``out=``, or of that name in it."""
    from .results import files

    path = Path(options.checkpoint or "")
    run = path.resolve().parent.parent
    return run, Path(options.out) if options.out else (run if (run / files.CONFIG).exists() else path.parent) / name


def show_page(run: "FinishedRun", title: str, table: Path) -> None:
    """Draw what was measured, on a page beside its table, and say where."""
    from .reporting.page import write_measure_page
    from .reporting.terminal import console

    page = write_measure_page(run, title, table.with_suffix(".html"))
    console.print(f"  {page.resolve()}\n", soft_wrap=True, markup=False)


def at_wandb(options: Options, cfg: "Config | None" = None) -> "Config":
    """The config, or the default, with what the options say of W&B.

    Raises:
        UserError: there is no such mode.
    """
    from .config import Config, from_dict, to_dict

    tree = to_dict(cfg or Config())
    said = {key: value for key, value in asdict(options.wandb).items() if value is not None}
    return from_dict(tree | {"wandb": tree["wandb"] | said})


def log(
    options: Options,
    name: str,
    table: Path,
    found: "Iterable[Row | Heatmap | Note | PerImage]",
    settings: Mapping[str, Any],
    cfg: "Config | None" = None,
) -> None:
    """Send what was measured to W&B, as a run of its own, if that is asked for."""
    from .metrics import Heatmap, Row
    from .reporting.terminal import console
    from .reporting.wandb_logger import WandbLogger

    told = {"name": name, "group": "measure", "job_type": "measure", "config": dict(settings)}
    tracker = WandbLogger(at_wandb(options, cfg), table.parent, **told)
    found = list(found)
    failed = True
    try:
        grids = {f"{one.measure}/{one.layer}": one.values for one in found if isinstance(one, Heatmap)}
        tracker.log_measures([one for one in found if isinstance(one, Row)], grids)
        failed = False
    finally:
        tracker.finish(failed)
    if tracker.place:
        console.print(f"  {tracker.place}\n", soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
