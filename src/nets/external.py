"""Nets that were trained elsewhere: torchvision's and timm's, what they answer, and their layers by name.

Here with any module, which needs no library and no download:

>>> from torch import nn
>>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
>>> [(row["name"], row["kind"], row["shape"]) for row in list_layers(net, (3, 8, 8))[:3]]
[('0', 'Conv2d', (4, 6, 6)), ('1', 'ReLU', (4, 6, 6)), ('2', 'MaxPool2d', (4, 3, 3))]
>>> default_layers(net, (3, 8, 8))
['1', '2', '3']
>>> pick_layers(net, ["[02]", "4"])
['0', '2', '4']
"""

import difflib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .hooks import blank_image, eval_mode, uncompiled
from .weights import fill, read_weights

Image = tuple[int, int, int]
log = logging.getLogger(__name__)

#: values of ``weights`` that are no file
RANDOM, DEFAULT = "none", "default"
#: names and attributes under which a net that gives several things gives its answer
ANSWERS = ("logits", "out")
#: layers that ``default_layers`` takes of a net without maps
BLOCKS = 6


@dataclass(frozen=True)
class LoadedNet:
    """A net, and how it takes images.

    Attributes:
        net: in eval mode, on the CPU.
        image: (channels, height, width) that it is meant for.
        mean, std: of its training pixels in [0, 1], per channel.
        classes: names of its outputs, where the library knows them.
    """

    net: nn.Module
    image: Image
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: list[str] | None


def load_net(name: str, weights: str | None = DEFAULT, classes: int | None = None) -> LoadedNet:
    """A net of a library; torch's random stream stays where it was. What of a file was not taken is logged in one line.

    Args:
        name: ``torchvision/resnet18``, ``timm/resnet18.a1_in1k``: any of their nets that classify images.
        weights: ``default``: the library's own, downloaded when they are not here; ``none`` or None: random ones, the
            same each time; or a file of weights, as FILE or FILE:KEY (``read_weights``).
        classes: outputs of the net; None: as many as the library's own has.

    Raises:
        UserError: no such library, net or file, or the file's weights are not this net's.
    """
    library, _, model = name.partition("/")
    if library not in LIBRARIES or not model:
        raise UserError(f"net={name}: write {' or '.join(f'{one}/NAME' for one in LIBRARIES)}")
    weights = RANDOM if weights is None else weights
    if classes is not None and (classes < 1 or weights == DEFAULT):
        raise UserError(f"classes={classes}: a number of at least 1, with weights=none or weights=FILE")
    names, build = LIBRARIES[library]
    valid = names()
    if model not in valid:
        raise UserError(f"net={name}: {library} has no such net{close(model, valid)}")
    found, taken = ({}, "") if weights in (RANDOM, DEFAULT) else read_weights(Path(weights))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loaded = build(model, weights, classes)
    if found:
        left = fill(loaded.net, found, f"weights={weights} does not fit net={name}")
        if told := "; ".join(filter(None, (taken, left))):
            log.warning("weights=%s: %s", weights, told)
    loaded.net.eval()
    return loaded


def close(wrong: str, valid: Sequence[str]) -> str:
    """``; did you mean …?``, or nothing where no name is near."""
    found = difflib.get_close_matches(wrong, valid, n=3)
    return f"; did you mean {', '.join(found)}?" if found else ""


# --- the libraries -------------------------------------------------------------------------------------------------


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))  # those that classify images; others are in modules of their own


def _torchvision(name: str, weights: str, classes: int | None) -> LoadedNet:
    """With a file that still has the library's own name for it, the net takes images as those weights want them."""
    from torchvision import models

    published = models.get_model_weights(name)
    file = Path(weights).name
    known = published.DEFAULT if weights == DEFAULT else None
    known = known or next((one for one in published if one.url.rpartition("/")[2] == file), None)
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if weights == DEFAULT:
        with _downloading(f"torchvision/{name}"):
            net = models.get_model(name, weights=known)
    else:
        if name in ("googlenet", "inception_v3"):  # answers on the way are for training
            options |= {"aux_logits": False, "init_weights": True, "transform_input": known is not None}
        net = models.get_model(name, weights=None, **options)
    view = (known or published.DEFAULT).transforms()
    side = view.crop_size[0]
    names = None if known is None or classes is not None else list(known.meta["categories"])
    return LoadedNet(net, (len(view.mean), side, side), tuple(view.mean), tuple(view.std), names)


