"""Weights that somebody saved: read from a file as data alone, and put into a net."""

import importlib.util
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError

#: keys under which checkpoints keep the weights: the first of them that is there is taken
WRAPPINGS = tuple(
    "state_dict model_state_dict model net network module weights params "
    "model_ema state_dict_ema ema_state_dict ema params_ema".split()
)


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a ``.pt``, ``.pth``, ``.ckpt`` or ``.safetensors`` file, read as data only: nothing in it is run.

    They are those of a state_dict: under the first of ``WRAPPINGS`` that holds one, else the file itself, else under
    the only key that does. ``FILE:KEY`` takes those under another key, or those whose names start with ``KEY.``.

    Returns:
        name → tensor, and in words what was taken where the file leaves a choice, else nothing.

    Raises:
        UserError: no such file, it cannot be read, or it holds no state_dict.
    """
    file, _, asked = (str(path), "", "") if path.is_file() else str(path).rpartition(":")
    if not file or not Path(file).is_file():
        raise UserError(f"weights={path}: no such file; or write weights=default, weights=none")
    try:
        tree = _safetensors(Path(file)) if file.endswith(".safetensors") else _pickled(Path(file))
    except UserError:
        raise
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise UserError(f"weights={file} cannot be read as plain data; save net.state_dict(), not the net") from error
    found = {"": tree, **tree} if isinstance(tree, Mapping) else {}
    found = {key: _tensors(one) for key, one in found.items() if _tensors(one)}
    if not found:
        what = "holds no state_dict, neither itself nor under a key"
        raise UserError(f"weights={file} {what}; save net.state_dict(), not the net")
    keys = [*(key for key in WRAPPINGS if key in found), *([""] if "" in found else [])]
    if not keys and not asked and len(found) > 1:
        raise UserError(f"weights={file} holds weights under {', '.join(found)}: choose one, as weights={file}:KEY")
    taken = asked or [*keys, *found][0]
    if taken in found:
        others = [f"weights={file}:{key}" for key in found if key not in ("", taken)]
        told = (
            f"those of {taken or 'the file itself'} are taken; for others write {' or '.join(others)}" if others else ""
        )
        return found[taken], "" if asked else told
    every = {key: one for tensors in reversed(found.values()) for key, one in tensors.items()}
    chosen = {key: one for key, one in every.items() if key.startswith(f"{taken}.")}
    if not chosen:
        raise UserError(
            f"weights={path}: no weights under {taken}; there are {', '.join(filter(None, found)) or 'none'}"
        )
    return chosen, ""


def _tensors(tree: Any) -> dict[str, Tensor]:
    """Those that stand in a mapping by name."""
    items = tree.items() if isinstance(tree, Mapping) else ()
    return {key: one for key, one in items if isinstance(key, str) and isinstance(one, Tensor)}


class _Nothing:
    """Stands for an object of any class that a file holds beside its weights; takes what is to be done to it, and does
    nothing.
    """

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _Dict:
    """The same for classes that inherit from dict, which unpickling fills entry by entry."""

    def __new__(cls, *_: Any) -> Any:
        """A plain dict."""
        return OrderedDict()


#: packages whose objects are no dicts
NO_DICTS = ("numpy", "_codecs", "pathlib", "argparse")


def _pickled(path: Path) -> Any:
    """What a file holds; of classes that are no data of torch's, none is imported, made or called: see ``_Nothing``."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    try:
        return _without(path, foreign, _Nothing)
    except pickle.UnpicklingError:
        return _without(path, foreign, _Dict)


def _without(path: Path, foreign: Sequence[str], instead: type) -> Any:
    known: list[Any] = [(_Nothing if one.startswith(NO_DICTS) else instead, one) for one in foreign]
    with torch.serialization.safe_globals(known):
        return torch.load(path, map_location="cpu", weights_only=True)


def _safetensors(path: Path) -> Any:
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(f"weights={path} needs safetensors: pip install safetensors")
    from safetensors.torch import load_file

    return load_file(path)


def fill(net: nn.Module, found: Mapping[str, Tensor], failure: str) -> str:
    """Put weights into a net, all of its own or none.

    A prefix (``module.``, ``model.``) without which most names are the net's is dropped. What belongs to no part of the
    net (``criterion.weight``, ``n_averaged``) is left out.

    Args:
        net: to be filled.
        found: name → tensor.
        failure: how the message of a refusal starts.

    Returns:
        In words, what was left out; else nothing.

    Raises:
        UserError: names are missing, or unknown in a part of the net, or tensors of another shape; says how many and
            the first three.
    """
    wanted = net.state_dict()
    found, foreign = _renamed(found, wanted)
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
        wrong["unexpected"] += foreign
        told = (f"{len(keys)} {what} ({_three(keys)})" for what, keys in wrong.items() if keys)
        raise UserError(f"{failure}: {'; '.join(told)}")
    net.load_state_dict(found, strict=False)
    return f"left out, as no part of the net has it: {_three(foreign)}" if foreign else ""


def _three(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + " …" * (len(keys) > 3)


def _by(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _renamed(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Under the names that the net has, without the prefix that makes most of them fit; and the names of those that
    have no such prefix, or belong to no part of the net.
    """
    today = {re.sub(r"(denselayer\d+\.[a-z]+)\.([12]\.)", r"\1\2", key): one for key, one in found.items()}
    starts = {key: (0, *(dot.end() for dot in re.finditer(r"\.", key))) for key in today}
    hits = Counter(key[:i] for key in today for i in starts[key] if key[i:] in wanted)
    prefix = hits.most_common(1)[0][0] if hits else ""
    parts = {key.partition(".")[0] for key in wanted}
    on_the_way = re.compile(r"(aux[12]|AuxLogits)\.")  # answers that only training asks for
    named, foreign = {}, []
    for key, one in today.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name.partition(".")[0] in parts:
            named[name] = one
        elif not (key.startswith(prefix) and on_the_way.match(name)):
            foreign.append(key)
    return named, foreign
