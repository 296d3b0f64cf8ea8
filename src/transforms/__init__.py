"""What is done to an image to see whether the net notices: a table of transforms, each with what it does to maps.

Shifts are (down, right), turns counter-clockwise, pixels in 0 … 255. Integer pixels stay integers where nothing is
interpolated; else the result is float32 (float64 of float64), not rounded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int64, Shaped
from torch import Tensor, fft

from ..errors import UserError

#: (down, right) of the middle, in pixels or steps of a map
Point = tuple[float, float]


@dataclass(frozen=True)
class SamplingGrid:
    """Where a map's outputs lie in its image, (down, right): output i at ``start + i · jump``, in pixels from the edge.

    Attributes:
        image: height and width.
        jump: pixels between neighbouring outputs.
        start: where the first one's field has its centre; that of the first pixel is 0.5.
    """

    image: tuple[int, int]
    jump: tuple[float, float]
    start: tuple[float, float]

    @classmethod
    def even(cls, image: tuple[int, int], size: tuple[int, int]) -> "SamplingGrid":
        """Of a map of that size whose outputs are spread over the image evenly."""
        down, right = image[0] / size[0], image[1] / size[1]
        return cls(image, (down, right), (down / 2, right / 2))

    def middle(self, size: tuple[int, int]) -> tuple[float, float]:
        """How far the middle of a map of that size is from the middle of the image, in pixels (down, right)."""
        down, right = (
            start + (n - 1) / 2 * jump - side / 2
            for start, n, jump, side in zip(self.start, size, self.jump, self.image, strict=True)
        )
        return down, right

    def averages(self, images: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c p q"]:
        """What a layer that only averages pixels gives on this grid: of each output, the mean of the jump × jump pixels
        around its place, which go round at the border.
        """
        rows, columns = (self._weights(axis, n).to(images) for axis, n in enumerate(size))
        return rows @ images @ columns.mT

    def _weights(self, axis: int, n: int) -> Float[Tensor, "n side"]:
        side, jump = self.image[axis], self.jump[axis]
        low = self.start[axis] + torch.arange(n, dtype=torch.float64)[:, None] * jump - jump / 2
        pixels = torch.arange(side, dtype=torch.float64)
        around = torch.arange(-1, 2, dtype=torch.float64)[:, None, None] * side  # a window may begin beyond the edge
        covered = (low + jump).minimum(pixels + around + 1) - low.maximum(pixels + around)
        weights: Tensor = covered.clamp(min=0).sum(0) / jump
        return weights


#: pixels between neighbouring outputs of a map: the same along both axes, or (down, right), of maps whose middle is
#: that of the image; or where in the image they lie
Jump = float | tuple[float, float] | SamplingGrid


def gather(
    maps: Shaped[Tensor, "n c H W"], rows: Int64[Tensor, "n h"], columns: Int64[Tensor, "n w"]
) -> Shaped[Tensor, "n c h w"]:
    """``out[i, :, y, x] = maps[i, :, rows[i, y], columns[i, x]]``: a window of its own for every image."""
    each = torch.arange(len(maps), device=maps.device)[:, None, None]
    return maps[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def roll(maps: Shaped[Tensor, "n c h w"], shifts: Int64[Tensor, "n 2"]) -> Shaped[Tensor, "n c h w"]:
    """Each image moved (down, right) by its own shift; what leaves on one side comes back on the other."""
    height, width = maps.shape[-2:]
    rows = (torch.arange(height, device=maps.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=maps.device) - shifts[:, 1:]) % width
    return gather(maps, rows, columns)


def crop(canvas: Shaped[Tensor, "n c H W"], shifts: Int64[Tensor, "n 2"], margin: int) -> Shaped[Tensor, "n c h w"]:
    """Each image moved (down, right) by its own shift; what comes in is what the canvas holds there.

    Args:
        canvas: images with ``margin`` pixels around them.
        shifts: in [-margin, margin].
        margin: in pixels.
    """
    height, width = canvas.shape[-2] - 2 * margin, canvas.shape[-1] - 2 * margin
    rows = margin + torch.arange(height, device=canvas.device) - shifts[:, :1]
    columns = margin + torch.arange(width, device=canvas.device) - shifts[:, 1:]
    return gather(canvas, rows, columns)


#: protocol → (canvas, shifts, margin) → moved images
SHIFTS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "roll": lambda canvas, shifts, margin: roll(crop(canvas, torch.zeros_like(shifts), margin), shifts),
    "crop": crop,
}


def draw_shifts(count: int, amount: int, generator: torch.Generator) -> Int64[Tensor, "n 2"]:
    """A shift for every image, uniform over the ``8 · amount`` ones with max(|down|, |right|) = amount; never zero."""
    side = torch.randint(0, 4, (count,), generator=generator)
    along = torch.randint(-amount, amount, (count,), generator=generator)
    full = torch.full_like(along, amount)
    down = torch.stack([full, along, -full, -along], 1)
    right = torch.stack([along, -full, -along, full], 1)
    index = side[:, None]
    return torch.cat([down.gather(1, index), right.gather(1, index)], 1)


def real(maps: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
    """In float32, or float64 if they are."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def cut(canvas: Shaped[Tensor, "n c H W"], margin: int) -> Shaped[Tensor, "n c h w"]:
    """The images in place."""
    return canvas[..., margin : canvas.shape[-2] - margin, margin : canvas.shape[-1] - margin]


