"""The gallery: what each pool does to one image, what is left of a shift by one pixel, and what linear pools lose."""

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from src.data.sets.shapes import render
from src.pooling import POOLS
from src.pooling.facts import FACTS
from src.pooling.null_space import is_linear, matrix_of, project, row_space

SIDE, CHANNELS, ZOOM, GAP = 48, 8, 3, 4
STRIDE = 2
#: side of the maps that the dimension of a null space is counted on
SMALL = 16

INTRO = """# Gallery of pools

Every entry of `POOLS`, on the same image, with stride 2, its default window and a circular border. Four pictures each:

1. the image, {side}×{side} pixels: a rendered shape, and stripes and a chessboard, both too
   fine for the output;
2. its output, {out}×{out};
3. the output after the image was rolled by one pixel to the right;
4. what the shift changed: the difference of 2 and 3, after the roll of 3 by whole output pixels that fits best. Grey:
   nothing. The number is its size relative to the output; 0 means that the pool commutes with the shift.

Pools with weights are shown untrained, as they are built (seed 0). The input has {channels} equal channels; the
pictures show the first output channel. Where the pools are exact in whole nets, and what they cost:
[Pools in numbers](../pools.md). Formulae are explained there too.

<div class="gallery" markdown="0">
"""


LEFT_OUT = Path(__file__).with_name("left_out.md").read_text(encoding="utf-8")
NULL_SPACES = """## What linear pools throw away

A linear pool A keeps of an image x its projection onto the row space, A⁺A x. The rest lies in the null space: however
much of it is added, the output stays the same, and no later layer can tell. Three pictures each: the image, what is
kept of its differences from its mean, what is thrown away of them (grey: nothing). `none` is the stride alone, without
its convolution. Pools that are not linear, as `max`, have no null space: what they throw away depends on the image, and
metamers show it ([Measures](measures.md#metamers)). `conv` and `unshuffle` mix channels by learned weights; the phases
of `unshuffle` alone lose nothing. In a net, `null_space_energy` says the same of every layer that downsamples.

<div class="gallery" markdown="0">
"""


def image() -> Tensor:
    """The picture, (1, channels, side, side) in [0, 1]: above a shape, below stripes and a chessboard."""
    canvases, labels, factors = render(256, SIDE, 0, seed=0)
    x, y, radius, _ = factors.T
    fits = (labels == 6) & (y > radius + 0.05) & (y + radius < 0.6) & ((x - 0.5).abs() < 0.2)
    cross = torch.where(fits)[0][radius[fits].argmax()]
    picture = canvases[cross, 0].float() / 255
    rows, columns = torch.meshgrid(torch.arange(15), torch.arange(18), indexing="ij")
    picture[SIDE - 18 : SIDE - 3, 4:22] = (columns % 3 == 0).float()
    picture[SIDE - 18 : SIDE - 3, SIDE - 22 : SIDE - 4] = ((rows + columns) % 2).float()
    return picture.expand(1, CHANNELS, -1, -1).contiguous()


def output(name: str, x: Tensor) -> Tensor:
    """The pool's output for maps; ``none``: of a convolution that does nothing, every second sample."""
    pool = POOLS[name]
    if pool is None:
        return x[..., ::STRIDE, ::STRIDE]
    torch.manual_seed(0)
    with torch.no_grad():
        y: Tensor = pool(stride=STRIDE, border="circular", channels=CHANNELS).eval()(x)
    return y


def linear_part(name: str) -> tuple[Tensor, float] | None:
    """What a pool that is a linear map keeps of the image, (1, 1, side, side), and the share of dimensions that it
    throws away; None for others, and for those that mix channels by weights.
    """

    def of_a_channel(x: Tensor) -> Tensor:
        y: Tensor = x[..., ::STRIDE, ::STRIDE] if pool is None else pool(x)
        return y

    kind = POOLS[name]
    if kind is not None and kind.needs_channels:
        return None
    pool = None if kind is None else kind(stride=STRIDE, border="circular").double().eval()
    x = image()[:, :1].double()
    if not is_linear(of_a_channel, torch.cat([x, x.flip(2)])):
        return None
    rank = len(row_space(matrix_of(of_a_channel, (1, SMALL, SMALL))))
    mean = x.mean()  # apart, as the share is one of the variance
    return mean + project(of_a_channel, x - mean), 1 - rank / SMALL**2


