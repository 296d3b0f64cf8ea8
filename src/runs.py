"""The folder of a run, read back: its config, whether it is finished, its rows under names that stay."""

from collections.abc import Iterable
from pathlib import Path

import torch
import yaml

from src import files
from src.config import Config, flatten, from_dict
from src.errors import Refusal
from src.measures.base import COLUMNS, Row

#: settings that say where a run happens, not what it computes: two runs that differ in them alone are the same
CIRCUMSTANCES = ("data.root", "trainer.", "wandb.", "question")


def finished(folder: Path, cfg: Config) -> bool:
    """Whether the folder holds this very run, complete.

    Raises:
        Refusal: it holds another run.
    """
    saved = folder / files.CONFIG
    if not saved.exists():
        return False
    before, now = (flatten(one) for one in (read_config(folder), cfg))
    for key in now:
        if before[key] != now[key] and not key.startswith(CIRCUMSTANCES):
            raise Refusal(
                f"{folder} holds a run with {key}={before[key]}, this one has {key}={now[key]}; "
                "move that folder away, or choose another with hydra.sweep.dir= (hydra.run.dir= for a single run)"
            )
    return (folder / files.RUN).exists()


def read_config(folder: Path) -> Config:
    """The config a run left.

    Raises:
        Refusal: it is not one of this project's, or not readable.
    """
    try:
        tree = yaml.safe_load((folder / files.CONFIG).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refusal(f"{folder / files.CONFIG} cannot be read as a run's config ({error})") from error
    if not isinstance(tree, dict):
        raise Refusal(f"{folder / files.CONFIG} is not a run's config")
    return from_dict(tree)


def write_measures(path: Path, rows: Iterable[Row]) -> None:
    """The tidy table of a run, a row a number."""
    files.write_table(path, COLUMNS, [row.values() for row in rows])


def summary(rows: Iterable[Row]) -> dict[str, float]:
    """The rows under names that stay: ``test/accuracy``, ``invariance/crop/1px/output_distance`` …"""
    names = {}
    for row in rows:
        if row.transform == "none":
            names[f"{row.protocol}/{row.measure}"] = row.estimate.value
        else:
            layer = "" if row.layer == "output" else f"{row.layer}/"
            names[f"invariance/{row.protocol}/{row.amount}px/{layer}{row.measure}"] = row.estimate.value
    return names


def read_checkpoint(path: Path) -> tuple[Config, dict[str, torch.Tensor]]:
    """The config and the weights in a checkpoint, read as data only.

    Raises:
        Refusal: no such file, or not a checkpoint of this project.
    """
    if not path.is_file():
        raise Refusal(f"checkpoint={path}: no such file")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise Refusal(f"checkpoint={path} cannot be read as a checkpoint of plain data") from error
    if not isinstance(tree, dict) or not {"config", "state_dict"} <= tree.keys():
        raise Refusal(f"checkpoint={path} holds no config: it was not written by python -m src.train")
    return from_dict(tree["config"]), tree["state_dict"]
