"""A net as a flat program of a few array operations, which ``live_net.js`` runs in the page.

The net is traced to PyTorch's own operations (``torch.fx``), so an architecture or a pool needs no code here as long as
its operations are known. What does not depend on the image is computed here; what only moves values (slices, padding,
permutations) becomes one operation, whatever it was.
"""

import math
from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from ..evaluation.fuse_batch_norm import fuse_conv_bn
from ..models import Network
from .page_program import Program, Slot, UnknownOperationError, number

#: operations of one value, under their PyTorch names
UNARY = set(
    "relu exp abs sigmoid tanh neg reciprocal sqrt rsqrt log silu erf trunc floor square logical_not sin cos".split()
)
#: operations that may overwrite their input
ACTIVATIONS = UNARY | {"leaky_relu", "clamp", "gelu"}
#: operations of two values that are broadcast against each other
BINARY = set(
    "add sub mul div maximum minimum pow remainder atan2 hypot logaddexp eq ne gt ge lt le logical_and".split()
)
#: operations that give values of their input, or a constant, at other places
MOVES = set(
    "slice select permute t transpose expand repeat constant_pad_nd reflection_pad1d reflection_pad2d "
    "replication_pad1d replication_pad2d index index_select flip roll unfold pixel_shuffle pixel_unshuffle".split()
)
#: operations that give several parts of their input
SPLITS = set("split split_with_sizes unbind chunk".split())
#: operations that change the shape alone, or nothing
VIEWS = set(
    "view _unsafe_view reshape unsqueeze squeeze flatten clone detach alias lift_fresh lift_fresh_copy "
    "contiguous".split()
)
#: operations that read nothing but the shape of their input
FILLS = set("new_ones new_zeros new_full ones_like zeros_like full_like".split())
#: operations over axes: PyTorch's name → that of the page
REDUCTIONS = {"mean": "mean", "sum": "sum", "amax": "max", "amin": "min", "argmax": "argmax"}


class Normalisation(nn.Module):
    """Pixels from 0 to 255 → ``(pixels / 255 - mean) / std``, permuted if there is an order: what a net takes.

    A module, as what is traced must have all its tensors as parameters or buffers.
    """

    scale: Tensor
    shift: Tensor
    order: Tensor | None

    def __init__(self, mean: Sequence[float], std: Sequence[float], order: Tensor | None = None) -> None:
        super().__init__()
        deviation = torch.tensor(std)[:, None, None]
        self.register_buffer("scale", 1 / (255 * deviation))
        self.register_buffer("shift", torch.tensor(mean)[:, None, None] / deviation)
        self.register_buffer("order", order)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The net's input."""
        x = pixels * self.scale - self.shift
        return x if self.order is None else x.flatten(2)[:, :, self.order].view(x.shape)


class _Layers(nn.Module):
    """Pixels from 0 to 255 → the outputs of some layers of a net."""

    def __init__(self, net: Network, normalise: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.net, self.normalise, self.names = net, normalise, names

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "..."]]:
        x, outputs = self.normalise(pixels), []
        for name in self.net.order:
            x = getattr(self.net, name)(x)
            outputs += [x] * (name in self.names)
        return outputs


def program_of(net: Network, normalise: nn.Module) -> Program:
    """The program of a net in eval mode, from pixels to all stages, ``features`` and ``logits``.

    Args:
        net: on the CPU, in float32.
        normalise: pixels from 0 to 255 to the net's input; see ``Normalisation``.

    Raises:
        UnknownOperationError: it has an operation that the page cannot compute, or cannot be traced.
    """
    names = [*net.stages, "features", "logits"]
    fused = fuse_conv_bn(net.eval())
    assert isinstance(fused, Network)
    layers = _Layers(fused, normalise, names)
    tensors = dict(layers.named_parameters()) | dict(layers.named_buffers())

    def forward(*values: Tensor) -> Any:
        return functional_call(layers, dict(zip(tensors, values[:-1], strict=True)), (values[-1],))

    program = Program(net.image)
    try:
        with torch.no_grad():
            traced = make_fx(forward, tracing_mode="fake")(*tensors.values(), torch.zeros(1, *net.image))
            found = _Lowering(program, traced, [*tensors.values()]).run()
    except UnknownOperationError:
        raise
    except Exception as error:  # a net's own code can raise anything when it is traced
        raise UnknownOperationError(f"torch.fx cannot follow it: {' '.join(str(error).split())[:120]}") from error
    for name, value in zip(names, found, strict=True):
        if not isinstance(value, Slot):
            raise UnknownOperationError(f"{name} does not depend on the image")
        program.outputs[name] = value.number
    return program


