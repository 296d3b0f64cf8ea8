"""Metamers: images that a layer cannot tell from a given one (``evaluation.inversion``), and what they show.

From noise, pixels in [0, 1] are changed until a layer's activation is that of an image: to a tenth of the median
distance between two images' activations. An optimisation that does not get there is counted (``metamer_reached``), and
is no metamer: all other numbers are of those that did. They describe what this optimisation finds: another one may find
other metamers. The protocol is ``test``; ``no_pools`` is a control, the same net with the identity for its pools, on
few images. ``…_null`` is of the noise that the optimisation starts from, without a target; of ``metamer_displaced``, of
a difference with the same spectrum and random phases. Frequency bands are the protocols ``low`` (below 1/8 period per
pixel, what a map of a quarter of the side can hold), ``mid`` (below 1/4, half the side) and ``high``. The heatmap
``metamer_map`` is the mean square of m - x at each pixel, over the mean square of two images' difference.

At layers that downsample and are linear, the null space is exact: ``null_space_energy`` is the share of the variance of
the maps entering it that no later layer can see.

It costs about as much as an epoch, so ``measure.what`` has to name it; ``measure.metamer_images``, ``metamer_starts``,
``metamer_steps`` and ``metamer_layers`` are its size.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from ...common.errors import UserError
from ...metrics.quantities import Quantity, range_of
from ...metrics.rows import Estimate, Heatmap, Note, Pictures, Row
from ...nets.hooks import eval_mode, first_line, reference_tensor
from ...pooling.null_space import is_linear, project
from ...stats.bootstrap import bootstrap_interval, bootstrap_weights
from ...transforms import crop_margin
from ..accuracy import share_estimate
from ..adapter import OUTPUT, EvaluationSet, ModelAdapter
from ..differences import BANDS, band_energies, displacement_residuals, with_random_phases
from ..inversion import THRESHOLD, Matched, activations_of, match, median_distance, noise, random_pairs
from ..without_pools import without_pools
from .aliasing import strided

QUANTITIES = (
    Quantity("metamer_reached", low=0, high=1,
        formula="share of optimisations that end at a metamer_layer_distance below 0.1",
        null="0: the layer was not inverted, and its other numbers are empty", source="Feather et al. 2023"),
    Quantity("metamer_layer_distance", low=0,
        formula="‖φ(m) - φ(x)‖ / median ‖φ(x) - φ(x')‖, m the end of any optimisation with target x",
        null="1: as far as another image; metamer_layer_distance_null: the start"),
    Quantity("metamer_pixel_distance", low=0,
        formula="‖m - x‖ / median ‖x - x'‖ of pixels, m a metamer of x",
        null="0: nothing is thrown away; 1: as far as another image; metamer_pixel_distance_null: the start",
        source="Mahendran & Vedaldi 2015"),
    Quantity("metamer_spread", low=0,
        formula="‖m - m'‖ / median ‖x - x'‖ of pixels, m and m' metamers of x from different starts",
        null="0: where it starts does not matter; metamer_spread_null: the starts"),
    Quantity("metamer_energy", low=0, high=1,
        formula="share of the energy of m - x that lies in a band of spatial frequency (the protocol)",
        null="metamer_energy_null: the start"),
    Quantity("metamer_error", low=0,
        formula="energy of m - x over the energy of x - x', both in a band of spatial frequency (the protocol)",
        null="0: the band is kept; 1: as far as another image; metamer_error_null: the start"),
    Quantity("metamer_displaced", high=1,
        formula="1 - E min_d ‖m(p + d) - x(p)‖² / E ‖m(p) - x(p)‖² over windows of 5×5 pixels, d of up to 2 pixels",
        null="metamer_displaced_null: a difference with the same spectrum and random phases"),
    Quantity("metamer_recognised", low=0, high=1,
        formula="share of metamers that the net puts into the class of their image",
        null="metamer_recognised_null: the start", source="Feather et al. 2023"),
    Quantity("metamer_recognised_against", low=0, high=1,
        formula="share of a net's metamers that another net puts into the class that it puts their image into",
        null="metamer_recognised_against_null: the start; 1: it cannot tell them either, as to their class",
        source="Feather et al. 2023"),
    Quantity("null_space_energy", low=0, high=1,
        formula="‖x - A⁺A x‖² / ‖x - mean x‖² of the maps x that enter a linear layer A that downsamples",
        null="null_space_energy_null: white noise, which gives the share of dimensions that are thrown away"),
)  # fmt: skip
PREFIXES = ("metamer", "null_space")
#: images that distances between two images are taken of; images of the control without pools
PAIRED_IMAGES, CONTROL_IMAGES = 64, 2

#: of every image and start, n and s of them
Values = Float[Tensor, "n s"]
Results = Iterator[Row | Heatmap | Note | Pictures]


@dataclass(frozen=True)
class _Images:
    """The images, pixels in [0, 1]: those that are inverted, with their starts, and all that distances refer to."""

    all: Float[Tensor, "m c h w"]
    starts: Float[Tensor, "n s c h w"]
    seed: int
    steps: int

    @property
    def targets(self) -> Float[Tensor, "n 1 c h w"]:
        """The images that are inverted."""
        return self.all[: len(self.starts), None]

    @property
    def pairs(self) -> tuple[Int64[Tensor, " p"], Int64[Tensor, " p"]]:
        """Pairs of different images."""
        return random_pairs(len(self.all), self.seed)

    def take(self, images: int, starts: int) -> "_Images":
        """Fewer images and starts to invert; distances refer to all as before."""
        return replace(self, starts=self.starts[:images, :starts])


@dataclass(frozen=True)
class _Inverted:
    """The optimisations of a layer: those of each image in a row."""

    matched: Matched
    start_distance: Values

    @property
    def images(self) -> Float[Tensor, "n s c h w"]:
        """What was reached."""
        images: Tensor = self.matched.images.unflatten(0, self.start_distance.shape)
        return images

    @property
    def distance(self) -> Values:
        """Layer distance to the target."""
        return self.matched.distance.view_as(self.start_distance)

    @property
    def reached(self) -> Bool[Tensor, "n s"]:
        """Which are metamers."""
        return self.matched.reached.view_as(self.start_distance)

    def __str__(self) -> str:
        reached = self.reached.sum()
        steps = f" in {self.matched.steps[self.matched.reached].double().mean():.0f} steps" * bool(reached)
        return f"{reached} of {self.reached.numel()}{steps}"


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Results:
    """All numbers of every layer, the metamers as pictures, and notes."""
    layers, images = layers_of(adapter, test_set.metamers.layers), _images(adapter, test_set)
    yield Pictures("image", "metamers", _as_bytes(images.targets), torch.zeros(images.starts.shape[0], 1).numpy())
    answers = _answers(adapter, images)
    done: dict[str, str] = {}
    for layer in layers:
        inverted = _invert(adapter, layer, images)
        done[layer] = str(inverted) if inverted else "not inverted, as its output is the same for all images"
        if inverted:
            yield from _distances(layer, "test", inverted, images)
            yield from _what_differs(layer, inverted, images)
            if answers is not None:
                yield from _recognised(adapter, layer, inverted, images, answers)
            yield Pictures(layer, "metamers", _as_bytes(inverted.images), inverted.distance.cpu().numpy())
    listed = "; ".join(f"{layer} {words}" for layer, words in done.items())
    yield Note("metamers", f"optimisations that reached their target within {images.steps} steps: {listed}")
    yield from _without_pools(adapter, layers, images.take(CONTROL_IMAGES, 1))
    yield from _null_spaces(adapter, images)


def layers_of(adapter: ModelAdapter, asked: tuple[str, ...]) -> list[str]:
    """The layers asked for, by default those of the adapter; ``UserError`` if the net has none of such a name."""
    names = [*(name for name, _ in adapter.net.named_modules() if name), OUTPUT]
    for name in asked:
        if name not in names:
            raise UserError(f"measure.metamer_layers={name}: no such layer; choose among {', '.join(names)}")
    return list(asked) or adapter.layers


def _images(adapter: ModelAdapter, test_set: EvaluationSet) -> _Images:
    options, device = test_set.metamers, reference_tensor(adapter.net).device
    pixels = crop_margin(test_set.padded[:PAIRED_IMAGES], test_set.margin).to(device).float() / 255
    count, shape = min(options.images, len(pixels)), tuple(pixels.shape[1:])
    starts = [noise(count, shape, test_set.seed, number) for number in range(options.starts)]
    return _Images(pixels, torch.stack(starts, 1).to(device), test_set.seed, options.steps)


def _invert(adapter: ModelAdapter, layer: str, images: _Images) -> _Inverted | None:
    """The optimisations of a layer; None where its output is the same for all images."""
    n, s = images.starts.shape[:2]
    starts = images.starts.flatten(0, 1)
    with activations_of(adapter, layer) as activations:
        with torch.no_grad():
            outputs = torch.cat([activations(batch) for batch in images.all.split(n)])
            targets = outputs[:n].repeat_interleave(s, 0)
            scale = median_distance(outputs, images.seed)
            if not math.isfinite(scale):
                return None
            start_distance = (activations(starts) - targets).norm(dim=1) / scale
        return _Inverted(match(activations, targets, starts, scale, images.steps), start_distance.view(n, s))


# --- numbers of a layer ----------------------------------------------------------------------------------------------


def _row(layer: str, protocol: str, measure: str, parts: Values, wholes: Values, seed: int) -> Row:
    """The sum of the parts over the sum of the wholes, with its interval over images; images without a whole do not
    count.
    """
    part, whole = (values.flatten(1).sum(1).double().cpu() for values in (parts, wholes))
    counted = whole > 0
    part, whole, n = part[counted], whole[counted], int(counted.sum())
    value, low, high = math.nan, math.nan, math.nan
    if n:
        weights = bootstrap_weights(n, seed)
        value = float(part.sum() / whole.sum())
        low, high = bootstrap_interval((weights @ part) / (weights @ whole), n)
    least, most = range_of(measure)
    return Row(layer, "none", protocol, 0, measure, Estimate(value, max(low, least), min(high, most), n))


def _norms(images: Float[Tensor, "n s c h w"]) -> Values:
    norms: Tensor = torch.linalg.vector_norm(images.flatten(2), dim=2)
    return norms


def _distances(layer: str, protocol: str, inverted: _Inverted, images: _Images) -> Iterator[Row]:
    """How many were inverted, and how far the images are from their targets and from each other."""
    seed, ones = images.seed, torch.ones_like(inverted.distance)
    n, s = inverted.distance.shape
    share = share_estimate(float(inverted.reached.double().mean()), n)
    yield Row(layer, "none", protocol, 0, "metamer_reached", share)
    yield _row(layer, protocol, "metamer_layer_distance", inverted.distance, ones, seed)
    yield _row(layer, protocol, "metamer_layer_distance_null", inverted.start_distance, ones, seed)
    scale, valid = median_distance(images.all.flatten(1), seed), inverted.reached.float()
    for ending, found, which in (("", inverted.images, valid), ("_null", images.starts, ones)):
        to_target = _norms(found - images.targets) / scale
        yield _row(layer, protocol, f"metamer_pixel_distance{ending}", to_target * which, which, seed)
        if s > 1:
            first, second = torch.triu_indices(s, s, 1)
            both, between = which[:, first] * which[:, second], _norms(found[:, first] - found[:, second]) / scale
            yield _row(layer, protocol, f"metamer_spread{ending}", between * both, both, seed)


def _what_differs(layer: str, inverted: _Inverted, images: _Images) -> Iterator[Row | Heatmap]:
    """The spectrum of the difference, how much of it is a displacement, and where it lies."""
    n, s = inverted.distance.shape
    first, second = images.pairs
    usual = images.all[first] - images.all[second]
    of_pairs = band_energies(usual).mean(0)
    metamers = (inverted.images - images.targets).flatten(0, 1)
    starts = (images.starts - images.targets).flatten(0, 1)
    valid, ones = inverted.reached.float(), torch.ones_like(inverted.distance)
    for ending, difference, which in (("", metamers, valid), ("_null", starts, ones)):
        energies = band_energies(difference).view(n, s, -1) * which[..., None]
        for number, band in enumerate(BANDS):
            of_band, pairs = energies[..., number], which * of_pairs[number]
            yield _row(layer, band, f"metamer_energy{ending}", of_band, energies.sum(2), images.seed)
            yield _row(layer, band, f"metamer_error{ending}", of_band, pairs, images.seed)
    targets = images.targets.expand_as(images.starts).flatten(0, 1)
    for ending, difference in (("", metamers), ("_null", with_random_phases(metamers, images.seed))):
        best, still = displacement_residuals(targets, targets + difference).view(n, s, 2).unbind(2)
        name = f"metamer_displaced{ending}"
        yield _row(layer, "test", name, (still - best) * valid, still * valid, images.seed)
    if valid.any():
        mean = (metamers.square().sum(1) * valid.view(-1, 1, 1)).sum(0) / valid.sum()
        yield Heatmap(layer, "metamer_map", (mean / usual.square().sum(1).mean()).cpu().numpy())


@torch.no_grad()
def _classes(adapter: ModelAdapter, images: Float[Tensor, "n c h w"]) -> Int64[Tensor, "n ..."]:
    with eval_mode(adapter.net):
        return adapter.select_output(adapter.net(adapter.normalise(images * 255))).argmax(1)


def _answers(adapter: ModelAdapter, images: _Images) -> Int64[Tensor, "n 1"] | None:
    """The net's classes of the images; None if it does not give each image one."""
    classes = _classes(adapter, images.targets.flatten(0, 1))
    return classes[:, None] if adapter.classifies and classes.dim() == 1 else None


