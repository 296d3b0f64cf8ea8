"""Every pool against ``max``, and against other ways to compute the same: forward and backward, as nets run them.

``python -m tests.bench.pools`` measures and writes docs/pools.csv, from which
``python -m src.pools`` takes its times; docs/pools.md is to be written again then (a test says so).
"""

import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from kornia.filters import blur_pool2d, max_blur_pool2d
from rich.console import Console
from rich.table import Table
from torch import Tensor, fft

from src.pooling import POOLS, Pool
from src.reporting.pool_tables import BATCH, MAP, TIMES
from src.results import files
from src.training.run import hardware
from tests.bench.paired import Ratio, paired

PAIRS = 9

# --- other ways ------------------------------------------------------------------------------------------------------


def grouped(pool: Pool, x: Tensor) -> Tensor:
    kernel = (pool.taps[:, None] * pool.taps).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def separable(pool: Pool, x: Tensor) -> Tensor:
    row = pool.taps.repeat(x.shape[1], 1, 1, 1)
    y = F.conv2d(x, row, stride=(1, 2), padding=(0, 1), groups=x.shape[1])
    return F.conv2d(y, row.mT, stride=(2, 1), padding=(1, 0), groups=x.shape[1])


def antialiased(pool: Pool, x: Tensor) -> Tensor:
    from antialiased_cnns import BlurPool

    return BlurPool(x.shape[1], "zero", 3, 2)(x)


