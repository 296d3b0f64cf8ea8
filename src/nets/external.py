"""Nets from torchvision and timm, the outputs of any net, and its layers by name.

An example that needs no library and no download:

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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from .hooks import blank_image, eval_mode, first_line, uncompiled
from .own import load_own_net, own_parts
from .weights import load_pretrained, read_weights

#: (channels, height, width)
Image = tuple[int, int, int]
log = logging.getLogger(__name__)


class NetError(UserError):
    """What a net does not do; apart, as ``hint``, the option of the measure command that may help."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


@contextmanager
def with_hints() -> Iterator[None]:
    """Add the hint to a ``NetError``, in the measure command."""
    try:
        yield
    except NetError as error:
        raise UserError(f"{error}; {error.hint}") from error


#: values of ``weights`` that are not files
RANDOM, DEFAULT = "none", "default"
#: keys or attributes that hold the logits of a net with several outputs
LOGITS = ("logits", "out")


@dataclass(frozen=True)
class LoadedNet:
    """A net in eval mode, on the CPU, and the preprocessing of its images."""

    net: nn.Module
    image: Image
    mean: tuple[float, ...]  # of its training pixels in [0, 1], per channel
    std: tuple[float, ...]
    classes: list[str] | None  # names of its outputs, if the library knows them


def load_net(name: str, weights: str | None = DEFAULT, classes: int | None = None) -> LoadedNet:
    """A net of a library or of the user; keeps torch's random state, and logs ignored entries of a weights file.

    Args:
        name: ``torchvision/resnet18``, ``timm/resnet18.a1_in1k``: any of their nets that classify images; or the user's
            ``my_package.my_module:MyNet`` (``load_own_net``).
        weights: ``default``: the library's own, downloaded if needed; ``none`` or None: random, with a fixed seed; or
            FILE or FILE:KEY (``read_weights``).
        classes: number of outputs; None: the library's.

    Raises:
        UserError: no such library, net or file, or the file's weights do not fit the net.
    """
    weights = RANDOM if weights is None else weights
    if is_own(name):
        if classes is not None:
            raise UserError(f"classes={classes}: the outputs of net={name} are its own; leave out classes=")
        build: Build = lambda *_: _own(name)  # noqa: E731
    else:
        build = _builder(name)
        if classes is not None and (classes < 1 or weights == DEFAULT):
            raise UserError(f"classes={classes}: a number of at least 1, with weights=none or weights=FILE")
    state_dict, message = ({}, "") if weights in (RANDOM, DEFAULT) else read_weights(Path(weights))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loaded = build(weights, classes)
    if state_dict:
        ignored = load_pretrained(loaded.net, state_dict, f"weights={weights} does not fit net={name}")
        if messages := "; ".join(filter(None, (message, ignored))):
            log.warning("weights=%s: %s", weights, messages)
    loaded.net.eval()
    return loaded


def is_own(name: str) -> bool:
    """Whether a net is a user's own, ``package.module:attribute``."""
    return ":" in name


def check_net(name: str) -> None:
    """Refuse early, before weights are downloaded or images read, a name that no net of a library has, and that could
    not be that of a user's own.
    """
    if is_own(name):
        own_parts(name)
    else:
        _builder(name)


def _builder(name: str) -> "Build":
    library, _, model = name.partition("/")
    if library not in LIBRARIES or not model:
        raise UserError(f"net={name}: write {', '.join(f'{key}/NAME' for key in LIBRARIES)} or MODULE:NAME")
    names, build = LIBRARIES[library]
    valid = names()
    if model not in valid:
        raise UserError(f"net={name}: {library} has no such net{suggest(model, valid)}")
    return partial(build, model)


def _own(name: str) -> LoadedNet:
    """A user's net; its images have the channels of its first convolution, 224 pixels a side, and values in [0, 1]."""
    net = load_own_net(name)
    channels = next((layer.in_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)), 3)
    return LoadedNet(net, (channels, 224, 224), (0.0,) * channels, (1.0,) * channels, None)


