"""The whole configuration on one screen: the schema that Hydra fills, its checks, and what refuses bad input.

A config is refused before the first job starts when a key, type or choice is wrong. Code gets plain dataclasses
(``cfg.model.pool == "max"``), never a DictConfig; a saved run holds the same tree as a plain dict.
"""

import difflib
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.data.names import AUGMENTATIONS, SETS, TASKS
from src.errors import Refusal, Stopped
from src.models import ARCHITECTURES
from src.models.blocks import ACTIVATIONS, HEADS, NORMS, PADDINGS
from src.models.optimisers import OPTIMIZERS, SCHEDULES
from src.pooling import POOLS
from src.transforms import TABLE

#: what is measured: what each transform does, and what ``measures/suite.py`` says of the others
OTHERS = ("rolls", "crops", "velocity", "aliasing", "layers", "field", "units")
MEASURES = (*dict.fromkeys(one.name for one in TABLE), *OTHERS)
MEASURE_NAMES = (*MEASURES, "embed")  # shifts on black, which is what a crop is where a set's images lie on black
ROOT = Path(__file__).resolve().parent.parent


def plain_name(words: str) -> str:
    """The name of one folder, though a path stands in it.

    >>> plain_name("data.root=/scratch/birds,seed=0")
    'data.root=_scratch_birds,seed=0'
    """
    return words.replace("/", "_")


def fitting_name(name: str) -> str:
    """A folder's name, cut where it is too long, and still its own."""
    return name if len(name.encode()) <= 150 else f"{name[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def choice(name: str, names: Iterable[str]) -> type[StrEnum]:
    """An enumeration of strings, so that the schema refuses any other and lists the valid ones."""
    return StrEnum(name, {one: one for one in names})  # type: ignore[return-value]


if TYPE_CHECKING:  # for the type checker a choice is its string
    from builtins import str as Activation
    from builtins import str as Architecture
    from builtins import str as Augment
    from builtins import str as DataSet
    from builtins import str as DropoutKind
    from builtins import str as Head
    from builtins import str as Keep
    from builtins import str as MeasureName
    from builtins import str as Norm
    from builtins import str as Optimizer
    from builtins import str as Padding
    from builtins import str as Pool
    from builtins import str as ProbeChoice
    from builtins import str as Schedule
    from builtins import str as TaskName
    from builtins import str as WandbMode
else:
    Architecture = choice("Architecture", ARCHITECTURES)
    Pool = choice("Pool", POOLS)
    DropoutKind = choice("DropoutKind", ["unit", "channel", "both"])
    Padding = choice("Padding", PADDINGS)
    Norm = choice("Norm", NORMS)
    Activation = choice("Activation", ACTIVATIONS)
    Head = choice("Head", HEADS)
    Keep = choice("Keep", ["best", "last"])
    ProbeChoice = choice("ProbeChoice", ["random", "balanced"])
    DataSet = choice("DataSet", SETS)
    Augment = choice("Augment", AUGMENTATIONS)
    Optimizer = choice("Optimizer", OPTIMIZERS)
    Schedule = choice("Schedule", SCHEDULES)
    TaskName = choice("TaskName", TASKS)
    MeasureName = choice("MeasureName", MEASURE_NAMES)
    WandbMode = choice("WandbMode", ["auto", "online", "offline", "disabled"])


@dataclass
class Model:
    """A net: a ladder of stages; a stage is ``convs`` × (convolution, norm, activation), then one downsampler.

    An architecture that lacks an axis, or has its own value for it, says so and refuses any other.
    """

    name: Architecture = "ladder"
    variant: str = ""  # of an architecture that has several: allconv a b c, vgg 11 13 16 19
    pool: Pool = "max"  # how a stage shrinks its map; none: its last convolution carries the stride
    pool_at: list[int] | None = None  # the stages that shrink, counted from 1; null: all (allconv: the first two)
    extra_conv: bool = False  # the convolution of pool=conv, at stride 1, before each pool: the control of its size
    window: int | None = None  # the pool's window; null: its own default, max(2, stride) for most
    stride: int = 2  # how much a stage shrinks its map; 1: not at all
    depth: int = 3  # stages
    convs: int | None = 2  # convolutions a stage; null: the architecture's own
    width: int = 16  # channels of the first stage, doubling by stage …
    max_width: int = 256  # … up to here
    parameters: int | None = None  # null: width stands; a number: the width that comes nearest to so many parameters
    dropout: float = 0.0
    dropout_kind: DropoutKind = "unit"  # unit: before the head; channel: after each stage
    padding: Padding = "zeros"
    norm: Norm = "batch"
    bias: bool = True  # of convolutions that no norm follows
    activation: Activation = "relu"
    head: Head = "gap"


