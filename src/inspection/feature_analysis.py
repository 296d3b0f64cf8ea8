"""Arrays that show the features of a trained net: ``inside.npz``.

For a few example images: the predicted class and its class activation map, and the maps of every stage, original and
shifted. For the test images: statistics of every channel, and the patches that activate it most.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..evaluation.adapter import EvaluationSet, ModelAdapter, untransformed_batches
from ..evaluation.families.layers import filters_of
from ..nets.hooks import record_outputs, reference_tensor
from ..summary import Layer, ModelSummary
from ..transforms import Transform, crop_margin
from .channels import ChannelFacts, ranking
from .grad_cam import class_activation, resize_to_image, scale_to_one
from .max_activating import TOP_IMAGES, MaxActivating, max_activating, patch, patch_size, receptive_field

#: (down, right) in pixels: along one axis, so that the eye can follow it; odd, so that it is not a multiple of a stride
#: of 2; large enough to be visible in 28 pixels
SHIFT = (0, 3)
#: the largest size of ``inside.npz``, in bytes: channels are left out, then images (a default run needs a fiftieth)
MAX_FILE_BYTES = 2**24
#: the largest size of the arrays; the rest is for the file format
MAX_BYTES = MAX_FILE_BYTES - MAX_FILE_BYTES // 16

Arrays = dict[str, np.ndarray]


def analyze_features(
    adapter: ModelAdapter, summary: ModelSummary, test_set: EvaluationSet, examples: EvaluationSet,
    transform: Transform, channels: int,
) -> Arrays:  # fmt: skip
    """The arrays of ``inside.npz``, at most ``MAX_FILE_BYTES``. For the example images:

    ``images`` uint8 (n, c, h, w); ``labels`` int64 (n), -1 where unknown; ``answers`` int64 (n), the predicted classes
    of a classifier; ``filters`` float32 (k, c, h, w), those of the first convolution; ``shift`` int64 (2), (down,
    right) in pixels; ``cam`` float16 (n, h, w) in [0, 1], the class activation map of the last stage with positions for
    the predicted class, which is ``cam_classes`` int64 (n). Arrays that do not apply to the net are absent.

    And for every stage S whose outputs are maps, or vectors (maps of one position), from the test images:

    - ``S/facts`` float32 (channels, 5), columns ``channels.FACTS``; ``S/order`` int64 (channels), their ``ranking``.
    - ``S/patch_channels`` int64 (m), the first of that order; ``S/patches`` uint8 (m, 4, c, f, g), the receptive field
      of the strongest unit in each of the four images that activate the channel most (or as many as there are), black
      outside the image; ``S/patch_values`` float32 (m, 4), the activations of these units.
    - ``S/field`` float32 (4): top, left, bottom, right edge of the middle unit's receptive field (for an even side, the
      unit after the middle), in pixels; may lie outside the image.

    And for S from the example images:

    - ``S/still`` float16 (n, k, p, q), maps of the first k channels; ``S/moved`` the shifted images' maps minus these:
      the part that is not invariant.
    - ``S/back`` the shifted images' maps, shifted back, minus ``S/still``: the part that is not equivariant. nan where
      the content has left the image; absent for maps of one position. If the shift is not a multiple of the stage's
      stride, shifting back interpolates, and a part of the difference is due to that blur.

    Args:
        adapter, summary: of a net; its layers are the stages.
        test_set: test images, with labels if there are classes.
        examples: images to show, with a margin of ``SHIFT`` or more.
        transform: shift/crop or shift/roll.
        channels: to show, of each stage.
    """
    c, h, w = summary.image
    examples = examples.take(torch.arange(min(len(examples.padded), max(1, MAX_BYTES // 4 // ((c + 2) * h * w)))))
    reference, shifted, outputs = _maps(adapter, examples, transform)
    arrays = _image_arrays(adapter, summary, examples, reference, outputs)
    stages = [name for name in adapter.layers if reference[name].dim() in (2, 4)]
    facts, strongest = _channels(adapter, test_set, stages)
    share = (MAX_BYTES - _bytes(arrays)) // max(1, len(stages))  # the rest, divided equally
    for name in stages:
        of_stage: Arrays = {"facts": facts[name].numpy(), "order": ranking(facts[name]).numpy()}
        layer, left = summary[name], share - _bytes(of_stage)
        if left < 0:
            continue
        field = zip(*(receptive_field(axis, axis.size // 2) for axis in (layer.rows, layer.columns)), strict=True)
        of_stage["field"] = np.array([edge for edges in field for edge in edges], np.float32)
        count = min(channels, layer.channels, left // _bytes_per_channel(layer, summary.image, len(examples.padded)))
        if count > 0:
            top = ranking(facts[name])[:count]
            of_stage |= _patches(test_set, layer, top, strongest[name].take(top))
            of_stage |= _shifted(transform, layer, reference[name][:, :count], shifted[name][:, :count])
        arrays |= {f"{name}/{key}": value for key, value in of_stage.items()}
    return arrays


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _bytes_per_channel(layer: Layer, image: tuple[int, int, int], n: int) -> int:
    """Bytes of a channel's patches, with their values and the channel's index, and of three maps of every image."""
    c, h, w = image
    patches = TOP_IMAGES * (c * patch_size(layer.rows, h) * patch_size(layer.columns, w) + 4) + 8
    return patches + 3 * 2 * n * layer.rows.size * layer.columns.size


@torch.no_grad()
def _maps(
    adapter: ModelAdapter, examples: EvaluationSet, transform: Transform
) -> tuple[dict[str, Tensor], dict[str, Tensor], Float[Tensor, "n d"]]:
    """Every layer's outputs for the example images and for the shifted ones; the net's outputs for the first."""
    pixels = examples.padded.to(reference_tensor(adapter.net).device)
    shifts = torch.tensor(SHIFT).expand(len(pixels), 2)
    with record_outputs(adapter.net, adapter.layers, adapter.views) as maps:
        outputs = adapter.select_output(adapter.net(adapter.normalise(crop_margin(pixels, examples.margin))))
        reference = dict(maps)
        adapter.net(adapter.normalise(transform.images(pixels, shifts, examples.margin)))
        return reference, dict(maps), outputs


def _image_arrays(
    adapter: ModelAdapter, summary: ModelSummary, examples: EvaluationSet, reference: dict[str, Tensor],
    outputs: Float[Tensor, "n d"],
) -> Arrays:  # fmt: skip
    """The arrays with an entry for each example image; and the first filters."""
    images = crop_margin(examples.padded, examples.margin)
    labels = torch.full((len(images),), -1) if examples.labels is None else examples.labels
    arrays = {"images": images.contiguous(), "labels": labels, "shift": torch.tensor(SHIFT)}
    first = next((module.weight for module in adapter.net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None:
        arrays["filters"] = first.detach().float()[: MAX_BYTES // 16 // (4 * first[0].numel())]
    if adapter.classifies:
        arrays["answers"] = classes = outputs.argmax(1)
        spatial = [name for name in adapter.layers if reference[name].dim() == 4 and reference[name][0, 0].numel() > 1]
        if spatial:
            x = adapter.normalise(images.to(outputs.device))
            maps = class_activation(adapter.net, spatial[-1], x, classes, adapter.select_output)
            layer, (_, h, w) = summary[spatial[-1]], summary.image
            cam = scale_to_one(resize_to_image(maps.float(), layer.rows, layer.columns, (h, w)))
            arrays |= {"cam": cam.half(), "cam_classes": classes}
    return {name: array.cpu().contiguous().numpy() for name, array in arrays.items()}


@torch.no_grad()
def _channels(
    adapter: ModelAdapter, test_set: EvaluationSet, stages: list[str]
) -> tuple[dict[str, Float[Tensor, "c 5"]], dict[str, MaxActivating]]:
    """Statistics and max-activating images of every stage's channels, in one pass over the test images. Memory holds
    one batch of maps.
    """
    classes = 0 if test_set.labels is None else int(test_set.labels.max()) + 1
    # a single process measures: metrics must not wait for others
    facts = {name: ChannelFacts(classes, filters_of(adapter.net, name), sync_on_compute=False) for name in stages}
    strongest: dict[str, MaxActivating] = {}
    with record_outputs(adapter.net, stages, adapter.views) as outputs:
        for index, x in zip(test_set.batches(), untransformed_batches(adapter, test_set), strict=True):
            adapter.net(x)
            labels = None if test_set.labels is None else test_set.labels[index].to(x.device)
            for name in stages:
                facts[name].update(outputs[name], labels)
                batch = max_activating(outputs[name], int(index[0]))
                strongest[name] = strongest[name].join(batch).top() if name in strongest else batch
    return {name: metric.compute() for name, metric in facts.items()}, strongest


def _patches(test_set: EvaluationSet, layer: Layer, channels: Int64[Tensor, " m"], strongest: MaxActivating) -> Arrays:
    """The patches of some channels."""
    cut = []
    units = torch.stack([strongest.images.flatten(), strongest.positions.flatten()], 1)
    for image, position in units.tolist():
        pixels = crop_margin(test_set.padded[image][None], test_set.margin)[0].cpu().numpy()
        cut.append(patch(pixels, layer.rows, layer.columns, divmod(position, layer.columns.size)))
    patches = np.stack(cut)
    return {
        "patch_channels": channels.numpy(),
        "patches": patches.reshape(*strongest.values.shape, *patches.shape[1:]),
        "patch_values": strongest.values.float().contiguous().numpy(),
    }


def _shifted(transform: Transform, layer: Layer, reference: Tensor, shifted: Tensor) -> Arrays:
    """The original images' maps, and the difference of the shifted images' maps before and after shifting them back."""
    reference, shifted = (x.float().reshape(*x.shape[:2], *(x.shape[2:] or (1, 1))) for x in (reference, shifted))
    arrays = {"still": reference, "moved": shifted - reference}
    if reference[0, 0].numel() > 1:
        # by the summary's jump: with borders, it is not the ratio of the sizes of image and map
        steps = -torch.tensor(SHIFT) / torch.tensor([layer.rows.jump, layer.columns.jump])
        steps = steps.to(reference.device).expand(len(reference), 2)
        difference = transform.maps(shifted, steps) - reference
        arrays["back"] = difference.where(transform.valid(shifted, steps)[:, None], torch.nan)
    ends = torch.finfo(torch.half)
    clipped = {name: maps.clamp(ends.min, ends.max).half() for name, maps in arrays.items()}
    return {name: maps.cpu().contiguous().numpy() for name, maps in clipped.items()}
