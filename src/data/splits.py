"""A data set as a run uses it: training, validation and test parts, label noise, normalisation, padding."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from .checksums import folder_checksum
from .options import Data
from .permutation import Permutation, draw_permutation
from .sets import MARGIN, DataError, Images, Source, load


@dataclass(frozen=True)
class Splits:
    """The disjoint training, validation and test parts of a run; ``out_of_frame`` and ``others`` as in ``Source``."""

    train: Images  # the only part with label noise
    val: Images
    test: Images
    classes: list[str]
    mean: Float[Tensor, " c"]  # of the training part's pixels in [0, 1] (0 and 1 if the set is not centred)
    std: Float[Tensor, " c"]
    noise_rate: float  # realised share of training labels that are not the true ones
    checksum: str  # of the split: the images of each part, and their labels
    out_of_frame: str
    others: dict[str, Images]
    true_labels: Int64[Tensor, " n"]  # of ``train``, before the noise
    object_size: tuple[float, float] | None = None  # as in ``Source``
    skipped: int = 0  # image files that were left out, as they could not be read
    permutation: Permutation | None = None  # of the pixels of every image, as the net gets it

    @property
    def image(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        c, h, w = self.test.images.shape[1:]
        return c, h, w

    def normalise(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Pixels from 0 to 255 to zero mean and unit variance (over the training part), channels last in memory; in
        the order that the net gets them in.
        """
        return normalise(images, self.mean, self.std, self.permutation)


def normalise(
    images: Shaped[Tensor, "n c h w"],
    mean: Float[Tensor, " c"],
    std: Float[Tensor, " c"],
    permutation: Permutation | None = None,
) -> Float[Tensor, "n c h w"]:
    """``(images / 255 - mean) / std``, channels last in memory; then permuted, if there is a permutation."""
    scale = 1 / (255 * std)
    # copy=True: floats (of transforms) must not be overwritten
    x = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
    x = x.mul_(scale.to(x.device)[:, None, None]).sub_((mean / std).to(x.device)[:, None, None])
    return x if permutation is None else permutation(x)


def split(data: Data) -> Splits:
    """Load a set and split it; ``data.split_seed`` draws validation images, subset, label noise and permutation.

    Raises ``DataError`` if the set is not available, or has too few classes or images.
    """
    return _split(data, pictures_of(data))


def pictures_of(data: Data) -> str:
    """The checksum of the image files of ``data=folder``; empty for other sets."""
    return folder_checksum(Path(data.root).expanduser()) if data.name == "folder" else ""


#: folder → the checksum of its image files when they were last read
_read: dict[str, str] = {}


@lru_cache(maxsize=2)  # jobs of a sweep share it, as long as the files are the same
def _split(data: Data, pictures: str) -> Splits:
    if _read.setdefault(data.root, pictures) != pictures:  # the files changed since
        load.cache_clear()
        _read[data.root] = pictures
    sizes = None if data.object_size is None else (data.object_size[0], data.object_size[1])
    source = load(data.name, data.root, data.image_size, data.canvas, sizes, data.skip_damaged)
    if len(source.classes) < 2 and data.task != "where":
        raise DataError(f"data={data.name}: only one class ({source.classes[0]}), where two are needed")
    if data.task != "what" and source.test.factors is None:
        reason = f"data={data.name} has no positions; take data=shapes, or data.canvas=56"
        raise DataError(f"data.task={data.task}: {reason}")
    if len(source.test) < 2:
        raise DataError(f"data={data.name}: 1 test image, where two are needed, as images are compared with each other")
    if data.task != "what" and data.val_size < 2:
        raise DataError(f"data.val_size={data.val_size}: at least 2 with data.task={data.task}, as R² needs a variance")
    generator = torch.Generator().manual_seed(data.split_seed)
    order = torch.randperm(len(source.train), generator=generator)
    available = len(order) - data.val_size
    train_size = available if data.train_size is None else data.train_size
    if not 0 < train_size <= available:
        fitting = len(order) // 5 if data.train_size is None else len(order) - data.train_size
        advice = f"; take data.val_size={fitting}" if fitting > 0 else "; take a smaller data.train_size"
        raise DataError(
            f"data={data.name} has {len(order)} training images: too few for data.val_size={data.val_size} "
            f"and data.train_size={data.train_size}{advice}"
        )
    val, train = order[: data.val_size], order[data.val_size : data.val_size + train_size]
    clean = source.train.take(train)
    kind = str(data.label_noise_kind)
    labels = flip_labels(clean.labels, len(source.classes), data.label_noise, generator, kind)
    mean, std = pixel_statistics(clean.images)
    height, width = clean.images.shape[2:]
    if not source.centred:
        mean, std = torch.zeros_like(mean), torch.ones_like(std)
    return Splits(
        replace(clean, labels=labels),
        source.train.take(val),
        source.test,
        source.classes,
        mean,
        std,
        (labels != clean.labels).double().mean().item(),
        _checksum(source, val, train, labels),
        source.out_of_frame,
        source.others,
        clean.labels,
        source.object_size,
        source.skipped,
        draw_permutation(height, width, data.split_seed) if data.permute else None,
    )


def flip_labels(
    labels: Int64[Tensor, " n"], classes: int, share: float, generator: torch.Generator, kind: str = "wrong"
) -> Int64[Tensor, " n"]:
    """Labels with ``round(share · n)`` of them replaced, uniformly: by another class (``wrong``), or by any class, the
    true one included (``random``).
    """
    flipped = labels.clone()
    chosen = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    steps = torch.randint(int(kind == "wrong"), max(classes, 2), (len(chosen),), generator=generator)
    flipped[chosen] = (labels[chosen] + steps) % classes
    return flipped


def pixel_statistics(images: UInt8[Tensor, "n c h w"]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Mean and standard deviation per channel in [0, 1], exact, from histograms of the 256 levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        share = channel.flatten().bincount(minlength=256).double() / channel.numel()
        mean = (share * levels).sum()
        means.append(mean)
        stds.append((share * (levels - mean) ** 2).sum().sqrt().clamp(min=1e-6))
    return torch.stack(means).float(), torch.stack(stds).float()


def pad_images(part: Images, margin: int, out_of_frame: str) -> UInt8[Tensor, "n c H W"]:
    """The images with ``margin`` pixels around them: true pixels if the set has them, else black or edge values."""
    if part.padded is not None:
        if margin <= MARGIN:
            cut = MARGIN - margin
            return part.padded[..., cut : part.padded.shape[-2] - cut, cut : part.padded.shape[-1] - cut]
        inner, pad = part.padded, margin - MARGIN
    else:
        inner, pad = part.images, margin
    if out_of_frame == "black":
        return F.pad(inner, (pad,) * 4)
    return F.pad(inner.float(), (pad,) * 4, mode="replicate").to(torch.uint8)


def _checksum(source: Source, *parts: Tensor) -> str:
    digest = hashlib.sha256(f"{len(source.train)} {len(source.test)} {source.classes}".encode())
    for part in parts:
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()[:16]