@dataclass(unsafe_hash=True)  # so that a split can be kept for the next job
class Data:
    """A data set, its split, and what is done to its training part."""

    name: DataSet = "fashion_mnist"
    task: TaskName = "what"  # what: which class? where: at which position? both
    root: str = "data"  # where data sets lie, or are put
    canvas: int | None = None  # a number: every image lies somewhere on a black square of this side, drawn once
    train_size: int | None = None  # a seeded subset of the training images; null: all
    val_size: int = 5000  # held out of the training images
    split_seed: int = 0  # which images are held out, and which the subset takes: the same in every run of a sweep
    label_noise: float = 0.0  # share of the training labels replaced by another class, once
    augment: Augment = "none"
    image_size: int = 64  # folder, shapes, red_green: side of the square the images come in


@dataclass
class Train:
    """One optimisation."""

    epochs: int = 2
    batch_size: int = 128
    lr: float = 0.01
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.01
    schedule: Schedule = "onecycle"
    label_smoothing: float = 0.0
    keep: Keep = "best"  # the weights that are measured: best (on validation), or those of the last epoch


@dataclass
class Trainer:
    """Where it runs."""

    devices: int = 1  # of a node; each is a process with its share of every batch
    num_nodes: int = 1
    strategy: str = "auto"
    accelerator: str = "auto"
    precision: str = "32-true"
    save_minutes: float = 5.0  # between checkpoints within an epoch; 0: only after each epoch, and when a signal asks


@dataclass
class Measure:
    """What is measured on the test images after training."""

    what: list[MeasureName] = field(default_factory=lambda: [*map(MeasureName, MEASURES)])
    images: int = 1000
    max_shift: int = 8  # shifts of 1 … this many pixels
    seed: int = 0  # which images, which directions
    every: int = 0  # epochs between looks at a 1-px shift while the net trains; 0: none


@dataclass
class Probe:
    """The fixed test images whose feature maps are kept."""

    images: int = 8
    choice: ProbeChoice = "random"  # random: drawn by the seed; balanced: likewise, as many of each class as can be
    seed: int = 0
    files: list[str] = field(default_factory=list)  # instead: these pictures
    channels: int = 16  # shown of each stage
    every: int = 1  # epochs; more where the maps of a run would take more than 64 MB


@dataclass
class Wandb:
    """Weights & Biases. auto: online when logged in, else offline."""

    mode: WandbMode = "auto"
    project: str = "whatwhere"
    entity: str | None = None


