"""Class activation maps: where in an image a net finds what speaks for a class (Grad-CAM, Selvaraju et al. 2017)."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..evaluation.adapter import identity
from ..nets.hooks import eval_mode
from ..summary import Axis


def class_activation(
    net: nn.Module,
    layer: str,
    images: Float[Tensor, "n c h w"],
    classes: Int64[Tensor, " n"],
    answer: Callable[[Tensor], Tensor] = identity,
) -> Float[Tensor, "n p q"]:
    """``ReLU(Σ_k a_k A_k)`` with A_k the layer's maps and a_k the mean over positions of the class's gradient, ≥ 0, in
    eval mode, by captum. Behind a global mean and a linear layer it is Zhou's CAM (2016) over the number of positions.

    The net is left as it was: nothing is written to ``.grad``, no hook stays.

    Args:
        net: takes the images.
        layer: name of a layer whose outputs are maps.
        images: as the net takes them.
        classes: the class asked about, for each image.
        answer: the part of the net's outputs that has a number for each class.
    """
    from captum.attr import LayerGradCam  # here: it imports matplotlib

    def logits(x: Tensor) -> Tensor:
        return answer(net(x))

    with torch.enable_grad(), eval_mode(net):
        x = images.detach().clone().requires_grad_()  # so that a frozen net has gradients too
        explain = LayerGradCam(logits, net.get_submodule(layer))
        # the copy: an in-place module may write to it
        found: Tensor = explain.attribute(x.clone(), classes, relu_attributions=True)
    return found.detach()[:, 0]


def spread(maps: Float[Tensor, "n p q"], rows: Axis, columns: Axis, size: tuple[int, int]) -> Float[Tensor, "n h w"]:
    """Maps laid over the image, each output on the middle of what it sees; linear between them, constant beyond.

    Args:
        maps: of a layer.
        rows, columns: its axes, from the ledger.
        size: (height, width) of the image.

    >>> spread(torch.tensor([[[0.0, 4]]]), Axis(1), Axis(2, jump=4, start=2), (1, 8)).tolist()
    [[[0.0, 0.0, 0.5, 1.5, 2.5, 3.5, 4.0, 4.0]]]
    """
    return _between(rows, size[0]).to(maps) @ maps @ _between(columns, size[1]).to(maps).T


def _between(axis: Axis, size: int) -> Float[Tensor, "size n"]:
    """Of every pixel along an axis, the weights of the outputs to both sides of it."""
    place = (torch.arange(size) + 0.5 - axis.offset) / axis.jump
    return (1 - (place.clamp(0, axis.size - 1)[:, None] - torch.arange(axis.size)).abs()).clamp(min=0)


def full_range(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Each image's map over its largest number, in [0, 1]; a map of zeros (nothing speaks for the class) stays one."""
    most = maps.amax((1, 2), keepdim=True)
    return maps / most.where(most > 0, 1)
