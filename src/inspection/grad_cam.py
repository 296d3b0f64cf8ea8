"""Class activation maps: which parts of an image support a class (Grad-CAM, Selvaraju et al. 2017)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..common.errors import UserError
from ..evaluation.adapter import identity
from ..nets.external import pick_layers
from ..nets.hooks import eval_mode
from ..summary import Axis
from ..summary.views import MapView, map_views


def class_activation(
    net: nn.Module, layer: str, images: Float[Tensor, "n c h w"], classes: Int64[Tensor, " n"],
    select_output: Callable[[Tensor], Tensor] = identity,
) -> Float[Tensor, "n p q"]:  # fmt: skip
    """``ReLU(Σ_k a_k A_k)`` with A_k the layer's maps and a_k the mean over positions of the class's gradient, ≥ 0, in
    eval mode, by captum. Before a global mean and a linear layer it is Zhou's CAM (2016) over the number of positions.

    The net is not changed: nothing is written to ``.grad``, and no hook remains. Images are normalised for it; each has
    the class that its map explains; ``select_output`` turns the net's return value into the scores of the classes.

    A layer may also give tokens or channels last (``summary.views``): its maps are read, without class tokens.

    Raises:
        UserError: the net has no such layer; the layer gives no maps, or an output that may be read as maps in more
            than one way; or of its tokens the net reads the class token alone.
    """
    from captum.attr import LayerGradCam  # here: it imports matplotlib

    pick_layers(net, [layer])
    view = map_views(net, (images.shape[1], images.shape[2], images.shape[3]), [layer]).get(layer)
    with torch.enable_grad(), eval_mode(net), _maps_of(net.get_submodule(layer), view) as module:
        x = images.detach().clone().requires_grad_()  # so that frozen nets have gradients too
        explain = LayerGradCam(lambda x: select_output(net(x)), module)
        # a copy, which an in-place module may overwrite
        maps: Tensor = explain.attribute(x.clone(), classes, relu_attributions=True)
    if view is not None and view.prefix and not maps.any():
        _refuse_class_token_alone(net, layer, view, images, classes, select_output)
    if maps.ndim != 4:
        raise UserError(f"{layer}: gives no maps, nor tokens or channels last that can be read as maps")
    return maps.detach()[:, 0]


def _refuse_class_token_alone(
    net: nn.Module,
    layer: str,
    view: MapView,
    images: Float[Tensor, "n c h w"],
    classes: Int64[Tensor, " n"],
    select_output: Callable[[Tensor], Tensor],
) -> None:
    """``UserError`` if the scores depend on the tokens before the map, and not on those of the map."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[0]

    hook = net.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad(), eval_mode(net):
            scores = select_output(net(images)).gather(1, classes[:, None])
            (gradient,) = torch.autograd.grad(scores.sum(), outputs[:1])
    finally:
        hook.remove()
    if gradient.any() and not view(gradient).any():
        raise UserError(
            f"{layer}: of its output the net reads the class token alone, so no place supports a class; name a layer "
            "before it, such as the block before the last"
        )


@contextmanager
def _maps_of(layer: nn.Module, view: MapView | None) -> Iterator[nn.Module]:
    """A module that gives the layer's maps while the net runs, and through which gradients reach them."""
    if view is None:
        yield layer
        return
    maps = nn.Identity()
    hook = layer.register_forward_hook(lambda _, __, output: view.put_back(maps(view(output)), output))
    try:
        yield maps
    finally:
        hook.remove()


def resize_to_image(
    maps: Float[Tensor, "n p q"], rows: Axis, columns: Axis, size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Maps resized to the image: bilinear, each output at the centre of its receptive field; constant outside the
    outermost centres. ``rows`` and ``columns`` are the layer's axes in the model summary.

    >>> resize_to_image(torch.tensor([[[0.0, 4]]]), Axis(1), Axis(2, jump=4, offset=2), (1, 8)).tolist()
    [[[0.0, 0.0, 0.5, 1.5, 2.5, 3.5, 4.0, 4.0]]]
    """
    return _linear_weights(rows, size[0]).to(maps) @ maps @ _linear_weights(columns, size[1]).to(maps).T


def _linear_weights(axis: Axis, size: int) -> Float[Tensor, "size n"]:
    """The weights of linear interpolation: of each output for each pixel along an axis."""
    position = (torch.arange(size) + 0.5 - axis.offset) / axis.jump
    return (1 - (position.clamp(0, axis.size - 1)[:, None] - torch.arange(axis.size)).abs()).clamp(min=0)


def scale_to_one(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Each image's map divided by its maximum, in [0, 1]; a map of zeros (nothing supports the class) is kept."""
    largest = maps.amax((1, 2), keepdim=True)
    return maps / largest.where(largest > 0, 1)