@dataclass
class Config:
    """One run."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    trainer: Trainer = field(default_factory=Trainer)
    measure: Measure = field(default_factory=Measure)
    probe: Probe = field(default_factory=Probe)
    wandb: Wandb = field(default_factory=Wandb)
    seed: int = 0
    question: str = ""  # what a named sweep asks; shown on its page
    name: str = ""  # of the sweep's folder below outputs/; empty: the command names it


#: the settings that are no part of what a run is: where it happens, and what it is called. Runs that differ in these
#: alone are the same run: they name no folder and no variant, and what is finished is found again whatever they are.
#: Every other key is a part; of ``data=folder`` also what its pictures are (``runs.contents``), wherever they lie.
CIRCUMSTANCES = (
    "data.root",
    *(f"trainer.{key}" for key in ("devices", "num_nodes", "strategy", "accelerator", "save_minutes")),
    *(f"wandb.{one.name}" for one in fields(Wandb)),
    "question",
    "name",
)
ConfigStore.instance().store(name="schema", node=Config)
OmegaConf.register_new_resolver("unnamed", lambda: ["sweeps", *CIRCUMSTANCES], replace=True)
OmegaConf.register_new_resolver("plain", plain_name, replace=True)

AT_LEAST_ONE = (
    "model.stride model.depth model.convs model.width model.max_width model.window model.parameters "
    "data.train_size data.val_size data.canvas "
    "data.image_size train.epochs train.batch_size trainer.devices trainer.num_nodes measure.images measure.max_shift "
    "probe.images probe.channels probe.every"
).split()


#: weights are float32 in all of them, as measuring wants them; the last three are Lightning's other names
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16")


def check(cfg: Config) -> None:
    """Refuse values that no type can: one line that names the key, the value and what would be right."""
    tree = flatten(cfg)
    for key in AT_LEAST_ONE:
        if tree[key] is not None and tree[key] < 1:
            raise Refusal(f"{key}={tree[key]}: must be a whole number of at least 1")
    _check_trainer(cfg)
    if cfg.measure.every < 0:
        raise Refusal(f"measure.every={cfg.measure.every}: must be 0 (never) or a number of epochs")
    if missing := [path for path in cfg.probe.files if not Path(path).is_file()]:
        raise Refusal(f"probe.files: {missing[0]}: no such file")
    if cfg.measure.images < 2:
        raise Refusal("measure.images=1: must be at least 2, as images are compared with each other")
    for key, low, high, right in (
        ("model.dropout", 0, 1, "a rate in [0, 1)"),
        ("train.label_smoothing", 0, 1, "a share in [0, 1)"),
        ("data.label_noise", 0, 1 + 1e-9, "a share in [0, 1]"),
        ("train.lr", 1e-12, float("inf"), "a positive number"),
        ("train.weight_decay", 0, float("inf"), "0 or a positive number"),
        ("trainer.save_minutes", 0, float("inf"), "0 (only after each epoch) or a number of minutes"),
        *(
            (key, 0, 2**32, "a whole number from 0 to 4294967295")
            for key in tree
            if key.split(".")[-1].endswith("seed")
        ),
    ):
        if not low <= tree[key] < high:
            raise Refusal(f"{key}={tree[key]}: must be {right}")
    if cfg.data.task != "what":
        for key, wrong in (("augment", cfg.data.augment != "none"), ("label_noise", cfg.data.label_noise > 0)):
            if wrong and (key == "augment" or cfg.data.task == "where"):
                raise Refusal(
                    f"data.{key}={tree[f'data.{key}']}: with data.task={cfg.data.task} leave it out, as "
                    + ("it would move the object" if key == "augment" else "no label is asked for")
                )
    if cfg.model.pool == "conv" and cfg.model.padding == "valid":
        raise Refusal(
            "model.pool=conv cannot do without padding: with model.padding=valid its maps would be smaller than "
            "those of every other pool; take model.pool=none, or another padding"
        )


def _check_trainer(cfg: Config) -> None:
    if cfg.train.batch_size < cfg.trainer.devices * cfg.trainer.num_nodes:
        nodes = f" times trainer.num_nodes={cfg.trainer.num_nodes}" * (cfg.trainer.num_nodes > 1)
        raise Refusal(
            f"train.batch_size={cfg.train.batch_size}: fewer images than trainer.devices={cfg.trainer.devices}{nodes}"
        )
    if cfg.trainer.precision not in PRECISIONS:
        raise Refusal(f"trainer.precision={cfg.trainer.precision}: choose one of {', '.join(PRECISIONS)}")


# --- between Hydra, dataclasses and saved runs ---------------------------------------------------------------------


def from_hydra(cfg: Any) -> Config:
    """The dataclasses of a composed DictConfig, checked."""
    tree = OmegaConf.to_container(cfg)
    assert isinstance(tree, dict)
    tree.pop("hydra", None)
    typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), tree))
    assert isinstance(typed, Config)
    check(typed)
    return typed


def to_dict(cfg: Config) -> dict[str, Any]:
    """A plain tree of numbers, strings and None: the form for files, checkpoints and W&B."""
    tree = OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)
    assert isinstance(tree, dict)
    return tree  # type: ignore[return-value]


def from_dict(tree: dict[str, Any]) -> Config:
    """The config that ``to_dict`` wrote, checked; its text stays data, nothing in it is run."""
    with one_message():
        return from_hydra(OmegaConf.create(_inert(tree)))


def _inert(tree: Any) -> Any:
    """The tree with OmegaConf's interpolations made plain text: a file may not read this machine's environment."""
    if isinstance(tree, dict):
        return {key: _inert(value) for key, value in tree.items()}
    return tree.replace("${", "\\${") if isinstance(tree, str) else tree


def flatten(cfg: Any, prefix: str = "") -> dict[str, Any]:
    """``{"model.pool": "max", …}``."""
    flat: dict[str, Any] = {}
    for one in fields(cfg):
        value = getattr(cfg, one.name)
        if is_dataclass(value):
            flat |= flatten(value, f"{prefix}{one.name}.")
        else:
            flat[prefix + one.name] = value
    return flat


def written(setting: Any) -> str:
    """A setting as a command has it.

    >>> [written(one) for one in ([1, 2], None, True, 1, 0.5, "max")]
    ['[1,2]', 'null', 'true', '1', '0.5', 'max']
    """
    if isinstance(setting, list):
        return f"[{','.join(map(written, setting))}]"
    return json.dumps(setting) if setting is None or isinstance(setting, bool) else str(setting)


Arguments = TypeVar("Arguments")


def from_command_line(schema: type[Arguments], arguments: list[str], usage: str) -> Arguments:
    """``key=value`` words into a dataclass of plain options, for the entry points that need no config tree.

    A value is taken as it stands, but for ``null``; of a group, as Hydra has it, ``data=folder`` is its name.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(usage.strip())
        raise SystemExit(0 if arguments else 2)
    for word in arguments:
        if "=" not in word:
            raise Refusal(f"{word}: options are written key=value; see --help")
    with one_message():
        merged = OmegaConf.structured(schema)
        for key, value in (word.split("=", 1) for word in arguments):
            group = key in merged and OmegaConf.is_config(merged[key])
            OmegaConf.update(merged, f"{key}.name" if group else key, None if value == "null" else value)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise Refusal(f"{', '.join(f'{key}=' for key in missing)} is needed; see --help")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]


