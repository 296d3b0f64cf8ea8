"""The options of the measure command, and their checks."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..common.arguments import channel_numbers, whole_number
from ..common.errors import UserError, did_you_mean
from ..common.option_fields import LARGEST
from ..config import MEASURE_NAMES, MEASURES, Config, from_dict, to_dict
from ..reporting.wandb_logger import mode_of
from ..results.files import refuse_unwritable

#: size of the family ``metamers``; options that a run has too, under ``measure``
METAMERS = {"metamer_images": 8, "metamer_starts": 2, "metamer_steps": 300}
OF_MEASURE = ("images", "max_shift", "seed", *METAMERS)
#: options that only a net without a run's config takes
OF_NET = ("weights", "classes", "size", "layers", "floor", "batch", "mean", "std", "beside")
#: value of ``layers`` that lists them
LIST = "list"
#: defaults of a net that has no run; of one for images of 224 pixels, 100 of them take minutes on two cores
NET = {"images": 100, "max_shift": 8, "seed": 0, "batch": 125, **METAMERS}


@dataclass
class Images:
    """The data set of the images, and its root folder."""

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
    beside: str | None = None
    data: Images = field(default_factory=Images)
    images: int | None = None
    max_shift: int | None = None
    metamer_images: int | None = None
    metamer_starts: int | None = None
    metamer_steps: int | None = None
    what: str | None = None
    batch: int | None = None
    seed: int | None = None
    floor: bool = True
    root: str | None = None  # data.root, as it was called when there were checkpoints alone
    out: str | None = None
    wandb: Wandb = field(default_factory=Wandb)
    mean: str | None = None
    std: str | None = None


def check_options(options: Options) -> None:
    """Refuse what does not go together, and numbers that are too small."""
    if (options.checkpoint is None) == (options.net is None):
        raise UserError(
            "give one of checkpoint=PATH (of a run) and net=NAME (torchvision/…, timm/… or MODULE:NAME); see --help"
        )
    least_of = {"images": 2, "max_shift": 1, "batch": 2, "size": 1, "classes": 1, "seed": 0}
    for key, least in (least_of | dict.fromkeys(METAMERS, 1)).items():
        value = getattr(options, key)
        if value is not None:
            whole_number(key, value, least, LARGEST)
    if options.out:
        refuse_unwritable("out", Path(options.out).parent)
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


def families_of(what: str | None) -> list[str]:
    """The families asked for, or all; ``UserError`` if there is no such family."""
    asked = names_of(what)
    for name in asked:
        if name not in MEASURE_NAMES:
            raise UserError(f"what={name}: {did_you_mean(name, MEASURE_NAMES)}choose among {', '.join(MEASURE_NAMES)}")
    return asked or list(MEASURES)


def names_of(layers: str | None) -> list[str]:
    """``a,b`` or ``[a,b]`` as a list; a comma inside a pattern's brackets is no name's."""
    return [name.strip() for name in (layers or "").removeprefix("[").removesuffix("]").split(",") if name.strip()]


def numbers_of(key: str, text: str, channels: int) -> tuple[float, ...]:
    """``0.5,0.4,0.3`` as numbers; ``UserError`` if they are none, or not one per channel."""
    try:
        numbers = tuple(float(word) for word in names_of(text))
    except ValueError:
        numbers = ()
    if len(numbers) != channels:
        raise UserError(f"{key}={text}: {channels} numbers are needed, one per channel, as in {key}=0.5,0.4,0.3")
    return channel_numbers(key, numbers, channels, positive=key == "std")


def at_wandb(options: Options, cfg: Config | None = None) -> Config:
    """The config, or the default, with what the options say of W&B; ``UserError`` if there is no such mode."""
    tree = to_dict(cfg or Config())
    said = {key: value for key, value in asdict(options.wandb).items() if value is not None}
    return from_dict(tree | {"wandb": tree["wandb"] | said})
