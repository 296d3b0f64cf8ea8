"""Nets of users that give, or do, what measuring cannot use: refused in one line, before anything is measured."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from src.common.errors import UserError
from src.evaluation.evaluate import evaluate
from src.nets.own import load_own_net
from src.pooling.blur import binomial
from src.summary import summarize, verify

evaluate, verify = (inspect.unwrap(function) for function in (evaluate, verify))  # without the tests' type checker

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Output = Callable[[Tensor], Any]


class Gives(nn.Module):
    """A net whose logits go through a function."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear, self.output = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), output

    def forward(self, x: Tensor) -> Any:
        return self.output(self.linear(self.conv(x).mean((2, 3))))


def measured(net: nn.Module, images: Any = IMAGES) -> Any:
    return evaluate(net, images, max_shift=1, quiet=True)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (lambda y: y[:, :0], "gives 0 numbers of float32 for each image"),
        (lambda y: y.argmax(1, keepdim=True), "gives 1 numbers of int64 for each image"),
        (lambda y: y > 0, "gives 5 numbers of bool for each image"),
        (lambda y: y.to(torch.complex64), "gives 5 numbers of complex64 for each image"),
        (lambda y: y.to_sparse(), "gives a tensor of torch.sparse_coo"),
        (lambda y: y[:1], "gives 1 vectors for 2 images"),
        (lambda y: torch.cat([y, y]), "gives 4 vectors for 2 images"),
        (lambda y: y.view(1, 5), "does not take 3×8×8 images, 2 at once (shape '[1, 5]'"),
    ],
)
def test_outputs_that_cannot_be_measured_are_refused(output: Output, words: str) -> None:
    with pytest.raises(UserError) as refused:
        measured(Gives(output))
    assert words in str(refused.value) and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_outputs_of_half_precision_are_measured_as_float32(kind: torch.dtype) -> None:
    table = measured(Gives(lambda y: y.to(kind)))
    rounded = measured(Gives(lambda y: y.to(kind).float()))
    assert table.equals(rounded) and table.value.notna().sum() > 10


class NoInit(nn.Module):
    def __init__(self) -> None:  # without super().__init__()
        pass


class NoEval(Gives):
    def __init__(self) -> None:
        super().__init__(lambda y: y)

    def train(self, mode: bool = True) -> "NoEval":
        raise RuntimeError("one\ntwo")


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (NoInit(), "net: NoInit.__init__ must begin with super().__init__()"),
        (NoEval(), "the net cannot be put into eval mode (one)"),
        (Gives(lambda y: y).to("meta"), "net: weights on the meta device have shapes, but no numbers"),
    ],
)
def test_nets_that_cannot_be_run_are_refused(net: nn.Module, words: str) -> None:
    with pytest.raises(UserError) as refused:
        measured(net)
    assert words in str(refused.value)


def test_a_half_precision_net_that_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    net = Gives(lambda y: y).half()
    refused = pytest.raises(UserError, match="are float16, and it cannot be copied")
    with (tmp_path / "log").open("w") as log, pytest.warns(UserWarning, match="float32 copy"), refused:
        net.log = log  # type: ignore[assignment]
        measured(net)


@pytest.mark.parametrize("images", [IMAGES.to_sparse(), IMAGES.to("meta")])
def test_tensors_without_numbers_of_their_own_are_refused(images: Tensor) -> None:
    with pytest.raises(UserError, match="images: a dense tensor of numbers is needed"):
        measured(Gives(lambda y: y), images)


@pytest.mark.parametrize("code", ["raise SystemExit(2)", "def Net():\n    raise SystemExit(2)"])
def test_a_script_that_ends_when_it_is_imported_or_called_is_refused(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"script_{len(code)}"
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"net={module}:Net: .*fails|cannot be imported"):
        load_own_net(f"{module}:Net")


def test_verify_refuses_a_net_that_raises() -> None:
    def fail(y: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(UserError, match="the net does not take 3×8×8 images: ZeroDivisionError"):
        verify(summarize(Gives(lambda y: y), (3, 8, 8)), Gives(fail))


def test_a_binomial_filter_may_be_longer_than_int64_holds() -> None:
    expected = torch.tensor(binom.pmf(range(100), 99, 0.5)).float()
    torch.testing.assert_close(binomial(100), expected, rtol=1e-5, atol=1e-12)