def within(maps: Shaped[Tensor, "n c p q"], jump: Jump = 1) -> Bool[Tensor, "p q"]:
    """The disc that fits into the image; where no grid says where that is, the one that fits into the maps."""
    down, right = (torch.arange(size, device=maps.device) - (size - 1) / 2 for size in maps.shape[-2:])
    radius = min(maps.shape[-2:]) / 2
    if isinstance(jump, SamplingGrid):
        (by_row, by_column), (below, beside) = jump.jump, jump.middle((maps.shape[-2], maps.shape[-1]))
        down, right, radius = down * by_row + below, right * by_column + beside, min(jump.image) / 2
    return (down[:, None] ** 2 + right**2).sqrt() <= radius


def whole(steps: Shaped[Tensor, "n k"]) -> Bool[Tensor, " n"]:
    """Of each image, whether its parameters are whole numbers."""
    return (steps == steps.round()).all(1)


def rolled(maps: Shaped[Tensor, "n c p q"], steps: Shaped[Tensor, "n 2"]) -> Shaped[Tensor, "n c p q"]:
    """A circular shift: ``roll`` for whole steps, else ``fourier``."""
    moved, easy = roll(maps, steps.round().long()), whole(steps)
    return moved if easy.all() else torch.where(easy[:, None, None, None], moved, fourier(maps, steps))


def embedded(maps: Shaped[Tensor, "n c p q"], steps: Shaped[Tensor, "n 2"]) -> Shaped[Tensor, "n c p q"]:
    """A shift on black: what leaves is lost. Bilinear between whole steps."""
    nearest, easy = steps.round().long(), whole(steps)
    reach = int(nearest.abs().max())
    moved = crop(F.pad(maps, [reach] * 4), nearest, reach)
    unturned = torch.eye(2, device=maps.device).expand(len(maps), 2, 2)
    source = torch.cat([unturned, -steps.flip(1)[:, :, None]], 2)
    return moved if easy.all() else torch.where(easy[:, None, None, None], moved, warp(maps, source))


