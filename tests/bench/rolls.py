"""What measuring costs: all rolls against one forward pass and against enumeration, watched layers, a whole suite.

``python -m tests.bench.rolls`` takes the pools one by one; ``make bench`` takes ``max`` alone.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from src.config import Config, Model, from_dict
from src.data.splits import split
from src.evaluation.adapter import ModelAdapter
from src.evaluation.all_rolls import Rolls, one_by_one_rolls, prepare
from src.evaluation.families import crops
from src.metrics.invariance_error import InvarianceError
from src.metrics.layer_outputs import LayerOutputs, TransformedOutputs, squared_differences
from src.models import network
from src.nets.hooks import eval_mode, stream_outputs
from src.pooling import POOLS
from src.stats.bootstrap import bootstrap_weights
from src.training.evaluate_run import evaluation_set, measure, online_rows
from src.training.lightning_module import module
from tests.bench.paired import DEVICE, Pair, now

SIDE, IMAGES = 32, 8


def net(pool: str = "max") -> nn.Module:
    """Net M of performance.md: three stages 32, 64, 128 of 2 × (conv3-BN-ReLU), then a pool; circular."""
    torch.manual_seed(0)
    model = Model(pool=pool, padding="circular", depth=3, convs=2, width=32)
    return network(model, (1, SIDE, SIDE), 10).to(DEVICE, memory_format=torch.channels_last).eval()


def images(n: int) -> Tensor:
    """As a net gets them."""
    return torch.randn(n, 1, SIDE, SIDE).to(DEVICE, memory_format=torch.channels_last)


def leaves(of: nn.Module) -> list[str]:
    """The layers that are made of no others."""
    return [name for name, one in of.named_modules() if not list(one.children())]


def made(pool: str, layers: bool = False) -> Rolls:
    """The rolls of net M, ready.

    Raises:
        AssertionError: its tree is not used.
    """
    of = net(pool)
    rolls = prepare(ModelAdapter(of, leaves(of) if layers else [], lambda x: x), images(2))
    assert rolls.tree, rolls.why
    return rolls


def forward(of: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """One pass, as precise as what is measured."""

    def once() -> Tensor:
        with eval_mode(of), torch.no_grad():
            out: Tensor = of(x)
            return out

    return once


def each(of: Callable[[], object], batches: int = 8) -> float:
    """Seconds a batch, of several: one of 20 ms alone, after seconds of something else, has cold caches."""
    start = now()
    for _ in range(batches):
        of()
    return (now() - start) / batches


def pool_pairs(pools: list[str]) -> Iterator[Pair]:
    """(a) The tree against one forward pass of the same images; what the multiply-adds say, and a tenth."""
    for pool in pools:
        rolls, x = made(pool), images(IMAGES)
        tree = rolls.tree
        assert tree
        name = f"all rolls, {pool} / a forward pass ({tree.forwards:.1f} by multiply-adds)"
        yield Pair(
            name, lambda tree=tree, x=x: tree(x, lambda *_: None), forward(rolls.adapter.net, x), 9, 1.1 * tree.forwards
        )


def enumeration_pairs() -> Iterator[Pair]:
    """(b, c) A forward pass for each roll against the tree: logits alone, and every layer's invariance error."""
    for layers, bound in ((False, 100), (True, 60)):
        rolls, x = made("max", layers), images(4)
        what = "every layer" if layers else "logits"
        yield Pair(
            f"enumerate all rolls / the tree, {what}",
            lambda rolls=rolls, x=x: one_by_one_rolls(rolls.adapter, x, rolls.shifts),
            lambda rolls=rolls, x=x: each(lambda: rolls(x)), 3, bound, least=True,
        )  # fmt: skip


