"""Effective receptive field: the input pixels that influence the unit in the middle of a layer."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...metrics.quantities import Quantity
from ...metrics.rows import Estimate, Heatmap, Row
from ...nets.hooks import NO_VIEWS, Views, record_outputs
from ..adapter import EvaluationSet, ModelAdapter, untransformed_batches

QUANTITIES = (
    Quantity("effective_field", low=0,
        formula="side, in pixels, of the square with as many pixels as hold 95.45% of E|∂y/∂x|, y the middle unit",
        null="the theoretical receptive field: the largest possible value; the untrained net's",
        source="Luo et al. 2016"),
)  # fmt: skip
PREFIXES = ("effective_field",)
#: images of a backward pass, and of the field
BATCH = 64
#: of a normal distribution, the share within two standard deviations
SHARE = 0.9545


def gradients(outputs: Float[Tensor, "n d *hw"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """``|∂y/∂x|`` of each image, summed over its channels. y is the sum over a layer's channels at its middle position
    (for an even side, the one after the middle), or over all units of a vector.

    The outputs must have been computed from these images, which require gradients. Parameters get none.
    """
    selected = torch.zeros_like(outputs)
    if outputs.ndim == 4:
        selected[:, :, outputs.shape[2] // 2, outputs.shape[3] // 2] = 1
    else:
        selected += 1
    # the graph is retained for other layers of the same forward pass
    (gradient,) = torch.autograd.grad(outputs, images, selected, retain_graph=True)
    return gradient.abs().sum(1)


def effective_fields(
    net: nn.Module, layers: Sequence[str], batches: Iterable[Float[Tensor, "_ c h w"]], views: Views = NO_VIEWS
) -> dict[str, Float[Tensor, "h w"]]:
    """The mean of ``gradients`` over images that are normalised for the net (Luo et al. 2016), ≥ 0; of several layers,
    by their names in ``net.named_modules()``; ``views`` as of ``record_outputs``.

    In eval mode no image influences another's output, so a batch needs one backward pass for each layer. The net is not
    changed: nothing is written to ``.grad``, and the modules' train/eval flags are restored.
    """
    totals, n = dict.fromkeys(layers, torch.tensor(0.0)), 0
    with torch.enable_grad(), record_outputs(net, layers, views) as outputs:
        for batch in batches:
            x = batch.detach().clone().requires_grad_()
            net(x.clone())  # an in-place module may write to the copy
            n += len(x)
            for layer in layers:
                totals[layer] = totals[layer] + gradients(outputs[layer], x).sum(0)
    return {layer: total / n for layer, total in totals.items()}


def effective_size(field: Float[Tensor, "h w"], share: float = SHARE) -> float:
    """Side, in pixels, of the square with as many pixels as hold ``share`` of the field, the strongest first; in
    [1, sqrt(h w)], nan for a field of zeros. It assumes no shape: of a ring, only its own pixels count.

    >>> effective_size(torch.eye(4))
    2.0
    """
    cumulative = field.double().flatten().sort(descending=True).values.cumsum(0)
    total = cumulative[-1]
    pixels = (cumulative < share * total * (1 - 1e-9)).sum() + 1  # equal pixels may differ by rounding
    return float(pixels) ** 0.5 if total > 0 else float("nan")


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row | Heatmap]:
    """The effective receptive field of every layer: its size, and a heatmap."""
    few = test_set.take(torch.arange(min(BATCH, len(test_set.padded))))
    fields = effective_fields(adapter.net, adapter.layers, untransformed_batches(adapter, few), adapter.views)
    for layer, field in fields.items():
        values = field.cpu()
        if adapter.permutation is not None:
            values = adapter.permutation.inverse(values[None, None])[0, 0]
        size = Estimate(effective_size(values), float("nan"), float("nan"), len(few.padded))
        yield Row(layer, "none", "test", 0, "effective_field", size)
        yield Heatmap(layer, "effective_field", values.float().numpy())