# --- refusals ------------------------------------------------------------------------------------------------------


def _one_line(error: BaseException) -> str:
    """Hydra's and OmegaConf's many lines as one that names the key, the value and the valid ones."""
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        folder = ROOT / "conf" / group if (ROOT / "conf" / group).is_dir() else ROOT / group
        return f"{group}={name}: choose one of {', '.join(sorted(one.stem for one in folder.glob('*.yaml')))}"
    text = str(getattr(cause, "msg", None) or cause)
    if text.startswith("Ambiguous value"):
        return f"{text.splitlines()[0].split(chr(39))[1]}: a list of values is a sweep: python -m src.train -m"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {text.splitlines()[0]}"
    key, schema = getattr(cause, "full_key", None), getattr(cause, "object_type", None)
    if key and is_dataclass(schema) and str(key).split(".")[-1] not in {f.name for f in fields(schema)}:
        *path, wrong = str(key).split(".")
        names = [f.name for f in fields(schema)]
        close = difflib.get_close_matches(wrong, names, n=1)
        meant = f"did you mean {'.'.join([*path, close[0]])}? " if close else ""
        return f"{key}: no such key; {meant}valid here: {', '.join(names)}"
    if key:
        return f"{key}: {text.splitlines()[0]}"
    return " ".join(text.split())


@contextmanager
def one_message() -> Iterator[None]:
    """Hydra's and OmegaConf's errors as a ``Refusal``."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise Refusal(_one_line(error)) from error


@contextmanager
def refusing() -> Iterator[None]:
    """Around an entry point: a ``Refusal`` becomes one line on standard error and exit code 2."""
    try:
        with one_message():
            yield
    except Refusal as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stopped:
        print(f"stopped by {stopped.name}: the same command goes on where this one stopped", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        raise SystemExit(130) from None
