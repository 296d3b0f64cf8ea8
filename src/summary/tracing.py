"""The graph of a net's calls, by ``torch.fx``."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import fx, nn

from ..nets.hooks import eval_mode
from .layers import ShapeError
from .shapes_and_costs import rule_of


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        if type(m).forward in _FORWARD:
            return False
        return rule_of(m) is not None or super().is_leaf_module(m, qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        same = _FORWARD.get(type(m).forward)
        return super().call_module(m, partial(same, m) if same else forward, args, kwargs)


def graph(net: nn.Module) -> fx.Graph:
    """The net's ``torch.fx`` graph in eval mode; ``ShapeError`` names the layer that torch.fx cannot trace."""
    tracer = _Tracer()
    try:
        with eval_mode(net):
            return tracer.trace(net)
    except Exception as error:  # the net's own code may raise anything when traced
        where = innermost(tracer.module_stack) or type(net).__name__
        raise ShapeError(f"{where}: torch.fx cannot follow it: {' '.join(str(error).split())}") from error


def innermost(stack: Mapping[str, tuple[str, Any]]) -> str:
    """The name of the module in which a call is; empty for the net itself."""
    return ["", *(name for name, _ in stack.values())][-1]


# --- what PyTorch's transformers compute, without the branches on their input ----------------------------------------


def _encoder(encoder: nn.TransformerEncoder, src: Any, *masks: Any, **options: Any) -> Any:
    _refuse_masks(*masks, *options.values())
    for layer in encoder.layers:
        src = layer(src)
    return src if encoder.norm is None else encoder.norm(src)


def _encoder_layer(layer: nn.TransformerEncoderLayer, src: Any, *masks: Any, **options: Any) -> Any:
    _refuse_masks(*masks, *options.values())
    if layer.norm_first:
        src = src + _attention(layer, layer.norm1(src))
        return src + _feed_forward(layer, layer.norm2(src))
    src = layer.norm1(src + _attention(layer, src))
    return layer.norm2(src + _feed_forward(layer, src))


def _attention(layer: nn.TransformerEncoderLayer, x: Any) -> Any:
    return layer.dropout1(layer.self_attn(x, x, x, need_weights=False)[0])


def _feed_forward(layer: nn.TransformerEncoderLayer, x: Any) -> Any:
    return layer.dropout2(layer.linear2(layer.dropout(layer.activation(layer.linear1(x)))))


def _refuse_masks(*masks: Any) -> None:
    if any(mask is not None and mask is not False for mask in masks):
        raise ValueError("its attention is masked")


#: the forward of a kind of module → a function of the module that gives the same in eval mode
_FORWARD: dict[Any, Callable[..., Any]] = {
    nn.TransformerEncoder.forward: _encoder,
    nn.TransformerEncoderLayer.forward: _encoder_layer,
}