class _Lowering:
    """Turns the nodes of a traced graph into steps of a program."""

    def __init__(self, program: Program, traced: fx.GraphModule, tensors: Sequence[Tensor]) -> None:
        self.program, self.traced, self.tensors = program, traced, tensors
        #: node → a tensor, or a Slot, or a list of them
        self.values: dict[fx.Node, Any] = {}

    def run(self) -> list[Any]:
        """The values of the graph's outputs."""
        nodes = [*self.traced.graph.nodes]
        placeholders = [node for node in nodes if node.op == "placeholder"]
        self.values |= zip(placeholders, [*self.tensors, Slot(0)], strict=True)
        needed = {nodes[-1]}
        for node in reversed(nodes):  # checks and statistics that nothing reads are left out
            if node in needed:
                needed.update(node.all_input_nodes)
        for node in nodes:  # also what only overwrites a value that is read elsewhere
            kind = str(node.target).partition(".")[2].partition(".")[0] if node.op == "call_function" else ""
            known = kind.removesuffix("_") in ACTIVATIONS and _is_alone(node.all_input_nodes[0])
            _refuse_unless(not kind.endswith("_") or known, f"{kind.removesuffix('_')} in place")
        for node in nodes:
            if node in needed and node.op not in ("placeholder", "output"):
                self.values[node] = self._value(node)
        return [self._of(node) for node in nodes[-1].args[0]]

    def _of(self, value: Any) -> Any:
        return self.values[value] if isinstance(value, fx.Node) else value

    def _value(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return getattr(self.traced, str(node.target))
        args, options = fx.node.map_arg((node.args, node.kwargs), self._of)
        assert callable(node.target)
        if not any(isinstance(self.values[source], Slot) for source in node.all_input_nodes):
            return node.target(*args, **options)
        if node.target is getitem:
            return self._part(node, args[0], args[1])
        kind = str(node.target).split(".")[1].removesuffix("_")  # aten.add.Tensor
        if kind in FILLS:
            return _call(node, self._of, torch.zeros(self._shape_of(node)))
        if kind in SPLITS:
            return args[0]  # the parts are moves
        return self._operation(node, kind, args, options)

    def _operation(self, node: fx.Node, kind: str, args: Sequence[Any], options: Any) -> Slot:
        shape = _shape(node)
        if kind in MOVES:
            return self._move(lambda x: _call(node, self._of, x), args[0], self._shape_of(node), shape)
        if kind in VIEWS | UNARY:
            return self.program.step("view" if kind in VIEWS else kind, [args[0]], shape)
        if kind in BINARY and options.get("alpha", 1) == 1:
            return self._binary(kind, args[0], args[1], shape)
        _refuse_unless(kind in RULES, f"the operation {kind}")
        return RULES[kind](self, shape, *args, **options)

    def _shape_of(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of a node's first input."""
        return _shape(node.all_input_nodes[0])

    def _binary(self, kind: str, first: Any, second: Any, shape: Sequence[int]) -> Slot:
        if kind == "pow" and isinstance(second, int | float) and second in (2, 0.5):
            return self.program.step("square" if second == 2 else "sqrt", [first], shape)
        return self.program.step(kind, [first, second], shape)

    def _part(self, node: fx.Node, source: Any, index: Any) -> Any:
        """One of several outputs: of a split, or the first of an operation that has others beside it."""
        (parent,) = node.all_input_nodes
        if str(parent.target).split(".")[1] in SPLITS:
            return self._move(lambda x: _call(parent, self._of, x)[index], source, self._shape_of(parent), _shape(node))
        if index:
            raise UnknownOperationError(f"reads more than the first output of {parent.target}")
        return source

    def _move(
        self, function: Callable[[Tensor], Tensor], source: Any, before: Sequence[int], shape: Sequence[int]
    ) -> Slot:
        if not isinstance(source, Slot):
            raise UnknownOperationError("takes values of a constant at places that depend on the image")
        tables, fill = move_tables(function, before)
        return self.program.step("move", [source], shape, tables=tables, fill=fill)


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's value, or of the first of several."""
    value = node.meta["val"]
    return tuple(value.shape if isinstance(value, Tensor) else value[0].shape)


def _is_alone(node: fx.Node) -> bool:
    """Whether no other value shares memory with a node's, so that it can be overwritten."""
    kinds = {str(other.target).partition(".")[2].partition(".")[0] for other in [node, *node.users]}
    return not kinds & (VIEWS | MOVES | SPLITS) and node.target is not getitem


def _call(node: fx.Node, of: Callable[[Any], Any], x: Tensor) -> Any:
    """A node's function of another first input."""
    args, options = fx.node.map_arg((node.args[1:], node.kwargs), of)
    assert callable(node.target)
    return node.target(x, *args, **options)


def move_tables(
    function: Callable[[Tensor], Shaped[Tensor, "..."]], shape: Sequence[int]
) -> tuple[list[list[int | None]], float | str]:
    """What a function that moves values does: entry (i, j, …) of its output is entry
    ``tables[0][i] + tables[1][j] + …`` of its flat input, or ``fill`` where one of them is None.

    >>> move_tables(lambda x: torch.nn.functional.pad(x[:, ::2], (1, 0), value=7.0), (2, 4))
    ([[0, 4], [None, 0, 2]], 7.0)

    Raises:
        UnknownOperationError: there are no such tables.
    """
    numbers = torch.arange(math.prod(shape), dtype=torch.float64).view(*shape)
    first, second = function(numbers), function(numbers + 1)
    moved = (second == first + 1) & first.isfinite()
    fills = first[~moved].unique()
    if len(fills) > 1 or not moved.any():
        raise UnknownOperationError("moves values in a way that the page cannot follow")
    index = torch.where(moved, first, -1).long()
    base = moved.nonzero()[0].tolist() if first.dim() else []
    start = int(index[tuple(base)])
    tables: list[list[int | None]] = []
    sums, inside = torch.full_like(index, start), torch.ones_like(moved)
    for axis, size in enumerate(index.shape):
        line = index[(*base[:axis], slice(None), *base[axis + 1 :])]
        steps, there = line - start, line >= 0
        along = [size if i == axis else 1 for i in range(index.dim())]
        sums, inside = sums + steps.view(along), inside & there.view(along)
        tables.append([int(step) if known else None for step, known in zip(steps, there, strict=True)])
    if not torch.equal(torch.where(inside, sums, -1), index):
        raise UnknownOperationError("moves values in a way that the page cannot follow")
    if tables:
        tables[0] = [None if step is None else step + start for step in tables[0]]
    return tables, number(float(fills[0])) if len(fills) else 0.0


def _refuse_unless(known: bool, what: str) -> None:
    if not known:
        raise UnknownOperationError(f"has {what}, which the page cannot compute")


def _pair(value: Any) -> list[int]:
    """A setting for (rows, columns)."""
    values = [value] if isinstance(value, int) else [*value]
    return [int(v) for v in (values * 2 if len(values) == 1 else values)]


def _convolution(
    low: _Lowering, shape: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Slot:  # fmt: skip
    _refuse_unless(not transposed and len(shape) == 4, "a convolution that is transposed or not of maps")
    _refuse_unless(not isinstance(weight, Slot), "a convolution by weights that depend on the image")
    bias = torch.zeros(shape[1]) if bias is None else bias
    windows = {"stride": _pair(stride), "padding": _pair(padding), "dilation": _pair(dilation)}
    return low.program.step("conv", [x, weight, bias], shape, **windows, groups=groups)


def _max_pool(
    low: _Lowering, shape: Any, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Slot:  # fmt: skip
    _refuse_unless(_pair(dilation) == [1, 1], "a dilated max pool")
    kernel = _pair(kernel)
    return low.program.step(
        "max_pool", [x], shape, kernel=kernel, stride=_pair(stride or kernel), padding=_pair(padding)
    )


def _avg_pool(
    low: _Lowering, shape: Any, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Slot:  # fmt: skip
    plain = _pair(padding) == [0, 0] and not ceil_mode and divisor_override is None
    _refuse_unless(plain, "an average pool with padding of its own")
    kernel = _pair(kernel)
    return low.program.step("avg_pool", [x], shape, kernel=kernel, stride=_pair(stride or kernel), padding=[0, 0])


def _reduction(kind: str) -> Callable[..., Slot]:
    def rule(low: _Lowering, shape: Any, x: Any, dims: Any = None, keepdim: bool = False, **options: Any) -> Slot:
        dims = [] if dims is None else [dims] if isinstance(dims, int) else [*dims]  # none: all
        return low.program.step("reduce", [x], shape, by=kind, dims=dims)

    return rule


def _largest_of_map(low: _Lowering, shape: Any, x: Any, size: Any) -> Slot:
    _refuse_unless(_pair(size) == [1, 1], "an adaptive max pool to more than one value")
    return low.program.step("reduce", [x], shape, by="max", dims=[-2, -1])


def _add_product(low: _Lowering, shape: Any, bias: Any, x: Any, weight: Any, **options: Any) -> Slot:
    _refuse_unless(not options, "a scaled product")
    return low.program.step("add", [low.program.step("product", [x, weight], shape), bias], shape)


def _scaled(low: _Lowering, shape: Sequence[int], x: Slot, scale: Any, shift: Any, channels: Sequence[int]) -> Slot:
    """``x · scale + shift``, both of shape ``channels``; None: 1 and 0."""
    if scale is not None:
        x = low.program.step("mul", [x, scale.view(*channels)], shape)
    if shift is not None:
        x = low.program.step("add", [x, shift.view(*channels)], shape)
    return x


def _batch_norm(
    low: _Lowering, shape: Any, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *more: Any
) -> Slot:
    training, eps = (more[0], more[2]) if len(more) == 3 else (False, more[1])
    _refuse_unless(not training and mean is not None, "a batch norm by the statistics of the batch")
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    return _scaled(low, shape, x, scale, shift, [1, -1, *[1] * (len(shape) - 2)])


def _group_norm(
    low: _Lowering, shape: Any, x: Any, weight: Any, bias: Any, n: int, channels: int, pixels: int, groups: int,
    eps: float,
) -> Slot:  # fmt: skip
    normed = low.program.step("normalise", [x], shape, size=channels * pixels // groups, eps=eps)
    return _scaled(low, shape, normed, weight, bias, [1, -1, *[1] * (len(shape) - 2)])


def _layer_norm(low: _Lowering, shape: Any, x: Any, axes: Any, weight: Any, bias: Any, eps: float) -> Slot:
    normed = low.program.step("normalise", [x], shape, size=math.prod(axes), eps=eps)
    return _scaled(low, shape, normed, weight, bias, axes)


def _joined(low: _Lowering, shape: Any, parts: Any, dim: int = 0) -> Slot:
    return low.program.step("cat", parts, shape, dim=dim % len(shape))


def _stacked(low: _Lowering, shape: Any, parts: Any, dim: int = 0) -> Slot:
    dim %= len(shape)
    one = [1 if axis == dim else size for axis, size in enumerate(shape)]
    return low.program.step("cat", [low.program.step("view", [part], one) for part in parts], shape, dim=dim)


def _copied(low: _Lowering, shape: Any, x: Any, dtype: torch.dtype | None = None, **options: Any) -> Slot:
    whole = dtype is not None and not dtype.is_floating_point and dtype != torch.bool
    return low.program.step("trunc" if whole else "view", [x], shape)


def _simple(op: str, **fixed: Any) -> Callable[..., Slot]:
    """The rule of an operation whose inputs are all its arguments."""
    return lambda low, shape, *inputs: low.program.step(op, inputs, shape, **fixed)


RULES: dict[str, Callable[..., Slot]] = {
    "convolution": _convolution, "max_pool2d_with_indices": _max_pool, "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool, "adaptive_max_pool2d": _largest_of_map,
    "addmm": _add_product, "mm": _simple("product"), "bmm": _simple("product"),
    "native_batch_norm": _batch_norm, "_native_batch_norm_legit_no_training": _batch_norm,
    "native_group_norm": _group_norm, "native_layer_norm": _layer_norm,
    "cat": _joined, "stack": _stacked, "_to_copy": _copied, "where": _simple("where"),
    "rsub": lambda low, shape, x, y: low.program.step("sub", [y, x], shape),
    "_softmax": lambda low, shape, x, dim, half: low.program.step("softmax", [x], shape, dim=dim % len(shape)),
    "leaky_relu": lambda low, shape, x, slope=0.01: low.program.step("leaky_relu", [x], shape, slope=slope),
    "gelu": lambda low, shape, x, approximate="none": low.program.step("gelu", [x], shape, approximate=approximate),
    "clamp": lambda low, shape, x, low_end=None, high_end=None, **ends: low.program.step(
        "clamp", [x], shape, min=ends.get("min", low_end), max=ends.get("max", high_end)),
    **{name: _reduction(kind) for name, kind in REDUCTIONS.items()},
}  # fmt: skip
