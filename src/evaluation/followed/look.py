"""A look at a net while it trains: fixed images, and what the net makes of them, computed once for all statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ...metrics.channel_health import Health
from ...metrics.dimension import Dimension
from ...models.tasks import Task
from ...nets.hooks import record_outputs

#: images, labels, positions; sizes differ between batches
Batch = tuple[Float[Tensor, "_ c h w"], Int64[Tensor, " _"], Float[Tensor, "_ _"]]


@dataclass
class Look:
    """A net at one moment, in eval mode."""

    net: nn.Module  # gives (n, task.outputs)
    layers: Sequence[str]  # of the net; the last is what its head reads
    task: Task  # the net's, with its loss
    images: Sequence[Float[Tensor, "_ c h w"]]  # batches of normalised validation images
    train: Sequence[Batch]  # batches of normalised training images, with the labels that they are trained with
    lr: float  # learning rate of the step that ``susceptibility`` takes
    seed: int  # of its random labels
    before: Int64[Tensor, " n"] | None = None  # the predictions of the look before this one; None for the first

    @cached_property
    def measured(self) -> tuple[dict[str, dict[str, float]], Float[Tensor, "n d"]]:
        """Layer → name → number, of the metrics of single layers; and what the head reads, of all validation images."""
        metrics = {layer: (Dimension(), Health()) for layer in self.layers}
        head: list[Tensor] = []
        with torch.no_grad(), record_outputs(self.net, self.layers) as outputs:
            for images in self.images:
                self.net(images.clone())  # the net may overwrite its input
                for layer, some in metrics.items():
                    for metric in some:
                        metric.update(outputs[layer])
                head.append(outputs[self.layers[-1]].flatten(1).clone())
        numbers = {
            layer: {name: value.item() for metric in some for name, value in metric.compute().items()}
            for layer, some in metrics.items()
        }
        return numbers, torch.cat(head)

    @cached_property
    def train_logits(self) -> Float[Tensor, "n classes"]:
        """The class logits of all training images of the look."""
        with torch.no_grad():
            return torch.cat([self.task.logits(self.net(images.clone())) for images, _, _ in self.train])

    @cached_property
    def predictions(self) -> Int64[Tensor, " n"]:
        """The classes that the net gives the training images of the look."""
        return self.train_logits.argmax(1).cpu()