def _recognised(
    adapter: ModelAdapter, layer: str, inverted: _Inverted, images: _Images, answers: Int64[Tensor, "n 1"]
) -> Iterator[Row]:
    shape, valid = inverted.distance.shape, inverted.reached.float()
    for ending, found, which in (("", inverted.images, valid), ("_null", images.starts, torch.ones_like(valid))):
        same = (_classes(adapter, found.flatten(0, 1)).view(shape) == answers).float()
        yield _row(layer, "test", f"metamer_recognised{ending}", same * which, which, images.seed)


def against_rows(pictures: Mapping[str, np.ndarray], adapter: ModelAdapter, seed: int) -> Iterator[Row]:
    """How many metamers of another net, by layer, this net recognises; ``pictures`` are those of a run of that net, as
    its ``pictures.npz`` holds them. Starts are those of ``seed``, the run's ``measure.seed``.
    """
    if "metamers/image" not in pictures or not adapter.classifies:
        return
    device = reference_tensor(adapter.net).device

    def classes(values: Tensor) -> Int64[Tensor, "n s"]:
        return _classes(adapter, values.flatten(0, 1).to(device)).view(values.shape[:2])

    images = torch.from_numpy(pictures["metamers/image"]).float() / 255
    answers = classes(images)
    for key in (key for key in pictures if key.startswith("metamers/") and f"{key}/distance" in pictures):
        layer = key.removeprefix("metamers/")
        if layer == "image":
            continue
        metamers = torch.from_numpy(pictures[key]).float() / 255
        valid = (torch.from_numpy(pictures[f"{key}/distance"]) < THRESHOLD).float()
        n, s = valid.shape
        starts = torch.stack([noise(n, tuple(images.shape[2:]), seed, number) for number in range(s)], 1)
        for ending, found, which in (("", metamers, valid), ("_null", starts, torch.ones_like(valid))):
            same = (classes(found) == answers).float().cpu() * which
            yield _row(layer, "test", f"metamer_recognised_against{ending}", same, which, seed)