def columns(x: Tensor, kernel: int, fill: float = 0.0) -> Tensor:
    """The samples of all windows, by im2col."""
    y = F.pad(x, (1, 0, 1, 0), value=fill) if kernel == 3 else x
    return F.unfold(y, kernel, stride=2).view(*x.shape[:2], -1, *(n // 2 for n in x.shape[2:]))


def softmax_of_columns(x: Tensor, logits: Tensor, kernel: int) -> Tensor:
    return (columns(logits, kernel, -torch.inf).softmax(2) * columns(x, kernel)).sum(2)


def two_boxes(x: Tensor, logits: Tensor, kernel: int) -> Tensor:
    """Correct where no logit is above 88, and none 88 below another."""
    e, before = logits.exp(), (kernel - 1) // 2
    return F.avg_pool2d(e * x, kernel, 2, before) / F.avg_pool2d(e, kernel, 2, before)


def norm_of_columns(pool: Pool, x: Tensor) -> Tensor:
    parts = columns(x.abs(), 2)
    largest = parts.detach().amax(2, keepdim=True)
    return largest[:, :, 0] * (parts / largest).square().mean(2).sqrt()


def sorted_columns(pool: Pool, x: Tensor) -> Tensor:
    return (columns(x, 2).sort(2, descending=True).values * pool.weights[:, None, None]).sum(2)


def drawn_by_exponentials(pool: Pool, x: Tensor) -> Tensor:
    parts = columns(x.relu(), 3)
    drawn = (parts.detach() / torch.empty_like(parts).exponential_()).argmax(2, keepdim=True)
    return parts.gather(2, drawn)[:, :, 0]


def phases(x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, 2).unflatten(1, (x.shape[1], 4))


def one_phase(pool: Pool, x: Tensor) -> Tensor:
    parts = phases(x)
    return parts[torch.arange(len(x)), :, parts.detach().square().sum((1, 3, 4)).argmax(1)]


def mixed_phases(pool: Pool, x: Tensor) -> Tensor:
    logits = phases(pool.score(x)).mean((1, 3, 4))
    return torch.einsum("ncspq,ns->ncpq", phases(x), logits.softmax(1))


def real_transform(pool: Pool, x: Tensor) -> Tensor:
    z = fft.rfft2(x, norm="forward")
    rows, places = ((n // 2 + 1) // 2 for n in x.shape[2:])  # frequencies 0 … below the new Nyquist frequency
    gap = z.new_zeros(*z.shape[:2], 1, places)
    z = torch.cat([z[:, :, :rows, :places], gap, z[:, :, 1 - rows :, :places]], 2)
    return fft.irfft2(z, s=[n // 2 for n in x.shape[2:]], norm="forward")


def transform(pool: Pool, x: Tensor) -> Tensor:
    z = fft.fftshift(fft.fft2(x, norm="forward"), (-2, -1))
    height, width = x.shape[2:]
    z = z[..., height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2]
    return fft.ifft2(fft.ifftshift(z, (-2, -1)), norm="forward").real


def unshuffled(pool: Pool, x: Tensor) -> Tensor:
    return F.conv2d(F.pixel_unshuffle(x, 2), pool.conv.weight, pool.conv.bias)


def filtered_columns(pool: Pool, x: Tensor) -> Tensor:
    """Zeros beyond the border where ours leaves them out."""
    weights = F.conv2d(x, pool.filters.weight, pool.filters.bias, 2, 1).unflatten(1, (pool.groups, -1)).softmax(2)
    parts = columns(x, 3).unflatten(1, (pool.groups, -1))
    return torch.einsum("ngckpq,ngkpq->ngcpq", parts, weights).flatten(1, 2)


#: pool, name of the other way, its function
WAYS: list[tuple[str, str, Callable[[Pool, Tensor], Tensor]]] = [
    ("max", "F.max_pool2d", lambda pool, x: F.max_pool2d(x, 2)),
    ("avg", "F.avg_pool2d", lambda pool, x: F.avg_pool2d(x, 2)),
    ("lp", "F.unfold", norm_of_columns),
    ("lp", "F.avg_pool2d(x²)^½ (overflows)", lambda pool, x: F.avg_pool2d(x.square(), 2).sqrt()),
    ("mixed", "torch.lerp", lambda pool, x: torch.lerp(F.avg_pool2d(x, 2), F.max_pool2d(x, 2), pool.a)),
    ("soft", "F.unfold, softmax", lambda pool, x: softmax_of_columns(x, x, 2)),
    ("soft", "two F.avg_pool2d (overflows)", lambda pool, x: two_boxes(x, x, 2)),
    ("stochastic", "F.unfold, exponentials", drawn_by_exponentials),
    ("rank", "F.unfold, sort", sorted_columns),
    ("blur", "F.conv2d (zeros)", grouped),
    ("blur", "separable F.conv2d (zeros)", separable),
    ("blur", "kornia (zeros)", lambda pool, x: blur_pool2d(x, 3, 2)),
    ("blur", "antialiased_cnns (zeros)", antialiased),
    ("maxblur", "kornia (zeros)", lambda pool, x: max_blur_pool2d(x, 3, 2, max_pool_size=2)),
    ("aps", "pixel_unshuffle, index", one_phase),
    ("tips", "pixel_unshuffle, einsum", mixed_phases),
    ("ideal", "rfft2, irfft2", real_transform),
    ("flc", "fft2, ifft2", transform),
    ("wavelet", "2 F.avg_pool2d", lambda pool, x: 2 * F.avg_pool2d(x, 2)),
    ("conv", "F.conv2d", lambda pool, x: F.conv2d(x, pool.conv.weight, pool.conv.bias, 2, 1)),
    ("unshuffle", "pixel_unshuffle, 1×1", unshuffled),
    ("lip", "F.unfold, softmax", lambda pool, x: softmax_of_columns(x, pool.importance(x), 3)),
    ("lip", "two F.avg_pool2d (overflows)", lambda pool, x: two_boxes(x, pool.importance(x), 3)),
    ("ddac", "F.unfold, einsum (zeros)", filtered_columns),
]

# --- the race --------------------------------------------------------------------------------------------------------


def make(name: str) -> Pool:
    torch.manual_seed(0)
    pool = POOLS[name](stride=2, channels=MAP[0])
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return pool.to(memory_format=torch.channels_last)


def step(way: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], float]:
    """Forward and backward, in seconds of the process's own time: other processes disturb it less than the clock's."""

    def run() -> float:
        x.grad = None
        start = time.process_time()
        y = way(x)
        y.backward(torch.ones_like(y))
        return time.process_time() - start

    run()  # the first run also makes what is kept
    return run


def race() -> Iterator[tuple[str, str, Ratio]]:
    """(pool, against what, ratio) of all pools and all other ways, on one thread.

    Raises:
        AssertionError: another way that computes another thing.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(BATCH, *MAP).to(memory_format=torch.channels_last).requires_grad_()
    pools = {name: make(name) for name, pool in POOLS.items() if pool}
    for name, pool in pools.items():
        yield name, "max", paired(step(pool, x), step(pools["max"], x), PAIRS)
    for name, label, way in WAYS:
        pool = pools[name]
        if way is antialiased and not find_spec("antialiased_cnns"):
            continue  # a package that nothing else here needs
        if name != "stochastic":  # draws
            inside = (..., slice(2, -2), slice(2, -2))  # at the border some have zeros
            torch.testing.assert_close(way(pool, x)[inside], pool(x)[inside], atol=1e-4, rtol=1e-4)
        yield name, label, paired(step(pool, x), step(lambda x, way=way, pool=pool: way(pool, x), x), PAIRS)


def show() -> list[dict[str, object]]:
    """Measure and print; the rows of docs/pools.csv."""
    console = Console()
    rows: list[dict[str, object]] = []
    machine = hardware(torch.device("cpu")).rpartition(",")[0]
    circumstances = {"machine": machine, "torch": torch.__version__, "date": str(date.today())}
    table = Table(title=f"{machine}, 1 thread, torch {torch.__version__}, {date.today()}")
    for heading in ("pool", "against", "ratio of medians", "single pairs"):
        table.add_column(heading)
    with console.status("pools"):
        for name, against, one in race():
            ratio, low, high = (f"{number:.2f}" for number in (one.median, one.low, one.high))
            table.add_row(name, against, ratio, f"{low} to {high}")
            numbers = {"ratio": ratio, "low": low, "high": high, "pairs": one.pairs}
            rows.append({"pool": name, "against": against} | numbers | circumstances)
    console.print(table)
    return rows


if __name__ == "__main__":
    files.write_rows(TIMES, show())