def suggest(wrong: str, valid: Sequence[str]) -> str:
    """``; did you mean …?`` with up to three similar names, or ""."""
    similar = difflib.get_close_matches(wrong, valid, n=3)
    return f"; did you mean {', '.join(similar)}?" if similar else ""


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))  # classifiers; other nets are in submodules


def _torchvision(name: str, weights: str, classes: int | None) -> LoadedNet:
    """A file that still has torchvision's own name also selects the preprocessing of these weights."""
    from torchvision import models

    published = models.get_model_weights(name)
    file = Path(weights).name
    known = published.DEFAULT if weights == DEFAULT else None
    known = known or next((entry for entry in published if entry.url.rpartition("/")[2] == file), None)
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if weights == DEFAULT:
        with _downloading(f"torchvision/{name}"):
            net = models.get_model(name, weights=known)
    else:
        if name in ("googlenet", "inception_v3"):  # auxiliary heads are for training
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
    """Turn any error of a download into a one-line ``UserError``, and silence the hub's log of retries."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # libraries and network failures raise many types
        raise UserError(
            f"weights=default: those of {name} are not here and could not be downloaded ({first_line(error)}); "
            "take weights=FILE, or weights=none for random ones"
        ) from error
    finally:
        hub.setLevel(level)


#: (weights, classes) → the net
Build = Callable[[str, int | None], LoadedNet]
#: library → (names of its nets, builder of one by its name)
LIBRARIES: dict[str, tuple[Callable[[], list[str]], Callable[[str, str, int | None], LoadedNet]]] = {
    "torchvision": (_torchvision_names, _torchvision),
    "timm": (lambda: [*_timm().list_models(), *_timm().list_models(pretrained=True)], _timm_net),
}


def logits_of(outputs: Any) -> Tensor:
    """The logits (n d) in a net's outputs: the tensor itself, the entry ``logits`` or ``out``, or the first entry; half
    precision as float32, as metrics have no operators for it. ``UserError`` if this is no matrix of real numbers.
    """
    if isinstance(outputs, Mapping):
        parts = [outputs[key] for key in LOGITS if key in outputs]
    elif isinstance(outputs, Tensor):
        parts = [outputs]
    else:
        parts = [getattr(outputs, key) for key in LOGITS if hasattr(outputs, key)]
        parts += list(outputs[:1]) if isinstance(outputs, tuple | list) else []
    if not parts or not isinstance(parts[0], Tensor) or parts[0].ndim != 2:
        shape = f" of {parts[0].ndim} dimensions" if parts and isinstance(parts[0], Tensor) else ""
        kind = type(parts[0] if parts else outputs).__name__
        raise UserError(f"the net gives a {kind}{shape}, where a vector for each image is needed")
    logits = parts[0]
    if logits.layout != torch.strided:
        raise UserError(f"the net gives a tensor of {logits.layout}, where a dense one is needed")
    if not logits.is_floating_point() or not logits.shape[1]:
        kind = str(logits.dtype).removeprefix("torch.")
        raise UserError(f"the net gives {logits.shape[1]} numbers of {kind} for each image, where real ones are needed")
    return logits.float() if logits.element_size() < 4 else logits


def output_size(net: nn.Module, image: Image) -> int:
    """Number of logits per image; ``UserError`` if the net does not take such images, or gives no logits."""
    return logits_of(run_once(net, image)[""].output).shape[1]


def refuse_single_images(net: nn.Module, image: Image) -> None:
    """``UserError`` if the net does not take two images at once, or does not give logits for each."""
    rows = len(logits_of(run_once(net, image, images=2)[""].output))
    if rows != 2:
        raise UserError(f"the net gives {rows} vectors for 2 images, where one for each is needed")


@dataclass(frozen=True)
class _Call:
    """A forward pass of a module."""

    module: nn.Module
    output: Any
    input: Any  # its first


def run_once(net: nn.Module, image: Image, images: int = 1) -> dict[str, _Call]:
    """Run one or several black images, and return the calls of all modules by name, in the order in which they return.

    Hooks are removed and train/eval flags restored, after an exception too.

    Raises:
        UserError: the net does not take such images, or is scripted.
    """
    calls: dict[str, _Call] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Any, name: str) -> None:
        calls.pop(name, None)
        calls[name] = _Call(module, output, inputs[0] if inputs else None)

    net = uncompiled(net)
    with ExitStack() as stack, torch.no_grad(), eval_mode(net):
        for name, module in net.named_modules():
            stack.callback(module.register_forward_hook(partial(keep, name=name)).remove)
        try:
            net(blank_image(net, image).expand(images, -1, -1, -1).clone())  # a net may write into it
        except Exception as error:  # a net's own code can raise anything
            at_once = f", {images} at once" * (images > 1)
            reason = f"the net does not take {'×'.join(map(str, image))} images{at_once} ({first_line(error)})"
            raise NetError(reason, "another size= may do") from error
    return calls


def list_layers(net: nn.Module, image: Image) -> list[dict[str, Any]]:
    """Name, kind, output shape (for one image) and number of parameters (with those of submodules) of all modules whose
    output is one tensor, in the order of ``net.named_modules()``.

    Raises:
        UserError: the net does not take such images.
    """
    calls = run_once(net, image)
    return [
        {
            "name": name,
            "kind": type(module).__name__,
            "shape": tuple(calls[name].output.shape[1:]),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
        }
        for name, module in uncompiled(net).named_modules()
        if name and name in calls and isinstance(calls[name].output, Tensor)
    ]


def pick_layers(net: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules that match names or shell-style patterns (``layer?``, ``features.*``), in the order of
    ``net.named_modules()``; ``UserError`` if a pattern matches no module.
    """
    names = [name for name, _ in uncompiled(net).named_modules() if name]
    matched: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        if not matches:
            some = suggest(pattern, names) or f"; it has {', '.join(names[:8])}" + ", …" * (len(names) > 8)
            raise NetError(f"layers={pattern}: the net has none{some}", "layers=list shows them all")
        matched |= matches
    return [name for name in names if name in matched]


