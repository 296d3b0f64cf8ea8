"""Minibatches of a set that is in memory as uint8, on the training device."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from .images import Images

EVALUATION_BATCH = 500
#: the most epochs of a training whose length is given in steps
MOST_EPOCHS = 20


class Batches:
    """A data loader of (normalised images, labels, positions), vectorised over the batch.

    An epoch has every image once, or as often as ``passes`` says. The order of a pass depends on the seed and its
    number only, and ``state_dict`` holds the position in the epoch, so a resumed run gets the same batches. With
    several devices each batch is split over the ranks, so that every image is used once per pass. A last batch of fewer
    images than devices goes to every rank, and counts once. In training, a last batch of one image is merged into the
    batch before it, as batch norm needs a variance.

    Args:
        batch_size: images per batch, over all devices.
        normalise: pixels from 0 to 255 → the net's input, as ``Splits.normalise``; after augmentation.
        seed: of order and augmentation; ``None``: no shuffling and no augmentation.
        augment: one of ``AUGMENTATIONS``.
        passes: over all images, in an epoch.
    """

    def __init__(
        self,
        part: Images,
        batch_size: int,
        normalise: Callable[[Shaped[Tensor, "n c h w"]], Float[Tensor, "n c h w"]],
        *,
        seed: int | None = None,
        augment: str = "none",
        rank: int = 0,
        world: int = 1,
        passes: int = 1,
    ) -> None:
        self.part, self.batch_size, self.normalise = part, batch_size, normalise
        self.seed, self.augment, self.rank, self.world = seed, augment, rank, world
        self.passes = passes
        of_pass = learned_sizes(len(part), batch_size) if seed is not None else sizes(len(part), batch_size)
        self.sizes = of_pass * passes
        self.epoch = 0
        self.position = 0  # number of batches of this epoch so far
        self.generator = torch.Generator()
        self._resumed: dict[str, Any] | None = None
        self.sampler = self.batch_sampler = self  # Lightning calls their set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which seeds the order; Lightning calls it before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Position in the epoch, and the generator's state."""
        return {"position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start the next iteration at a saved position."""
        self._resumed = state

    def __len__(self) -> int:
        return len(self.sizes)

    def weight(self, index: int) -> float:
        """Weight of this rank's mean over its images, such that the mean over ranks is the mean over the batch."""
        size = self.sizes[index]
        return len(range(self.rank, size, self.world)) * self.world / size if size >= self.world else 1.0

    def counts(self, index: int) -> bool:
        """Whether to count this rank's images: False for a copy of images that rank 0 has too."""
        return self.rank == 0 or self.sizes[index] >= self.world

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"], Float[Tensor, "n _"]]]:
        images, labels, positions = self.part.images, self.part.labels, self.part.positions
        resumed, self._resumed = self._resumed, None
        self.position = 0 if resumed is None else resumed["position"]
        of_pass = self.sizes[: len(self.sizes) // self.passes]
        first, done = divmod(self.position, len(of_pass))
        for number in range(first, self.passes):
            order = self._order(self.epoch * self.passes + number)
            if resumed is not None and number == first and done:
                self.generator.set_state(resumed["generator"])
            for batch in order.split(of_pass)[done if number == first else 0 :]:
                self.position += 1
                index = batch.to(images.device)
                batch_images = images[index]
                if self.seed is not None and self.augment != "none":
                    batch_images = augmented(batch_images, self.augment, self.generator)
                own = slice(self.rank, None, self.world) if len(batch) >= self.world else slice(None)
                x = self.normalise(batch_images[own])
                yield x, labels[index[own]], positions[index[own]]

    def _order(self, number: int) -> Int64[Tensor, " n"]:
        """The order of all images in a pass; seeds the generator of the pass's augmentation."""
        if self.seed is None:
            return torch.arange(len(self.part))
        self.generator.manual_seed(self.seed * 1_000_003 + number)
        return torch.randperm(len(self.part), generator=self.generator)


def sizes(images: int, batch_size: int) -> list[int]:
    """Batch sizes of an epoch.

    >>> sizes(7, 3)
    [3, 3, 1]
    """
    return [min(batch_size, images - first) for first in range(0, images, batch_size)]


def learned_sizes(images: int, batch_size: int) -> list[int]:
    """Batch sizes of a training epoch: a last batch of one image is merged into the one before it.

    >>> learned_sizes(7, 3)
    [3, 4]
    """
    batches = sizes(images, batch_size)
    return [*batches[:-2], batch_size + 1] if len(batches) > 1 and batch_size > batches[-1] == 1 else batches


def epochs_of_steps(steps: int, batches: int) -> tuple[int, int]:
    """(epochs, passes of each) of a training of so many steps, where a pass over the images has so many batches.

    An epoch is a single pass as long as there are at most ``MOST_EPOCHS``. The last one may have more batches than are
    needed: training ends within it.

    >>> epochs_of_steps(1000, 469), epochs_of_steps(2000, 2)
    ((3, 1), (20, 50))
    """
    passes = -(-steps // (MOST_EPOCHS * batches))
    return -(-steps // (passes * batches)), passes


def augmented(images: UInt8[Tensor, "n c h w"], how: str, generator: torch.Generator) -> UInt8[Tensor, "n c h w"]:
    """Random horizontal flips (``flip``) and zero-padded shifts by up to 4 px (``shift``), per image."""
    n, _, height, width = images.shape
    if "flip" in how:
        mirrored = torch.rand(n, generator=generator) < 0.5
        images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)
    if "shift" in how:
        top, left = torch.randint(0, 9, (2, n, 1, 1), generator=generator).to(images.device)
        padded = F.pad(images, (4,) * 4)
        rows = top + torch.arange(height, device=images.device)[None, :, None]
        columns = left + torch.arange(width, device=images.device)[None, None, :]
        index = torch.arange(n, device=images.device)[:, None, None]
        images = padded[index, :, rows, columns].permute(0, 3, 1, 2)
    return images