# --- controls --------------------------------------------------------------------------------------------------------


def _without_pools(adapter: ModelAdapter, layers: list[str], images: _Images) -> Iterator[Row | Note]:
    """Distances in the same net without pools (protocol ``no_pools``), or a note why there are none."""
    net = without_pools(adapter.net)
    if net is None:
        yield Note("metamer_control", "no control without pools: the net has none")
        return
    for layer in layers:
        try:
            inverted = _invert(replace(adapter, net=net), layer, images)
        except RuntimeError as error:
            yield Note("metamer_control", f"no control without pools at {layer}: {first_line(error)}")
            return
        if inverted:
            yield from _distances(layer, "no_pools", inverted, images)


def _null_spaces(adapter: ModelAdapter, images: _Images) -> Iterator[Row]:
    """The share of variance that linear layers throw away as they downsample."""
    for name, layer, maps in _inputs(adapter.net, adapter.normalise(images.targets.flatten(0, 1) * 255)):
        white = torch.randn(maps.shape, generator=torch.Generator().manual_seed(images.seed)).to(maps)
        if not is_linear(layer, maps):
            continue
        for ending, x in (("", maps - maps.mean((2, 3), keepdim=True)), ("_null", white)):
            gone, total = (x - project(layer, x)).square(), x.square()
            yield _row(name, "test", f"null_space_energy{ending}", gone.flatten(1), total.flatten(1), images.seed)


@torch.no_grad()
def _inputs(net: nn.Module, x: Float[Tensor, "n c h w"]) -> list[tuple[str, nn.Module, Tensor]]:
    """(name, layer, the maps that enter it) of the layers that downsample, for images normalised for the net."""
    layers: Mapping[str, nn.Module] = {name: layer for name, layer, _ in strided(net)}
    kept: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: kept.update({name: inputs[0].clone()}))
        for name, layer in layers.items()
    ]
    try:
        with eval_mode(net):
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [(name, layers[name], maps) for name, maps in kept.items()]


def _as_bytes(images: Float[Tensor, "n s c h w"]) -> UInt8[np.ndarray, "n s c h w"]:
    return images.mul(255).round().to(torch.uint8).cpu().numpy()