def crop_pairs() -> Iterator[Pair]:
    """Each of 289 windows a forward pass against fragments, of an unpadded net; half of what multiply-adds say."""
    torch.manual_seed(0)
    of = network(Model(padding="valid", depth=2), (1, 28, 28), 10).to(DEVICE, memory_format=torch.channels_last).eval()
    adapter = ModelAdapter(of, [], lambda x: x.float() / 255)
    canvas, shifts = torch.randint(0, 256, (IMAGES, 1, 44, 44)).to(DEVICE, torch.uint8), crops.every_shift(8)
    cut = crops.prepare(adapter, canvas, 8)
    assert cut.fragments, cut.why
    yield Pair(
        f"enumerate all 289 crops / fragments ({289 / cut.forwards:.0f} by multiply-adds)",
        lambda: crops.one_by_one_crops(adapter, canvas, shifts, 8),
        lambda: each(lambda: cut(canvas, shifts)), 3, 289 / cut.forwards / 2, least=True,
    )  # fmt: skip


@torch.no_grad()
def watched(of: nn.Module, layers: list[str], x: Tensor, gx: Tensor) -> None:
    """The invariance error of every layer."""
    measures = {layer: InvarianceError() for layer in layers}
    stills: dict[str, LayerOutputs] = {}

    def see(layer: str, y: Tensor) -> None:
        if layer in stills:
            measures[layer].update(stills[layer], TransformedOutputs(stills[layer], y))
        else:
            stills[layer] = LayerOutputs(y)

    with stream_outputs(of, layers, see):
        of(x)
        of(gx)
    for error in measures.values():
        error.compute()


@torch.no_grad()
def compared(of: nn.Module, layers: list[str], x: Tensor, gx: Tensor) -> None:
    """How far every layer moves; not on the scale of how far other images' lie apart, which all transforms share."""
    stills: dict[str, Tensor] = {}

    def see(layer: str, y: Tensor) -> None:
        if layer in stills:
            squared_differences(y, stills[layer]).sum(1)
        else:
            stills[layer] = y

    with stream_outputs(of, layers, see):
        of(x)
        of(gx)


def watching() -> Iterator[Pair]:
    """(d) The layers that a run looks at, and all there are, watched and compared against two plain forward passes."""
    of, x = net(), images(125)
    gx, plain = x.roll((1, 2), (2, 3)), forward(of, x)
    stages, every = [*of.stages, "features"], leaves(of)
    for what, way, layers in (
        ("every stage's invariance error", watched, stages),
        ("every layer's squared distance", compared, every),
        ("every layer's invariance error", watched, every),
    ):
        yield Pair(
            f"{what} ({len(layers)}) / two forward passes",
            lambda way=way, layers=layers: way(of, layers, x, gx), lambda: (plain(), plain()), 9, 1.3,
        )  # fmt: skip


def suite(epoch: Callable[[], object]) -> Iterator[Pair]:
    """(e) All that a run measures, the untrained twin included, against one training epoch of the default run."""
    cfg: Config = from_dict({"wandb": {"mode": "disabled"}})
    splits = split(cfg.data)
    torch.manual_seed(0)
    trained = module(cfg, splits.image, len(splits.classes)).to(DEVICE, memory_format=torch.channels_last)

    def whole() -> None:
        bootstrap_weights.cache_clear()  # a run draws them once
        for _ in measure(trained, cfg, splits):
            pass

    yield Pair("the whole suite / an epoch of training", whole, epoch, 3, 1.0)
    test_set = evaluation_set(cfg, splits)
    follow = lambda: [*online_rows(trained, splits, test_set)]  # noqa: E731
    yield Pair("following a shift while it trains / an epoch of training", follow, epoch, 3, 0.05)


def every(pools: list[str]) -> Iterator[Pair]:
    """(a) to (d)."""
    yield from pool_pairs(pools)
    yield from enumeration_pairs()
    yield from crop_pairs()
    yield from watching()


if __name__ == "__main__":
    for pair in every([*POOLS]):
        ratio = pair.run()
        bound = f"{'at least' if pair.least else 'at most'} {pair.bound:.2f}"
        print(f"{pair.name}: {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}), {bound}", flush=True)
