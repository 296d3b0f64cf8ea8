"""What evaluation takes: a model adapter, and a set of images. And statistics over all images of the set."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ..common.errors import UserError
from ..data.permutation import Permutation
from ..data.splits import normalise
from ..metrics.layer_outputs import Population
from ..nets.external import (
    Image,
    LoadedNet,
    NetError,
    default_layers,
    list_layers,
    logits_of,
    output_size,
    pick_layers,
    refuse_single_images,
)
from ..nets.hooks import first_line, reference_tensor, stream_outputs, uncompiled
from ..summary import summarize
from ..summary.views import MapView, map_views
from ..transforms import SamplingGrid, crop_margin
from .families import DIMENSIONS, MetamerOptions

#: images of a forward pass
BATCH = 125
#: the name of the net's output among the names of its layers
OUTPUT = "output"


def identity(outputs: Tensor) -> Tensor:
    """The outputs, unchanged."""
    return outputs


@dataclass(frozen=True)
class ModelAdapter:
    """A net and how to use it: all that evaluation needs to know about a model.

    Attributes:
        layers: names of the modules to observe.
        normalise: pixels from 0 to 255 (n c h w), bytes or floats, to the net's input.
        select_output: the net's return value to the output that is measured (n d): the logits, or a position.
        classifies: whether that output has a score for each class.
        position: the net's return value to the object's position (x, y) in units of the image's side; None if it has
            none.
        grids: layer → where in the image its outputs lie, as computed by a model summary. Other layers are assumed to
            be spread evenly over the image, which is slightly off where borders change a map's size or windows do not
            tile it.
        views: layer → how its output is read as maps, of layers that give tokens, or channels last.
        permutation: of the pixels, if ``normalise`` ends with one: the net's input is then no image that can be moved.
    """

    net: nn.Module
    layers: list[str]
    normalise: Callable[[Tensor], Tensor]
    select_output: Callable[[Tensor], Tensor] = identity
    classifies: bool = True
    position: Callable[[Tensor], Tensor] | None = None
    grids: Mapping[str, SamplingGrid] = field(default_factory=dict)
    views: Mapping[str, MapView] = field(default_factory=dict)
    permutation: Permutation | None = None

    def move(self, x: Float[Tensor, "n c h w"], motion: Callable[[Tensor], Tensor]) -> Float[Tensor, "m c h w"]:
        """The net's input for images after a motion, from that for the images before it."""
        return motion(x) if self.permutation is None else self.permutation(motion(self.permutation.inverse(x)))


