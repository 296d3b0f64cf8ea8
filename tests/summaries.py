"""What model summaries are held against: the running net, PyTorch's counter, and gradients."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from src.nets.hooks import record_outputs
from src.summary import Axis, ModelSummary, summarize, verify

Image = tuple[int, int, int]


def held(net: nn.Module, image: Image) -> ModelSummary:
    """The net's model summary, after every comparison with the net; PyTorch counts a multiply-add as two operations."""
    summary = summarize(net, image)
    with FlopCounterMode(display=False) as counter:
        verify(summary, net)
    assert summary.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert summary.multiply_adds == counter.get_total_flops() // 2
    return summary


def held_on_meta(net: nn.Module, image: Image) -> ModelSummary:
    """The same on the meta device, where PyTorch's counter sees the products of attention."""
    return held(net.eval().to("meta"), image)


def touched(net: nn.Module, layer: str, image: Image, last: bool = False) -> list[tuple[int, int]]:
    """First and last + 1 input row that each row of a layer's maps depends on; (0, 0): none. ``last``: its channels
    come last.
    """
    net = net.double().eval()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.05, 0.2)  # nothing cancels; attention stays below its mask, of 100
    x = torch.rand(1, *image, dtype=torch.float64, requires_grad=True)
    with record_outputs(net, [layer]) as maps:
        net(x)
    y = maps[layer].permute(0, 3, 1, 2) if last else maps[layer]
    reached = []
    for row in y[0, 0]:
        (gradient,) = torch.autograd.grad(row.sum(), x, retain_graph=True)
        rows = (gradient[0].abs().sum((0, 2)) > 1e-30).nonzero()  # masked attention is not 0, but exp(-100)
        reached.append((rows.min().item(), rows.max().item() + 1) if len(rows) else (0, 0))
    return reached


def edges(axis: Axis, side: int) -> list[tuple[float, float]]:
    centres = [axis.offset + i * axis.jump for i in range(axis.size)]
    half = axis.receptive_field / 2
    return [(max(0, centre - half), min(side, centre + half)) for centre in centres]