def default_layers(net: nn.Module, image: Image) -> list[str]:
    """A few representative layers, in the order in which they run.

    The last layer at each resolution, at the smallest depth of nesting that has three resolutions; if the net has only
    one or none, some of its blocks too. And the layer whose output is the input of the last Linear, if there is one.

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
    """The last module at each resolution of maps; 1×1 maps do not count."""
    sizes = {name: _resolution(call.output, image) for name, call in calls.items() if name}
    return list({size: name for name, size in sizes.items() if size not in (None, (1, 1))}.values())


def _resolution(maps: Any, image: Image) -> tuple[int, int] | None:
    """(height, width) of maps with the image's aspect ratio, up to rounding; channels may be first or last."""
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        return None
    _, a, b, c = maps.shape
    _, height, width = image
    fits = ((h, w) for h, w in ((b, c), (a, b)) if abs(h * width - w * height) <= max(height, width))
    return next(fits, None)


def _blocks(calls: Mapping[str, _Call]) -> list[str]:
    """Up to six of the largest group of sibling modules of one class, evenly spaced, with the last."""
    groups: dict[tuple[str, type], list[str]] = {}
    for name, call in calls.items():
        if name and isinstance(call.output, Tensor) and next(call.module.children(), None) is not None:
            groups.setdefault((name.rpartition(".")[0], type(call.module)), []).append(name)
    group = max(groups.values(), key=len, default=[])
    count = min(6, len(group))
    return [group[(i + 1) * len(group) // count - 1] for i in range(count)]


def _before_last_linear(calls: Mapping[str, _Call]) -> list[str]:
    """The last module whose output, up to a reshape, is the input of the last Linear."""
    linear = [name for name, call in calls.items() if isinstance(call.module, nn.Linear) and call.input.ndim == 2]
    if not linear:
        return []
    features = calls[linear[-1]].input
    before = list(calls)[: list(calls).index(linear[-1])]
    outputs = {name: calls[name].output for name in before if name and isinstance(calls[name].output, Tensor)}
    data = features.data_ptr(), features.numel()
    return [name for name, output in outputs.items() if (output.data_ptr(), output.numel()) == data][-1:]
