"""The whole configuration on one screen: the schema that Hydra fills, and its checks.

A config is refused before the first job starts when a key, type or choice is wrong. Code gets plain dataclasses
(``cfg.model.pool == "max"``), never a DictConfig; a saved run holds the same tree as a plain dict.
"""

from dataclasses import dataclass, field, fields

from ..common.errors import UserError
from ..common.option_fields import (
    check_fields,
    choice_field,
    choices_field,
    count_field,
    counts_field,
    range_field,
    seed_field,
)
from ..data.options import Data, Probe
from ..evaluation.families import DIMENSIONS, FAMILIES, ON_REQUEST
from ..evaluation.followed import FOLLOWED, OF_CLASSES
from ..models.optimisers import OPTIMIZERS, SCHEDULES
from ..models.options import Model
from ..transforms import TABLE

#: what a run measures by default: what each transform does, and the families of ``evaluation/families``
MEASURES = (*dict.fromkeys(measure.name for measure in TABLE), *(name for name in FAMILIES if name not in ON_REQUEST))
#: also ``embed``, shifts on black, which is what a crop is where a set's images lie on black
MEASURE_NAMES = (*MEASURES, "embed", *ON_REQUEST)
#: weights are float32 in all of them, as measuring wants them; the last three are Lightning's other names
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16")


@dataclass
class Train:
    """Optimiser, schedule and length of training."""

    epochs: int = count_field(2)
    # optimiser steps after which training ends, whatever epochs is: to compare at equal steps; null: by epochs
    steps: int | None = count_field(None)
    batch_size: int = count_field(128)
    lr: float = range_field(0.01, 1e-12, float("inf"), "a positive number")
    optimizer: str = choice_field("adamw", OPTIMIZERS)
    weight_decay: float = range_field(0.01, 0, float("inf"), "0 or a positive number")
    schedule: str = choice_field("onecycle", SCHEDULES)
    label_smoothing: float = range_field(0.0, 0, 1, "a share in [0, 1)")
    keep: str = choice_field("best", ("best", "last"))  # the weights that are measured: best (on validation), or last


@dataclass
class Trainer:
    """Devices, precision and checkpoint interval."""

    devices: int = count_field(1)  # of a node; each is a process with its share of every batch
    num_nodes: int = count_field(1)
    strategy: str = "auto"
    accelerator: str = "auto"
    precision: str = choice_field("32-true", PRECISIONS)
    # between checkpoints within an epoch; 0: only after each epoch, and when a signal asks
    save_minutes: float = range_field(5.0, 0, float("inf"), "0 (only after each epoch) or a number of minutes")


@dataclass
class Measure:
    """What is measured on the test images after training."""

    what: list[str] = choices_field(MEASURES, MEASURE_NAMES)
    images: int = count_field(1000)
    max_shift: int = count_field(8)  # shifts of 1 … this many pixels
    seed: int = seed_field()  # which images, which directions
    dimensions: list[int] = counts_field(DIMENSIONS)  # of the features that equal_dimension compares
    metamer_images: int = count_field(8)  # that metamers inverts at every layer
    metamer_starts: int = count_field(2)  # from so much noise each
    metamer_steps: int = count_field(300)  # at most
    metamer_layers: list[str] = field(default_factory=list)  # as in stage2.pool; empty: every stage, and features
    every: int = range_field(
        0, 0, float("inf"), "0 (never) or a number of epochs"
    )  # epochs between evaluations under a 1-px shift
    # statistics that are computed every measure.every epochs (0: each epoch) while the net trains, for history.csv
    follow: list[str] = choices_field((), FOLLOWED)

    def check(self) -> None:
        """Refuse too few images."""
        if self.images < 2:
            raise UserError("measure.images=1: must be at least 2, as images are compared with each other")


@dataclass
class Wandb:
    """Weights & Biases. auto: online when logged in, else offline."""

    mode: str = choice_field("auto", ("auto", "online", "offline", "disabled"))
    project: str = "whatwhere"
    entity: str | None = None

    def check(self) -> None:
        """Raise ``UserError`` for a name that W&B refuses."""
        for key, name in {"project": self.project, "entity": self.entity or "none"}.items():
            if self.mode != "disabled" and (not 0 < len(name) <= 128 or set(name) & set("/\\#?%:")):
                raise UserError(f"wandb.{key}={name[:150]}: W&B takes 1 to 128 characters, without / \\ # ? % :")


@dataclass
class Config:
    """All settings of a run."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    trainer: Trainer = field(default_factory=Trainer)
    measure: Measure = field(default_factory=Measure)
    probe: Probe = field(default_factory=Probe)
    wandb: Wandb = field(default_factory=Wandb)
    seed: int = seed_field()
    question: str = ""  # what a named sweep asks; shown on its page
    name: str = ""  # of the sweep's folder below outputs/; empty: the command names it
    alarm: bool = False  # say in a line, while a net trains, that it seems to learn label noise

    def check(self) -> None:
        """Refuse values that no type can, and some that do not go together: one line that names the key, the value and
        what would be right.
        """
        check_fields(self)
        for name in GROUPS:
            check_fields(group := getattr(self, name), f"{name}.")
            if hasattr(group, "check"):
                group.check()
        without = [name for name in self.measure.follow if name in OF_CLASSES and self.data.task == "where"]
        if without:
            raise UserError(f"measure.follow={without[0]}: is of nets that classify, not of data.task=where")
        devices, nodes = self.trainer.devices, self.trainer.num_nodes
        if self.train.batch_size < devices * nodes:
            times = f" times trainer.num_nodes={nodes}" * (nodes > 1)
            raise UserError(
                f"train.batch_size={self.train.batch_size}: fewer images than trainer.devices={devices}{times}"
            )


GROUPS = ("model", "data", "train", "trainer", "measure", "probe", "wandb")
#: settings that do not change a run's results: where it runs, and its names. Runs that differ in these alone are the
#: same run: these settings name no folder and no variant, and finished runs are found again whatever they are.
#: All others identify a run; for ``data=folder`` also the contents of the files (``results.identity``).
NON_IDENTITY_KEYS = (
    "data.root",
    *(f"trainer.{key}" for key in ("devices", "num_nodes", "strategy", "accelerator", "save_minutes")),
    *(f"wandb.{item.name}" for item in fields(Wandb)),
    "question",
    "name",
    "alarm",
)
#: keys of a command line that are none of a job's (``config.study.Command``)
COMMAND_KEYS = ("study", "preset", "seeds")
