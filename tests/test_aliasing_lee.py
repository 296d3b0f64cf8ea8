"""Aliasing against cosines, white noise and NumPy's FFT; local equivariance error against small steps of the motion."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.families.aliasing import AliasingFraction, aliasing, strided, undecimated
from src.evaluation.families.velocity import LEE, MOTIONS, slopes, velocities
from src.evaluation.families.velocity import rows as speed_rows
from src.pooling import POOLS, Pool
from src.pooling.polyphase import Polyphase
from src.transforms import rotate, scale
from tests.helpers import Overwrites, network

#: all that are no layer of a net by themselves (none)
ALL = [name for name, pool in POOLS.items() if pool]


def cosine(n: int, waves: int, axis: int = 3) -> Tensor:
    one = torch.cos(2 * torch.pi * waves * torch.arange(n, dtype=torch.float64) / n)
    return (one if axis == 3 else one[:, None]).expand(1, 1, n, n)


def pool(name: str, border: str = "circular", channels: int = 2, stride: int = 2) -> Pool:
    made = POOLS[name](stride=stride, border=border, channels=channels)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.double().eval()


def aliasing_fraction(maps: Tensor, stride: int) -> Tensor:
    metric = AliasingFraction()
    metric.update(maps, stride)
    return metric.compute()["aliasing_fraction"]


# --- aliasing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("stride", [2, 4])
def test_a_cosine_is_below_or_above(axis, stride):
    nyquist = 16 // (2 * stride)
    for waves in range(1, 9):
        found = aliasing_fraction(cosine(16, waves, axis), stride).item()
        assert found == pytest.approx(float(waves > nyquist), abs=1e-12)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_white_noise_has_the_share_of_frequencies_above_nyquist(stride):
    n = 24
    below = sum(abs(f) <= 1 / (2 * stride) for f in np.fft.fftfreq(n)) / n
    noise = torch.randn(200, 8, n, n, generator=torch.Generator().manual_seed(0))
    assert aliasing_fraction(noise, stride).item() == pytest.approx(1 - below**2, abs=0.005)


def test_the_fraction_is_numpys():
    x = torch.rand(5, 3, 8, 12, dtype=torch.float64)
    power = np.abs(np.fft.fft2(x.numpy())) ** 2
    high = (np.abs(np.fft.fftfreq(8)) > 0.25)[:, None] | (np.abs(np.fft.fftfreq(12)) > 0.25)
    assert aliasing_fraction(x, 2).item() == pytest.approx(power[..., high].sum() / power.sum(), rel=1e-12)


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("name", ALL)
def test_the_undecimated_output_strided_is_the_output(name, stride):
    """Every stride-th sample of what is measured is what the layer gives; of phases, one of the s² ways to begin."""
    if POOLS[name].strides and stride not in POOLS[name].strides:
        return
    layer, x = pool(name, stride=stride), torch.rand(3, 2, 12, 12, dtype=torch.float64)
    dense, given = undecimated(layer, x, stride), layer(x)
    if isinstance(layer, Polyphase):
        assert dense is x
        return
    torch.testing.assert_close(dense[..., ::stride, ::stride], given)
    transformed = layer(x.roll((-1, -1), (2, 3)))
    torch.testing.assert_close(dense[..., 1::stride, 1::stride], transformed)


def fraction(layer: nn.Module, x: Tensor) -> float:
    found = aliasing(nn.Sequential(layer), iter([x]))
    return found["0"].compute()["aliasing_fraction"].item()


def test_filters_alias_less_than_windows_and_these_less_than_subsampling():
    x = torch.randn(8, 2, 32, 32, dtype=torch.float64)
    subsampling = nn.Conv2d(2, 2, 1, 2, groups=2, bias=False).double()
    nn.init.ones_(subsampling.weight)
    blur, most, none = fraction(pool("blur"), x), fraction(pool("max"), x), fraction(subsampling, x)
    assert 0 < blur < most < none
    assert none == pytest.approx(1 - (17 / 32) ** 2, abs=0.02)
    assert fraction(pool("aps"), x) == pytest.approx(none)
    assert fraction(pool("ideal"), x) == pytest.approx(0, abs=1e-12)


def test_a_strided_convolution_by_numpy():
    layer = nn.Conv2d(2, 3, 3, 2, padding=1, padding_mode="circular", bias=False).double()
    x = torch.randn(4, 2, 16, 16, dtype=torch.float64)
    kernel = np.zeros((3, 2, 16, 16))
    kernel[..., :3, :3] = layer.weight.detach().flip(2, 3)
    y = np.einsum("nchw,ochw->nohw", np.fft.fft2(x.numpy()), np.fft.fft2(kernel))
    high = np.abs(np.fft.fftfreq(16)) > 0.25
    power, above = np.abs(y) ** 2, high[:, None] | high
    assert fraction(layer, x) == pytest.approx(power[..., above].sum() / power.sum(), rel=1e-10)


def test_layers_that_subsample_are_found():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, 2), nn.MaxPool2d(2), nn.AvgPool2d(2, 1), pool("conv"),
        nn.Conv2d(2, 2, 3, (2, 1)), nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip
    assert [(name, stride) for name, _, stride in strided(net)] == [("1", 2), ("2", 2), ("4", 2)]


def test_batches_add_up_and_the_net_is_as_before():
    net = network((1, 16, 16), pool="none").double().train()
    x = torch.randn(9, 1, 16, 16, dtype=torch.float64)
    parts, whole = aliasing(net, iter(x.split(4))), aliasing(net, iter([x]))
    assert set(parts) == set(whole) == {"stage1.conv2", "stage2.conv2"}
    for name, one in whole.items():
        assert one.compute()["aliasing_fraction"].item() == pytest.approx(
            parts[name].compute()["aliasing_fraction"].item()
        )
        assert sum(len(kept) for kept in parts[name].batches) == 9
    assert net.training
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_after_an_exception_the_net_is_as_before():
    net = nn.Sequential(nn.MaxPool2d(2), nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError):
        aliasing(net, iter([torch.randn(2, 1, 8, 8)]))
    assert net.training
    assert not any(layer._forward_pre_hooks for layer in net.modules())


# --- slopes and motions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (8, 11)])
def test_slopes_of_sinusoids_are_exact(size):
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in size)
    a, b = 2 * torch.pi * 2 / size[0], 2 * torch.pi * 3 / size[1]
    x = (torch.sin(a * rows)[:, None] * torch.cos(b * columns) + 5)[None, None]
    down, right = slopes(x)
    torch.testing.assert_close(down[0, 0], a * torch.cos(a * rows)[:, None] * torch.cos(b * columns))
    torch.testing.assert_close(right[0, 0], -b * torch.sin(a * rows)[:, None] * torch.sin(b * columns))


def test_a_wave_at_nyquist_has_no_slope():
    stripes = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4).expand(1, 1, 8, 8)
    assert slopes(stripes)[1].abs().max() < 1e-12


def blob(side: int = 33) -> Tensor:
    """A smooth thing off the centre, far from the border."""
    place = torch.arange(side, dtype=torch.float64) - side // 2
    return torch.exp(-((place[:, None] - 3) ** 2) / 9 - (place - 2) ** 2 / 6)[None, None]


def interpolated(x: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """The image read at other places, by splines of order 5."""
    return torch.from_numpy(ndimage.map_coordinates(x[0, 0].numpy(), [rows, columns], order=5))[None, None]


def step(motion: str, x: Tensor, t: float) -> Tensor:
    """The image after a time t of the motion, by SciPy."""
    middle = (x.shape[2] - 1) / 2
    rows, columns = np.mgrid[: x.shape[2], : x.shape[3]] - middle
    if motion == "down":
        rows = rows - t
    elif motion == "right":
        columns = columns - t
    elif motion == "scale":
        rows, columns = rows / (1 + t / 100), columns / (1 + t / 100)
    else:  # counter-clockwise as one looks at it, rows downwards: read where each pixel came from
        angle = math.radians(t)
        rows, columns = (
            math.cos(angle) * rows + math.sin(angle) * columns,
            math.cos(angle) * columns - math.sin(angle) * rows,
        )
    return interpolated(x, rows + middle, columns + middle)


@pytest.mark.parametrize("motion", MOTIONS)
def test_velocities_of_pixels_are_those_of_scipys_motions(motion):
    x, t = blob(), 1e-3
    velocity = (step(motion, x, t) - step(motion, x, -t)) / (2 * t)
    found = MOTIONS[motion](x)
    assert (found - velocity).abs().max() < 2e-3 * velocity.abs().max()


@pytest.mark.parametrize(
    ("motion", "move", "t"), [("rotate", rotate, 4.0), ("scale", lambda x, p: scale(x, 1 + p / 100), 4.0)]
)
def test_motions_go_the_way_that_transforms_go(motion, move, t):
    """Bilinear interpolation blurs, so only the direction is compared."""
    x = blob()
    transformed = move(x, torch.tensor([[t]]).double()) - move(x, torch.tensor([[-t]]).double())
    found = MOTIONS[motion](x)
    assert torch.cosine_similarity(transformed.flatten(), found.flatten(), 0) > 0.98
    assert transformed.norm() / (2 * t) == pytest.approx(found.norm().item(), rel=0.15)


# --- local equivariance error ----------------------------------------------------------------------------------------


def images(n: int = 4) -> Tensor:
    """Below Nyquist, so that every step of a shift is exact."""
    noise = torch.fft.rfft2(torch.randn(n, 1, 16, 16, dtype=torch.float64))
    noise[..., 5:12, :] = 0
    noise[..., 5:] = 0
    return torch.fft.irfft2(noise, s=(16, 16))


def shifted(x: Tensor, t: float) -> Tensor:
    """Down by t pixels, exactly."""
    turns = torch.exp(-2j * torch.pi * t * torch.fft.fftfreq(16, dtype=torch.float64))[:, None]
    return torch.fft.ifft2(torch.fft.fft2(x) * turns).real


@pytest.mark.parametrize("name", POOLS)
def test_velocities_are_differences_of_small_steps(name):
    net = network((1, 16, 16), pool=name, padding="circular", head="flatten", activation="silu").double().train()
    x, t = images(), 1e-5
    outputs, velocity = velocities(net, x, MOTIONS["down"])
    assert net.training
    with torch.no_grad():
        net.eval()
        torch.testing.assert_close(outputs, net(x))
        by_steps = (net(shifted(x, t)) - net(shifted(x, -t))) / (2 * t)
    assert (velocity - by_steps).abs().max() < 1e-4 * velocity.abs().max()
    assert velocity.abs().max() > 0


class Attending(nn.Module):
    """Both ways in which nets of libraries attend: rows of an image to its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.logits = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = nn.functional.scaled_dot_product_attention(*(x for _ in range(3)))[:, 0]
        return self.logits(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_velocities_of_nets_with_attention_are_differences_of_small_steps():
    net, x, t = Attending().double().eval(), images(), 1e-5
    before = torch.backends.mha.get_fastpath_enabled()
    _, velocity = velocities(net, x, MOTIONS["down"])
    with torch.no_grad():
        by_steps = (net(shifted(x, t)) - net(shifted(x, -t))) / (2 * t)
    assert (velocity - by_steps).abs().max() < 1e-4 * velocity.abs().max()
    assert torch.backends.mha.get_fastpath_enabled() == before


def measured(net: nn.Module, x: Tensor, motion: str = "down") -> dict[str, float]:
    measure = LEE()
    for some in x.split(3):
        measure.update(*velocities(net, some, MOTIONS[motion]))
    return {name: value.item() for name, value in measure.compute().items()}


def test_a_linear_net_in_closed_form():
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(256, 3)).double(), images(6)
    spectrum = np.fft.fft2(x.numpy()) * (2j * np.pi * np.fft.fftfreq(16))[:, None]
    weight = net[1].weight.detach().numpy()
    transformed = -np.fft.ifft2(spectrum).real.reshape(6, -1) @ weight.T
    y = net(x).detach().numpy()
    others = np.mean([((a - b) ** 2).sum() for part in (y[:3], y[3:]) for a in part for b in part]) * 3 / 2
    found = measured(net, x)
    assert found["lee"] == pytest.approx((transformed**2).sum(1).mean(), rel=1e-8)
    assert found["lee_relative"] == pytest.approx((transformed**2).sum(1).mean() / others, rel=1e-8)


