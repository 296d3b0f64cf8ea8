"""Weights from a file: read safely, as data only, and loaded into a net."""

import importlib.util
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError

#: keys under which checkpoints store the weights, in order of preference
STATE_DICT_KEYS = tuple(
    "state_dict model_state_dict model net network module weights params "
    "model_ema state_dict_ema ema_state_dict ema params_ema".split()
)


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The state_dict in a ``.pt``, ``.pth``, ``.ckpt`` or ``.safetensors`` file; no code in the file is run.

    It is found under the first of ``STATE_DICT_KEYS`` that holds one, else it is the file itself, else under the only
    key that holds one. ``FILE:KEY`` takes the one under another key, or the tensors whose names start with ``KEY.``.

    Returns:
        name → tensor; and, if the file holds several state_dicts, a message that says which one was taken, else "".

    Raises:
        UserError: the file does not exist, cannot be read, or holds no state_dict.
    """
    file, _, key = (str(path), "", "") if path.is_file() else str(path).rpartition(":")
    if not file or not Path(file).is_file():
        raise UserError(f"weights={path}: no such file; or write weights=default, weights=none")
    try:
        tree = _safetensors(Path(file)) if file.endswith(".safetensors") else _pickled(Path(file))
    except UserError:
        raise
    except Exception as error:  # for files of other kinds, torch raises many types
        raise UserError(f"weights={file} cannot be read as plain data; save net.state_dict(), not the net") from error
    trees = {"": tree, **tree} if isinstance(tree, Mapping) else {}
    state_dicts = {name: _tensors(subtree) for name, subtree in trees.items() if _tensors(subtree)}
    if not state_dicts:
        raise UserError(f"weights={file} holds no state_dict, nor does a key of it; save net.state_dict(), not the net")
    if key and key not in state_dicts:
        return _with_prefix(path, key, state_dicts), ""
    usual = [*(name for name in STATE_DICT_KEYS if name in state_dicts), *([""] if "" in state_dicts else [])]
    if not usual and not key and len(state_dicts) > 1:
        names = ", ".join(state_dicts)
        raise UserError(f"weights={file} holds weights under {names}: choose one, as weights={file}:KEY")
    taken = key or [*usual, *state_dicts][0]
    others = " or ".join(f"weights={file}:{name}" for name in state_dicts if name not in ("", taken))
    message = f"those of {taken or 'the file itself'} are taken; for others write {others}"
    return state_dicts[taken], message if others and not key else ""


def _with_prefix(path: Path, prefix: str, state_dicts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    tensors = {name: tensor for tree in reversed(state_dicts.values()) for name, tensor in tree.items()}
    chosen = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
    if not chosen:
        names = ", ".join(filter(None, state_dicts)) or "none"
        raise UserError(f"weights={path}: no weights under {prefix}; there are {names}")
    return chosen


def _tensors(tree: Any) -> dict[str, Tensor]:
    """The tensors of a mapping, by name; empty for anything else."""
    items = tree.items() if isinstance(tree, Mapping) else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    return {key: tensor for key, tensor in tensors.items() if not tensor.is_meta and not tensor.is_complex()}


class _Nothing:
    """Placeholder for an object of any class that a file holds in addition to its weights; ignores its state."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _Dict:
    """Placeholder for classes that inherit from dict, which unpickling fills entry by entry."""

    def __new__(cls, *_: Any) -> Any:
        """Make a plain dict instead."""
        return OrderedDict()


def _pickled(path: Path) -> Any:
    """The content of a torch file; classes that torch does not allow are replaced by placeholders, never imported."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    try:
        return _load_with_placeholders(path, classes, _Nothing)
    except pickle.UnpicklingError:
        return _load_with_placeholders(path, classes, _Dict)


def _load_with_placeholders(path: Path, classes: Sequence[str], placeholder: type) -> Any:
    no_dicts = ("numpy", "_codecs", "pathlib", "argparse")  # packages without classes that inherit from dict
    allowed: list[Any] = [(_Nothing if name.startswith(no_dicts) else placeholder, name) for name in classes]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def _safetensors(path: Path) -> Any:
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(f"weights={path} needs safetensors: pip install safetensors")
    from safetensors.torch import load_file

    return load_file(path)


def load_pretrained(net: nn.Module, weights: Mapping[str, Tensor], failure: str) -> str:
    """``net.load_state_dict``, tolerant of prefixes and extra entries; loads all weights of the net or none.

    A common prefix (``module.``, ``model.``) is removed if that makes most names match. Entries that belong to no
    submodule of the net (``criterion.weight``, ``n_averaged``) are ignored.

    Returns:
        A message that lists the ignored entries, else "".

    Raises:
        UserError: names are missing or unknown, or shapes differ; says ``failure``, how many, and the first three.
    """
    expected = net.state_dict()
    weights, ignored = _match_names(weights, expected)
    counters = {key for key in expected if key.endswith("num_batches_tracked")}  # absent in old files; unused in eval
    wrong = {
        "missing": [key for key in expected if key not in weights and key not in counters],
        "unexpected": [key for key in weights if key not in expected],
        "of other shape": [
            f"{key} {_shape(weights[key])} for {_shape(tensor)}"
            for key, tensor in expected.items()
            if key in weights and weights[key].shape != tensor.shape
        ],
    }
    if any(wrong.values()):
        wrong["unexpected"] += ignored
        problems = (f"{len(keys)} {kind} ({_first_three(keys)})" for kind, keys in wrong.items() if keys)
        raise UserError(f"{failure}: {'; '.join(problems)}")
    net.load_state_dict(weights, strict=False)
    return f"ignored, as no part of the net has it: {_first_three(ignored)}" if ignored else ""


def _first_three(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + " …" * (len(keys) > 3)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _match_names(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights without the prefix that makes most of their names match; and the names of those that lack this
    prefix or belong to no submodule of the net.
    """
    old_densenet = r"(denselayer\d+\.[a-z]+)\.([12]\.)"  # names before torchvision 0.3
    weights = {re.sub(old_densenet, r"\1\2", key): tensor for key, tensor in weights.items()}
    starts = {key: (0, *(dot.end() for dot in re.finditer(r"\.", key))) for key in weights}
    hits = Counter(key[:i] for key in weights for i in starts[key] if key[i:] in expected)
    prefix = hits.most_common(1)[0][0] if hits else ""
    submodules = {key.partition(".")[0] for key in expected}
    auxiliary = re.compile(r"(aux[12]|AuxLogits)\.")  # heads that only training uses
    matched, ignored = {}, []
    for key, tensor in weights.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name.partition(".")[0] in submodules:
            matched[name] = tensor
        elif not (key.startswith(prefix) and auxiliary.match(name)):
            ignored.append(key)
    return matched, ignored
