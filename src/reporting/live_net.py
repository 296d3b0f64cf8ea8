"""The nets that run in the page, as plain data: programs and weights, which ``live_net.js`` unpacks."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ..common.errors import UserError
from ..data.permutation import draw_permutation
from ..models import Network, network
from ..models.tasks import Task
from ..results import files
from ..results.identity import read_checkpoint
from ..results.runs import FinishedRun
from .inline_data import compressed
from .net_program import Normalisation, program_of
from .page_program import Program, UnknownOperationError
from .variant import Variant

#: parameters of the largest net that runs in the page, and base64 characters of all nets of a page
MOST_PARAMETERS, MOST_CHARACTERS = 500_000, 1_500_000
#: arrays with fewer values keep single precision: biases, and what normalises the pixels
SMALL = 256


def serialize_live_nets(
    variants: Sequence[Variant], maps: dict[str, Any], most_characters: int = MOST_CHARACTERS
) -> dict[str, Any]:
    """The nets of the first seed of each variant that has feature maps, by whose images they start; in the order of the
    variants until ``most_characters`` are used. Empty where the page has no maps.

    ``left_out`` holds why a net does not run → names of the variants.
    """
    nets: list[dict[str, Any]] = []
    left_out: dict[str, list[str]] = {}
    runs = {variant.name: variant.measured[0] for variant in variants}
    left = most_characters
    for shown in maps.get("nets", []):
        name, key = shown["name"], shown["images"]
        _, channels, height, width = maps["images"][key]["shape"]
        try:
            net = serialize_net(runs[name], (channels, height, width), left)
        except (UserError, UnknownOperationError) as error:
            left_out.setdefault(str(error), []).append(name)
            continue
        left -= len(net["program"]) + len(net["weights"])
        nets.append({"name": name, "images": key, **net})
    used = most_characters - left
    return {"nets": nets, "left_out": left_out, "characters": used, "most": most_characters} if maps else {}


def serialize_net(run: FinishedRun, image: tuple[int, int, int], most_characters: int) -> dict[str, Any]:
    """The net of a run, with what its outputs mean; ``UserError`` or ``UnknownOperationError`` says why it does not run
    in the page.
    """
    count = int(run.facts.get("parameters", 0))
    if count > MOST_PARAMETERS:
        raise UserError(f"it has more than {MOST_PARAMETERS:,} parameters")
    full = f"the {MOST_CHARACTERS / 1e6:.3g} MB that a page has for live nets are used up"
    if 2 * count > most_characters:
        raise UserError(full)
    net, normalise, task = load_net(run, image)
    packed = pack(program_of(net, normalise))
    if len(packed["program"]) + len(packed["weights"]) > most_characters:
        raise UserError(full)
    classes = list(run.facts["classes"]) if task.classifies else []
    return {**packed, "image": [*image], "classes": classes, "localizes": task.localizes}


def load_net(run: FinishedRun, image: tuple[int, int, int]) -> tuple[Network, Normalisation, Task]:
    """A run's trained net in eval mode, what normalises its pixels, and its task; ``UserError`` where the run's folder
    lacks something.
    """
    if not {"pixel_mean", "pixel_std"} <= run.facts.keys():
        raise UserError("an earlier version left the run, without the mean and the deviation of the pixels")
    path = run.folder / files.CHECKPOINTS / f"{run.settings['train.keep']}.ckpt"
    if not path.is_file():
        raise UserError(f"its weights are not in the run's folder ({files.CHECKPOINTS}/{path.name})")
    cfg, weights = read_checkpoint(path)
    task = Task(str(cfg.data.task), len(run.facts["classes"]))
    with torch.random.fork_rng(devices=[]):
        net = network(cfg.model, image, task.outputs)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError("its weights do not fit its config") from error
    order = draw_permutation(*image[1:], cfg.data.split_seed).order if cfg.data.permute else None
    return net.eval(), Normalisation(run.facts["pixel_mean"], run.facts["pixel_std"], order), task


def pack(program: Program, half: bool = True) -> dict[str, str]:
    """A program as text, and its constants: in half precision if they are large and ``half``, else in single.

    Those in single precision come first; then the low bytes of the others, then their high bytes, which compress better
    apart.
    """
    arrays = [np.ascontiguousarray(constant.numpy(), np.float32) for constant in program.constants]
    single = [not (half and array.size >= SMALL and _fits_half(array)) for array in arrays]
    full = [array.astype("<f4").tobytes() for array, is_single in zip(arrays, single, strict=True) if is_single]
    halves = [array.astype("<f2").reshape(-1) for array, is_single in zip(arrays, single, strict=True) if not is_single]
    pairs = np.concatenate([*halves, np.zeros(0, "<f2")]).astype("<f2").view(np.uint8).reshape(-1, 2)
    described = {
        "image": program.image, "steps": program.steps, "outputs": program.outputs,
        "constants": {"shapes": [[*array.shape] for array in arrays], "single": single},
    }  # fmt: skip
    text = json.dumps(described, separators=(",", ":"), allow_nan=False)
    return {"program": compressed(text.encode()), "weights": compressed(b"".join(full) + pairs.T.tobytes())}


def _fits_half(array: Float[np.ndarray, "..."]) -> bool:
    """Whether no value becomes infinite in half precision."""
    return bool(np.abs(array).max() < np.finfo(np.float16).max)
