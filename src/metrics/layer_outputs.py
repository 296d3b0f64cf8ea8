"""A layer's outputs for original and for transformed images, with the statistics that several metrics share.

Each statistic is computed at the first access and cached, so that metrics of the same outputs do not repeat work.
"""

from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

#: numbers processed at once on a CPU: 2 MB in float32, about a cache
CHUNK = 2**19
#: a standard deviation below this share of the mean is float32 rounding
ROUNDING = 1e-5


def channels_as_stored(maps: Float[Tensor, "n c ..."]) -> tuple[Float[Tensor, "n ..."], int]:
    """The maps with dimensions in memory order, and the position of the channels: last for channels_last maps, which
    are slow to reduce in another order. Detached.

    >>> channels_as_stored(torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last))[1]
    3
    """
    last = maps.dim() == 4 and not maps.is_contiguous() and maps.is_contiguous(memory_format=torch.channels_last)
    position = 3 if last else 1
    return maps.detach().movedim(1, position), position


def sum_over_images(outputs: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The sum over images, as up to 8 matrix products: on a CPU they take half the time of ``sum``, and use all cores
    where a single product would use one.
    """
    n = len(outputs)
    parts = next(k for k in range(8, 0, -1) if n % k == 0)
    summed: Tensor = (outputs.new_ones(parts, 1, n // parts) @ outputs.unflatten(0, (parts, -1))).sum((0, 1))
    return summed


def squared_differences(maps: Float[Tensor, "n c ..."], others: Float[Tensor, "m c ..."]) -> Float[Tensor, "n c"]:
    """The squared difference of each image and channel, summed over positions. ``others`` repeat if n is a multiple of
    m: image i is compared with i modulo m.
    """
    maps, channels = channels_as_stored(maps)
    others = others.detach().movedim(1, channels)
    positions = tuple(1 + axis for axis in range(1, maps.dim()) if axis != channels)  # one axis more: of the repeats
    # a CPU does as many images at once as its caches hold
    images = max(1, CHUNK // max(1, maps[:1].numel())) if maps.device.type == "cpu" else len(maps)
    chunks = []
    for repeats in maps.unflatten(0, (-1, len(others))).split(max(1, images // len(others))):
        pairs = zip(repeats.split(images, 1), others.split(images), strict=True)
        squared = (F.mse_loss(x, y.expand_as(x), reduction="none") for x, y in pairs)
        chunks.append(torch.cat([part.sum(positions) if positions else part for part in squared], 1))
    return torch.cat(chunks).flatten(0, 1)


def row_norms(flat: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The l2 norm of each row, at least the smallest positive float, so that it can be divided by."""
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return norms.clamp(min=torch.finfo(flat.dtype).tiny)


def ratio_or_nan(numerator: Float[Tensor, "..."], denominator: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The ratio to a mean distance between images; nan where that is not above 0: where all images are the same, or in
    a bootstrap sample of few images, whose ``jackknife_values`` may be negative.
    """
    return torch.where(denominator > 0, numerator / denominator, torch.nan)


def jackknife_values(distances: Float[Tensor, " m"], mean_of_pairs: Float[Tensor, ""], n: int) -> Float[Tensor, " m"]:
    """The jackknife pseudo-value of each image for a mean over all pairs of n images.

    Their mean is the mean over all pairs, and their variance over n is its variance over draws of images. The mean over
    pairs is a U-statistic (Hoeffding 1948): to resample each image's mean distance to the others instead would give
    half the standard error, as each image is in the means of the others too.

    ``distances`` are each image's mean distance to the n - 1 others.

    >>> jackknife_values(torch.tensor([1.0, 2, 3]), torch.tensor(2.0), 3).tolist()
    [-2.0, 2.0, 6.0]
    """
    return mean_of_pairs + (distances - mean_of_pairs) * 2 * (n - 1) / max(n - 2, 1)


def nan_where_not_finite(statistics: Shaped[Tensor, "n k"], *outputs: Float[Tensor, "n ..."]) -> Shaped[Tensor, "n k"]:
    """The statistics, nan for images with an output that is infinite or nan: ``argmax`` of such an output is 0, so that
    the net would agree with itself, and be right about that class.
    """
    missing = torch.stack([~x.flatten(1).isfinite().all(1) for x in outputs]).any(0)
    return torch.where(missing[:, None], torch.nan, statistics) if missing.any() else statistics


class Population:
    """Statistics of a layer's outputs over all measured images: the reference for every distance to "other images",
    whatever the batches. Updated batch by batch; it keeps a few numbers per output, not the maps.

    Args:
        keep_outputs: also keep the outputs, which distances that are not squared need: for logits, not for maps.

    Attributes:
        n: images.
        mean: (1, c, …), the mean output.
        squared_deviation: (c), squared distance to the mean, summed over images and positions.
        direction: (1, c, …), the sum of the outputs divided by their norms.
        squared_directions: the sum of the squared norms of these quotients: the number of images with an output that is
            not 0.
    """

    def __init__(self, keep_outputs: bool = False) -> None:
        self.keep_outputs, self.n = keep_outputs, 0
        self.batches: list[Tensor] = []

    def add(self, outputs: Float[Tensor, "n c ..."]) -> None:
        """Add a batch (n ≥ 1)."""
        maps, channels = channels_as_stored(outputs)
        mean = sum_over_images(maps.flatten(1)).div(len(maps)).view(1, *maps.shape[1:]).movedim(channels, 1)
        squared_deviation = squared_differences(outputs, mean).double().sum(0)
        directions = maps.flatten(1) / row_norms(maps.flatten(1))[:, None]
        direction = sum_over_images(directions).view(1, *maps.shape[1:]).movedim(channels, 1).double()
        squared_directions = directions.square().sum().double()
        if self.keep_outputs:
            self.batches.append(outputs.detach().flatten(1))
        if not self.n:
            self.n, self.mean, self.squared_deviation = len(maps), mean.double(), squared_deviation
            self.direction, self.squared_directions = direction, squared_directions
            return
        # Chan, Golub & LeVeque (1983): the squared deviations from each mean, and that of the two means
        change, n = mean.double() - self.mean, self.n + len(maps)
        squared_change = change.square().reshape(*change.shape[:2], -1).sum((0, 2))
        self.squared_deviation = self.squared_deviation + squared_deviation + squared_change * self.n * len(maps) / n
        self.mean = self.mean + change * len(maps) / n
        self.direction = self.direction + direction
        self.squared_directions, self.n = self.squared_directions + squared_directions, n

    @cached_property
    def varies(self) -> Bool[Tensor, " c"]:
        """Whether each channel differs between images by more than rounding."""
        scale = self.mean.square().reshape(*self.mean.shape[:2], -1).sum((0, 2))
        return self.squared_deviation > self.n * ROUNDING**2 * scale

    @cached_property
    def outputs(self) -> Float[Tensor, "n d"]:
        """All outputs, where they are kept."""
        return torch.cat(self.batches)

    @cached_property
    def mean_distance(self) -> Float[Tensor, ""]:
        """The mean l2 distance over all pairs of images."""
        chunks = self.outputs.split(max(1, CHUNK // self.n))
        return torch.stack([self.distances(chunk).sum() for chunk in chunks]).sum() / self.n

    def distances(self, outputs: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
        """The mean l2 distance of each of these images to all others."""
        distances = torch.cdist(outputs, self.outputs, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.sum(1) / (self.n - 1)

    @property
    def variance(self) -> Float[Tensor, " c"]:
        """The unbiased variance of each channel over images, summed over positions."""
        return torch.where(self.varies, self.squared_deviation, 0) / (self.n - 1)

    @property
    def mean_cosine(self) -> Float[Tensor, ""]:
        """The mean cosine over all pairs of images."""
        return (self.direction.square().sum() - self.squared_directions) / (self.n * (self.n - 1))


class LayerOutputs:
    """A layer's outputs for a batch of original images.

    Comparisons with other images are ``jackknife_values`` of a mean over all pairs of images (n ≥ 2): those of the
    population of all measured images, this batch included; None: this batch is all.
    """

    def __init__(self, outputs: Float[Tensor, "n ..."], population: Population | None = None) -> None:
        self.maps = outputs
        self.shared_population = population

    @cached_property
    def population(self) -> Population:
        """The population of all measured images; this batch if none was given."""
        if self.shared_population is not None:
            return self.shared_population
        population = Population(keep_outputs=True)
        population.add(self.maps)
        return population

    @cached_property
    def outputs(self) -> Float[Tensor, "n d"]:
        """The outputs, flattened."""
        return self.maps.flatten(1)

    @cached_property
    def outputs_as_stored(self) -> Float[Tensor, "n d"]:
        """The outputs, flattened in memory order: no copy."""
        return channels_as_stored(self.maps)[0].flatten(1)

    @cached_property
    def squared_deviation(self) -> Float[Tensor, "n c"]:
        """The squared distance of each image and channel to the mean over images, summed over positions; 0 for a
        channel that does not vary.
        """
        mean = self.population.mean.to(self.maps).reshape(1, *self.maps.shape[1:])
        deviation, varies = squared_differences(self.maps, mean), self.population.varies
        return deviation * varies.repeat_interleave(deviation.shape[1] // len(varies))  # maps may come flattened

    @cached_property
    def squared_distance(self) -> Float[Tensor, " n"]:
        """Jackknife values of the mean squared l2 distance between images."""
        n = self.population.n
        mean_of_pairs = 2 * self.population.variance.sum().to(self.maps)
        to_others = (self.squared_deviation.sum(1) * n / (n - 1) + mean_of_pairs / 2).to(self.maps)
        return jackknife_values(to_others, mean_of_pairs, n)

    @cached_property
    def distance(self) -> Float[Tensor, " n"]:
        """Jackknife values of the mean l2 distance between images."""
        population = self.population
        return jackknife_values(population.distances(self.outputs), population.mean_distance, population.n)

    @cached_property
    def norm(self) -> Float[Tensor, " n"]:
        """The l2 norm of each image's outputs."""
        norms: Tensor = torch.linalg.vector_norm(self.outputs_as_stored, dim=1)
        return norms

    @cached_property
    def cosine(self) -> Float[Tensor, " n"]:
        """Jackknife values of the mean cosine between images."""
        flat, channels, n = self.outputs_as_stored, channels_as_stored(self.maps)[1], self.population.n
        directions = flat / row_norms(flat)[:, None]
        total = self.population.direction.to(self.maps).reshape(1, *self.maps.shape[1:]).movedim(1, channels).flatten()
        to_others = (directions @ total - directions.square().sum(1)) / (n - 1)
        return jackknife_values(to_others, self.population.mean_cosine.to(to_others), n)


class TransformedOutputs(LayerOutputs):
    """The same layer's outputs for the same images transformed; ``reference`` are those for the original images."""

    def __init__(self, reference: LayerOutputs, outputs: Float[Tensor, "n ..."]) -> None:
        super().__init__(outputs)
        self.reference = reference

    @cached_property
    def squared_difference(self) -> Float[Tensor, "n c"]:
        """``(φ(gx) - φ(x))²`` of each image and channel, summed over positions."""
        return squared_differences(self.maps, self.reference.maps)