@pytest.mark.parametrize("motion", ["down", "right"])
@pytest.mark.parametrize("what", ["mean", "ideal"])
def test_a_net_that_is_exactly_invariant_does_not_move(motion, what):
    circular = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular")
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    net = nn.Sequential(circular, *([pool("ideal")] if what == "ideal" else []), *head).double()
    found = measured(net, images(6), motion)
    assert found["lee"] < 1e-20
    assert (
        measured(nn.Sequential(circular, nn.ReLU(), nn.MaxPool2d(2), *head).double(), images(6), motion)["lee"] > 1e-8
    )


def test_the_mean_is_of_squares():
    measure = LEE()
    measure.update(torch.randn(2, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    assert measure.compute()["lee"].item() == pytest.approx((25 + 1) / 2)


def test_no_gradients_are_asked_for_and_single_precision_will_do():
    net = network((1, 16, 16)).train()
    outputs, velocity = velocities(net, images().float(), MOTIONS["rotate"])
    assert outputs.dtype == velocity.dtype == torch.float32
    assert not velocity.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


def test_velocities_of_channels_last_maps_are_the_same():
    net = network((3, 16, 16), norm="group", pool="blur").double().eval()
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    expected = velocities(net, x, MOTIONS["rotate"])
    last = velocities(
        net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), MOTIONS["rotate"]
    )
    for found, right in zip(last, expected, strict=True):
        torch.testing.assert_close(found, right)
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_net_without_a_forward_derivative_gives_a_note():
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

    class Own(nn.Module):
        def forward(self, x):
            return Opaque.apply(self.weight * x)

    own = Own()
    own.weight = nn.Parameter(torch.ones(()))
    adapter = ModelAdapter(nn.Sequential(own, nn.Flatten()), [], lambda pixels: pixels / 255)
    (note,) = speed_rows(adapter, EvaluationSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), 1))
    assert note.words.startswith("not measured, PyTorch has no derivative for it: ")


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("times", [1, 3, 6, 12])
def test_the_new_nyquist_frequency_itself_is_not_above_itself(stride, times):
    """With stride 5 and float32 frequencies it was, at 30, 60 and 120 pixels."""
    n = 2 * stride * times
    for axis in (2, 3):
        for dtype in (torch.float32, torch.float64):
            maps = cosine(n, times, axis).to(dtype)
            assert aliasing_fraction(maps, stride).item() < 1e-9
            assert aliasing_fraction(cosine(n, times + 1, axis).to(dtype), stride).item() == pytest.approx(1)


@pytest.mark.parametrize("how", ["function", "method", "sum", "product", "view", "earlier", "input"])
def test_the_velocity_of_a_net_that_overwrites_is_that_of_finite_differences(how):
    class OfItsInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Overwrites("function")

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.sub_(0.1))

    net = (OfItsInput() if how == "input" else Overwrites(how)).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = x.clone()
    outputs, velocity = velocities(net, x, MOTIONS["down"])
    assert torch.equal(x, before), "the images are still what they were"
    step = 1e-6
    with torch.no_grad():
        direction = MOTIONS["down"](x)
        ahead, behind = net(x + step * direction), net(x - step * direction)
        torch.testing.assert_close(outputs, net(x.clone()))
    torch.testing.assert_close(velocity, (ahead - behind) / (2 * step), atol=1e-6, rtol=1e-5)