def _timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        raise UserError("net=timm/… needs timm: pip install timm")
    import timm

    return timm


def _timm_names() -> list[str]:
    return [*_timm().list_models(), *_timm().list_models(pretrained=True)]


def _timm_net(name: str, weights: str, classes: int | None) -> LoadedNet:
    timm = _timm()
    if weights == DEFAULT:
        with _downloading(f"timm/{name}"):
            net = timm.create_model(name, pretrained=True)
    else:
        net = timm.create_model(name, num_classes=classes)
    view = timm.data.resolve_data_config({}, model=net)
    names = net.pretrained_cfg.get("label_names") if weights == DEFAULT else None
    return LoadedNet(net, tuple(view["input_size"]), tuple(view["mean"]), tuple(view["std"]), names and list(names))


@contextmanager
def _downloading(name: str) -> Iterator[None]:
    """What a library raises when it cannot get its weights, as one line; its own log of retries stays quiet."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # each library, and each way to be without a network, has its own
        raise UserError(
            f"weights=default: those of {name} are not here and could not be downloaded ({_first_line(error)}); "
            "take weights=FILE, or weights=none for random ones"
        ) from error
    finally:
        hub.setLevel(level)


Build = Callable[[str, str, int | None], LoadedNet]
#: library → (names of its nets, builder of one)
LIBRARIES: dict[str, tuple[Callable[[], list[str]], Build]] = {
    "torchvision": (_torchvision_names, _torchvision),
    "timm": (_timm_names, _timm_net),
}


# --- answers and layers --------------------------------------------------------------------------------------------


def answer(given: Any) -> Tensor:
    """The part of a net's outputs that is its answer (n d): they themselves, ``logits`` or ``out``, or the first.

    Raises:
        UserError: there is no such part.
    """
    if isinstance(given, Mapping):
        parts = [given[key] for key in ANSWERS if key in given]
    elif isinstance(given, Tensor):
        parts = [given]
    else:
        parts = [getattr(given, key) for key in ANSWERS if hasattr(given, key)]
        parts += list(given[:1]) if isinstance(given, tuple | list) else []
    if not parts or not isinstance(parts[0], Tensor) or parts[0].ndim != 2:
        shape = f" of {parts[0].ndim} dimensions" if parts and isinstance(parts[0], Tensor) else ""
        kind = type(parts[0] if parts else given).__name__
        raise UserError(f"the net gives a {kind}{shape}, where a vector for each image is needed")
    return parts[0]


def outputs(net: nn.Module, image: Image) -> int:
    """How many numbers a net answers for an image.

    Raises:
        UserError: the net does not take such images, or has no such answer.
    """
    return answer(run_once(net, image)[""].output).shape[1]


@dataclass(frozen=True)
class _Call:
    """What a module gave, for what it was given first."""

    module: nn.Module
    output: Any
    given: Any


def run_once(net: nn.Module, image: Image) -> dict[str, _Call]:
    """Every module that a forward of one black image runs, by name, in the order in which they end.

    Hooks and train/eval flags are as before afterwards, also after an exception.

    Raises:
        UserError: the net does not take such images, or is scripted.
    """
    calls: dict[str, _Call] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            calls.pop(name, None)
            calls[name] = _Call(module, output, given[0] if given else None)

        return hook

    net = uncompiled(net)
    with ExitStack() as stack, torch.no_grad(), eval_mode(net):
        for name, module in net.named_modules():
            stack.callback(module.register_forward_hook(keep(name)).remove)
        try:
            net(blank_image(net, image))
        except Exception as error:  # a net's own code can raise anything
            shape = "×".join(map(str, image))
            raise UserError(
                f"the net does not take {shape} images ({_first_line(error)}); another size= may do"
            ) from error
    return calls


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def list_layers(net: nn.Module, image: Image) -> list[dict[str, Any]]:
    """Every module that gives one tensor when the net runs, in the net's order.

    Returns:
        name, kind, shape (of its output for one image) and parameters (with those of the modules inside).

    Raises:
        UserError: the net does not take such images.
    """
    calls = run_once(net, image)
    return [
        {
            "name": name,
            "kind": type(module).__name__,
            "shape": tuple(calls[name].output.shape[1:]),
            "parameters": sum(one.numel() for one in module.parameters()),
        }
        for name, module in uncompiled(net).named_modules()
        if name and name in calls and isinstance(calls[name].output, Tensor)
    ]


def pick_layers(net: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of modules, in the net's order.

    Args:
        net: any module.
        patterns: names, or patterns as of file names: ``layer?``, ``features.*``.

    Raises:
        UserError: a pattern that no module's name matches.
    """
    names = [name for name, _ in uncompiled(net).named_modules() if name]
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        if not found:
            raise UserError(f"layers={pattern}: the net has none{close(pattern, names)}; layers=list shows them all")
        matched |= found
    return [name for name in names if name in matched]


