"""What a finished net looks like inside, as arrays to draw: ``inside.npz``.

Of the probe images: what the net answers and where it finds it, and the maps of every stage, in place and shifted. Of
the test images: facts of every channel, and the patches that excite it most.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ..evaluation.adapter import EvaluationSet, ModelAdapter, untransformed_batches
from ..evaluation.families.layers import filters_of
from ..nets.hooks import record_outputs, reference_tensor
from ..summary import Layer, ModelSummary
from ..transforms import Transform, cut
from .channels import ChannelFacts, ranking
from .exemplars import BEST, Exemplars, exemplars, extent, patch, seen
from .grad_cam import class_activation, full_range, spread

#: (down, right) in pixels. Along one axis, so that the eye can follow it; odd, so that no stride of 2 takes it to whole
#: steps of a map and what a stage makes of that shows; large enough to be seen in 28 pixels
SHIFT = (0, 3)
#: bytes that ``inside.npz`` never exceeds: channels are left out, then images (a default run takes a fiftieth)
LIMIT = 2**24
#: of it, what arrays may take; the rest is for the file's own book-keeping
ROOM = LIMIT - LIMIT // 16

Arrays = dict[str, np.ndarray]


def inside(
    adapter: ModelAdapter,
    summary: ModelSummary,
    test_set: EvaluationSet,
    probe: EvaluationSet,
    transform: Transform,
    channels: int,
) -> Arrays:
    """The arrays of ``inside.npz``, ``LIMIT`` bytes at the most; for the probe images:

    ``images`` uint8 (n, c, h, w); ``labels`` int64 (n), -1 where unknown; ``answers`` int64 (n), where the net is asked
    for classes; ``filters`` float32 (k, c, h, w), the first convolution's; ``shift`` int64 (2), (down, right) in px;
    ``cam`` float16 (n, h, w) in [0, 1], 1 where in this image most speaks for the class ``cam_classes`` int64 (n) that
    is its answer, seen from the last stage with positions. What a net has not is absent.

    And of every stage S whose outputs are maps, or vectors (maps of one place), from the scene's images:

    - ``S/facts`` float32 (channels, 5), columns ``channels.FACTS``; ``S/order`` int64 (channels), their ``ranking``.
    - ``S/patch_channels`` int64 (m), the first of that order; ``S/patches`` uint8 (m, 4, c, f, g), what the strongest
      unit sees of each of the four images that excite the channel most (fewer where the scene has fewer), black beyond
      the border; ``S/patch_values`` float32 (m, 4), the unit's numbers.
    - ``S/field`` float32 (4): top, left, bottom, right edge of what the middle unit sees (of an even side, the one
      after the middle), in pixels; may lie beyond the image.

    And of S from the probe images:

    - ``S/still`` float16 (n, k, p, q), maps of the first k channels; ``S/moved`` those of the shifted images less
      these: what is not invariant.
    - ``S/back`` those of the shifted images moved back by as many of the map's steps, less these: what is not
      equivariant. nan where what would be there has left the image; absent for maps of one place. Where the shift is no
      multiple of the stage's jump, moving back interpolates, and blurs: a part of the difference is then its own.

    Args:
        subject: a net; its layers are the stages.
        book: its ledger.
        scene: test images, with labels where there are classes.
        probe: images to be shown, with a margin of ``SHIFT`` or more.
        transform: shift/crop or shift/roll.
        channels: of each stage shown.
    """
    c, h, w = summary.image
    probe = probe.take(torch.arange(min(len(probe.padded), max(1, ROOM // 4 // ((c + 2) * h * w)))))
    still, moved, answers = _maps(adapter, probe, transform)
    found = _of_images(adapter, summary, probe, still, answers)
    stages = [name for name in adapter.layers if _is_maps(still[name])]
    facts, strongest = _channels(adapter, test_set, stages)
    share = (ROOM - _size(found)) // max(1, len(stages))  # of what is left, the same for every stage
    for name in stages:
        small: Arrays = {"facts": facts[name].numpy(), "order": ranking(facts[name]).numpy()}
        layer, left = summary[name], share - _size(small)
        if left < 0:
            continue
        field = zip(*(seen(axis, axis.size // 2) for axis in (layer.rows, layer.columns)), strict=True)
        small["field"] = np.array([edge for edges in field for edge in edges], np.float32)
        count = min(channels, layer.channels, left // _bytes_a_channel(layer, summary.image, len(probe.padded)))
        if count > 0:
            best = ranking(facts[name])[:count]
            small |= _patches(test_set, layer, best, strongest[name].take(best))
            small |= _shifted(transform, layer, still[name][:, :count], moved[name][:, :count])
        found |= {f"{name}/{key}": value for key, value in small.items()}
    return found


def _is_maps(outputs: Tensor) -> bool:
    return outputs.dim() in (2, 4) and outputs.is_floating_point()


def _size(arrays: Arrays) -> int:
    return sum(one.nbytes for one in arrays.values())


def _bytes_a_channel(layer: Layer, image: tuple[int, int, int], n: int) -> int:
    """Patches with their values and number, and three maps of every image."""
    c, h, w = image
    patches = BEST * (c * extent(layer.rows, h) * extent(layer.columns, w) + 4) + 8
    return patches + 3 * 2 * n * layer.rows.size * layer.columns.size


@torch.no_grad()
def _maps(
    adapter: ModelAdapter, probe: EvaluationSet, transform: Transform
) -> tuple[dict[str, Tensor], dict[str, Tensor], Float[Tensor, "n d"]]:
    """Every layer's outputs for the probe images, for the shifted ones, and the answers."""
    pixels = probe.padded.to(reference_tensor(adapter.net).device)
    shifts = torch.tensor(SHIFT).expand(len(pixels), 2)
    with record_outputs(adapter.net, adapter.layers) as outputs:
        answers = adapter.select_output(adapter.net(adapter.normalise(cut(pixels, probe.margin))))
        still = dict(outputs)
        adapter.net(adapter.normalise(transform.images(pixels, shifts, probe.margin)))
        return still, dict(outputs), answers


