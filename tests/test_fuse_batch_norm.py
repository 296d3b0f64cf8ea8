"""Batch norms fused into convolutions: the same outputs, for all nets and at all observed layers."""

import pytest
import torch
from torch import Tensor, nn

from src.evaluation.fuse_batch_norm import fuse_conv_bn
from src.models import ARCHITECTURES
from src.nets.external import default_layers, load_net
from src.nets.hooks import record_outputs
from src.pooling import POOLS
from tests.helpers import network
from tests.test_phase_tree import off, shaken

X = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def outputs(net: nn.Module, x: Tensor, layers: list[str]) -> dict[str, Tensor]:
    with torch.no_grad(), record_outputs(net, layers) as maps:
        return {"output": net(x)} | maps


def check(net: nn.Module, layers: list[str]) -> nn.Module:
    """Fuse a net, and check its outputs, and that the net itself is not changed."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    twin = fuse_conv_bn(net, layers)
    right = outputs(net, X, layers)
    for name, found in outputs(twin, X, layers).items():
        assert off(found, right[name]) < 1e-10, name
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return twin


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool(pool):
    net = shaken(network((3, 40, 40), pool=pool)).double().train()
    behind_pools = 2 if pool in ("conv", "unshuffle") else 0
    assert norms(check(net, ["stage1", "stage2", "features"])) == behind_pools
    assert norms(net) >= 4
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture(name):
    net = shaken(network((3, 40, 40), name=name)).double()
    check(net, [])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg11_bn"])
def test_nets_of_torchvision(name):
    net = shaken(load_net(f"torchvision/{name}", "none").net)
    layers = default_layers(net, (3, 40, 40))
    assert norms(check(net.double(), layers)) == 0 < norms(net)


def test_an_observed_convolution_is_not_fused():
    net = shaken(network((3, 40, 40))).double()
    leaves = [name for name, one in net.named_modules() if not list(one.children())]
    assert fuse_conv_bn(net, leaves) is net
    assert norms(check(net, ["stage1.conv1"])) == 1


class Twice(nn.Module):
    """A convolution with two readers, and a norm that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.one, self.other = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.left, self.right, self.shared = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.both(x)
        z = self.one(y) + self.other(y)
        return self.shared(self.left(z)) + self.shared(self.right(z))


def test_shared_layers_are_not_fused():
    net = shaken(Twice()).double()
    assert fuse_conv_bn(net) is net


def test_norms_without_running_statistics_are_not_fused():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).double()
    assert fuse_conv_bn(net) is net


def test_a_net_that_cannot_be_traced_is_not_changed():
    class Fork(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Fork()).double()
    assert fuse_conv_bn(net) is net
