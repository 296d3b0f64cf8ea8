"""One pass over the test images: every layer, every protocol, every amount; each forward feeds all measures."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from src.activations import watch
from src.measures.base import PairMeasure, Still, resamples
from src.measures.rows import Row
from src.transforms import SHIFTS, crop, draw_shifts

BATCH = 125


def shift_rows(
    net: nn.Module,
    layers: list[str],
    canvas: UInt8[Tensor, "n c H W"],
    margin: int,
    normalise: Callable[[Tensor], Tensor],
    measures: list[type[PairMeasure]],
    seed: int = 0,
    answer: Callable[[Tensor], Tensor] = lambda outputs: outputs,
    labels: Int64[Tensor, " n"] | None = None,
) -> Iterator[Row]:
    """Rows of all pair measures for shifts of 1 … ``margin`` pixels.

    Every image gets its own shift of each amount, drawn by ``seed`` and the same for every net; x is the image in
    place, gx the image moved.

    Args:
        net: takes normalised images, gives logits.
        layers: names of the layers that measures "on layers" see.
        canvas: test images with ``margin`` pixels around them; n ≥ 2.
        margin: largest shift.
        normalise: uint8 images to what the net takes.
        measures: classes to feed.
        seed: of the shifts.
        answer: the part of the net's outputs that measures "on output" see.
        labels: of the images, for measures that ask for them.
    """
    measures = [m for m in measures if labels is not None or not m.needs_labels]
    settings = [(protocol, amount) for protocol in SHIFTS for amount in range(1, margin + 1)]
    generator = torch.Generator().manual_seed(seed)
    shifts = {amount: draw_shifts(len(canvas), amount, generator) for amount in range(1, margin + 1)}
    fed = {
        (protocol, amount, layer): [m() for m in measures if m.on == ("output" if layer == "output" else "layers")]
        for protocol, amount in settings
        for layer in [*layers, "output"]
    }
    device = next(net.parameters()).device
    with watch(net, layers) as maps, torch.no_grad():

        def outputs(images: UInt8[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b d"]]:
            answers = answer(net(normalise(images)))
            return {layer: maps[layer].flatten(1) for layer in layers} | {"output": answers}

        # a last batch of one image would have no other image to compare with
        for index in torch.arange(len(canvas)).tensor_split(-(-len(canvas) // BATCH)):
            part = canvas[index].to(device)
            in_place = crop(part, torch.zeros(len(part), 2, dtype=torch.long, device=device), margin)
            still = {layer: Still(x) for layer, x in outputs(in_place).items()}
            for protocol, amount in settings:
                moved = outputs(SHIFTS[protocol](part, shifts[amount][index].to(device), margin))
                for layer, x in moved.items():
                    for measure in fed[protocol, amount, layer]:
                        measure.update(still[layer], x, None if labels is None else labels[index].to(device))
    weights = resamples(len(canvas), seed)
    for (protocol, amount, layer), ones in fed.items():
        for one in ones:
            for name, estimate in one.estimates(weights):
                yield Row(layer, "shift", protocol, amount, name, estimate)