def _of_images(
    adapter: ModelAdapter,
    summary: ModelSummary,
    probe: EvaluationSet,
    still: dict[str, Tensor],
    answers: Float[Tensor, "n d"],
) -> Arrays:
    """What is one of each image; and the first filters."""
    images = cut(probe.padded, probe.margin)
    labels = torch.full((len(images),), -1) if probe.labels is None else probe.labels
    found = {"images": images.contiguous(), "labels": labels, "shift": torch.tensor(SHIFT)}
    first = next((one.weight for one in adapter.net.modules() if isinstance(one, nn.Conv2d)), None)
    if first is not None:
        found["filters"] = first.detach().float()[: ROOM // 16 // (4 * first[0].numel())]
    if adapter.classifies:
        found["answers"] = classes = answers.argmax(1)
        placed = [name for name in adapter.layers if still[name].dim() == 4 and still[name][0, 0].numel() > 1]
        if placed:
            x = adapter.normalise(images.to(answers.device))
            maps = class_activation(adapter.net, placed[-1], x, classes, adapter.select_output)
            layer, (_, h, w) = summary[placed[-1]], summary.image
            cam = full_range(spread(maps.float(), layer.rows, layer.columns, (h, w)))
            found |= {"cam": cam.half(), "cam_classes": classes}
    return {name: one.cpu().contiguous().numpy() for name, one in found.items()}


@torch.no_grad()
def _channels(
    adapter: ModelAdapter, test_set: EvaluationSet, stages: list[str]
) -> tuple[dict[str, Float[Tensor, "c 5"]], dict[str, Exemplars]]:
    """One pass over the test images: facts and exemplars of every stage's channels. Memory holds one batch of maps."""
    classes = 0 if test_set.labels is None else int(test_set.labels.max()) + 1
    # one process measures: it must not wait for others
    facts = {name: ChannelFacts(classes, filters_of(adapter.net, name), sync_on_compute=False) for name in stages}
    strongest: dict[str, Exemplars] = {}
    with record_outputs(adapter.net, stages) as outputs:
        for index, x in (
            zip(test_set.batches(), untransformed_batches(adapter, test_set), strict=True) if stages else ()
        ):
            adapter.net(x)
            for name in stages:
                facts[name].update(
                    outputs[name], None if test_set.labels is None else test_set.labels[index].to(x.device)
                )
                batch = exemplars(outputs[name], int(index[0]))
                strongest[name] = strongest[name].join(batch).best() if name in strongest else batch
    return {name: one.compute() for name, one in facts.items()}, strongest


def _patches(test_set: EvaluationSet, layer: Layer, best: Int64[Tensor, " m"], found: Exemplars) -> Arrays:
    """The patches of the best channels."""

    def cut_out() -> Iterator[np.ndarray]:
        for image, place in zip(found.images.flatten().tolist(), found.places.flatten().tolist(), strict=True):
            pixels = cut(test_set.padded[image][None], test_set.margin)[0].cpu().numpy()
            yield patch(pixels, layer.rows, layer.columns, divmod(place, layer.columns.size))

    patches = np.stack(list(cut_out()))
    return {
        "patch_channels": best.numpy(),
        "patches": patches.reshape(*found.values.shape, *patches.shape[1:]),
        "patch_values": found.values.float().contiguous().numpy(),
    }


def _shifted(transform: Transform, layer: Layer, still: Tensor, moved: Tensor) -> Arrays:
    """Maps in place, and what a shift changes in them, before and after it is taken back."""
    still, moved = (one.float().reshape(*one.shape[:2], *(one.shape[2:] or (1, 1))) for one in (still, moved))
    found = {"still": still, "moved": moved - still}
    if still[0, 0].numel() > 1:
        # by the ledger's jump, which is the map's own where a border makes it more or less than image over map
        steps = -torch.tensor(SHIFT) / torch.tensor([layer.rows.jump, layer.columns.jump])
        steps = steps.to(still.device).expand(len(still), 2)
        difference = transform.maps(moved, steps) - still
        found["back"] = difference.where(transform.valid(moved, steps)[:, None], torch.nan)
    return {name: _half(one) for name, one in found.items()}


def _half(maps: Shaped[Tensor, "n k p q"]) -> Float[np.ndarray, "n k p q"]:
    """In float16, whose ends hold what lies beyond them."""
    ends = torch.finfo(torch.half)
    halved: Float[np.ndarray, "n k p q"] = maps.clamp(ends.min, ends.max).half().cpu().contiguous().numpy()
    return halved
