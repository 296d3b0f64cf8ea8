"""One pass over the test images: every transform, every amount, every layer; each forward feeds all measures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..metrics.base import (
    LayerOutputs,
    Measure,
    PairMeasure,
    Population,
    TransformedOutputs,
    estimates,
    pair_measures,
    resamples,
)
from ..metrics.consistency import Consistency
from ..metrics.equivariance_error import EquivarianceError
from ..metrics.invariance_error import InvarianceError
from ..metrics.output_distance import OutputDistance
from ..metrics.position_equivariance import PositionEquivariance, stays_inside
from ..metrics.rows import Estimate, PerImage, Row
from ..nets.hooks import reference_tensor, stream_outputs
from ..transforms import TRANSFORMS, Point, SamplingGrid, Transform, crop_margin, to_float
from .adapter import OUTPUT, EvaluationSet, ModelAdapter, populations

POSITION = "position"
#: of the image, which most transforms leave in place
MIDDLE: Point = (0.0, 0.0)
#: ``output`` or a layer's name → measures that have seen nothing yet
Fresh = Callable[[str], list[PairMeasure]]
#: images whose maps are compared with moved maps, which costs more than a small net's forward pass, and for floors
FEWER_IMAGES = 250
#: measures of what interpolation alone does: the image moved there and back
FLOORS = (OutputDistance, InvarianceError)
#: measures of the answer by which nets are compared image by image → the number, and the columns that it is made of
COMPARED: dict[type[PairMeasure], tuple[str, int]] = {
    OutputDistance: ("output_distance", 2),
    Consistency: ("consistency", 1),
}


#: takes a place's outputs: ``output``'s or a layer's
See = Callable[[str, Tensor], None]
#: told how far a measuring is
Progress = Callable[[str], None]


def no_progress(*words: object) -> None:
    """Hears nothing."""


@dataclass(frozen=True)
class Setting:
    """A transform by one amount, with its parameters for every image."""

    transform: Transform
    amount: float
    parameters: Shaped[Tensor, "n k"]

    @property
    def interpolated(self) -> bool:
        """Whether the moved images are no longer made of the pixels they had."""
        return self.transform.is_spatial and not bool(self.transform.exact(self.parameters).all())


def settings(test_set: EvaluationSet, names: Sequence[str], only: Sequence[float] | None = None) -> list[Setting]:
    """Of each transform its amounts (shifts: up to the scene's margin), drawn by the scene's seed, one row an image;
    ``only`` those amounts, if given.

    The parameters of one do not depend on which others are asked for.
    """
    found = []
    for transform in (TRANSFORMS[name] for name in names):
        for amount in transform.amounts:
            generator = torch.Generator().manual_seed(test_set.seed)
            small = transform.name != "shift" or amount <= test_set.margin
            if small and (only is None or amount in only):
                found.append(Setting(transform, amount, transform.draw(len(test_set.canvas), amount, generator)))
    return found


class Fed:
    """The measures of one setting; also whether maps and positions move along, where that is asked for."""

    def __init__(
        self, setting: Setting, layers: Sequence[str], fresh: Fresh, maps: bool = False, positions: bool = False
    ) -> None:
        self.setting = setting
        self.position = [PositionEquivariance()] if positions and setting.transform.name == "shift" else []
        self.measures = {place: fresh(place) for place in [OUTPUT, *layers]}
        self.floors: dict[str, list[PairMeasure]] = {}
        if setting.interpolated:
            self.floors = {place: [one for one in fresh(place) if isinstance(one, FLOORS)] for place in self.measures}
        followed = layers if maps and setting.transform.is_spatial else []
        self.equivariance = {layer: EquivarianceError() for layer in followed}

    def per_image(self) -> Iterator[PerImage]:
        """What nets are compared by, image by image: what a shift by a pixel does to the answer."""
        one, amount = self.setting.transform, self.setting.amount
        for measure in self.measures[OUTPUT]:
            if (one.name, amount) == ("shift", 1) and measure.update_called and (kept := COMPARED.get(type(measure))):
                name, columns = kept
                values = measure.statistics()[:, :columns].float().cpu().numpy()
                yield PerImage(OUTPUT, one.protocol, amount, name, values)

    def rows(self, weights: Tensor) -> Iterator[Row]:
        """Everything, when all images have passed."""
        one, amount = self.setting.transform, self.setting.amount

        def row(layer: str, name: str, estimate: Estimate) -> Row:
            return Row(layer, one.name, one.protocol, amount, name, estimate)

        yield from (row(*found) for found in _estimates(self.measures, weights))
        for layer, name, estimate in _estimates(self.floors, weights):
            yield row(layer, f"{name}_floor", estimate)
        yield from (row(*found) for found in _estimates({k: [one] for k, one in self.equivariance.items()}, weights))
        yield from (row(*found) for found in _estimates({OUTPUT: self.position}, weights))


def _estimates(
    measures: Mapping[str, Sequence[Measure]], weights: Float[Tensor, "draws n"]
) -> Iterator[tuple[str, str, Estimate]]:
    """(layer, name, estimate) of those that have been fed, with as many images each."""
    fed = [(layer, one) for layer, some in measures.items() for one in some if one.update_called]
    if fed:
        n = sum(map(len, fed[0][1].kept))
        layers = {one: layer for layer, one in fed}
        for one, name, estimate in estimates([*layers], weights if n == weights.shape[1] else resamples(n)):
            yield layers[one], name, estimate


def every_measure(adapter: ModelAdapter, test_set: EvaluationSet) -> Fresh:
    """All registered measures that the net and the images have what they need for."""
    kinds = [one for one in pair_measures() if adapter.what or not one.of_classes]
    kinds = [one for one in kinds if test_set.labels is not None or not one.needs_labels]
    return lambda place: [one() for one in kinds if one.on == ("output" if place == OUTPUT else "layers")]


@torch.no_grad()
def pair_rows(
    adapter: ModelAdapter,
    test_set: EvaluationSet,
    names: Sequence[str],
    fresh: Fresh | None = None,
    only: Sequence[float] | None = None,
    progress: Progress = no_progress,
) -> Iterator[Row | PerImage]:
    """Rows of all pair measures, for the named transforms: x is an image as it is, gx the same transformed.

    Every image gets its own parameters of each amount, the same for every net. Beside the measures stand what
    interpolation alone would cost (``…_floor``), where a transform interpolates, and for layers that are maps the
    equivariance error, where the transform moves pixels; for answers to "where?" that of the answer, under shifts.

    Args:
        subject: the net.
        scene: the images, n ≥ 2.
        names: of ``TRANSFORMS``.
        fresh: ``output`` or a layer's name → new measures to feed there, and no others; None: all that are registered.
        only: these amounts; None: all the transform has.
        tell: hears how far it is, in words.
    """
    whole, fresh = fresh is None, fresh or every_measure(adapter, test_set)
    positions = whole and adapter.position is not None and test_set.positions is not None
    fed = [Fed(one, adapter.layers, fresh, whole, positions) for one in settings(test_set, names, only)]
    device = reference_tensor(adapter.net).device

    take: See = no_progress

    def see(place: str, x: Tensor) -> None:
        take(place, x)

    def look(pixels: Shaped[Tensor, "b c h w"], taking: See) -> None:
        nonlocal take
        take = taking
        outputs = adapter.net(adapter.normalise(pixels))
        see(OUTPUT, adapter.answer(outputs))
        if positions and adapter.position:
            see(POSITION, adapter.position(outputs))

    everything = {disc: _populations(adapter, test_set, fed, disc, progress) for disc in (False, True)}
    with stream_outputs(adapter.net, adapter.layers, see):
        for index in test_set.batches() if fed else ():
            progress(f"measuring {len(fed)} transforms: image {int(index[0])} of {len(test_set.canvas)}")
            canvas = test_set.canvas[index].to(device)
            labels = None if test_set.labels is None else test_set.labels[index].to(device)
            stills: dict[bool, dict[str, LayerOutputs]] = {False: {}, True: {}}
            for one in fed:
                transform, parameters = one.setting.transform, one.setting.parameters[index].to(device)
                pixels, still = transform.reference(canvas, test_set.margin), stills[transform.disc]
                if not still:
                    look(pixels, partial(_keep, still, everything[transform.disc]))
                images = transform.images(canvas, parameters, test_set.margin)
                takers = [partial(_feed, one.measures, labels)]
                if one.position and test_set.positions is not None:
                    sides = torch.tensor(images.shape[-2:], device=device)
                    takers.append(
                        partial(_position, one.position, test_set.positions[index].to(device), parameters / sides)
                    )
                followed = one.equivariance if int(index[0]) < FEWER_IMAGES else {}
                groups = _by_fixed_point(followed, still, transform, adapter.grids, pixels)
                for layers, grid in groups.pop(MIDDLE, []):
                    takers.append(partial(_equivariance, layers, transform, parameters, (pixels, images), grid, None))
                look(images, partial(_compare, still, takers))
                for point, off_middle in groups.items():
                    moved, came_in = transform.recenter(images, parameters, point)
                    takers = [
                        partial(_equivariance, layers, transform, parameters, (pixels, moved), grid, came_in)
                        for layers, grid in off_middle
                    ]
                    look(moved, partial(_compare, still, takers))
                if one.floors and int(index[0]) < FEWER_IMAGES:
                    # a canvas around the image keeps what a larger image loses at its border on the way back
                    before, after = (0, test_set.margin) if transform.uses_margin else (test_set.margin, 0)
                    back = transform.round_trip(crop_margin(canvas, before), parameters).clamp(0, 255)
                    takers = [partial(_feed, one.floors, labels)]
                    look(transform.reference(back, after), partial(_compare, still, takers))
    weights = resamples(len(test_set.canvas), test_set.seed)
    for one in fed:
        yield from one.rows(weights)
        if whole:
            yield from one.per_image()


def _populations(
    adapter: ModelAdapter, test_set: EvaluationSet, fed: Sequence[Fed], disc: bool, progress: Progress
) -> Mapping[str, Population]:
    """Of the untouched images, whole or cut to a disc, where some measure compares with them."""
    some = [one for one in fed if one.setting.transform.disc == disc]
    measures = [one for each in some for found in each.measures.values() for one in found]
    if not any(measure.relative for measure in measures):
        return {}
    progress("measuring how far images lie apart")
    device, transform = reference_tensor(adapter.net).device, some[0].setting.transform
    canvases = (test_set.canvas[index].to(device) for index in test_set.batches())
    return populations(adapter, (adapter.normalise(transform.reference(one, test_set.margin)) for one in canvases))


def _keep(still: dict[str, LayerOutputs], everything: Mapping[str, Population], place: str, x: Tensor) -> None:
    still[place] = LayerOutputs(x.clone(), everything.get(place))


def _compare(
    still: dict[str, LayerOutputs], takers: Sequence[Callable[[str, TransformedOutputs], None]], place: str, x: Tensor
) -> None:
    moved = TransformedOutputs(still[place], x)
    for take in takers:
        take(place, moved)


def _feed(measures: dict[str, list[PairMeasure]], labels: Tensor | None, place: str, moved: TransformedOutputs) -> None:
    for measure in measures.get(place, ()):
        measure.update(moved.still, moved, labels)


def _position(
    measures: list[PositionEquivariance], positions: Tensor, shifts: Tensor, place: str, moved: TransformedOutputs
) -> None:
    """``shifts`` are (down, right) in units of the side, positions (x, y); what leaves the image cannot be followed."""
    if place != POSITION:
        return
    shifts = shifts.flip(1)
    inside = stays_inside(positions, shifts)
    for measure in measures if inside.any() else ():
        measure.update(moved.still.maps[inside], moved.maps[inside], shifts[inside])


def _by_fixed_point(
    measures: Mapping[str, EquivarianceError],
    still: Mapping[str, LayerOutputs],
    transform: Transform,
    grids: Mapping[str, SamplingGrid],
    pixels: Tensor,
) -> dict[Point, list[tuple[dict[str, EquivarianceError], SamplingGrid]]]:
    """The layers that are maps, each with its grid, by the point that has to stay in place: a mirror or a quarter turn
    takes a layer's outputs onto each other about the middle of its own grid, and where windows do not tile the image
    that is not the image's middle. Elsewhere maps are interpolated, and the image's middle will do.
    """
    groups: dict[Point, list[tuple[dict[str, EquivarianceError], SamplingGrid]]] = {}
    for place, measure in measures.items():
        maps = still[place].maps
        if maps.dim() == 4 and min(maps.shape[2:]) > 1:
            size, image = (maps.shape[2], maps.shape[3]), (pixels.shape[2], pixels.shape[3])
            grid = grids.get(place) or SamplingGrid.even(image, size)
            point = grid.center_offset(size) if transform.matrix else MIDDLE
            if transform.matrix is None or transform.can_recenter(point):  # else no image shows it exactly
                groups.setdefault(point, []).append(({place: measure}, grid))
    return groups


def _equivariance(
    measures: dict[str, EquivarianceError],
    transform: Transform,
    parameters: Tensor,
    pixels: tuple[Tensor, Tensor],
    grid: SamplingGrid,
    inside: Tensor | None,
    place: str,
    moved: TransformedOutputs,
) -> None:
    """Compare the moved image's map with the still one's map moved; and so the pixels, averaged on the map's grid.

    ``inside``, if given: the moved image's pixels that count.
    """
    if place not in measures:
        return
    still, size = moved.still.maps, (moved.maps.shape[2], moved.maps.shape[3])
    coarse, coarse_moved = (grid.average(to_float(one), size) for one in pixels)
    valid = transform.valid(still, parameters, grid)
    if inside is not None:
        valid = valid & (grid.average(inside[:, None].float(), size)[:, 0] > 1 - 1e-4)
    measures[place].update(
        moved.maps,
        transform.maps(still, parameters, grid),
        valid,
        coarse_moved,
        transform.maps(coarse, parameters, grid),
    )
