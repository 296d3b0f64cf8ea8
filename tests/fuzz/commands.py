"""Command lines: every key of every entry point × kinds of wrong values. No training is started."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import nn

from src import answers, pools, report
from src.common.cli_errors import cli_errors
from src.config import COMMAND_KEYS, Config
from src.config.schema import GROUPS
from src.launch import sweep
from src.launch.options import Local, Slurm
from src.measuring.options import Options as Measuring
from tests.fuzz.cases import Case

VALUES = (
    "", "null", "true", "-1", "0", "1.5", "100000", "10000000", "9" * 30, "1e308", "nan", "inf", "-inf", "zzz", "[]",
    "{}", "[[1]]", "[1,zzz]", "[null]", "{a:1}", "[" * 500, "x" * 5000, "ü∞\u202e", "'a b'", "../a/b", "/dev/null/x",
    "${oc.env:NOT_SET}", "${zzz}", "${model}", "a=b", "'[bold]a[/bold]'", "[/red]", "'", "a,b", "range(0)", "glob(zzz)",
    "1,1", "a/b,a_b", "\\", "*", "~", "%s", "{0}", "\t", "1_000",
)  # fmt: skip
#: settings that make plans quick
SMALL = {
    "data": "shapes", "data.image_size": "16", "data.train_size": "256", "data.val_size": "100", "model.depth": "2",
    "model.width": "4", "measure.max_shift": "2", "wandb.mode": "disabled",
}  # fmt: skip
HYDRA = (
    "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode", "hydra.job.name", "hydra.job.chdir",
    "hydra.sweeper.params", "hydra.sweeper", "hydra/sweeper", "hydra/launcher", "hydra.launcher", "hydra.output_subdir",
    "hydra.searchpath", "hydra.job.env_set", "hydra.verbose", "hydra",
)  # fmt: skip
FLAGS = (
    "--cfg", "--cfg=zzz", "--info=zzz", "--multirun", "-m", "--resolve", "--package=zzz", "--config-name=zzz",
    "--config-path=zzz", "--config-dir=zzz", "--experimental-rerun=zzz", "--zzz", "-x", "--", "", "=", "zzz", "~model",
    "+model=max", "++a.b=1", "@", "~zzz", "model@zzz=ladder", "+zzz=1", "model.pool:max", "model.pool",
)  # fmt: skip


class OwnNet(nn.Sequential):
    """A net of a user's own, for images of 16 pixels."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(98, 8))


def keys_of(schema: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a dataclass, groups too."""
    for item in fields(schema):
        yield prefix + item.name
        value = item.type if is_dataclass(item.type) else getattr(schema, item.name, None)
        if is_dataclass(value):
            yield from keys_of(value, f"{prefix}{item.name}.")


def plan(words: list[str]) -> None:
    """What the train command does before it starts anything."""
    with cli_errors():
        sweep.plan(words)


def main_of(name: str, words: list[str]) -> None:
    """An entry point; no study is started."""
    with patch.object(sys, "argv", [name, *words]), patch.object(answers, "run_studies", return_value=[]):
        import_module(f"src.{name}").main()


def _words(base: dict[str, str], key: str, value: str) -> list[str]:
    return [f"{name}={text}" for name, text in base.items() if name != key] + [f"{key}={value}"]


def cases(runs: Path) -> Iterator[Case]:
    """Every entry point × key × value; ``runs`` is a finished sweep."""
    config = [*keys_of(Config()), *COMMAND_KEYS, "sweeps", "study.claims", "study.variants", "study.looks", "zzz"]
    launchers = [f"hydra.launcher.{item.name}" for item in fields(Local)[1:]]
    slurm = [f"hydra.launcher.{item.name}" for item in fields(Slurm)[1:]]
    for key in (*config, *HYDRA):
        for value in VALUES:
            words = _words(SMALL, key, value)
            yield _case("train", plan, key, value, words)
            yield _case("sweep", plan, key, value, ["-m", *words])
            yield _case("sweep", plan, key, f"{value},zzz", ["-m", *_words(SMALL, key, f"{value},zzz")])
    for launcher, names in (("local", launchers), ("slurm", slurm)):
        for key in names:
            for value in VALUES:
                words = _words(SMALL | {"hydra/launcher": launcher}, key, value)
                yield _case("launcher", plan, key, value, ["-m", *words])
    for flag in FLAGS:
        yield Case("flags", flag, partial(plan, [*_words(SMALL, "", "")[:-1], flag]))
    for key in (*(f"model.{item}" for item in keys_of(Config().model)), *GROUPS, "data.image_size", "data.canvas"):
        for value in VALUES:
            words = _words({"model.depth": "2"}, key, value)
            yield _case("shapes", partial(main_of, "shapes"), key, value, words)
    others: dict[str, tuple[Any, dict[str, str]]] = {
        "report": (report.Options, {"runs": str(runs), "out": "out"}),
        "measure": (Measuring, {"checkpoint": "zzz.ckpt"}),
        "answers": (answers.Options, {"run": "false", "studies": "q3_stride", "out": "out"}),
        "pools": (pools.Options, {"size": "4", "images": "1", "shifts": "1", "depth": "1", "out": "out.md"}),
    }
    yield from _of_own_net()
    for name, (schema, base) in others.items():
        for key in keys_of(schema()):
            for value in VALUES:
                if (name, key, value) == ("pools", "size", "1_000"):
                    continue  # it is right, and takes minutes
                call = partial(main_of, name, _words(base, key, value))
                # the comparison is kept where the W&B Report or the browser, which come after it, refuse
                yield Case(name, f"{key}={value}", call, writes=name == "report" and key in ("wandb", "figures"))
        yield Case(name, "zzz", partial(main_of, name, ["zzz"]))


def _of_own_net() -> Iterator[Case]:
    """A net that no run has, measured."""
    own = {"net": f"{__name__}:{OwnNet.__name__}", "size": "16", "data": "shapes", "images": "8"}
    own |= {"what": "flip", "floor": "false", "out": "out/a.csv"}
    for key in keys_of(Measuring()):
        for value in VALUES:
            yield _case("measure net", partial(main_of, "measure"), key, value, _words(own, key, value))


def _case(kind: str, call: Callable[[list[str]], object], key: str, value: str, words: list[str]) -> Case:
    return Case(kind, f"{key}={value}", partial(call, words))