def fourier(maps: Shaped[Tensor, "n c p q"], steps: Shaped[Tensor, "n 2"]) -> Float[Tensor, "n c p q"]:
    """A circular shift by any fraction: every frequency turns its phase, the mean stays.

    The highest frequency of an even size cannot turn: a wave and its mirror image are one there. It is scaled by
    cos πd, so that the result is real, and is the only one that the way back does not restore.
    """

    def phases(frequencies: Float[Tensor, " f"], by: Shaped[Tensor, " n"]) -> Complex[Tensor, "n f"]:
        phase = torch.exp(-2j * torch.pi * by[:, None] * frequencies)
        return torch.where(frequencies.abs() == 0.5, phase.real + 0j, phase)

    maps, size = real(maps), maps.shape[-2:]
    steps = steps.to(maps.dtype)  # else float64 maps would be moved to float32's digits
    rows = phases(fft.fftfreq(size[0], device=maps.device, dtype=maps.dtype), steps[:, 0])
    columns = phases(fft.rfftfreq(size[1], device=maps.device, dtype=maps.dtype), steps[:, 1])
    moved: Tensor = fft.irfft2(fft.rfft2(maps) * rows[:, None, :, None] * columns[:, None, None, :], s=size)
    return moved


def warp(maps: Shaped[Tensor, "n c p q"], source: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c p q"]:
    """What lies at ``source @ (x, y, 1)`` comes to (x, y), steps right and down of the centre; bilinear, 0 beyond."""
    (n, _, height, width), maps = maps.shape, real(maps)
    half = torch.tensor([width / 2, height / 2, 1], device=maps.device, dtype=maps.dtype)  # grid_sample calls this 1
    grid = F.affine_grid(source.to(maps) * half / half[:2, None], [n, 1, height, width], align_corners=False)
    return F.grid_sample(maps, grid, align_corners=False)


def about(matrices: Float[Tensor, "n 2 2"], fixed: Point) -> Float[Tensor, "n 2 3"]:
    """The ``source`` of ``warp`` for a linear map that leaves a point in place, (down, right) of the middle."""
    point = torch.tensor(fixed[::-1], device=matrices.device, dtype=matrices.dtype)
    return torch.cat([matrices, (point - matrices @ point)[:, :, None]], 2)


def rotated(
    maps: Shaped[Tensor, "n c p q"], degrees: Float[Tensor, "n 1"], fixed: Point = (0, 0)
) -> Float[Tensor, "n c p q"]:
    """Turned about a point, (down, right) of the middle."""
    radians = degrees.to(real(maps).dtype).deg2rad()
    cos, sin = radians.cos(), radians.sin()
    return warp(maps, about(torch.cat([cos, -sin, sin, cos], 1).unflatten(1, (2, 2)), fixed))


def scaled(
    maps: Shaped[Tensor, "n c p q"], factors: Float[Tensor, "n 1"], fixed: Point = (0, 0)
) -> Float[Tensor, "n c p q"]:
    """Enlarged about a point, (down, right) of the middle."""
    return warp(maps, about(torch.eye(2, device=maps.device) / factors.to(real(maps).dtype)[:, :, None], fixed))


def turned(maps: Shaped[Tensor, "n c p q"], quarters: Int64[Tensor, "n 1"]) -> Shaped[Tensor, "n c p q"]:
    """Turned by quarters, exactly."""
    if maps.shape[-2] != maps.shape[-1]:
        raise UserError(f"rotate/quarter: {maps.shape[-2]} × {maps.shape[-1]} is not square; choose rotate/disc")
    ways = torch.stack([maps.rot90(quarter, (2, 3)) for quarter in range(4)])
    return ways[quarters[:, 0], torch.arange(len(maps), device=maps.device)]


def brighter(images: Float[Tensor, "n c h w"], by: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
    """So much is added, 1 from black to white."""
    return images + 255 * by[:, :, None, None]


def starker(images: Float[Tensor, "n c h w"], by: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
    """So much more, or less, of what sets each pixel apart from the image's mean colour."""
    return images + by[:, :, None, None] * (images - images.mean((2, 3), keepdim=True))


def blurred(images: Float[Tensor, "n c h w"], sigmas: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
    """A Gaussian window; near the border its weights still sum to 1, so that no black comes in."""

    def weights(size: int) -> Float[Tensor, "n 1 size size"]:
        place = torch.arange(size, device=images.device)
        apart = (place - place[:, None]) / sigmas.to(images.dtype)[:, :, None]
        return (-(apart**2) / 2).softmax(2)[:, None]

    return weights(images.shape[2]) @ images @ weights(images.shape[3]).mT


def noisy(images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """Parameters: standard deviation, 1 from black to white; seed. Made on the CPU, the same for every device."""
    seeds = (torch.Generator("cpu").manual_seed(int(seed)) for seed in parameters[:, 1].tolist())
    noise = torch.stack([torch.randn(images.shape[1:], generator=seed, device="cpu") for seed in seeds])
    return images + 255 * parameters[:, :1, None, None] * noise.to(images.device)


def erased(images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 3"]) -> Float[Tensor, "n c h w"]:
    """Parameters: side in px; where the square lies between the borders, down and right, in [0, 1)."""
    side, down, right = parameters.split(1, 1)

    def strip(size: int, place: Float[Tensor, "n 1"]) -> Bool[Tensor, "n size"]:
        start = (place * (size - side + 1).clamp(min=1)).floor()
        pixels = torch.arange(size, device=images.device)
        return torch.logical_and(start <= pixels, pixels < start + side)

    square = strip(images.shape[2], down)[:, None, :, None] & strip(images.shape[3], right)[:, None, None]
    return torch.where(square, images.mean((2, 3), keepdim=True), images)


def integer(amount: float, most: float = torch.inf) -> int:
    """An amount that must be a number of whole steps."""
    if amount != int(amount) or not 1 <= amount <= most:
        raise UserError(f"{amount:g} steps: choose a whole number from 1 to {most:g}")
    return int(amount)


def constant(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 1"]:
    """The amount for every image."""
    return torch.full((count, 1), float(amount))


def signed(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 1"]:
    """The amount, up or down."""
    return amount * (torch.randint(0, 2, (count, 1), generator=generator) * 2.0 - 1)


def factors(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 1"]:
    """The amount, or one part in it."""
    return amount ** signed(count, 1, generator)


def directed(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Shifts of this length in any direction."""
    angle = 2 * torch.pi * torch.rand(count, generator=generator)
    return amount * torch.stack([angle.sin(), angle.cos()], 1)


def seeded(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """The amount, and a seed that float32 has room for."""
    return torch.cat([constant(count, amount, generator), torch.randint(2**24, (count, 1), generator=generator)], 1)


def placed(count: int, amount: float, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """The amount, and a place anywhere."""
    return torch.cat([constant(count, amount, generator), torch.rand(count, 2, generator=generator)], 1)


@dataclass(frozen=True)
class Transform:
    """One thing done to images, under one protocol. An image is a map whose outputs are one pixel apart.

    A new one is one entry of ``TABLE``.

    >>> quarter, x = TRANSFORMS["rotate/quarter"], torch.tensor([[[[1, 2], [3, 4]]]])
    >>> quarter.maps(x, quarter.draw(1, 90, torch.Generator())).tolist()
    [[[[2, 4], [1, 3]]]]

    Args:
        name: what is done.
        protocol: how, or what is done at the border; one word.
        unit: of the amounts: lengths in px are divided by a map's jump, other amounts are the same on every map.
        amounts: the default ones.
        draw: (images, amount > 0, generator on the CPU) → parameters, one row an image; never the identity's.
        act: (images or maps, parameters in steps of the map) → the same, transformed. Images may come as integers
            where ``back`` is given, and need no clamping where it is not.
        back: parameters → those of the inverse. None for what changes the pixels' values and leaves them in place.
        around: what comes in is what the canvas holds around the image; otherwise the image is all there is.
        disc: compared on the disc that fits into the image; always interpolated, about any point: ``act`` takes that as
            well, in steps (down, right) from the middle.
        matrix: of what leaves the image's middle in place and needs no interpolation: parameters → where a point goes,
            as matrices of (down, right).
    """

    name: str
    protocol: str
    unit: str
    amounts: tuple[float, ...]
    draw: Callable[[int, float, torch.Generator], Tensor]
    act: Callable[..., Tensor]
    back: Callable[[Tensor], Tensor] | None = None
    around: bool = False
    disc: bool = False
    matrix: Callable[[Tensor], Tensor] | None = None

    def images(
        self, canvas: Shaped[Tensor, "n c H W"], parameters: Shaped[Tensor, "n k"], margin: int
    ) -> Shaped[Tensor, "n c h w"]:
        """The images transformed, in 0 … 255 (``fourier`` may ring beyond).

        Args:
            canvas: images with ``margin`` pixels around them.
            parameters: as drawn.
            margin: in pixels. "crop" needs as many as it shifts, "disc" one; a shrunk image shows black beyond them.
        """
        if self.protocol == "crop" and parameters.abs().max() > margin:
            raise UserError(f"shift/crop by {int(parameters.abs().max())} px: there are {margin} px around the images")
        before, after = (0, margin) if self.around else (margin, 0)
        pixels, parameters = cut(canvas, before), parameters.to(canvas.device)
        new = self.act(pixels, parameters) if self.moves else self.act(real(pixels), parameters).clamp(0, 255)
        return self.still(new, after)

    def still(self, canvas: Shaped[Tensor, "n c H W"], margin: int) -> Shaped[Tensor, "n c h w"]:
        """The images that the transformed ones are compared with."""
        images = cut(canvas, margin)
        return images * within(images) if self.disc else images

    def can_fix(self, point: Point) -> bool:
        """Whether it is exact about another point than the middle: it has a ``matrix``, and what that makes of the
        shift is whole pixels, whatever the parameters drawn.
        """
        if self.matrix is None:
            return False
        drawn = torch.cat([self.draw(1, amount, torch.Generator()) for amount in self.amounts])
        fixed = torch.tensor(point, dtype=torch.float64)
        return bool(whole(fixed - self.matrix(drawn).double() @ fixed).all())

    def about(
        self, images: Shaped[Tensor, "n c h w"], parameters: Shaped[Tensor, "n k"], fixed: Point
    ) -> tuple[Shaped[Tensor, "n c h w"], Bool[Tensor, "n h w"]]:
        """The transformed images as they are when not the middle stays in place but another point: rolled by what that
        makes; and which pixels were not wrapped around the border by it. For what has a ``matrix``.

        Args:
            images: transformed.
            parameters: of each image.
            fixed: (down, right) of the middle, in pixels; one that it ``can_fix``.
        """
        assert self.matrix is not None
        matrices, point = self.matrix(parameters.cpu()), torch.tensor(fixed)
        shifts = (point - matrices @ point).round().long().to(images.device)
        ones = torch.ones_like(images[:, :1], dtype=torch.float32)
        return roll(images, shifts), embedded(ones, shifts)[:, 0] > 0

    @property
    def moves(self) -> bool:
        """Whether pixels change places, so that maps are expected to follow; else they are expected to stay."""
        return self.back is not None

    def maps(
        self, maps: Shaped[Tensor, "n c p q"], parameters: Shaped[Tensor, "n k"], jump: Jump = 1
    ) -> Shaped[Tensor, "n c p q"]:
        """ρ(g): the transformed images' maps, as an equivariant layer makes them, from the untouched images' maps.

        Args:
            maps: of the untouched images.
            parameters: as drawn.
            jump: pixels between neighbouring outputs, or where they lie. Without the latter, and always for what has a
                ``matrix``, the maps' middle stays in place; else the image's.
        """
        if not self.moves:
            return maps
        steps = self._steps(parameters, jump).to(maps.device)
        if not self.disc or not isinstance(jump, SamplingGrid):
            return self.act(maps, steps)
        below, beside = jump.middle((maps.shape[2], maps.shape[3]))
        return self.act(maps, steps, (-below / jump.jump[0], -beside / jump.jump[1]))

    def there_and_back(
        self, maps: Shaped[Tensor, "n c p q"], parameters: Shaped[Tensor, "n k"], jump: Jump = 1
    ) -> Shaped[Tensor, "n c p q"]:
        """ρ(g⁻¹)ρ(g): what is lost is lost to interpolation, twice."""
        there = self.maps(maps, parameters, jump)
        return there if self.back is None else self.maps(there, self.back(parameters), jump)

    def valid(
        self, maps: Shaped[Tensor, "n c p q"], parameters: Shaped[Tensor, "n k"], jump: Jump = 1, back: bool = False
    ) -> Bool[Tensor, "n p q"]:
        """Where ``maps`` (with ``back``: ``there_and_back``) takes nothing from beyond the border, or the disc's.

        That may be nowhere, on maps smaller than the shift or than 3 × 3.
        """
        ones = torch.ones_like(maps[:, :1], dtype=torch.float32)
        if self.disc:
            ones = ones * within(maps, jump)
        inside = (self.there_and_back if back else self.maps)(ones, parameters, jump) * ones
        return inside[:, 0] > 1 - 1e-4

    def exact(self, parameters: Shaped[Tensor, "n k"], jump: Jump = 1) -> Bool[Tensor, " n"]:
        """Of each image, whether ``maps`` needs no interpolation."""
        return whole(self._steps(parameters, jump)) & (not self.disc) | (not self.moves)

    def _steps(self, parameters: Shaped[Tensor, "n k"], jump: Jump) -> Shaped[Tensor, "n k"]:
        if self.unit != "px":
            return parameters
        jump = jump.jump if isinstance(jump, SamplingGrid) else jump
        return parameters / (torch.tensor(jump, device=parameters.device) if isinstance(jump, tuple) else jump)


PIXELS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
QUARTERS = (90.0, 180.0, 270.0)
CONTRASTS = (0.1, 0.2, 0.4)


def shifts(count: int, amount: float, generator: torch.Generator) -> Int64[Tensor, "n 2"]:
    """``draw_shifts``."""
    return draw_shifts(count, integer(amount), generator)


def quarters(count: int, amount: float, generator: torch.Generator) -> Int64[Tensor, "n 1"]:
    """Degrees in quarters."""
    return torch.full((count, 1), integer(amount / 90, 3))


def turns(quarters: Int64[Tensor, "n 1"]) -> Float[Tensor, "n 2 2"]:
    """Where a turn by quarters takes (down, right)."""
    quarter = torch.tensor([[0.0, -1], [1, 0]])
    return torch.stack([torch.linalg.matrix_power(quarter, int(many)) for many in quarters[:, 0]])


def mirrors(parameters: Shaped[Tensor, "n k"]) -> Float[Tensor, "n 2 2"]:
    """Where a mirror takes (down, right)."""
    return torch.tensor([[1.0, 0], [0, -1]]).expand(len(parameters), 2, 2)


TABLE = (
    Transform("shift", "roll", "px", PIXELS, shifts, rolled, torch.neg),
    Transform("shift", "crop", "px", PIXELS, shifts, embedded, torch.neg, around=True),
    Transform("shift", "embed", "px", PIXELS, shifts, embedded, torch.neg),
    Transform("subpixel", "fourier", "px", (0.25, 0.5), directed, rolled, torch.neg),
    Transform("rotate", "disc", "degrees", (5.0, 15.0, 45.0), signed, rotated, torch.neg, around=True, disc=True),
    Transform("rotate", "quarter", "degrees", QUARTERS, quarters, turned, lambda turns: -turns % 4, matrix=turns),
    Transform("scale", "disc", "×", (1.1, 1.25, 1.5), factors, scaled, torch.reciprocal, around=True, disc=True),
    Transform("flip", "mirror", "", (1.0,), constant, lambda maps, _: maps.flip(3), torch.clone, matrix=mirrors),
    Transform("brightness", "offset", "", CONTRASTS, signed, brighter),
    Transform("contrast", "factor", "", CONTRASTS, signed, starker),
    Transform("blur", "gaussian", "px", (0.5, 1.0, 2.0), constant, blurred, around=True),
    Transform("noise", "gaussian", "", (0.05, 0.1, 0.2), seeded, noisy),
    Transform("erase", "mean", "px", (4.0, 8.0), placed, erased),
)

#: "name/protocol" → transform
TRANSFORMS = {f"{one.name}/{one.protocol}": one for one in TABLE}
