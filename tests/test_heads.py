"""Global poolings of a net's head, gem and attention, at their limits over random shapes."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from src.models.layers import HEADS
from src.pooling.heads import Attention, GeM
from src.summary import summarize, verify
from tests.helpers import network

SHAPES = [(2, 3, 1, 1), (1, 5, 4, 7), (3, 8, 9, 2), (2, 16, 6, 6)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def gap(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


@every_shape
def test_gem_is_the_mean_at_one_and_the_maximum_at_infinity(shape):
    x, head = torch.randn(shape, dtype=torch.float64).relu(), GeM().double()
    for p, expected in (
        (1.0, gap(x)),
        (-2.0, gap(x)),  # p is at least 1
        (2.0, x.square().mean((2, 3), keepdim=True).sqrt()),
        (1e6, x.amax((2, 3), keepdim=True)),
    ):
        nn.init.constant_(head.p, p)
        torch.testing.assert_close(head(x), expected, rtol=1e-4 if p == 1e6 else 1e-10, atol=1e-10)


def test_gem_neither_overflows_nor_has_a_gradient_on_empty_maps():
    x = torch.full((1, 2, 3, 3), 1e30)
    x[0, 1] = 0
    head = GeM(64.0)
    torch.testing.assert_close(head(x)[0, :, 0, 0], torch.tensor([1e30, 0.0]))
    leaf = torch.zeros(1, 2, 3, 3, requires_grad=True)
    head(leaf).sum().backward()
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))
    assert head.p.grad.isfinite()


@every_shape
def test_a_query_of_zeros_is_the_mean_and_a_large_one_selects_a_place(shape):
    x, head = torch.randn(shape, dtype=torch.float64), Attention(shape[1]).double()
    torch.testing.assert_close(head(x), gap(x))
    nn.init.normal_(head.query, std=1e4)
    flat = x.flatten(2)
    best = torch.einsum("ncp,c->np", flat, head.query).argmax(1)
    expected = flat[torch.arange(len(x)), :, best][..., None, None]
    torch.testing.assert_close(head(x), expected)


def test_attention_is_the_weighted_mean_of_its_formula():
    x, head = torch.randn(2, 5, 3, 4, dtype=torch.float64), Attention(5).double()
    nn.init.normal_(head.query)
    expected = nn.functional.scaled_dot_product_attention(head.query.expand(2, 1, 5), x.flatten(2).mT, x.flatten(2).mT)
    torch.testing.assert_close(head(x)[..., 0, 0], expected[:, 0])


def test_gem_of_half_precision_has_finite_gradients():
    x, head = (1e4 * torch.randn(2, 3, 9, 9)).half().requires_grad_(), GeM()
    y = head(x)
    y.float().sum().backward()
    assert y.dtype == torch.float16
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in (x, head.p))


@pytest.mark.parametrize("head", [GeM(), Attention(3)])
def test_gradients_against_finite_differences(head):
    pool, x = head.double(), torch.rand(2, 3, 3, 2, dtype=torch.float64) + 0.1
    assert gradcheck(pool, [x.requires_grad_()])
    ((name, parameter),) = pool.named_parameters()
    assert gradcheck(lambda p: torch.func.functional_call(pool, {name: p}, (x.detach(),)), [parameter])


@pytest.mark.parametrize("head", HEADS)
def test_the_summary_knows_the_parameters_and_the_cost_of_a_head(head):
    net = network((1, 12, 10), head=head)
    summary = summarize(net, (1, 12, 10))
    verify(summary, net)
    assert summary.parameters == sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("head", [head for head in HEADS if head != "flatten"])
def test_a_head_sees_no_rolls(head):
    net = network((1, 12, 10), head=head)
    x = torch.randn(2, net.logits.in_features, 3, 5)
    for parameter in net.features.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(net.features(x.roll((1, 2), (2, 3))), net.features(x))
