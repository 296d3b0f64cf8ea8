"""Transforms of images: all transforms, amounts and layers in one pass, where each forward pass feeds all metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ..metrics.base import Measure, PairMeasure, estimates, pair_measures
from ..metrics.consistency import Consistency
from ..metrics.equivariance_error import EquivarianceError
from ..metrics.invariance_error import InvarianceError
from ..metrics.layer_outputs import LayerOutputs, Population, TransformedOutputs
from ..metrics.output_distance import OutputDistance
from ..metrics.position_equivariance import PositionEquivariance, stays_inside
from ..metrics.rows import Estimate, PerImage, Row
from ..nets.hooks import reference_tensor, stream_outputs
from ..stats.bootstrap import bootstrap_weights
from ..transforms import TRANSFORMS, Point, SamplingGrid, Transform, crop_margin, shift_amounts, to_float
from .adapter import OUTPUT, EvaluationSet, ModelAdapter, populations

#: the name of the predicted position among the names of layers
POSITION = "position"
#: of the image: the fixed point of most transforms
MIDDLE: Point = (0.0, 0.0)
#: images for equivariance errors, which cost more than a small net's forward pass, and for floors
FEWER_IMAGES = 250
#: metrics that also have an interpolation floor: of images transformed and transformed back
FLOORS = (OutputDistance, InvarianceError)
#: metrics of the output whose values per image are kept, to compare nets on the same images → name, columns
PER_IMAGE: dict[type[PairMeasure], tuple[str, int]] = {
    OutputDistance: ("output_distance", 2),
    Consistency: ("consistency", 1),
}

#: ``OUTPUT`` or a layer's name → new metrics for it
MetricFactory = Callable[[str], list[PairMeasure]]
#: receives the outputs of one layer, by its name
OutputCallback = Callable[[str, Tensor], None]
#: receives the outputs of one layer for transformed images, by its name
PairCallback = Callable[[str, TransformedOutputs], None]
#: receives a message on the progress of measuring
Progress = Callable[[str], None]


def no_progress(*_: object) -> None:
    """Ignore all messages."""


@dataclass(frozen=True)
class Setting:
    """A transform by one amount, with its parameters for every image."""

    transform: Transform
    amount: float
    parameters: Shaped[Tensor, "n k"]

    @property
    def interpolated(self) -> bool:
        """Whether it moves pixels to places between pixels, for some image."""
        return self.transform.is_spatial and not bool(self.transform.exact(self.parameters).all())


def settings(test_set: EvaluationSet, names: Sequence[str], amounts: Sequence[float] | None = None) -> list[Setting]:
    """The settings of the ``TRANSFORMS`` of these names: their amounts (of shifts, up to the margin), with parameters
    drawn by the test set's seed. The parameters of a setting do not depend on which other settings there are.
    """
    drawn = []
    for transform in (TRANSFORMS[name] for name in names):
        for amount in shift_amounts(test_set.margin) if transform.name == "shift" else transform.amounts:
            generator = torch.Generator().manual_seed(test_set.seed)
            if amounts is None or amount in amounts:
                drawn.append(Setting(transform, amount, transform.draw(len(test_set.padded), amount, generator)))
    return drawn


class TransformMeasures:
    """All metrics of one setting, made by ``metric_factory`` for the output and each layer; also the equivariance
    errors of layers if it is ``complete``, and that of predicted ``positions``.
    """

    def __init__(
        self, setting: Setting, layers: Sequence[str], metric_factory: MetricFactory, complete: bool, positions: bool
    ) -> None:
        self.setting = setting
        self.position = [PositionEquivariance()] if positions and setting.transform.name == "shift" else []
        self.metrics = {name: metric_factory(name) for name in [OUTPUT, *layers]}
        self.floors: dict[str, list[PairMeasure]] = {
            name: [metric for metric in metric_factory(name) if isinstance(metric, FLOORS)]
            for name in (self.metrics if setting.interpolated else ())
        }
        equivariant = layers if complete and setting.transform.is_spatial else []
        self.equivariance = {layer: EquivarianceError() for layer in equivariant}

    def per_image(self) -> Iterator[PerImage]:
        """The values of each image, for shifts by one pixel."""
        transform, amount = self.setting.transform, self.setting.amount
        for metric in self.metrics[OUTPUT] if (transform.name, amount) == ("shift", 1) else ():
            if metric.update_called and type(metric) in PER_IMAGE:
                name, columns = PER_IMAGE[type(metric)]
                values = metric.statistics()[:, :columns].float().cpu().numpy()
                yield PerImage(OUTPUT, transform.protocol, amount, name, values)

    def rows(self, weights: Tensor) -> Iterator[Row]:
        """The rows of all metrics, after the last batch."""
        transform, amount = self.setting.transform, self.setting.amount
        equivariance = {layer: [metric] for layer, metric in self.equivariance.items()}
        groups = (self.metrics, ""), (self.floors, "_floor"), (equivariance, ""), ({OUTPUT: self.position}, "")
        for metrics, suffix in groups:
            for layer, name, estimate in _estimates(metrics, weights):
                yield Row(layer, transform.name, transform.protocol, amount, name + suffix, estimate)


def _estimates(
    metrics: Mapping[str, Sequence[Measure]], weights: Float[Tensor, "draws n"]
) -> Iterator[tuple[str, str, Estimate]]:
    """(layer, name, estimate) of the metrics that were updated, all with the same number of images."""
    layers = {metric: layer for layer, of_layer in metrics.items() for metric in of_layer if metric.update_called}
    if layers:
        n = sum(map(len, next(iter(layers)).batches))
        weights = weights if n == weights.shape[1] else bootstrap_weights(n)
        for metric, name, estimate in estimates([*layers], weights):
            yield layers[metric], name, estimate


def every_metric(adapter: ModelAdapter, test_set: EvaluationSet) -> MetricFactory:
    """A factory of all registered metrics whose needs the net and the images meet."""
    kinds = [kind for kind in pair_measures() if adapter.classifies or not kind.of_classes]
    kinds = [kind for kind in kinds if test_set.labels is not None or not kind.needs_labels]
    return lambda name: [kind() for kind in kinds if kind.on == ("output" if name == OUTPUT else "layers")]


class _Forward:
    """Runs the net on images and passes the outputs of its layers to a callback while it runs: the hooks call
    ``receive``, which calls the callback of the present forward pass.
    """

    def __init__(self, adapter: ModelAdapter, positions: bool) -> None:
        self.adapter, self.positions = adapter, positions
        self.current: OutputCallback = no_progress

    def receive(self, name: str, outputs: Tensor) -> None:
        self.current(name, outputs)

    def __call__(self, pixels: Shaped[Tensor, "b c h w"], callback: OutputCallback) -> None:
        self.current = callback
        outputs = self.adapter.net(self.adapter.normalise(pixels))
        callback(OUTPUT, self.adapter.select_output(outputs))
        if self.positions and self.adapter.position:
            callback(POSITION, self.adapter.position(outputs))


@torch.no_grad()
def pair_rows(
    adapter: ModelAdapter, test_set: EvaluationSet, names: Sequence[str], metric_factory: MetricFactory | None = None,
    amounts: Sequence[float] | None = None, progress: Progress = no_progress,
) -> Iterator[Row | PerImage]:  # fmt: skip
    """Rows of metrics that compare an image x with the transformed image gx.

    Each image has its own parameters for each amount, the same for every net. With all registered metrics come the cost
    of interpolation alone (``…_floor``) for transforms that interpolate; the equivariance error of layers that are
    maps, for transforms that move pixels; and that of the predicted position, for shifts.

    Args:
        names: of ``TRANSFORMS``.
        metric_factory: makes the only metrics to measure; None: all that are registered.
        amounts: only these; None: all of each transform.
    """
    complete, factory = metric_factory is None, metric_factory or every_metric(adapter, test_set)
    positions = complete and adapter.position is not None and test_set.positions is not None
    drawn = settings(test_set, names, amounts)
    measures = [TransformMeasures(setting, adapter.layers, factory, complete, positions) for setting in drawn]
    populations_by_disc = {disc: _populations(adapter, test_set, measures, disc, progress) for disc in (False, True)}
    forward = _Forward(adapter, positions)
    with stream_outputs(adapter.net, adapter.layers, forward.receive, adapter.views):
        for index in test_set.batches() if measures else ():
            progress(f"measuring {len(measures)} transforms: image {int(index[0])} of {len(test_set.padded)}")
            _measure_batch(forward, test_set, index, measures, populations_by_disc)
    weights = bootstrap_weights(len(test_set.padded), test_set.seed)
    for measure in measures:
        yield from measure.rows(weights)
        if complete:
            yield from measure.per_image()


def _populations(
    adapter: ModelAdapter, test_set: EvaluationSet, measures: Sequence[TransformMeasures], disc: bool,
    progress: Progress,
) -> Mapping[str, Population]:  # fmt: skip
    """The populations of the original images, whole or masked by a disc, if any metric needs them."""
    measures = [measure for measure in measures if measure.setting.transform.disc == disc]
    metrics = (metric for measure in measures for of_layer in measure.metrics.values() for metric in of_layer)
    if not any(metric.needs_population for metric in metrics):
        return {}
    progress("measuring how far images lie apart")
    device, transform = reference_tensor(adapter.net).device, measures[0].setting.transform
    batches = (test_set.padded[index].to(device) for index in test_set.batches())
    return populations(adapter, (adapter.normalise(transform.reference(x, test_set.margin)) for x in batches))


def _measure_batch(
    forward: _Forward, test_set: EvaluationSet, index: Tensor, measures: Sequence[TransformMeasures],
    populations_by_disc: Mapping[bool, Mapping[str, Population]],
) -> None:  # fmt: skip
    """Update the metrics of all settings with one batch."""
    device, margin = reference_tensor(forward.adapter.net).device, test_set.margin
    padded, few = test_set.padded[index].to(device), int(index[0]) < FEWER_IMAGES
    labels = None if test_set.labels is None else test_set.labels[index].to(device)
    references: dict[bool, dict[str, LayerOutputs]] = {False: {}, True: {}}  # whole images, and masked by a disc
    for measure in measures:
        transform, parameters = measure.setting.transform, measure.setting.parameters[index].to(device)
        pixels, reference = transform.reference(padded, margin), references[transform.disc]
        if not reference:
            forward(pixels, partial(_store, reference, populations_by_disc[transform.disc]))
        images = transform.images(padded, parameters, margin)
        callbacks: list[PairCallback] = [partial(_update, measure.metrics, labels)]
        if measure.position and test_set.positions is not None:
            sides = torch.tensor(images.shape[-2:], device=device)
            positions = test_set.positions[index].to(device)
            callbacks.append(partial(_update_position, measure.position, positions, parameters / sides))
        equivariance = measure.equivariance if few else {}
        groups = _by_fixed_point(equivariance, reference, transform, forward.adapter.grids, pixels)
        update = partial(_update_equivariance, transform, parameters)
        callbacks += [partial(update, *layer, (pixels, images), None) for layer in groups.pop(MIDDLE, [])]
        forward(images, partial(_compare, reference, callbacks))
        for point, group in groups.items():
            about_point, inside = transform.recenter(images, parameters, point)
            callbacks = [partial(update, *layer, (pixels, about_point), inside) for layer in group]
            forward(about_point, partial(_compare, reference, callbacks))
        if measure.floors and few:
            # pixels around the image keep what a larger image would lose at its border on the way back
            before, after = (0, margin) if transform.uses_margin else (margin, 0)
            back = transform.round_trip(crop_margin(padded, before), parameters).clamp(0, 255)
            callbacks = [partial(_update, measure.floors, labels)]
            forward(transform.reference(back, after), partial(_compare, reference, callbacks))


# --- callbacks: the last two arguments are a layer's name and its outputs --------------------------------------------


def _store(
    reference: dict[str, LayerOutputs], populations: Mapping[str, Population], name: str, outputs: Tensor
) -> None:
    reference[name] = LayerOutputs(outputs.clone(), populations.get(name))


def _compare(
    reference: Mapping[str, LayerOutputs], callbacks: Sequence[PairCallback], name: str, outputs: Tensor
) -> None:
    transformed = TransformedOutputs(reference[name], outputs)
    for callback in callbacks:
        callback(name, transformed)


def _update(
    metrics: Mapping[str, list[PairMeasure]], labels: Tensor | None, name: str, transformed: TransformedOutputs
) -> None:
    for metric in metrics.get(name, ()):
        metric.update(transformed.reference, transformed, labels)


def _update_position(
    metrics: list[PositionEquivariance], positions: Tensor, shifts: Tensor, name: str, transformed: TransformedOutputs
) -> None:
    """Shifts are (down, right) in units of the side, positions (x, y). Objects that leave the image are left out."""
    if name != POSITION:
        return
    shifts = shifts.flip(1)
    inside = stays_inside(positions, shifts)
    for metric in metrics if inside.any() else ():
        metric.update(transformed.reference.maps[inside], transformed.maps[inside], shifts[inside])


def _update_equivariance(
    transform: Transform, parameters: Tensor, layer: str, metric: EquivarianceError, grid: SamplingGrid,
    pixels: tuple[Tensor, Tensor], inside: Bool[Tensor, "n h w"] | None, name: str, transformed: TransformedOutputs,
) -> None:  # fmt: skip
    """Compare the transformed image's map with the original image's map transformed; the same for pixels (of the
    original and of the transformed images) averaged to the map's grid. ``inside`` are the transformed image's valid
    pixels; None: all. Layers of other names are ignored.
    """
    if name != layer:
        return
    reference, size = transformed.reference.maps, (transformed.maps.shape[2], transformed.maps.shape[3])
    coarse, coarse_transformed = (grid.average(to_float(x), size) for x in pixels)
    valid = transform.valid(reference, parameters, grid)
    if inside is not None:
        valid = valid & (grid.average(inside[:, None].float(), size)[:, 0] > 1 - 1e-4)
    expected, expected_pixels = (transform.maps(maps, parameters, grid) for maps in (reference, coarse))
    metric.update(transformed.maps, expected, valid, coarse_transformed, expected_pixels)


def _by_fixed_point(
    metrics: Mapping[str, EquivarianceError], reference: Mapping[str, LayerOutputs], transform: Transform,
    grids: Mapping[str, SamplingGrid], pixels: Tensor,
) -> dict[Point, list[tuple[str, EquivarianceError, SamplingGrid]]]:  # fmt: skip
    """The layers that are maps, with their grids, grouped by the fixed point that the transform must have for them.

    A mirror or a quarter turn maps a layer's grid onto itself only about the middle of that grid, and where windows do
    not tile the image this is not the image's middle. Other transforms interpolate maps, about the image's middle.
    """
    groups: dict[Point, list[tuple[str, EquivarianceError, SamplingGrid]]] = {}
    for name, metric in metrics.items():
        maps = reference[name].maps
        if maps.dim() == 4 and min(maps.shape[2:]) > 1 and transform.takes((maps.shape[2], maps.shape[3])):
            size, image = (maps.shape[2], maps.shape[3]), (pixels.shape[2], pixels.shape[3])
            grid = grids.get(name) or SamplingGrid.even(image, size)
            point = grid.center_offset(size) if transform.matrix else MIDDLE
            if transform.matrix is None or transform.can_recenter(point):  # else no image shows it exactly
                groups.setdefault(point, []).append((name, metric, grid))
    return groups