@dataclass(frozen=True)
class EvaluationSet:
    """The images that a net is measured on."""

    padded: Shaped[Tensor, "n c H W"]  # n ≥ 2 images, each with ``margin`` more pixels on every side
    margin: int  # largest shift, in pixels
    labels: Int64[Tensor, " n"] | None = None  # class of each image, if the net predicts it
    positions: Float[Tensor, "n _"] | None = None  # (x, y) of each image's object, in units of its side, if known
    seed: int = 0  # of all random draws
    batch: int = BATCH  # images per forward pass; changes results by rounding at most
    dimensions: Sequence[int] = DIMENSIONS  # that features are reduced to, for the family ``equal_dimension``
    metamers: MetamerOptions = MetamerOptions()  # what the family ``metamers`` optimises
    sizes: Float[Tensor, " n"] | None = None  # of each image's object, in units of its side, if known
    size_range: tuple[float, float] | None = None  # the least and the largest size that the data set draws, if known

    def batches(self) -> Sequence[Int64[Tensor, " b"]]:
        """The indices of each batch; sizes differ by at most 1, so that no batch has a single image."""
        return torch.arange(len(self.padded)).tensor_split(-(-len(self.padded) // self.batch))

    def take(self, index: Int64[Tensor, " b"]) -> "EvaluationSet":
        """The subset with these indices."""
        labels, positions, sizes = (
            values if values is None else values[index] for values in (self.labels, self.positions, self.sizes)
        )
        return replace(self, padded=self.padded[index], labels=labels, positions=positions, sizes=sizes)


def untransformed_batches(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Float[Tensor, "b c h w"]]:
    """The original images, normalised for the net, batch by batch."""
    device = reference_tensor(adapter.net).device
    for index in test_set.batches():
        yield adapter.normalise(crop_margin(test_set.padded[index].to(device), test_set.margin))


@torch.no_grad()
def populations(
    adapter: ModelAdapter, batches: Iterable[Float[Tensor, "b c h w"]], layers: Sequence[str] | None = None
) -> dict[str, Population]:
    """The ``Population`` of each layer (None: those of the adapter) and of the output (``OUTPUT``), which distances to
    other images refer to; ``batches`` are all images, normalised for the net.
    """
    layers = adapter.layers if layers is None else layers
    found = {OUTPUT: Population(keep_outputs=True), **{layer: Population() for layer in layers}}
    with stream_outputs(adapter.net, layers, lambda layer, maps: found[layer].add(maps), adapter.views):
        for x in batches:
            found[OUTPUT].add(adapter.select_output(adapter.net(x)))
    return found


def normaliser(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """A function from pixels in [0, 255] to ``(pixels / 255 - mean) / std``, channels_last in memory.

    >>> normaliser((0.5,), (0.25,))(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)).tolist()
    [[[[-2.0, 2.0]]]]
    """
    means, deviations = (torch.tensor(values, dtype=torch.float32) for values in (mean, std))
    return partial(normalise, mean=means, std=deviations)


def adapt_model(loaded: LoadedNet, image: Image | None = None, patterns: Sequence[str] = ()) -> ModelAdapter:
    """The adapter of a net from ``load_net``.

    If the net is not float32, a float32 copy is measured, with a warning. ``image`` is (channels, height, width), by
    default the net's own; ``patterns`` are names or patterns of layers, by default ``default_layers``.

    Raises:
        UserError: the net does not take such images or returns no output, is scripted, or a layer does not exist,
            returns no single tensor, or one that may be read as maps in more than one way.
    """
    net, image = _float32(uncompiled(loaded.net)), image or loaded.image
    output_size(net, image)
    refuse_single_images(net, image)
    layers = pick_layers(net, patterns) if patterns else default_layers(net, image)
    with_tensor = {row["name"] for row in list_layers(net, image)}
    if without := [name for name in layers if name not in with_tensor]:
        reason = f"layers={','.join(without[:3])}: gives no single tensor when the net runs"
        raise NetError(reason, "layers=list shows those that do")
    grids, normalise = sampling_grids(net, image, layers), normaliser(loaded.mean, loaded.std)
    classifies = getattr(net, "num_classes", None) != 0  # timm's way to mark nets that end in features
    views = map_views(net, image, layers)
    return ModelAdapter(net, layers, normalise, logits_of, classifies, grids=grids, views=views)


def sampling_grids(net: nn.Module, image: Image, layers: Sequence[str]) -> dict[str, SamplingGrid]:
    """Layer → where in the image its outputs lie, for those layers that the net's summary covers."""
    try:
        summary = summarize(net, image)
    except UserError:
        return {}
    grids, sides = {}, (image[1], image[2])
    for name in layers:
        with suppress(KeyError):  # the summary follows calls, and not every module is called
            rows, columns = summary[name].rows, summary[name].columns
            grids[name] = SamplingGrid(sides, (rows.jump, columns.jump), (rows.offset, columns.offset))
    return grids


def _float32(net: nn.Module) -> nn.Module:
    """The net, or a float32 copy if it has floats of another type."""
    tensors = (*net.parameters(), *net.buffers())
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()} - {torch.float32}
    if not dtypes:
        return net
    names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    warnings.warn(f"the net's numbers are {names}: a float32 copy of it is measured", stacklevel=3)
    try:
        return copy.deepcopy(net).float()
    except Exception as error:  # a net can hold anything
        raise UserError(f"the net's numbers are {names}, and it cannot be copied ({first_line(error)})") from error