def null_space_strip(name: str) -> tuple[bytes, float, float] | None:
    """The image, what the pool keeps and what it throws away, as PNG; the shares of dimensions and of the image's
    variance that are thrown away.
    """
    found = linear_part(name)
    if found is None:
        return None
    kept, dimensions = found
    x = image()[:, :1].double()
    gone = x - kept
    energy = float(gone.square().sum() / (x - x.mean()).square().sum())
    return png([grey(x, 0, 1), grey(kept, 0, 1), grey(gone, -0.5, 0.5)]), dimensions, energy


def change(y: Tensor, shifted: Tensor) -> tuple[Tensor, float]:
    """What is left of a shift after the roll that fits best, and its size relative to the output."""
    aligned = [shifted.roll((down, right), (2, 3)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    best = min(aligned, key=lambda one: float((one - y).norm()))
    return best - y, float((best - y).norm() / y.norm())


def grey(maps: Tensor, low: float, high: float) -> Tensor:
    """The first channel as bytes, zoomed to the size of the image."""
    scaled = ((maps[0, 0] - low) / max(high - low, 1e-12)).clamp(0, 1).mul(255).round().to(torch.uint8)
    times = ZOOM * SIDE // scaled.shape[0]
    return scaled.repeat_interleave(times, 0).repeat_interleave(times, 1)


def strip(name: str) -> tuple[bytes, float]:
    """The four pictures side by side as PNG, and the relative change."""
    x = image()
    y, shifted = output(name, x), output(name, x.roll(1, 3))
    difference, size = change(y, shifted)
    low, high, most = float(y[0, 0].min()), float(y[0, 0].max()), max(float(y[0, 0].abs().max()), 1e-12)
    parts = [grey(x, 0, 1), grey(y, low, high), grey(shifted, low, high), grey(difference, -most / 2, most / 2)]
    return png(parts), size


def png(parts: Sequence[Tensor]) -> bytes:
    """Pictures side by side."""
    gap = torch.full((ZOOM * SIDE, GAP), 255, dtype=torch.uint8)
    joined = torch.cat([piece for part in parts for piece in (part, gap)][:-1], 1)
    file = io.BytesIO()
    Image.fromarray(joined.numpy()).save(file, "PNG", optimize=True)
    return file.getvalue()


def words(text: str) -> str:
    """Text as HTML, ``names`` as code."""
    return re.sub("``(.+?)``", r"<code>\1</code>", escape(text))


def pages() -> dict[str, str | bytes]:
    """The page and its pictures, by their paths in the site's folder."""
    found: dict[str, str | bytes] = {}
    text = [INTRO.format(side=SIDE, out=SIDE // STRIDE, channels=CHANNELS)]
    for name in POOLS:
        found[f"reference/gallery/{name}.png"], size = strip(name)
        facts = FACTS[name]
        alt = f"{name}: image, output, output after a roll by one pixel, difference"
        text.append(
            f'<div><h3 id="{name}">{name}</h3><img class="pixels" src="gallery/{name}.png" alt="{escape(alt)}">'
            f"<p><strong>{'0' if size < 1e-6 else format(size, '.2f')}</strong> changed by a 1-px roll · "
            f"<code>{escape(facts.formula)}</code></p><p>{words(facts.summary)} {words(facts.source)}.</p></div>\n"
        )
    text += ["</div>\n", NULL_SPACES]
    for name in POOLS:
        if (drawn := null_space_strip(name)) is not None:
            path, (found_png, dimensions, energy) = f"gallery/null-space-{name}.png", drawn
            found[f"reference/{path}"] = found_png
            text.append(
                f'<div><h3 id="null-space-{name}">{name}</h3><img class="pixels" src="{path}" '
                f'alt="{name}: image, what it keeps, what it throws away"><p><strong>{dimensions:.0%}</strong> of the '
                f"dimensions · <strong>{energy:.0%}</strong> of the variance of this image</p></div>\n"
            )
    found["reference/gallery.md"] = "\n".join([*text, "</div>\n", LEFT_OUT])
    return found
