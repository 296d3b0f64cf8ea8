"""What measuring needs: a net with the layers to look at, and images to look with."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ..errors import UserError
from ..metrics.base import Population
from ..nets.external import Image, LoadedNet, answer, default_layers, list_layers, outputs, pick_layers
from ..nets.hooks import reference_tensor, stream_outputs, uncompiled
from ..summary import summarize
from ..transforms import SamplingGrid, cut

#: images a forward pass
BATCH = 125
#: what stands for the answer, where layers are named
OUTPUT = "output"


def identity(outputs: Tensor) -> Tensor:
    """The outputs themselves."""
    return outputs


@dataclass(frozen=True)
class ModelAdapter:
    """A net, and how it takes images: all that measuring needs to know about it.

    Attributes:
        net: takes what ``normalise`` gives.
        layers: names of the modules to look at.
        normalise: pixels from 0 to 255 (n c h w), bytes or floats, to what the net takes.
        answer: the part of the net's outputs that is the answer (n d).
        what: whether the answer is a class.
        position: the part of the outputs that says where the object is, (x, y) in units of the side; None: none does.
        grids: layer → where in the image its outputs lie, where a ledger has said so; else they are taken to be spread
            evenly, which is a little off where borders change a map's size or a window does not tile it.
    """

    net: nn.Module
    layers: list[str]
    normalise: Callable[[Tensor], Tensor]
    answer: Callable[[Tensor], Tensor] = identity
    what: bool = True
    position: Callable[[Tensor], Tensor] | None = None
    grids: Mapping[str, SamplingGrid] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSet:
    """Test images to measure on.

    Attributes:
        canvas: the images with ``margin`` pixels around each; n ≥ 2.
        margin: largest shift, in pixels.
        labels: class of each, where the net was asked for it.
        positions: x, y of the object in each, in units of the side, where they are known.
        seed: of all that is drawn.
        batch: images a forward; no number depends on it but by rounding.
    """

    canvas: Shaped[Tensor, "n c H W"]
    margin: int
    labels: Int64[Tensor, " n"] | None = None
    positions: Float[Tensor, "n _"] | None = None
    seed: int = 0
    batch: int = BATCH

    def batches(self) -> Sequence[Int64[Tensor, " b"]]:
        """Indices of the images of every batch: of nearly the same size, so that no image is left alone."""
        return torch.arange(len(self.canvas)).tensor_split(-(-len(self.canvas) // self.batch))

    def take(self, index: Int64[Tensor, " b"]) -> "EvaluationSet":
        """Some of the images."""
        labels, positions = (one if one is None else one[index] for one in (self.labels, self.positions))
        return replace(self, canvas=self.canvas[index], labels=labels, positions=positions)


def untransformed_batches(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Float[Tensor, "b c h w"]]:
    """The images as they are, as the net takes them, batch by batch."""
    device = reference_tensor(adapter.net).device
    for index in test_set.batches():
        yield adapter.normalise(cut(test_set.canvas[index].to(device), test_set.margin))


@torch.no_grad()
def populations(
    adapter: ModelAdapter, batches: Iterable[Float[Tensor, "b c h w"]], layers: Sequence[str] | None = None
) -> dict[str, Population]:
    """The ``Population`` of every layer, and of the answer under ``output``: what distances to other images are over.

    Args:
        subject: the net.
        batches: all images, as the net takes them.
        layers: of them; None: all that the subject names.
    """
    layers = adapter.layers if layers is None else layers
    found = {OUTPUT: Population(keep=True), **{layer: Population() for layer in layers}}
    with stream_outputs(adapter.net, layers, lambda layer, maps: found[layer].add(maps)):
        for x in batches:
            found[OUTPUT].add(adapter.answer(adapter.net(x)))
    return found


def normaliser(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """Pixels from 0 to 255 → ``(pixels / 255 - mean) / std``, channels last in memory.

    >>> normaliser((0.5,), (0.25,))(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)).tolist()
    [[[[-2.0, 2.0]]]]
    """
    scale, shift = 1 / (255 * torch.tensor(std)), torch.tensor(mean) / torch.tensor(std)

    def normalise(pixels: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        x = pixels.to(torch.float32, memory_format=torch.channels_last)
        return x * scale.to(x.device)[:, None, None] - shift.to(x.device)[:, None, None]

    return normalise


def adapt_model(loaded: LoadedNet, image: Image | None = None, patterns: Sequence[str] = ()) -> ModelAdapter:
    """What ``load_net`` gave, ready to be measured.

    Args:
        loaded: the net; one of other floats than float32 is measured as a float32 copy, which a warning says.
        image: (channels, height, width) of the images; None: what the net is meant for.
        patterns: names of layers, or patterns; none: ``default_layers``.

    Raises:
        UserError: the net takes no such images, gives no answer, is scripted, or a layer has none or gives no tensor.
    """
    net, image = _single(uncompiled(loaded.net)), image or loaded.image
    outputs(net, image)
    layers = pick_layers(net, patterns) if patterns else default_layers(net, image)
    there = {row["name"] for row in list_layers(net, image)}
    silent = [name for name in layers if name not in there]
    if silent:
        raise UserError(f"layers={','.join(silent[:3])}: gives no single tensor when the net runs; see layers=list")
    what = getattr(net, "num_classes", None) != 0  # timm's nets that end in features say so
    return ModelAdapter(
        net, layers, normaliser(loaded.mean, loaded.std), answer, what, grids=sampling_grids(net, image, layers)
    )


def sampling_grids(net: nn.Module, image: Image, layers: Sequence[str]) -> dict[str, SamplingGrid]:
    """Where in the image the outputs of those layers lie that are maps, by the ledger; none where it cannot follow the
    net.
    """
    try:
        summary = summarize(net, image)
    except UserError:
        return {}
    found, sides = {}, (image[1], image[2])
    for name in layers:
        with suppress(KeyError):  # the ledger follows calls, and not every module is one
            rows, columns = summary[name].rows, summary[name].columns
            found[name] = SamplingGrid(sides, (rows.jump, columns.jump), (rows.start, columns.start))
    return found


def _single(net: nn.Module) -> nn.Module:
    """The net in float32, as all measuring is: a copy where it is not."""
    others = {one.dtype for one in (*net.parameters(), *net.buffers()) if one.is_floating_point()} - {torch.float32}
    if not others:
        return net
    kinds = " and ".join(sorted(str(one).removeprefix("torch.") for one in others))
    warnings.warn(f"the net's numbers are {kinds}: a float32 copy of it is measured", stacklevel=3)
    return copy.deepcopy(net).float()
