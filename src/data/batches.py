"""Minibatches of a set that lies in memory as uint8, on the device that trains."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .sets import Images
from .splits import normalise

#: images a batch where nothing is learned
EVALUATION_BATCH = 500


class Batches:
    """Iterates (normalised images, labels, positions); no per-sample Python.

    The order of epoch e depends on (seed, e) alone, so a resumed run sees the batches it would have seen; within an
    epoch it goes on from ``state_dict``. Over several devices each batch is dealt out by rank: the batch stays the
    same, and every image is seen once an epoch. A last batch of fewer images than devices goes to every rank, and
    counts once. Where something is learned, a last image that would be left alone joins the batch before it: one image
    has no variance, which a batch norm needs.

    Args:
        part: the images.
        batch_size: images a batch, over all devices together.
        mean, std: of the pixels, per channel, in [0, 1].
        seed: draws the order and the augmentation; ``None`` keeps the order of the set and augments nothing.
        augment: one of ``AUGMENTATIONS``.
        rank, world: of this process.
    """

    def __init__(
        self,
        part: Images,
        batch_size: int,
        mean: Float[Tensor, " c"],
        std: Float[Tensor, " c"],
        *,
        seed: int | None = None,
        augment: str = "none",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.part, self.batch_size, self.mean, self.std = part, batch_size, mean, std
        self.seed, self.augment, self.rank, self.world = seed, augment, rank, world
        self.sizes = learned_sizes(len(part), batch_size) if seed is not None else sizes(len(part), batch_size)
        self.epoch = 0
        self.position = 0  # batches given of this epoch
        self.generator = torch.Generator()
        self._resumed: dict[str, Any] | None = None
        self.sampler = self.batch_sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch is."""
        return {"position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass begin there."""
        self._resumed = state

    def __len__(self) -> int:
        return len(self.sizes)

    def weight(self, index: int) -> float:
        """What to multiply this rank's mean over its images by, so that the mean over ranks is that over the batch."""
        size = self.sizes[index]
        return len(range(self.rank, size, self.world)) * self.world / size if size >= self.world else 1.0

    def counts(self, index: int) -> bool:
        """Whether this rank's images are no other rank's, or it is the first."""
        return self.rank == 0 or self.sizes[index] >= self.world

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"], Float[Tensor, "n _"]]]:
        images, labels, positions = self.part.images, self.part.labels, self.part.positions
        if self.seed is None:
            order = torch.arange(len(labels))
        else:
            self.generator.manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(len(labels), generator=self.generator)
        self.position = 0
        if self._resumed is not None:
            self.position = self._resumed["position"]
            self.generator.set_state(self._resumed["generator"])
            self._resumed = None
        for batch in order.split(self.sizes)[self.position :]:
            self.position += 1
            index = batch.to(images.device)
            chosen = images[index]
            if self.seed is not None and self.augment != "none":
                chosen = augmented(chosen, self.augment, self.generator)
            mine = slice(self.rank, None, self.world) if len(batch) >= self.world else slice(None)
            mine_of = index[mine]
            yield normalise(chosen[mine], self.mean, self.std), labels[mine_of], positions[mine_of]


def sizes(images: int, batch_size: int) -> list[int]:
    """Images of each batch.

    >>> sizes(7, 3)
    [3, 3, 1]
    """
    return [min(batch_size, images - first) for first in range(0, images, batch_size)]


def learned_sizes(images: int, batch_size: int) -> list[int]:
    """The same, with a last image that would be alone in the batch before, unless all are alone.

    >>> learned_sizes(7, 3)
    [3, 4]
    """
    found = sizes(images, batch_size)
    return [*found[:-2], batch_size + 1] if len(found) > 1 and batch_size > found[-1] == 1 else found


def augmented(images: UInt8[Tensor, "n c h w"], how: str, generator: torch.Generator) -> UInt8[Tensor, "n c h w"]:
    """Each image on its own: mirrored with probability ½ (flip), moved by up to 4 px over black (shift)."""
    n, _, height, width = images.shape
    if "flip" in how:
        mirrored = torch.rand(n, generator=generator) < 0.5
        images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)
    if "shift" in how:
        top, left = torch.randint(0, 9, (2, n, 1, 1), generator=generator).to(images.device)
        padded = F.pad(images, (4,) * 4)
        rows = top + torch.arange(height, device=images.device)[None, :, None]
        columns = left + torch.arange(width, device=images.device)[None, None, :]
        each = torch.arange(n, device=images.device)[:, None, None]
        images = padded[each, :, rows, columns].permute(0, 3, 1, 2)
    return images