def default_layers(net: nn.Module, image: Image) -> list[str]:
    """A handful that stands for the net, in the order in which they run.

    The last layer at each resolution, no deeper inside the net than it takes to find three resolutions; where the net
    has only one or none, some of its blocks too. And the vector that its last Linear takes, if a module gives it.

    Raises:
        UserError: the net does not take such images.
    """
    calls = run_once(net, image)
    depths = range(1 + max((name.count(".") for name in calls), default=0))
    levels = [_last_of_each({k: v for k, v in calls.items() if k.count(".") <= depth}, image) for depth in depths]
    chosen = max(levels, key=lambda level: min(len(level), 3), default=[])
    if len(chosen) < 2:
        chosen = [*chosen, *_blocks(calls)]
    return [name for name in calls if name in {*chosen, *_before_last_linear(calls)}]


def _last_of_each(calls: Mapping[str, _Call], image: Image) -> list[str]:
    """The last module that gives maps of each resolution; a map of one place is a vector."""
    sizes = {name: _resolution(one.output, image) for name, one in calls.items() if name}
    return list({size: name for name, size in sizes.items() if size not in (None, (1, 1))}.values())


def _resolution(maps: Any, image: Image) -> tuple[int, int] | None:
    """(height, width) of maps that have the image's proportions, up to rounding; channels may be first or last."""
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        return None
    _, a, b, c = maps.shape
    _, height, width = image
    near = ((h, w) for h, w in ((b, c), (a, b)) if abs(h * width - w * height) <= max(height, width))
    return next(near, None)


def _blocks(calls: Mapping[str, _Call]) -> list[str]:
    """Up to ``BLOCKS`` of the longest row of sisters of one kind, evenly spread, the last among them."""
    rows: dict[tuple[str, type], list[str]] = {}
    for name, one in calls.items():
        if name and isinstance(one.output, Tensor) and next(one.module.children(), None) is not None:
            rows.setdefault((name.rpartition(".")[0], type(one.module)), []).append(name)
    row = max(rows.values(), key=len, default=[])
    count = min(BLOCKS, len(row))
    return [row[(i + 1) * len(row) // count - 1] for i in range(count)]


def _before_last_linear(calls: Mapping[str, _Call]) -> list[str]:
    """The last module that gave the numbers, whatever their shape, that the last Linear takes."""
    linear = [name for name, one in calls.items() if isinstance(one.module, nn.Linear) and one.given.ndim == 2]
    if not linear:
        return []
    given = calls[linear[-1]].given
    before = list(calls)[: list(calls).index(linear[-1])]
    same = [name for name in before if name and _same(calls[name].output, given)]
    return same[-1:]


def _same(output: Any, given: Tensor) -> bool:
    return isinstance(output, Tensor) and output.data_ptr() == given.data_ptr() and output.numel() == given.numel()
