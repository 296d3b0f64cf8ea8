"""Weights that somebody saved: read from a file as data alone, and put into a net."""

import importlib.util
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import Refusal

#: keys under which checkpoints keep the weights
WRAPPINGS = ("state_dict", "model_state_dict", "model")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pt``, ``.pth``, ``.ckpt`` or ``.safetensors`` file, read as data only: nothing in it is run.

    It is a state_dict, or holds one under one of ``WRAPPINGS``.

    Raises:
        Refusal: no such file, or it holds anything else.
    """
    if not path.is_file():
        raise Refusal(f"weights={path}: no such file; or write weights=default, weights=none")
    try:
        tree = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except Refusal:
        raise
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise Refusal(f"weights={path} cannot be read as plain data; save net.state_dict(), not the net") from error
    if isinstance(tree, Mapping):
        tree = next((tree[key] for key in WRAPPINGS if isinstance(tree.get(key), Mapping)), tree)
    if not isinstance(tree, Mapping) or not tree or not all(isinstance(one, Tensor) for one in tree.values()):
        raise Refusal(f"weights={path} holds no state_dict, neither itself nor under {', '.join(WRAPPINGS)}")
    return dict(tree)


def _pickled(path: Path) -> Any:
    with torch.serialization.safe_globals([Namespace]):  # many scripts keep their options beside the weights
        return torch.load(path, map_location="cpu", weights_only=True)


def _safetensors(path: Path) -> Any:
    if importlib.util.find_spec("safetensors") is None:
        raise Refusal(f"weights={path} needs safetensors: pip install safetensors")
    from safetensors.torch import load_file

    return load_file(path)


def fill(net: nn.Module, found: Mapping[str, Tensor], failure: str) -> None:
    """Put weights into a net, all or none; a prefix that all their names share (``module.``, ``model.``) is dropped.

    Args:
        net: to be filled.
        found: name → tensor.
        failure: how the message of a refusal starts.

    Raises:
        Refusal: names are missing or unknown, or tensors of another shape; says how many and the first three.
    """
    wanted = net.state_dict()
    found = _renamed(found, wanted)
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}  # files of old have none; eval needs none
    wrong = {
        "missing": [key for key in wanted if key not in found and key not in counters],
        "unexpected": [key for key in found if key not in wanted],
        "of other shape": [
            f"{key} {_by(found[key])} for {_by(one)}"
            for key, one in wanted.items()
            if key in found and found[key].shape != one.shape
        ],
    }
    if any(wrong.values()):
        told = (
            f"{len(keys)} {what} ({', '.join(keys[:3])}{' …' * (len(keys) > 3)})"
            for what, keys in wrong.items()
            if keys
        )
        raise Refusal(f"{failure}: {'; '.join(told)}")
    net.load_state_dict(found, strict=False)


def _by(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _renamed(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as the net has them: without the prefix that makes most of them fit, if all have it; and as of today."""
    today = {re.sub(r"(denselayer\d+\.[a-z]+)\.([12]\.)", r"\1\2", key): one for key, one in found.items()}
    starts = {key: (0, *(dot.end() for dot in re.finditer(r"\.", key))) for key in today}
    hits = Counter(key[:i] for key in today for i in starts[key] if key[i:] in wanted)
    prefix = hits.most_common(1)[0][0] if hits else ""
    whole = all(key.startswith(prefix) for key in today)
    named = {key[len(prefix) :] if whole else key: one for key, one in today.items()}
    on_the_way = re.compile(r"(aux[12]|AuxLogits)\.")  # answers that only training asks for
    return {key: one for key, one in named.items() if key in wanted or not on_the_way.match(key)}
